package imapwire

import (
	"errors"
	"fmt"
	"strings"

	"mailstow/internal/credential"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
)

// Methods are the ways to log in over IMAP.
var Methods = append([]string{"login"}, sasl.Mechanisms...)

// login logs in. A login that the server does not accept is a
// [credential.RefusedError].
func (c *Conn) login(e netconn.Endpoint, l sasl.Login) error {
	if err := l.Check(); err != nil {
		return retry.Permanent(err)
	}
	method, err := c.method(l)
	if err != nil {
		return retry.Permanent(err)
	}
	c.Hush(true)
	lines, said, err := c.logInBy(method, e.Addr, l)
	c.Hush(false)
	c.caps = nil // they may be others after the login
	if err == nil {
		c.learnCaps(lines)
		return nil
	}
	hidden := credential.Hide(err.Error(), append(said, l.Secret.Reveal())...)
	_, busy := retry.IsBusy(err)
	if errors.Is(err, sasl.ErrUnfinished) || retry.IsRefused(err) && !busy && !strings.Contains(hidden, "[SERVERBUG") {
		return retry.Permanent(&credential.RefusedError{Server: e.Addr, User: l.User, Answer: hidden})
	}
	return sasl.Hidden(err, hidden)
}

// logInBy logs in and returns what the server told, and what must not be shown
// of what was said.
func (c *Conn) logInBy(method, addr string, l sasl.Login) (untagged, said []string, err error) {
	if method == "login" {
		password := quote(l.Secret.Reveal())
		untagged, err = c.ask("LOGIN " + quote(l.User) + " " + password)
		return untagged, []string{password}, err
	}
	x, err := l.Begin(method, addr)
	if err != nil {
		return nil, nil, retry.Permanent(err)
	}
	if untagged, err = c.talk("AUTHENTICATE "+x.Mechanism, x.Answer); err == nil {
		err = x.Accepted()
	}
	return untagged, x.Said(), err
}

// ErrNoPassword is returned where a server offers no way to log in with a password.
var ErrNoPassword = errors.New("the server takes no password on this connection (LOGINDISABLED)")

// method decides how to log in.
func (c *Conn) method(l sasl.Login) (string, error) {
	switch {
	case l.Method == "login" && l.As != "":
		return "", errors.New("LOGIN cannot name another user; PLAIN can")
	case l.Method == "login" && c.HasCap("LOGINDISABLED"):
		return "", errors.New("the server takes no LOGIN on this connection (LOGINDISABLED)")
	case l.Method == "oauth2" && c.HasCap("AUTH=XOAUTH2"):
		return "xoauth2", nil
	case l.Method == "oauth2" && c.HasCap("AUTH=OAUTHBEARER"):
		return "oauthbearer", nil
	case l.Method == "oauth2":
		return "", errors.New("the server does not offer to log in by an access token (XOAUTH2 or OAUTHBEARER)")
	case l.Method != "" && l.Method != "login" && !c.HasCap("AUTH="+l.Method):
		return "", fmt.Errorf("the server does not offer to log in by %s", strings.ToUpper(l.Method))
	case l.Method != "":
		return l.Method, nil
	case c.HasCap("AUTH=SCRAM-SHA-256"):
		return "scram-sha-256", nil
	case c.HasCap("AUTH=PLAIN") && (c.HasCap("LOGINDISABLED") || l.As != "" || !l.IsASCII()):
		return "plain", nil
	case l.As != "":
		return "", errors.New("the server offers no way to read another's mail (SASL PLAIN or SCRAM)")
	case c.HasCap("LOGINDISABLED"):
		return "", ErrNoPassword
	}
	return "login", nil
}
