package pop3conn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// Where the server takes PIPELINING (RFC 2449 section 6.6), there are so many
// questions ahead of the answers, for messages of so many octets. The
// questions fit into the server's buffer while it sends.
const (
	maxAhead       = 500
	maxAheadOctets = 4 << 20
)

// questions are commands that are sent one by one or, where the server takes
// that, ahead of the answers.
type questions struct {
	conn  *Conn
	lines []string
	costs []int64 // octets of the answers as far as known, -1 if not; nil for small ones

	sent, answered int
	ahead          int64 // octets of answers to come
}

func (c *Conn) questions(lines ...string) *questions { return &questions{conn: c, lines: lines} }

// next returns the status of the next answer; what follows it must be read to
// the end. Whatever the server has sent before it was asked is no answer.
func (q *questions) next(ctx context.Context) (status string, err error) {
	c := q.conn
	if q.sent == q.answered && c.wire.Pending() {
		c.hangUp()
		return "", mailbox.ErrOutOfStep
	}
	if err := q.send(); err != nil {
		return "", c.explain(ctx, err)
	}
	if q.costs != nil {
		q.ahead -= max(q.costs[q.answered], 0)
	}
	q.answered++
	text, err := c.session.ReadOne()
	if err = c.explain(ctx, err); q.sent > q.answered && errors.Is(err, netconn.ErrSilent) {
		c.server.forgets.Store(true)
	}
	return string(text), err
}

// send asks what may be asked now, in one piece.
func (q *questions) send() error {
	waiting := q.sent - q.answered
	if waiting > maxAhead/2 || waiting > 0 && q.ahead > maxAheadOctets/2 {
		return nil
	}
	var some []string
	for q.sent < len(q.lines) && (q.sent == q.answered || q.mayAdd()) {
		some = append(some, q.lines[q.sent])
		if q.costs != nil {
			q.ahead += max(q.costs[q.sent], 0)
		}
		q.sent++
	}
	if len(some) == 0 {
		return nil
	}
	return q.conn.session.Send(strings.Join(some, "\r\n"))
}

// mayAdd reports whether one more may be asked behind those that wait. Where an
// answer that is cut short could not be seen by its size, nothing is: the rest
// of it would pass for the next.
func (q *questions) mayAdd() bool {
	s := q.conn.server
	if !q.conn.wire.HasCap("PIPELINING") || s.misstates.Load() || s.forgets.Load() || q.sent-q.answered >= maxAhead {
		return false
	}
	if q.costs == nil {
		return true
	}
	cost, before := q.costs[q.sent], q.costs[q.sent-1]
	return cost > 0 && before > 0 && q.ahead+cost <= maxAheadOctets
}

// maxHeader bounds a header block that is read whole.
const maxHeader = 1 << 20

// Headers calls fn with the header block of messages. The server need not
// know TOP; then the error is marked as refused.
func (c *Conn) Headers(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error {
	return c.each(ctx, m, msgs, "TOP %d 0", func(msg mailbox.Message, a *answer) error {
		block, err := io.ReadAll(io.LimitReader(a, maxHeader+1))
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
// There are servers that do not stuff a dot that is a mail's first octet: such
// a mail can end its own answer and go on as the next. So an answer that
// begins with a dot, or is shorter than LIST said, ends the session with
// [mailbox.ErrOutOfStep], the latter after fn has seen it. A message that is
// asked for alone is read as its size says that it is meant.
func (c *Conn) Fetch(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error {
	alone := len(msgs) == 1
	return c.each(ctx, m, msgs, "RETR %d", func(msg mailbox.Message, a *answer) error {
		if err := fn(msg, -1, a); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, a); err != nil {
			return err
		}
		switch {
		case a.octets >= msg.Size || c.server.misstates.Load():
		case alone:
			c.server.misstates.Store(true)
		default:
			return mailbox.ErrOutOfStep
		}
		return nil
	})
}

// answer is the multi-line part of one.
type answer struct {
	io.Reader
	octets int64 // read so far
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	a.octets += int64(n)
	return n, err
}

// each asks one multi-line question a message, in which %d stands for its
// number.
func (c *Conn) each(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, question string, fn func(mailbox.Message, *answer) error) error {
	if c.numbers == nil {
		if _, err := c.List(ctx, m, mailbox.State{}, true); err != nil {
			return err
		}
	}
	q := c.questions()
	var here []mailbox.Message // what has gone since it was listed is left out
	for _, msg := range msgs {
		if n, ok := c.numbers[msg.ID]; ok {
			here = append(here, msg)
			q.lines, q.costs = append(q.lines, fmt.Sprintf(question, n)), append(q.costs, msg.Size)
		}
	}
	var refused error
	for i, msg := range here {
		if _, err := q.next(ctx); retry.IsRefused(err) {
			refused = err
			continue
		} else if err != nil {
			return &mailbox.MessageError{ID: msg.ID, Err: err}
		}
		err := c.receive(ctx, msg, q.lines[i], len(msgs) == 1, fn)
		if err != nil {
			c.hangUp()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &mailbox.MessageError{ID: msg.ID, Err: err}
		}
	}
	return refused
}

// receive reads one answer to the end.
func (c *Conn) receive(ctx context.Context, msg mailbox.Message, question string, alone bool, fn func(mailbox.Message, *answer) error) error {
	dotted, err := c.wire.StartsWithDot()
	if err != nil {
		return err
	}
	a := &answer{Reader: c.wire.Body()}
	switch {
	case !dotted:
	case msg.Size == 0: // this should be the end
		if more, err := c.wire.MoreWithin(emptyPatience, len(end)); more || err != nil {
			return cmp.Or(err, mailbox.ErrOutOfStep)
		}
	case !alone || strings.HasPrefix(question, "TOP"):
		return mailbox.ErrOutOfStep
	default:
		if a.Reader, err = c.readDotted(ctx, msg, question); err != nil {
			return err
		}
	}
	if err := fn(msg, a); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, io.LimitReader(a, maxRest))
	if n == maxRest {
		err = errors.New("the server sends without end")
	}
	return err
}

// maxRest bounds what is read of an answer that nobody wants any more of.
const maxRest = 64 << 20

// end is the line that ends an answer, and may be the first line of a message.
const end = ".\r\n"

// How long to wait for what comes behind such a line.
const (
	dotPatience   = 2 * time.Second
	emptyPatience = 500 * time.Millisecond
)

// readDotted returns the message that an answer to RETR begins with a dot. While
// nothing else is asked, all that comes belongs to it: a first pass counts, to
// find out by the size whether the server stuffs that dot, then it asks again.
func (c *Conn) readDotted(ctx context.Context, msg mailbox.Message, question string) (io.Reader, error) {
	b, err := c.wire.Peek(len(end))
	if err != nil {
		return nil, err
	}
	if string(b) == end {
		more, err := c.wire.MoreWithin(dotPatience, len(end))
		if err != nil {
			return nil, err
		}
		if !more { // an empty answer
			c.wire.Discard(len(end))
			return strings.NewReader(""), nil
		}
	}
	a := &answer{Reader: c.wire.UnstuffedBody()}
	const least, crlf = int64(len(end)), int64(len("\r\n"))
	n, err := io.Copy(io.Discard, io.LimitReader(a, msg.Size+least+crlf))
	if err != nil {
		return nil, err
	}
	if n == msg.Size+least+crlf {
		return nil, fmt.Errorf("%w: the server sends more than the %d octets that it announced", mailbox.ErrOutOfStep, msg.Size)
	}
	if _, err := c.ask(ctx, question); err != nil {
		return nil, err
	}
	if n == msg.Size || n == msg.Size+crlf {
		return c.wire.UnstuffedBody(), nil
	}
	return c.wire.Body(), nil
}
