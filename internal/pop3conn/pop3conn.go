// Package pop3conn talks to one account on a POP3 server.
//
// Nothing outside this package imports go-pop3.
package pop3conn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/knadh/go-pop3"

	"mailstow/internal/netconn"
	"mailstow/internal/pop3wire"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
	"mailstow/mailbox"
)

// Server is an account on a server, for any number of connections, one after
// the other.
type Server struct {
	netconn.Endpoint
	Login sasl.Login

	misstates atomic.Bool // it announces larger sizes than messages have
	forgets   atomic.Bool // it does not answer all questions that are sent ahead
}

// Conn is a logged-in connection. It is used by one goroutine at a time.
type Conn struct {
	server  *Server
	wire    *pop3wire.Conn
	session *pop3.Conn
	numbers map[mailbox.ID]int // message numbers of this session; nil until listed

	loggedIn bool
}

// Dial connects and logs in. The connection is closed when ctx ends. A login
// that the server does not accept is a [credential.RefusedError], marked as
// permanent.
func (s *Server) Dial(ctx context.Context) (*Conn, error) {
	if err := s.Login.Check(); err != nil {
		return nil, retry.Permanent(err)
	}
	wire, err := pop3wire.Dial(ctx, s.Endpoint)
	if err != nil {
		return nil, err
	}
	c := &Conn{server: s, wire: wire}
	if err := c.start(ctx); err != nil {
		wire.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) start(ctx context.Context) (err error) {
	if c.session, err = pop3.New(pop3.Opt{Dialer: c.wire.Dialer()}).NewConn(); err != nil {
		return c.explain(ctx, err)
	}
	if c.wire.HasCap("UTF8") { // else Courier hides mail with 8-bit headers: RFC 6856
		if _, err := c.ask(ctx, "UTF8"); err != nil && !retry.IsRefused(err) {
			return err
		}
	}
	err = c.login(ctx)
	c.loggedIn = err == nil
	return err
}

// Close ends the session, with QUIT only if what was read is safe: a server
// may delete at QUIT what was retrieved (EXPIRE 0, RFC 2449), and without
// QUIT it must not (RFC 1939 section 6). The answer does not matter.
func (c *Conn) Close(finished bool) error {
	if finished && c.wire.Err() == nil {
		stop := time.AfterFunc(quitTimeout, c.hangUp)
		defer stop.Stop()
		c.session.Quit()
	}
	return c.wire.Close()
}

// quitTimeout bounds the wait for an answer that nothing depends on.
const quitTimeout = 5 * time.Second

// Session says how the server can be spoken to.
func (c *Conn) Session() mailbox.Session {
	s := mailbox.Session{TLS: c.wire.TLS()}
	for _, name := range []string{"UIDL", "TOP", "PIPELINING"} {
		if c.wire.HasCap(name) {
			s.Offers = append(s.Offers, name)
		}
	}
	return s
}

// Protocol returns [mailbox.POP3].
func (c *Conn) Protocol() mailbox.Protocol { return mailbox.POP3 }

// Mailboxes returns the one mailbox that POP3 has.
func (c *Conn) Mailboxes(context.Context) ([]mailbox.Mailbox, error) {
	return []mailbox.Mailbox{{Name: mailbox.NewName("INBOX"), Wire: "INBOX"}}, nil
}

// States returns nothing: POP3 does not tell whether a mailbox has changed.
func (c *Conn) States(context.Context, []mailbox.Mailbox) (map[string]mailbox.State, error) {
	return nil, nil
}

// Changes is not to be had over POP3.
func (c *Conn) Changes(context.Context, mailbox.Mailbox, mailbox.State) (mailbox.Changes, error) {
	return mailbox.Changes{}, retry.Refused(errors.ErrUnsupported)
}

// List returns every message that the server names, with its size. A message
// without a unique-id that can stand for it is Transient.
func (c *Conn) List(ctx context.Context, _ mailbox.Mailbox, _ mailbox.State, _ bool) (mailbox.Listing, error) {
	q := c.questions("STAT", "LIST", "UIDL")
	status, statErr := q.next(ctx)
	if statErr != nil && !retry.IsRefused(statErr) {
		return mailbox.Listing{}, statErr
	}
	first, _, _ := strings.Cut(status, " ")
	count, err := strconv.Atoi(first)
	if statErr == nil && (err != nil || count < 0) {
		statErr = retry.Refused(fmt.Errorf("the server cannot count its messages: %q", status))
	}
	sizes, listErr := c.numbered(ctx, q, count)
	if listErr != nil && !retry.IsRefused(listErr) {
		return mailbox.Listing{}, listErr
	}
	uidls, err := c.numbered(ctx, q, count)
	if err != nil && !retry.IsRefused(err) {
		return mailbox.Listing{}, err
	}
	if err := cmp.Or(statErr, listErr); err != nil {
		return mailbox.Listing{}, err
	}
	return mailbox.Listing{State: mailbox.State{Exists: count}, Messages: c.name(sizes, uidls)}, nil
}

// name makes messages of what LIST and UIDL say, and remembers their numbers.
func (c *Conn) name(sizes, uidls map[int]string) []mailbox.Message {
	uses := map[string]int{}
	var numbers []int
	for n, uidl := range uidls {
		uses[uidl]++
		if _, listed := sizes[n]; !listed {
			numbers = append(numbers, n)
		}
	}
	for n := range sizes {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	c.numbers = make(map[mailbox.ID]int, len(numbers))
	var msgs []mailbox.Message
	for _, n := range numbers {
		m := mailbox.Message{ID: mailbox.ID(uidls[n]), Size: -1}
		if !identifies(uidls[n]) || uses[uidls[n]] > 1 {
			m.ID, m.Transient = mailbox.ID("number "+strconv.Itoa(n)), true
		}
		announced, _, _ := strings.Cut(sizes[n], " ")
		if size, err := strconv.ParseInt(announced, 10, 64); err == nil && size >= 0 {
			m.Size = size
		}
		c.numbers[m.ID] = n
		msgs = append(msgs, m)
	}
	return msgs
}

// maxUIDL bounds a unique-id. RFC 1939 section 7 says 70 octets; some servers
// use more.
const maxUIDL = 500

func identifies(uidl string) bool {
	if uidl == "" || len(uidl) > maxUIDL {
		return false
	}
	return strings.IndexFunc(uidl, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// numbered reads the answer to LIST or UIDL: one line a message. Lines that
// begin with no message number are left out; the count of the listing shows
// them. There are not many more than count of them.
func (c *Conn) numbered(ctx context.Context, q *questions, count int) (map[int]string, error) {
	if _, err := q.next(ctx); err != nil {
		return nil, err
	}
	found := map[int]string{}
	lines := newLineReader(c.wire.Body())
	for n := 0; ; n++ {
		if n > count+maxSurplus {
			c.hangUp()
			return nil, errors.New("the server lists messages without end")
		}
		line, err := lines.next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return nil, c.explain(ctx, err)
		}
		number, value, _ := strings.Cut(line, " ")
		if n, err := strconv.Atoi(number); err == nil && n > 0 {
			found[n] = value
		}
	}
}

// maxSurplus bounds the lines of a listing beyond the server's own count.
const maxSurplus = 10_000

// ask sends a command and returns the status line's text.
func (c *Conn) ask(ctx context.Context, command string) (string, error) {
	return c.questions(command).next(ctx)
}

// explain tells a refused command (-ERR) from a lost connection, and both
// from an answer that is neither.
func (c *Conn) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case c.wire.Err() != nil:
		return c.wire.Err()
	case strings.HasPrefix(err.Error(), "unknown response"):
		c.hangUp()
		return fmt.Errorf("%w: %w", mailbox.ErrOutOfStep, err)
	}
	if c.loggedIn && strings.Contains(strings.ToUpper(err.Error()), "[AUTH]") { // RFC 3206; a token does not last
		c.hangUp()
		return fmt.Errorf("the server ends the login: -ERR %w", err)
	}
	return c.refused("-ERR " + err.Error())
}

// refused makes an error of the server's no, which may be that it is busy.
func (c *Conn) refused(text string) error {
	err := retry.Refused(errors.New(text))
	if strings.Contains(strings.ToUpper(text), "[LOGIN-DELAY]") {
		return retry.Busy(err, c.wire.LoginDelay())
	}
	return retry.MarkBusy(err, text)
}

func (c *Conn) hangUp() { c.wire.Close() }

// Describe does nothing: sizes come with the listing, and POP3 has no
// INTERNALDATE.
func (c *Conn) Describe(context.Context, mailbox.Mailbox, []mailbox.Message) error { return nil }
