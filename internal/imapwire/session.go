// Package imapwire is the connection beneath go-imap: it logs in, and keeps
// from the library what the library would die on.
//
// A Conn sets the session up by itself (greeting, STARTTLS, login,
// capabilities) and then shows the library a server that greets with PREAUTH.
// From there on it passes the library's commands on and repairs the answers:
// unknown responses are dropped, broken flags, dates and mailbox names are
// made readable, and a body whose UID comes after it is put behind its UID.
package imapwire

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-sasl"

	"mailstow/internal/credential"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
)

// Login says who logs in.
type Login struct {
	User     string
	Password credential.Secret
}

// Conn is a logged-in connection for go-imap to talk through. One goroutine
// may read while others write, as go-imap does.
type Conn struct {
	*netconn.Conn

	br    *bufio.Reader
	caps  []string // as the server announced them after login
	names names

	// The reading side.
	out    []byte         // repaired octets that the library has not read yet
	body   io.Reader      // a literal to be passed through after out
	left   int64          // octets of body that are still to come
	after  []byte         // goes out behind body
	fetch  *fetchResponse // the response that body belongs to, if it goes on
	rest   []byte         // the line behind body, if it has been read
	last   fetchResponse  // the last FETCH response that was held back for want of a body
	failed error          // why reading has ended, with the server's last words

	// The writing side.
	command []byte // a command line that is not complete
	literal int64  // octets of a literal that are still to be sent

	mu      sync.Mutex
	pending map[string]bool // tags that await an answer; true where a body was asked for
	bodies  int             // how many of them
	exists  int             // messages in the selected mailbox, by the server's last word
	bye     string          // what the server said when it hung up
}

// Dial connects and logs in. The connection is closed when ctx ends. A login
// that the server does not accept is a [credential.RefusedError], marked as
// permanent.
func Dial(ctx context.Context, e netconn.Endpoint, login Login) (*Conn, error) {
	nc, err := netconn.Dial(ctx, e)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: nc, br: bufio.NewReaderSize(nc, 64<<10), pending: map[string]bool{}}
	if err := c.start(ctx, e, login); err != nil {
		nc.Close()
		return nil, err
	}
	c.out = []byte("* PREAUTH [CAPABILITY " + strings.Join(c.shownCaps(), " ") + "] ready\r\n")
	c.Await(false)
	return c, nil
}

func (c *Conn) start(ctx context.Context, e netconn.Endpoint, login Login) error {
	greeting, err := c.readLine()
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	kind, text, _ := strings.Cut(strings.TrimPrefix(string(trimEOL(greeting)), "* "), " ")
	switch strings.ToUpper(kind) {
	case "OK":
	case "PREAUTH":
		if e.Security == netconn.Upgrade {
			return retry.Permanent(errors.New("the server skips the login on a connection without TLS (PREAUTH)"))
		}
	case "BYE":
		return fmt.Errorf("the server hangs up: BYE %s", text)
	default:
		return fmt.Errorf("this is no IMAP server: it greets with %q", clip(string(trimEOL(greeting))))
	}
	if e.Security == netconn.Upgrade {
		if err := c.startTLS(ctx, e); err != nil {
			return err
		}
	}
	if !strings.EqualFold(kind, "PREAUTH") {
		if err := c.login(e, login); err != nil {
			return err
		}
	}
	if err := c.askCaps(); err != nil {
		return err
	}
	if c.HasCap("ID") { // some providers serve only clients that tell their name
		if _, _, err := c.ask(`ID ("name" "mailstow")`, nil); err != nil && !retry.IsRefused(err) {
			return err
		}
	}
	return nil
}

func (c *Conn) startTLS(ctx context.Context, e netconn.Endpoint) error {
	if _, _, err := c.ask("STARTTLS", nil); err != nil {
		if retry.IsRefused(err) {
			return retry.Permanent(fmt.Errorf("the server does not offer TLS (STARTTLS): %w", err))
		}
		return err
	}
	if c.br.Buffered() > 0 { // RFC 9051 section 11.1
		return retry.Permanent(errors.New("the server sent plain text behind its answer to STARTTLS"))
	}
	if err := c.StartTLS(ctx, e.TLS); err != nil {
		return err
	}
	c.br.Reset(c.Conn)
	return nil
}

func (c *Conn) login(e netconn.Endpoint, l Login) error {
	if err := c.askCaps(); err != nil {
		return err
	}
	password := l.Password.Reveal()
	var err error
	switch {
	case strings.ContainsAny(l.User+password, "\r\n\x00"):
		return retry.Permanent(errors.New("user name or password has a line end or a NUL in it"))
	case c.HasCap("AUTH=PLAIN") && (c.HasCap("LOGINDISABLED") || !isASCII(l.User+password)):
		_, _, err = c.ask("AUTHENTICATE PLAIN", sasl.NewPlainClient("", l.User, password))
	case c.HasCap("LOGINDISABLED"):
		return retry.Permanent(errors.New("the server takes no password on this connection (LOGINDISABLED)"))
	default:
		_, _, err = c.ask("LOGIN "+quote(l.User)+" "+quote(password), nil)
	}
	if retry.IsRefused(err) && !passes(err) {
		return retry.Permanent(&credential.RefusedError{Server: e.Addr, User: l.User, Answer: err.Error()})
	}
	return err
}

// passes reports whether a refused login says that it is not about the
// password (RFC 5530 section 3).
func passes(err error) bool {
	text := strings.ToUpper(err.Error())
	return slices.ContainsFunc([]string{"[UNAVAILABLE", "[INUSE", "[LIMIT", "[THROTTLED", "[SERVERBUG"}, func(code string) bool {
		return strings.Contains(text, code)
	})
}

func (c *Conn) askCaps() error {
	untagged, _, err := c.ask("CAPABILITY", nil)
	if err != nil {
		return err
	}
	c.caps = nil
	for _, l := range untagged {
		if f := strings.Fields(l); len(f) > 1 && strings.EqualFold(f[1], "CAPABILITY") {
			c.caps = append(c.caps, f[2:]...)
		}
	}
	return nil
}

// HasCap reports whether the server announced the capability.
func (c *Conn) HasCap(name string) bool {
	return slices.ContainsFunc(c.caps, func(s string) bool { return strings.EqualFold(s, name) })
}

// hidden capabilities change how go-imap speaks, in ways that do not work:
// it takes IMAP4rev2 for enabled when it is only announced (go-imap issue
// 610), and it dies on VANISHED.
var hidden = []string{"IMAP4REV2", "UTF8=ACCEPT", "UTF8=ONLY", "QRESYNC", "COMPRESS=DEFLATE", "LOGINDISABLED"}

func (c *Conn) shownCaps() []string {
	shown := []string{"IMAP4rev1"}
	for _, name := range c.caps {
		if isAtom(name) && !slices.Contains(hidden, strings.ToUpper(name)) && !strings.EqualFold(name, "IMAP4rev1") {
			shown = append(shown, name)
		}
	}
	return shown
}

// Bye returns the server's words when it hung up, "" if it did not say any.
func (c *Conn) Bye() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bye
}

// maxSetup bounds what a server may send while a session is set up.
const maxSetup = 1 << 20

// ask sends one command while the session is set up and returns the
// untagged lines and the tagged one that answer it. NO and BAD are errors
// marked as refused.
func (c *Conn) ask(line string, auth sasl.Client) (untagged []string, answer string, err error) {
	var random [6]byte
	rand.Read(random[:]) // so that an answer cannot have been sent before the question
	tag := "s" + hex.EncodeToString(random[:])
	var response []byte
	if auth != nil {
		if _, response, err = auth.Start(); err != nil {
			return nil, "", err
		}
	}
	if _, err := io.WriteString(c.Conn, tag+" "+line+"\r\n"); err != nil {
		return nil, "", err
	}
	for size := 0; size < maxSetup; {
		b, err := c.readLine()
		if err != nil {
			if bye := c.Bye(); bye != "" {
				err = &hungUpError{bye, err}
			}
			return nil, "", err
		}
		size += len(b)
		l := string(trimEOL(b))
		rest, tagged := strings.CutPrefix(l, tag+" ")
		switch {
		case tagged && strings.EqualFold(firstWord(rest), "OK"):
			return untagged, rest, nil
		case tagged:
			return untagged, rest, retry.Refused(errors.New(rest))
		case strings.HasPrefix(l, "+") && response != nil:
			if _, err := io.WriteString(c.Conn, base64.StdEncoding.EncodeToString(response)+"\r\n"); err != nil {
				return nil, "", err
			}
			response = nil
		case strings.HasPrefix(l, "* "):
			c.noteBye(l)
			untagged = append(untagged, l)
		default:
			return nil, "", fmt.Errorf("the server answers out of turn: %q", clip(l))
		}
	}
	return nil, "", errors.New("the server answers without end")
}

func (c *Conn) noteBye(line string) {
	if f := strings.SplitN(line, " ", 3); len(f) == 3 && strings.EqualFold(f[1], "BYE") {
		c.mu.Lock()
		c.bye = f[2]
		c.mu.Unlock()
	}
}
