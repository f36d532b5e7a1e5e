// Package sasl makes the messages by which a user logs in to a mail server
// (RFC 4422). IMAP and POP3 carry them.
package sasl

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
)

// Login says who logs in, and how.
type Login struct {
	User   string
	Secret credential.Secret // a password, or an access token

	// As is whose mail is read, where the user may read another's (the
	// authorisation identity of SASL); "" for the user's own.
	As string

	// Method is a mechanism in small letters, or one of the protocol's own
	// ways; "" is the best way with a password that the server offers, and
	// "oauth2" the one with an access token that it offers.
	Method string
}

// Mechanisms are those of which [Login.Begin] makes an [Exchange].
var Mechanisms = []string{"plain", "scram-sha-256", "xoauth2", "oauthbearer", "external"}

// Check returns an error for a name or secret that cannot go on a line.
func (l Login) Check() error {
	if strings.ContainsAny(l.User+l.As+l.Secret.Reveal(), "\r\n\x00") {
		return errors.New("user name or password has a line end or a NUL in it")
	}
	return nil
}

// IsASCII reports whether name and secret can be said without a word on their
// encoding.
func (l Login) IsASCII() bool {
	return strings.IndexFunc(l.User+l.Secret.Reveal(), func(r rune) bool { return r > 127 }) < 0
}

// whose returns the user whose mail is read.
func (l Login) whose() string {
	if l.As != "" {
		return l.As
	}
	return l.User
}

// Exchange is one login.
type Exchange struct {
	Mechanism string // as it is named on the wire

	client  sasl.Client
	first   string // the initial response
	started bool
	said    []string // what must not be shown
}

// Begin begins a login to the server at addr (host:port).
func (l Login) Begin(mechanism, addr string) (*Exchange, error) {
	client, err := l.client(mechanism, addr)
	if err != nil {
		return nil, err
	}
	name, response, err := client.Start()
	if err != nil {
		return nil, err
	}
	x := &Exchange{Mechanism: name, client: client}
	x.first = x.encode(response)
	return x, nil
}

// ErrUnfinished is the error of a server that answers a login in a way that
// does not let us in.
var ErrUnfinished = errors.New("the login cannot be completed")

// Answer returns what to say to a challenge, both in base64. The first
// challenge is the server's invitation to begin: some servers announce that
// they take the initial response with the command, and do not understand it.
func (x *Exchange) Answer(challenge string) (string, error) {
	if !x.started {
		x.started = true
		return x.first, nil
	}
	b, err := base64.StdEncoding.DecodeString(challenge)
	if err != nil {
		return "", fmt.Errorf("the server's challenge cannot be read: %w", err)
	}
	next, err := x.client.Next(b)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	return x.encode(next), err
}

// Accepted is called when the server says that the user is in. It returns an
// error if the server has not proven who it is where it must.
func (x *Exchange) Accepted() error {
	if s, ok := x.client.(*scramClient); ok && !s.talk.Valid() {
		return fmt.Errorf("%w: the server did not prove that it knows the password", ErrUnfinished)
	}
	return nil
}

// Said returns what must not be shown, though the server may repeat it.
func (x *Exchange) Said() []string { return x.said }

func (x *Exchange) encode(response []byte) string {
	s := base64.StdEncoding.EncodeToString(response)
	x.said = append(x.said, s, string(response))
	return s
}

// Hidden shows an error with another text, from which secrets are taken.
func Hidden(err error, text string) error { return &hiddenError{text, err} }

type hiddenError struct {
	text  string
	cause error
}

func (e *hiddenError) Error() string { return e.text }
func (e *hiddenError) Unwrap() error { return e.cause }

func (l Login) client(mechanism, addr string) (sasl.Client, error) {
	switch mechanism {
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
	return nil, fmt.Errorf("there is no way to log in called %q", mechanism)
}

// bearer logs in with an access token: OAUTHBEARER (RFC 7628), or XOAUTH2 of
// Google and Microsoft.
type bearer struct {
	mech, first, refused string
	asked                bool
}

func (b *bearer) Start() (string, []byte, error) { return b.mech, []byte(b.first), nil }

// Next answers the challenge that tells why the token is refused, so that the
// server says no.
func (b *bearer) Next([]byte) ([]byte, error) {
	if b.asked {
		return nil, errors.New("the server asks without end")
	}
	b.asked = true
	return []byte(b.refused), nil
}

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
				return nil, fmt.Errorf("the server asks for %.20q rounds of SCRAM", count)
			}
		}
	}
	next, err := s.talk.Step(string(challenge))
	return []byte(next), err
}
