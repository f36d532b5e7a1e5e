package pop3conn

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mailstow/internal/credential"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
)

// Methods are the ways to log in over POP3.
var Methods = append([]string{"user", "apop"}, sasl.Mechanisms...)

// login logs in.
func (c *Conn) login(ctx context.Context) error {
	l := c.server.Login
	method, err := c.method(l)
	if err != nil {
		return retry.Permanent(err)
	}
	c.wire.Hush(true)
	said, err := c.logInBy(ctx, method, l)
	c.wire.Hush(false)
	if err == nil {
		return nil
	}
	text := credential.Hide(err.Error(), append(said, l.Secret.Reveal())...)
	_, busy := retry.IsBusy(err)
	refused := retry.IsRefused(err) && !busy
	switch {
	case refused && strings.Contains(strings.ToUpper(text), "[SYS/PERM]"): // RFC 3206
		return retry.Permanent(fmt.Errorf("the server cannot let anybody in: %s", text))
	case refused, errors.Is(err, sasl.ErrUnfinished):
		return retry.Permanent(&credential.RefusedError{Server: c.server.Addr, User: l.User, Answer: text})
	}
	return sasl.Hidden(err, text)
}

// logInBy logs in and returns what must not be shown of what was said.
func (c *Conn) logInBy(ctx context.Context, method string, l sasl.Login) (said []string, err error) {
	switch method {
	case "user":
		if err = c.session.User(l.User); err == nil {
			err = c.session.Pass(l.Secret.Reveal())
		}
		return nil, c.explain(ctx, err)
	case "apop":
		command := c.wire.APOP(l.User, l.Secret)
		_, err = c.ask(ctx, command)
		return []string{command, command[strings.LastIndexByte(command, ' ')+1:]}, err
	}
	x, err := l.Begin(method, c.server.Addr)
	if err != nil {
		return nil, retry.Permanent(err)
	}
	err = c.wire.Authenticate(x)
	switch {
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case retry.IsRefused(err):
		err = c.refused(err.Error())
	}
	return x.Said(), err
}

// method decides how to log in. APOP is not chosen: servers that invite to it
// need not be able to do it, and under TLS it is of no use.
func (c *Conn) method(l sasl.Login) (string, error) {
	offers := func(mechanism string) bool { return c.wire.HasCap("SASL", strings.ToUpper(mechanism)) }
	switch {
	case l.Method == "apop" && c.wire.APOP(l.User, l.Secret) == "":
		return "", errors.New("the server does not offer to log in by APOP")
	case (l.Method == "user" || l.Method == "apop") && l.As != "":
		return "", fmt.Errorf("%s cannot name another user; PLAIN can", strings.ToUpper(l.Method))
	case l.Method == "user", l.Method == "apop":
		return l.Method, nil
	case l.Method == "oauth2" && offers("xoauth2"):
		return "xoauth2", nil
	case l.Method == "oauth2" && offers("oauthbearer"):
		return "oauthbearer", nil
	case l.Method == "oauth2":
		return "", errors.New("the server does not offer to log in by an access token (XOAUTH2 or OAUTHBEARER)")
	case l.Method != "" && !offers(l.Method):
		return "", fmt.Errorf("the server does not offer to log in by %s", strings.ToUpper(l.Method))
	case l.Method != "":
		return l.Method, nil
	case offers("scram-sha-256"):
		return "scram-sha-256", nil
	case offers("plain") && (l.As != "" || !c.wire.HasCap("USER") || !l.IsASCII()):
		return "plain", nil
	case l.As != "":
		return "", errors.New("the server offers no way to read another's mail (SASL PLAIN or SCRAM)")
	}
	return "user", nil
}
