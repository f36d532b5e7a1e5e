// Package pop3wire is the connection beneath go-pop3: it sets the session up
// and streams what the library would hold in memory or change.
//
// A Conn reads the greeting, asks for capabilities and does STLS by itself,
// then shows the library the greeting again. It gives the library one line a
// read, so that nothing of a multi-line answer gets stuck in the library's
// buffer and [Conn.Body] can stream it, octet for octet.
package pop3wire

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
)

// Conn is a connection for go-pop3 to talk through. It is used by one
// goroutine at a time.
type Conn struct {
	*netconn.Conn

	br       *bufio.Reader
	caps     map[string][]string // in capitals, with what follows each
	greeting []byte              // not yet read by the library
	stamp    string              // of the greeting, "" if the server does not know APOP
	err      error               // why reading has ended
}

// Dial connects, and upgrades to TLS where e says so. The connection is
// closed when ctx ends.
func Dial(ctx context.Context, e netconn.Endpoint) (*Conn, error) {
	nc, err := netconn.Dial(ctx, e)
	if err != nil {
		return nil, err
	}
	nc.TraceLines()
	c := &Conn{Conn: nc, br: bufio.NewReaderSize(nc, 64<<10)}
	if err := c.start(ctx, e); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// Dialer hands a Conn that is open already to go-pop3.
func (c *Conn) Dialer() interface {
	Dial(network, address string) (net.Conn, error)
} {
	return dialed{c}
}

type dialed struct{ conn *Conn }

func (d dialed) Dial(_, _ string) (net.Conn, error) { return d.conn, nil }

func (c *Conn) start(ctx context.Context, e netconn.Endpoint) error {
	greeting, err := c.readLine()
	if err != nil {
		return &netconn.GreetingError{Protocol: "POP3", Err: err}
	}
	switch {
	case strings.HasPrefix(greeting, "+OK"):
	case strings.HasPrefix(greeting, "-ERR"):
		return fmt.Errorf("the server greets with %q", greeting)
	default:
		return &netconn.GreetingError{Protocol: "POP3", Greeting: greeting}
	}
	c.greeting = []byte(greeting + "\r\n")
	c.stamp = stamp.FindString(greeting)
	if err := c.askCaps(); err != nil {
		return err
	}
	if e.Security != netconn.Upgrade {
		return nil
	}
	if answer, err := c.ask("STLS"); err != nil {
		return err
	} else if !strings.HasPrefix(answer, "+OK") {
		return retry.Permanent(fmt.Errorf("the server does not offer TLS (STLS): %s", answer))
	}
	if c.br.Buffered() > 0 {
		return retry.Permanent(errors.New("the server sent plain text behind its answer to STLS"))
	}
	if err := c.StartTLS(ctx, e.TLS); err != nil {
		return err
	}
	c.br.Reset(c.Conn)
	return c.askCaps() // what was said in plain text is forgotten
}

// askCaps asks for capabilities (RFC 2449); a server need not know the
// question.
func (c *Conn) askCaps() error {
	c.caps = map[string][]string{}
	answer, err := c.ask("CAPA")
	if err != nil || !strings.HasPrefix(answer, "+OK") {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(c.Body(), maxLine))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(strings.ToUpper(line)); len(f) > 0 {
			c.caps[f[0]] = append(c.caps[f[0]], f[1:]...)
		}
	}
	return nil
}

// HasCap reports whether the server announced the capability, with the
// argument if one is given; both in capitals.
func (c *Conn) HasCap(name string, args ...string) bool {
	said, ok := c.caps[name]
	return ok && !slices.ContainsFunc(args, func(a string) bool { return !slices.Contains(said, a) })
}

// LoginDelay is how long a user has to wait between logins (RFC 2449 section
// 6.5), zero if the server does not say.
func (c *Conn) LoginDelay() time.Duration {
	said := c.caps["LOGIN-DELAY"]
	if len(said) == 0 {
		return 0
	}
	seconds, err := strconv.Atoi(said[0])
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxLoginDelay)
}

const maxLoginDelay = 15 * time.Minute

// Err returns why the connection can no longer be read, nil if it can.
func (c *Conn) Err() error { return c.err }

// Pending reports whether the server has sent octets that nobody asked for.
func (c *Conn) Pending() bool { return c.br.Buffered() > 0 }

// stamp is the timestamp of a server that knows APOP (RFC 1939 section 7).
var stamp = regexp.MustCompile(`<[^<>\s]+@[^<>\s]*>`)

// APOP returns the command that logs in without sending the password, "" if
// the server's greeting does not offer it.
func (c *Conn) APOP(user string, password credential.Secret) string {
	if c.stamp == "" {
		return ""
	}
	digest := md5.Sum([]byte(c.stamp + password.Reveal()))
	return "APOP " + user + " " + hex.EncodeToString(digest[:])
}

// maxChallenges bounds a login.
const maxChallenges = 10

// Authenticate logs in by SASL (RFC 5034), which go-pop3 has no word for. An
// answer that is a refusal is marked so.
func (c *Conn) Authenticate(x *sasl.Exchange) error {
	answer, err := c.ask("AUTH " + x.Mechanism)
	for range maxChallenges {
		if err != nil {
			break
		}
		challenge, more := strings.CutPrefix(answer, "+ ")
		if more = more || answer == "+"; !more {
			break
		}
		response, wrong := x.Answer(challenge)
		if wrong != nil {
			c.ask("*")
			return wrong
		}
		answer, err = c.ask(response)
	}
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(answer, "+OK"):
		return x.Accepted()
	case strings.HasPrefix(answer, "-ERR"):
		return retry.Refused(errors.New(answer))
	}
	return fmt.Errorf("the server answers a login with %q", answer)
}

func (c *Conn) ask(command string) (answer string, err error) {
	if _, err := io.WriteString(c.Conn, command+"\r\n"); err != nil {
		return "", err
	}
	return c.readLine()
}

// maxLine bounds a status line and a list of capabilities.
const maxLine = 64 << 10

var errBlankStatus = errors.New("the server sends a blank line in place of an answer")

var errLongLine = errors.New("the server sends a line over 64 KiB")

func (c *Conn) readLine() (string, error) {
	b, err := c.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = errLongLine
	}
	if err != nil {
		return "", c.fail(err)
	}
	line := string(bytes.TrimRight(b, "\r\n"))
	c.Tell(line)
	return line, nil
}

func (c *Conn) fail(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	c.err = err
	return err
}

// Read gives go-pop3 at most one line. A line over the limit is an error,
// because the library would hold it whole.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.greeting) > 0 {
		n := copy(p, c.greeting)
		c.greeting = c.greeting[n:]
		return n, nil
	}
	line, err := c.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = errLongLine
	}
	if err != nil {
		return 0, c.fail(err)
	}
	if len(line) > len(p) {
		return 0, c.fail(errLongLine)
	}
	if len(bytes.TrimRight(line, "\r\n")) == 0 { // the library takes it for +OK
		return 0, c.fail(errBlankStatus)
	}
	c.Tell(string(bytes.TrimRight(line, "\r\n")))
	return copy(p, line), nil
}

// StartsWithDot reports whether the next octet is a dot: there are servers that
// do not stuff one at the very start of a message.
func (c *Conn) StartsWithDot() (bool, error) {
	b, err := c.Peek(1)
	return err == nil && b[0] == '.', err
}

// MoreWithin reports whether the server sends anything behind the next n octets
// within d. An error is that of the connection.
func (c *Conn) MoreWithin(d time.Duration, n int) (more bool, err error) {
	c.Within(d, func() { _, err = c.br.Peek(n + 1) })
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	}
	return false, c.fail(err)
}

// Peek returns the next n octets, which are still to be read.
func (c *Conn) Peek(n int) ([]byte, error) {
	b, err := c.br.Peek(n)
	if err != nil {
		return nil, c.fail(err)
	}
	return b, nil
}

// Discard drops the next n octets.
func (c *Conn) Discard(n int) { c.br.Discard(n) }

// UnstuffedBody is [Conn.Body] of a message whose first octet was not stuffed.
func (c *Conn) UnstuffedBody() io.Reader { return &body{conn: c} }

// Body streams one multi-line answer, after its status line was read, without
// its stuffed dots and the final one (RFC 1939 section 3). Every other octet
// comes as the server sent it: only CRLF ends a line. It fails with
// io.ErrUnexpectedEOF if the connection is lost before the end.
func (c *Conn) Body() io.Reader { return &body{conn: c, lineStart: true} }

type body struct {
	conn      *Conn
	lineStart bool // the next octet follows a CRLF
	cr        bool // the last octet was CR
	done      bool
}

func (b *body) Read(p []byte) (n int, err error) {
	br := b.conn.br
	for n < len(p) && !b.done {
		if n > 0 && br.Buffered() == 0 {
			return n, nil
		}
		if b.lineStart {
			if err := b.dot(); err != nil {
				return n, b.conn.fail(err)
			}
			continue
		}
		if _, err := br.Peek(1); err != nil {
			return n, b.conn.fail(err)
		}
		piece, _ := br.Peek(min(br.Buffered(), len(p)-n))
		piece, b.lineStart = b.untilDot(piece)
		b.cr = piece[len(piece)-1] == '\r'
		n += copy(p[n:], piece)
		br.Discard(len(piece))
	}
	if n == 0 && b.done {
		return 0, io.EOF
	}
	return n, nil
}

// untilDot returns the beginning of a piece that can be passed on as it is, and
// whether a line that may begin with a dot follows it.
func (b *body) untilDot(piece []byte) (plain []byte, lineStart bool) {
	for from := 0; ; {
		i := bytes.IndexByte(piece[from:], '.')
		if i < 0 {
			break
		}
		if i += from; i > 0 && piece[i-1] == '\n' && (i > 1 && piece[i-2] == '\r' || i == 1 && b.cr) {
			return piece[:i], true
		}
		from = i + 1
	}
	n := len(piece)
	return piece, piece[n-1] == '\n' && (n > 1 && piece[n-2] == '\r' || n == 1 && b.cr)
}

// dot takes the dot off the start of a line, or the line that ends the answer.
func (b *body) dot() error {
	br := b.conn.br
	start, err := br.Peek(1)
	if err != nil {
		return err
	}
	b.lineStart, b.cr = false, false
	if start[0] != '.' {
		return nil
	}
	if start, err = br.Peek(2); err != nil {
		return err
	}
	if start[1] != '\r' {
		br.Discard(1)
		return nil
	}
	if start, err = br.Peek(3); err != nil {
		return err
	}
	if start[2] == '\n' {
		br.Discard(3)
		b.done = true
		return nil
	}
	br.Discard(1)
	return nil
}
