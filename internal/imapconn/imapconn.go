// Package imapconn talks to one account on an IMAP server.
//
// Nothing outside this package imports go-imap, but for servers in tests and
// in the demo.
package imapconn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailstow/internal/imapwire"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
	"mailstow/mailbox"
)

// Conn is a logged-in connection. It is used by one goroutine at a time.
type Conn struct {
	wire   *imapwire.Conn
	client *imapclient.Client

	told      map[string]mailbox.State // by LIST, by the server's spelling
	selected  *selection               // nil if no mailbox is
	flagLists map[string][]string
	own       *[2]string // what the user's own mailboxes begin with, and their delimiter; nil until asked for
}

// Dial connects and logs in. The connection is closed when ctx ends.
func Dial(ctx context.Context, e netconn.Endpoint, login sasl.Login) (*Conn, error) {
	wire, err := imapwire.Dial(ctx, e, login, imapwire.Auto)
	if err != nil {
		return nil, err
	}
	c := &Conn{
		wire: wire, client: imapclient.New(wire, nil),
		told: map[string]mailbox.State{}, flagLists: map[string][]string{},
	}
	if err := c.client.WaitGreeting(); err != nil {
		c.wire.Close()
		return nil, err
	}
	return c, nil
}

// logoutTimeout bounds the wait for an answer that nothing depends on.
const logoutTimeout = 5 * time.Second

// Close logs out, if the work is finished, and closes the connection. What
// was read before is not in doubt whatever the server answers.
func (c *Conn) Close(finished bool) error {
	if finished && c.wire.Err() == nil {
		stop := time.AfterFunc(logoutTimeout, func() { c.wire.Close() })
		defer stop.Stop()
		c.client.Logout().Wait()
	}
	c.wire.Close()
	return c.client.Close()
}

// Protocol returns [mailbox.IMAP].
func (c *Conn) Protocol() mailbox.Protocol { return mailbox.IMAP }

// selection is a mailbox that is being, or has been, selected.
type selection struct {
	wire string
	cmd  *imapclient.SelectCommand
	conn *Conn
	want *uint32 // the UIDVALIDITY that is expected, nil for any

	readOnly bool

	once   sync.Once
	data   *imap.SelectData
	err    error
	failed atomic.Bool
}

// examine asks to select a mailbox, read-only; the answer need not be waited
// for before more is asked.
func (c *Conn) examine(m mailbox.Mailbox) (*selection, error) { return c.choose(m, true) }

// choose asks to select a mailbox.
func (c *Conn) choose(m mailbox.Mailbox, readOnly bool) (*selection, error) {
	if !sendable(m) {
		return nil, retry.Refused(errors.New("its name has a line end or a NUL in it, which cannot be sent"))
	}
	options := &imap.SelectOptions{ReadOnly: readOnly, CondStore: c.wire.HasCap("CONDSTORE")}
	c.selected = &selection{wire: m.Wire, cmd: c.client.Select(c.wire.Shown(m.Wire), options), conn: c, readOnly: readOnly}
	return c.selected, nil
}

// wait returns how the mailbox was when it was selected. It is an error if
// that is not the one that was meant.
func (s *selection) wait(ctx context.Context) (*imap.SelectData, error) {
	s.once.Do(func() {
		data, err := s.cmd.Wait()
		s.data, s.err = data, s.conn.explain(ctx, err)
		s.failed.Store(s.err != nil)
	})
	if s.err == nil && s.want != nil && *s.want != s.data.UIDValidity {
		s.failed.Store(true)
		return nil, mailbox.ErrRebuilt
	}
	return s.data, s.err
}

// sendable reports whether a mailbox can be named in a command.
func sendable(m mailbox.Mailbox) bool { return !strings.ContainsAny(m.Wire, "\r\n\x00") }

// messageLimit is how many messages a command may name, 0 for any number
// (RFC 9738).
func (c *Conn) messageLimit() uint32 {
	limit, _ := strconv.ParseUint(c.wire.CapValue("MESSAGELIMIT"), 10, 31)
	return uint32(limit)
}

// each calls f for every message of a FETCH that asks for no body.
func (c *Conn) each(ctx context.Context, set imap.NumSet, items *imap.FetchOptions, f func(*imapclient.FetchMessageBuffer)) error {
	cmd := c.client.Fetch(set, items)
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		b, err := msg.Collect()
		if err != nil {
			break // Close returns the reason
		}
		f(b)
	}
	return c.explain(ctx, cmd.Close())
}

// explain tells a refused command from a lost connection, and says why the
// connection was lost.
func (c *Conn) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var answer *imap.Error
	if errors.As(err, &answer) && strings.Contains(strings.ToLower(answer.Text), "authenticated but not connected") { // Exchange: the session is of no use
		return retry.Busy(answered{answer}, 0)
	}
	if answer != nil {
		return retry.MarkBusy(retry.Refused(answered{answer}), answered{answer}.Error())
	}
	if cause := c.wire.Err(); cause != nil {
		return cause
	}
	return err
}

// answered shows a server's NO or BAD as it stood on the wire.
type answered struct{ err *imap.Error }

func (a answered) Error() string {
	text := a.err.Text
	if a.err.Code != "" {
		text = "[" + string(a.err.Code) + "] " + text
	}
	return string(a.err.Type) + " " + text
}

func formatID(validity uint32, uid imap.UID) mailbox.ID {
	return mailbox.ID(strconv.FormatUint(uint64(validity), 10) + ":" + strconv.FormatUint(uint64(uid), 10))
}

func parseID(id mailbox.ID) (validity uint32, uid imap.UID, err error) {
	v, u, _ := strings.Cut(string(id), ":")
	v64, err1 := strconv.ParseUint(v, 10, 32)
	u64, err2 := strconv.ParseUint(u, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("%q is no ID of an IMAP message", id)
	}
	return uint32(v64), imap.UID(u64), nil
}
