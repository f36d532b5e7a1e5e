// Package pop3conn talks to one account on a POP3 server.
//
// Nothing outside this package imports go-pop3.
package pop3conn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/go-pop3"

	"mailstow/internal/credential"
	"mailstow/internal/netconn"
	"mailstow/internal/pop3wire"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// ErrOutOfStep is returned when the server's stream no longer matches the
// questions: what comes next may be part of a mail that forges answers. The
// connection is of no more use.
var ErrOutOfStep = errors.New("the server's answers are out of step")

// Conn is a logged-in connection. It is used by one goroutine at a time.
type Conn struct {
	wire    *pop3wire.Conn
	session *pop3.Conn
	numbers map[mailbox.ID]int // message numbers of this session; nil until listed
}

// Dial connects and logs in. The connection is closed when ctx ends.
func Dial(ctx context.Context, e netconn.Endpoint, user string, password credential.Secret) (*Conn, error) {
	if strings.ContainsAny(user+password.Reveal(), "\r\n\x00") {
		return nil, retry.Permanent(errors.New("user name or password has a line end or a NUL in it"))
	}
	wire, err := pop3wire.Dial(ctx, e)
	if err != nil {
		return nil, err
	}
	c := &Conn{wire: wire}
	if err := c.login(ctx, e, user, password); err != nil {
		wire.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) login(ctx context.Context, e netconn.Endpoint, user string, password credential.Secret) (err error) {
	if c.session, err = pop3.New(pop3.Opt{Dialer: c.wire.Dialer()}).NewConn(); err != nil {
		return c.explain(ctx, err)
	}
	if c.wire.HasCap("UTF8") { // else Courier hides mail with 8-bit headers: RFC 6856
		if _, err := c.ask(ctx, "UTF8"); err != nil && !retry.IsRefused(err) {
			return err
		}
	}
	err = c.explain(ctx, c.session.Auth(user, password.Reveal()))
	if _, busy := retry.IsBusy(err); retry.IsRefused(err) && !busy {
		return retry.Permanent(&credential.RefusedError{Server: e.Addr, User: user, Answer: err.Error()})
	}
	return err
}

// Close ends the session, with QUIT only if what was read is safe: a server
// may delete at QUIT what was retrieved (EXPIRE 0, RFC 2449), and without
// QUIT it must not (RFC 1939 section 6). The answer does not matter.
func (c *Conn) Close(finished bool) error {
	if finished && c.wire.Err() == nil {
		stop := time.AfterFunc(quitTimeout, func() { c.wire.Close() })
		defer stop.Stop()
		c.session.Quit()
	}
	return c.wire.Close()
}

// quitTimeout bounds the wait for an answer that nothing depends on.
const quitTimeout = 5 * time.Second

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
	status, err := c.ask(ctx, "STAT")
	if err != nil {
		return mailbox.Listing{}, err
	}
	first, _, _ := strings.Cut(status, " ")
	count, err := strconv.Atoi(first)
	if err != nil || count < 0 {
		return mailbox.Listing{}, retry.Refused(fmt.Errorf("the server cannot count its messages: %q", status))
	}
	sizes, err := c.numbered(ctx, "LIST", count)
	if err != nil {
		return mailbox.Listing{}, err
	}
	uidls, err := c.numbered(ctx, "UIDL", count)
	if err != nil && !retry.IsRefused(err) {
		return mailbox.Listing{}, err
	}
	l := mailbox.Listing{State: mailbox.State{Exists: count}, Messages: c.name(sizes, uidls)}
	return l, nil
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
		if size, err := strconv.ParseInt(sizes[n], 10, 64); err == nil && size >= 0 {
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

// numbered asks for one line a message: LIST or UIDL. Lines that begin with
// no message number are left out; the count of the listing shows them.
// There are not many more than count of them.
func (c *Conn) numbered(ctx context.Context, command string, count int) (map[int]string, error) {
	if _, err := c.ask(ctx, command); err != nil {
		return nil, err
	}
	found := map[int]string{}
	lines := newLineReader(c.wire.Body())
	for n := 0; ; n++ {
		if n > count+maxSurplus {
			c.wire.Close()
			return nil, fmt.Errorf("%s: the server lists without end", command)
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
			if command == "LIST" {
				value, _, _ = strings.Cut(value, " ")
			}
			found[n] = value
		}
	}
}

// maxSurplus bounds the lines of a listing beyond the server's own count.
const maxSurplus = 10_000

// ask sends a command and returns the status line's text.
func (c *Conn) ask(ctx context.Context, command string) (string, error) {
	if c.wire.Pending() {
		c.wire.Close()
		return "", ErrOutOfStep
	}
	if err := c.session.Send(command); err != nil {
		return "", c.explain(ctx, err)
	}
	status, err := c.session.ReadOne()
	return string(status), c.explain(ctx, err)
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
		c.wire.Close()
		return fmt.Errorf("%w: %w", ErrOutOfStep, err)
	default:
		return retry.MarkBusy(retry.Refused(fmt.Errorf("-ERR %w", err)), err.Error())
	}
}

// Describe does nothing: sizes come with the listing, and POP3 has no
// INTERNALDATE.
func (c *Conn) Describe(context.Context, mailbox.Mailbox, []mailbox.Message) error { return nil }

// maxHeader bounds a header block that is read whole.
const maxHeader = 1 << 20

// Headers calls fn with the header block of messages. The server need not
// know TOP; then the error is marked as refused.
func (c *Conn) Headers(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error {
	return c.each(ctx, m, msgs, "TOP %d 0", func(msg mailbox.Message, r io.Reader) error {
		block, err := io.ReadAll(io.LimitReader(r, maxHeader+1))
		if err != nil || len(block) > maxHeader {
			return err
		}
		return fn(msg, block)
	})
}

// Fetch calls fn with each message's content; the size is unknown (-1). The
// reader is valid until fn returns and fails if the connection is lost inside
// the message. If fn returns an error, Fetch closes the connection and
// returns that error. Messages that the server refuses are left out.
//
// An answer shorter than LIST said ends the session with [ErrOutOfStep] after
// fn has seen it: servers do not stuff a dot that is a mail's first octet, so
// a mail can end its own answer and go on as the next.
func (c *Conn) Fetch(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error {
	return c.each(ctx, m, msgs, "RETR %d", func(msg mailbox.Message, r io.Reader) error {
		counted := &counter{r: r}
		if err := fn(msg, -1, counted); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, counted); err != nil {
			return err
		}
		if counted.n < msg.Size {
			c.wire.Close()
			return ErrOutOfStep
		}
		return nil
	})
}

// each asks one multi-line question a message.
func (c *Conn) each(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, command string, fn func(mailbox.Message, io.Reader) error) error {
	if c.numbers == nil {
		if _, err := c.List(ctx, m, mailbox.State{}, true); err != nil {
			return err
		}
	}
	var refused error
	for _, msg := range msgs {
		n, ok := c.numbers[msg.ID]
		if !ok {
			continue // gone since it was listed
		}
		if _, err := c.ask(ctx, fmt.Sprintf(command, n)); retry.IsRefused(err) {
			refused = err
			continue
		} else if err != nil {
			return err
		}
		body := c.wire.Body()
		err := fn(msg, body)
		if err == nil {
			_, err = io.Copy(io.Discard, body)
		}
		if err != nil {
			c.wire.Close()
			return err
		}
	}
	return refused
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
