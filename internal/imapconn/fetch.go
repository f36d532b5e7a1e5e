package imapconn

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"golang.org/x/sync/errgroup"

	"mailstow/mailbox"
)

// The sizes of one FETCH command, and how many may be under way at once.
// A server spends much on each command (Dovecot 100 ms in a large mailbox),
// so there are few; a lost connection costs what is in flight.
const (
	maxPerCommand    = 500
	maxOctets        = 32 << 20
	maxSetLength     = 8000 // octets of a UID set; Dovecot takes 64 KiB, others less
	commandsInFlight = 2
)

// Describe fills in size, date and content name of messages as the server
// tells them. What the server does not tell stays as it is.
func (c *Conn) Describe(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message) error {
	byUID, sel, err := c.open(ctx, m, msgs)
	if err != nil {
		return err
	}
	if _, err := sel.wait(ctx); err != nil {
		return err
	}
	items := &imap.FetchOptions{UID: true, InternalDate: true, RFC822Size: true}
	for set := range uidSets(msgs, c.most(20*maxPerCommand)) {
		err := c.each(ctx, set, items, func(b *imapclient.FetchMessageBuffer) {
			msg := byUID[b.UID]
			if msg == nil {
				return
			}
			msg.InternalDate, msg.Object = utc(b.InternalDate), c.wire.Object(uint32(b.UID))
			if b.RFC822Size > 0 {
				msg.Size = b.RFC822Size
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// most bounds the messages of a command by what the server allows.
func (c *Conn) most(n int) int {
	if limit := int(c.messageLimit()); limit > 0 {
		return min(n, limit)
	}
	return n
}

// maxHeader bounds a header block that is read whole. A message with a longer
// one is downloaded instead of being recognised.
const maxHeader = 1 << 20

// Headers calls fn with the header block of messages, in the server's order.
// It is called once at a time, and not for what the server leaves out.
func (c *Conn) Headers(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error {
	section := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, Peek: true}
	return c.fetch(ctx, m, msgs, section, func(msg mailbox.Message, size int64, r io.Reader) error {
		if size > maxHeader {
			_, err := io.Copy(io.Discard, r)
			return err
		}
		block := make([]byte, size)
		if _, err := io.ReadFull(r, block); err != nil {
			return err
		}
		return fn(msg, block)
	})
}

// Fetch calls fn with each message's content: its size as announced with the
// octets, and the octets. It is called once at a time, perhaps on another
// goroutine, and not for what the server leaves out; the reader is valid
// until it returns and fails if the connection is lost inside the message.
// If fn returns an error, Fetch closes the connection and returns that error.
// No message is marked as read.
func (c *Conn) Fetch(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error {
	// BODY.PEEK leaves \Seen alone: RFC 9051 section 6.4.5.
	return c.fetch(ctx, m, msgs, &imap.FetchItemBodySection{Peek: true}, fn)
}

func (c *Conn) fetch(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, section *imap.FetchItemBodySection, fn func(mailbox.Message, int64, io.Reader) error) error {
	byUID, sel, err := c.open(ctx, m, msgs)
	if err != nil {
		return err
	}
	// The server may answer a command before the one that came before it is
	// done, so each is drained by a goroutine of its own, and none is sent
	// before its goroutine runs.
	var oneAtATime sync.Mutex
	var g errgroup.Group
	g.SetLimit(commandsInFlight)
	for set := range uidSets(msgs, c.most(maxPerCommand)) {
		if c.wire.Err() != nil || sel.failed.Load() {
			break
		}
		g.Go(func() error {
			cmd := c.client.Fetch(set, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}})
			err := c.drain(cmd, func(uid imap.UID, size int64, r io.Reader) error {
				oneAtATime.Lock()
				defer oneAtATime.Unlock()
				if _, err := sel.wait(ctx); err != nil { // these are another mailbox's
					return nil
				}
				msg := byUID[uid]
				if msg == nil { // not asked for, or the second body under this UID
					return nil
				}
				delete(byUID, uid)
				return fn(*msg, size, r)
			})
			if errors.As(err, new(*stopError)) {
				return err
			}
			return c.explain(ctx, err)
		})
	}
	err = g.Wait()
	var stop *stopError
	if errors.As(err, &stop) {
		return stop.error
	}
	if _, selErr := sel.wait(ctx); selErr != nil {
		return selErr
	}
	if err == nil && c.wire.Err() != nil { // then not everything was asked for
		err = c.explain(ctx, c.wire.Err())
	}
	return err
}

// stopError is the error of a caller that wants no more.
type stopError struct{ error }

// drain reads the bodies that a FETCH command brings.
func (c *Conn) drain(cmd *imapclient.FetchCommand, fn func(imap.UID, int64, io.Reader) error) error {
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		var uid imap.UID
		for item := msg.Next(); item != nil; item = msg.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataUID:
				uid = item.UID
			case imapclient.FetchItemDataBodySection:
				if item.Literal == nil { // NIL
					continue
				}
				body := &exactReader{r: item.Literal, left: item.Literal.Size()}
				err := fn(uid, item.Literal.Size(), body)
				if err == nil {
					_, err = io.Copy(io.Discard, body)
				}
				if err != nil {
					c.abort(cmd, body)
					return &stopError{err}
				}
			}
		}
	}
	return cmd.Close()
}

// abort gives up a FETCH whose current literal is body.
//
// The library's decoder waits until every literal that it has announced is
// read, so the literal is read to its end, which is near once the connection
// is closed. If it ends early, the decoder has moved on, and the command must
// not be touched: it would read the literal once more and race with it.
func (c *Conn) abort(cmd *imapclient.FetchCommand, body *exactReader) {
	c.wire.Close()
	io.Copy(io.Discard, body)
	if !body.cut() {
		cmd.Close()
	}
}

// open selects a mailbox, read-only, unless it is, and returns messages by
// their UIDs. They are the mailbox's own if wait says so.
func (c *Conn) open(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message) (map[imap.UID]*mailbox.Message, *selection, error) {
	byUID := make(map[imap.UID]*mailbox.Message, len(msgs))
	var validity uint32
	for i := range msgs {
		v, uid, err := parseID(msgs[i].ID)
		if err != nil {
			return nil, nil, err
		}
		if i > 0 && v != validity {
			return nil, nil, mailbox.ErrRebuilt
		}
		validity, byUID[uid] = v, &msgs[i]
	}
	sel := c.selected
	if sel == nil || sel.wire != m.Wire || sel.failed.Load() {
		var err error
		if sel, err = c.examine(m); err != nil {
			return nil, nil, err
		}
	}
	sel.want = &validity
	return byUID, sel, nil
}

// uidSets cuts messages into sets for one command each.
func uidSets(msgs []mailbox.Message, most int) iter.Seq[imap.UIDSet] {
	return func(yield func(imap.UIDSet) bool) {
		var set imap.UIDSet
		count, octets := 0, int64(0)
		for _, msg := range msgs {
			_, uid, _ := parseID(msg.ID)
			set.AddNum(uid)
			count++
			octets += max(msg.Size, 0)
			if count == most || octets >= maxOctets || count%50 == 0 && len(set.String()) > maxSetLength-600 {
				if !yield(set) {
					return
				}
				set, count, octets = nil, 0, 0
			}
		}
		if count > 0 {
			yield(set)
		}
	}
}

// exactReader reads a literal and fails with io.ErrUnexpectedEOF if it ends
// early. go-imap ends a literal with a plain io.EOF when the connection is
// lost inside it, and a message cut short must not pass for a short message.
type exactReader struct {
	r     io.Reader
	left  int64 // octets still to come
	ended bool  // r has returned an error; go-imap forbids reading on
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.ended {
		return 0, io.EOF
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	e.ended = err != nil
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// cut reports whether the connection was lost inside the literal.
func (e *exactReader) cut() bool { return e.ended && e.left > 0 }
