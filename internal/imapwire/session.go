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
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
)

// Conn is a logged-in connection for go-imap to talk through. One goroutine
// may read while others write, as go-imap does.
type Conn struct {
	*netconn.Conn

	br    *bufio.Reader
	w     io.Writer
	caps  []string // as the server announced them after login
	names names

	quick bool // QRESYNC is enabled (RFC 7162)

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

	alert func(text string) // is told what the user has to read; nil for nobody

	prefix, delimiter string // of the user's own namespace
	quotas            []Quota
	rights            map[string]string // by the mailbox's spelling

	idling atomic.Bool   // IDLE was sent and DONE was not
	change chan struct{} // holds one if the selected mailbox has changed

	opening string      // tag of the command that opens a mailbox, "" when none does
	asked   atomic.Bool // to be told what has vanished
	untold  bool        // more has vanished than is kept

	objects  map[string]string // UID -> the content's name, until it is asked for
	vanished [][2]uint32       // first and last UIDs

	sent  []string          // tags of the setup that await an answer
	early map[string]answer // answers to commands of the setup that came before their turn
}

// answer is how the server answered a command of the setup.
type answer struct {
	lines []string
	err   error
}

// readAhead is the size of the buffer that answers are read through.
const readAhead = 64 << 10

// Dial connects and logs in. The connection is closed when ctx ends. A login
// that the server does not accept is a [credential.RefusedError], marked as
// permanent.
func Dial(ctx context.Context, e netconn.Endpoint, l sasl.Login, z Compression) (*Conn, error) {
	nc, err := netconn.Dial(ctx, e)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: nc, alert: e.Alert, br: bufio.NewReaderSize(nc, readAhead), w: nc, pending: map[string]bool{}, objects: map[string]string{}, rights: map[string]string{}, change: make(chan struct{}, 1), early: map[string]answer{}}
	if err := c.start(ctx, e, l, z); err != nil {
		nc.Close()
		return nil, err
	}
	c.out = []byte("* PREAUTH [CAPABILITY " + strings.Join(c.shownCaps(), " ") + "] ready\r\n")
	c.Await(false)
	return c, nil
}

func (c *Conn) start(ctx context.Context, e netconn.Endpoint, l sasl.Login, z Compression) error {
	greeting, err := c.readLine()
	if err != nil {
		return &netconn.GreetingError{Protocol: "IMAP", Err: err}
	}
	c.noteAlert(string(trimEOL(greeting)))
	kind, text, _ := strings.Cut(strings.TrimPrefix(string(trimEOL(greeting)), "* "), " ")
	switch strings.ToUpper(kind) {
	case "OK":
	case "PREAUTH":
		if e.Security == netconn.Upgrade {
			return retry.Permanent(errors.New("the server skips the login on a connection without TLS (PREAUTH)"))
		}
	case "BYE":
		return retry.MarkBusy(fmt.Errorf("the server hangs up: BYE %s", text), text)
	default:
		return &netconn.GreetingError{Protocol: "IMAP", Greeting: clip(string(trimEOL(greeting)))}
	}
	if e.Security == netconn.Upgrade {
		if err := c.startTLS(ctx, e); err != nil {
			return err
		}
	}
	if !strings.EqualFold(kind, "PREAUTH") {
		if e.Security != netconn.Upgrade { // else what was said before TLS does not count
			c.learnCaps([]string{string(trimEOL(greeting))})
		}
		if err := c.needCaps(); err != nil {
			return err
		}
		if err := c.login(e, l); err != nil {
			return err
		}
	}
	if err := c.needCaps(); err != nil {
		return err
	}
	return c.agree(z)
}

// agree tells the server what the session is going to use, in one round trip.
func (c *Conn) agree(z Compression) error {
	var lines []string
	if c.HasCap("ID") { // some providers serve only clients that tell their name
		lines = append(lines, `ID ("name" "mailstow")`)
	}
	if c.HasCap("QRESYNC") && c.HasCap("ENABLE") {
		lines = append(lines, "ENABLE QRESYNC")
	}
	if c.HasCap("COMPRESS=DEFLATE") && !c.Traced() && z.useful(c.RemoteAddr()) {
		lines = append(lines, "COMPRESS DEFLATE") // nothing may be sent behind it
	}
	tags, err := c.send(lines)
	for i, tag := range tags {
		if err != nil {
			break
		}
		var untagged []string
		untagged, err = c.answerTo(tag, nil)
		switch {
		case retry.IsRefused(err):
			err = nil // it goes without
		case err != nil:
		case lines[i] == "ENABLE QRESYNC":
			c.quick = slices.ContainsFunc(untagged, func(l string) bool {
				return strings.HasPrefix(strings.ToUpper(l), "* ENABLED") && strings.Contains(strings.ToUpper(l), "QRESYNC")
			})
		case strings.HasPrefix(lines[i], "COMPRESS"):
			err = c.deflate()
		}
	}
	return err
}

func (c *Conn) startTLS(ctx context.Context, e netconn.Endpoint) error {
	if _, err := c.ask("STARTTLS"); err != nil {
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

// needCaps asks for the capabilities unless the server has told them.
func (c *Conn) needCaps() error {
	if c.caps != nil {
		return nil
	}
	untagged, err := c.ask("CAPABILITY")
	c.learnCaps(untagged)
	return err
}

// learnCaps keeps the capabilities that lines tell, as a response or as the
// code of a status response.
func (c *Conn) learnCaps(lines []string) {
	for _, l := range lines {
		f := strings.Fields(l)
		switch {
		case len(f) > 2 && strings.EqualFold(f[1], "CAPABILITY"):
			c.caps = f[2:]
		case len(f) > 3 && strings.EqualFold(f[2], "[CAPABILITY"):
			list, _, _ := strings.Cut(strings.Join(f[3:], " "), "]")
			c.caps = strings.Fields(list)
		}
	}
}

// HasCap reports whether the server announced the capability.
func (c *Conn) HasCap(name string) bool {
	return slices.ContainsFunc(c.caps, func(s string) bool { return strings.EqualFold(s, name) })
}

// CapValue returns what stands behind the equals sign of a capability that
// has a value, "" if the server does not announce it.
func (c *Conn) CapValue(name string) string {
	for _, s := range c.caps {
		if k, v, ok := strings.Cut(s, "="); ok && strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
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

// ask sends one command while the session is set up and returns the lines
// that answer it, the tagged one last. NO and BAD are errors marked as refused.
func (c *Conn) ask(line string) ([]string, error) { return c.talk(line, nil) }

// talk is ask for a command in which the server has questions.
func (c *Conn) talk(line string, respond func(challenge string) (string, error)) ([]string, error) {
	tags, err := c.send([]string{line})
	if err != nil {
		return nil, err
	}
	return c.answerTo(tags[0], respond)
}

// send sends commands in one go and returns their tags.
func (c *Conn) send(lines []string) (tags []string, err error) {
	if len(lines) == 0 {
		return nil, nil
	}
	var out strings.Builder
	for _, line := range lines {
		tag := newTag()
		tags = append(tags, tag)
		out.WriteString(tag + " " + line + "\r\n")
	}
	c.sent = append(c.sent, tags...)
	_, err = io.WriteString(c.Conn, out.String())
	return tags, err
}

// newTag returns a tag at random, so that an answer cannot have been sent before
// the question.
func newTag() string {
	var random [6]byte
	rand.Read(random[:])
	return "s" + hex.EncodeToString(random[:])
}

// answerTo reads the answer to the command with the tag. Answers to others
// that were sent may come before.
func (c *Conn) answerTo(tag string, respond func(challenge string) (string, error)) ([]string, error) {
	var lines []string
	for size := 0; size < maxSetup; {
		if a, ok := c.early[tag]; ok {
			delete(c.early, tag)
			return append(lines, a.lines...), a.err
		}
		first, l, err := c.readAnswer()
		if err != nil {
			return nil, err
		}
		size += len(l)
		switch {
		case first == "*":
			lines = append(lines, l)
		case first == "+" && respond != nil:
			response, err := respond(strings.TrimPrefix(strings.TrimPrefix(l, "+"), " "))
			if err != nil {
				return nil, err
			}
			if _, err := io.WriteString(c.Conn, response+"\r\n"); err != nil {
				return nil, err
			}
		case first == "+":
			return nil, fmt.Errorf("the server answers out of turn: %q", clip(l))
		}
	}
	return nil, errors.New("the server answers without end")
}

// readAnswer reads one line, with its literals, and returns its first word: a
// star, a plus, or the tag of a command that was sent, whose answer is then in
// early.
func (c *Conn) readAnswer() (first, line string, err error) {
	b, err := c.readLineCopy()
	if err == nil {
		b, err = c.readRest(b)
	}
	if err != nil {
		if bye := c.Bye(); bye != "" {
			err = retry.MarkBusy(&hungUpError{bye, err}, bye)
		}
		return "", "", err
	}
	line = string(trimEOL(b))
	c.noteAlert(line)
	first, rest, _ := strings.Cut(line, " ")
	_, answered := c.early[first]
	switch {
	case first == "*":
		c.noteBye(line)
	case strings.HasPrefix(line, "+"):
		first = "+"
	case answered || !slices.Contains(c.sent, first):
		return "", "", fmt.Errorf("the server answers out of turn: %q", clip(line))
	default:
		a := answer{lines: []string{line}}
		if !strings.EqualFold(firstWord(rest), "OK") {
			a = answer{err: retry.MarkBusy(retry.Refused(errors.New(rest)), rest)}
		}
		c.early[first] = a
		c.sent = slices.DeleteFunc(c.sent, func(t string) bool { return t == first })
	}
	return first, line, nil
}

// noteAlert hands on what an answer that refuses nothing wants the user to read
// (RFC 9051 section 7.1); what refuses is told as an error.
func (c *Conn) noteAlert(line string) {
	f := strings.SplitN(line, " ", 4)
	if c.alert != nil && len(f) == 4 && strings.EqualFold(f[1], "OK") && strings.EqualFold(f[2], "[ALERT]") {
		c.alert(clip(f[3]))
	}
}

func (c *Conn) noteBye(line string) {
	if f := strings.SplitN(line, " ", 3); len(f) == 3 && strings.EqualFold(f[1], "BYE") {
		c.mu.Lock()
		c.bye = f[2]
		c.mu.Unlock()
	}
}
