package imapwire

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"

	"mailstow/internal/credential"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
)

// Methods are the ways to log in that [Login] may name.
var Methods = []string{"login", "plain", "scram-sha-256", "xoauth2", "oauthbearer", "external"}

// Login says who logs in, and how.
type Login struct {
	User   string
	Secret credential.Secret // a password, or an access token

	// As is whose mail is read, where the user may read another's (the
	// authorisation identity of SASL); "" for the user's own.
	As string

	// Method is one of [Methods]; "" is the best way with a password that
	// the server offers.
	Method string

	Compress Compression
}

// login logs in. A login that the server does not accept is a
// [credential.RefusedError].
func (c *Conn) login(e netconn.Endpoint, l Login) error {
	if strings.ContainsAny(l.User+l.As+l.Secret.Reveal(), "\r\n\x00") {
		return retry.Permanent(errors.New("user name or password has a line end or a NUL in it"))
	}
	method, err := c.method(l)
	if err != nil {
		return retry.Permanent(err)
	}
	c.secret = []string{quote(l.Secret.Reveal()), l.Secret.Reveal()}
	lines, err := c.logInBy(method, e.Addr, l)
	c.caps = nil // they may be others after the login
	if err == nil {
		c.learnCaps(lines)
		return nil
	}
	hidden := c.hide(err.Error())
	_, busy := retry.IsBusy(err)
	if errors.Is(err, errSASL) || retry.IsRefused(err) && !busy && !strings.Contains(hidden, "[SERVERBUG") {
		return retry.Permanent(&credential.RefusedError{Server: e.Addr, User: l.User, Answer: hidden})
	}
	return &hiddenError{hidden, err}
}

func (c *Conn) logInBy(method, addr string, l Login) ([]string, error) {
	if method == "login" {
		return c.ask("LOGIN " + quote(l.User) + " " + quote(l.Secret.Reveal()))
	}
	client, err := l.client(method, addr)
	if err != nil {
		return nil, retry.Permanent(err)
	}
	return c.authenticate(client)
}

// hide takes secrets out of a text: a server may repeat what it was told.
func (c *Conn) hide(text string) string {
	for _, s := range c.secret {
		if s != "" && s != `""` {
			text = strings.ReplaceAll(text, s, "***")
		}
	}
	return text
}

// hiddenError shows an error without the secrets in its text.
type hiddenError struct {
	text  string
	cause error
}

func (e *hiddenError) Error() string { return e.text }
func (e *hiddenError) Unwrap() error { return e.cause }

// method decides how to log in.
func (c *Conn) method(l Login) (string, error) {
	switch {
	case l.Method == "login" && l.As != "":
		return "", errors.New("LOGIN cannot name another user; PLAIN can")
	case l.Method == "login" && c.HasCap("LOGINDISABLED"):
		return "", errors.New("the server takes no LOGIN on this connection (LOGINDISABLED)")
	case l.Method != "" && l.Method != "login" && !c.HasCap("AUTH="+l.Method):
		return "", fmt.Errorf("the server does not offer to log in by %s", strings.ToUpper(l.Method))
	case l.Method != "":
		return l.Method, nil
	case c.HasCap("AUTH=SCRAM-SHA-256"):
		return "scram-sha-256", nil
	case c.HasCap("AUTH=PLAIN") && (c.HasCap("LOGINDISABLED") || l.As != "" || !isASCII(l.User+l.Secret.Reveal())):
		return "plain", nil
	case l.As != "":
		return "", errors.New("the server offers no way to read another's mail (SASL PLAIN or SCRAM)")
	case c.HasCap("LOGINDISABLED"):
		return "", errors.New("the server takes no password on this connection (LOGINDISABLED)")
	}
	return "login", nil
}

func (l Login) client(method, addr string) (sasl.Client, error) {
	switch method {
	case "plain":
		return sasl.NewPlainClient(l.As, l.User, l.Secret.Reveal()), nil
	case "external":
		return sasl.NewExternalClient(l.As), nil
	case "xoauth2":
		// The token says who logs in, the user whose mail it is.
		return &bearer{mech: "XOAUTH2", first: "user=" + l.whose() + "\x01auth=Bearer " + l.Secret.Reveal() + "\x01\x01"}, nil
	case "oauthbearer":
		host, port, _ := net.SplitHostPort(addr)
		user := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(l.whose()) // RFC 5801 section 4
		return &bearer{
			mech: "OAUTHBEARER", refused: "\x01",
			first: "n,a=" + user + ",\x01host=" + host + "\x01port=" + port + "\x01auth=Bearer " + l.Secret.Reveal() + "\x01\x01",
		}, nil
	case "scram-sha-256":
		client, err := scram.SHA256.NewClient(l.User, l.Secret.Reveal(), l.As)
		if err != nil {
			return nil, fmt.Errorf("user name or password: %w", err)
		}
		return &scramClient{talk: client.NewConversation()}, nil
	}
	return nil, fmt.Errorf("there is no way to log in called %q", method)
}

// authenticate logs in by SASL. The initial response waits for the server's
// challenge: some servers announce SASL-IR and do not understand it.
func (c *Conn) authenticate(client sasl.Client) (untagged []string, err error) {
	mech, response, err := client.Start()
	if err != nil {
		return nil, err
	}
	started := false
	c.secret = append(c.secret, base64.StdEncoding.EncodeToString(response), string(response))
	untagged, err = c.talk("AUTHENTICATE "+mech, func(challenge string) (string, error) {
		if !started {
			started = true
			return base64.StdEncoding.EncodeToString(response), nil
		}
		b, err := base64.StdEncoding.DecodeString(challenge)
		if err != nil {
			return "", fmt.Errorf("the server's challenge cannot be read: %w", err)
		}
		next, err := client.Next(b)
		c.secret = append(c.secret, base64.StdEncoding.EncodeToString(next))
		if err != nil {
			err = fmt.Errorf("%w: %w", errSASL, err)
		}
		return base64.StdEncoding.EncodeToString(next), err
	})
	if s, ok := client.(*scramClient); ok && err == nil && !s.talk.Valid() {
		return nil, fmt.Errorf("%w: the server did not prove that it knows the password", errSASL)
	}
	return untagged, err
}

// errSASL is the error of a server that answers a login in a way that does
// not let us in.
var errSASL = errors.New("the login cannot be completed")

// whose returns the user whose mail is read.
func (l Login) whose() string {
	if l.As != "" {
		return l.As
	}
	return l.User
}

// bearer logs in with an access token: OAUTHBEARER (RFC 7628), or XOAUTH2 of
// Google and Microsoft.
type bearer struct{ mech, first, refused string }

func (b *bearer) Start() (string, []byte, error) { return b.mech, []byte(b.first), nil }

// Next answers the challenge that tells why the token is refused, so that the
// server says no.
func (b *bearer) Next([]byte) ([]byte, error) { return []byte(b.refused), nil }

// maxIterations bounds the work that a server may ask for.
const maxIterations = 1_000_000

type scramClient struct{ talk *scram.ClientConversation }

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.talk.Step("")
	return "SCRAM-SHA-256", []byte(first), err
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	for field := range strings.SplitSeq(string(challenge), ",") {
		if count, ok := strings.CutPrefix(field, "i="); ok {
			if n, err := strconv.Atoi(count); err != nil || n > maxIterations {
				return nil, fmt.Errorf("the server asks for %s rounds of SCRAM", clip(count))
			}
		}
	}
	next, err := s.talk.Step(string(challenge))
	return []byte(next), err
}
