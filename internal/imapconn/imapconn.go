// Package imapconn talks to one account on an IMAP server.
//
// Nothing outside this package imports go-imap, but for servers in tests and
// in the demo.
package imapconn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailstow/internal/imapwire"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// ErrTooMuch is returned when a server lists far more than it can have.
var ErrTooMuch = errors.New("the server lists without end")

// maxMailboxes bounds the mailboxes of an account, and unannounced messages
// of one of them.
const maxMailboxes = 100_000

// Conn is a logged-in connection. It is used by one goroutine at a time.
type Conn struct {
	wire   *imapwire.Conn
	client *imapclient.Client
	shown  map[string]string // mailbox: the server's spelling -> what go-imap calls it
}

// Dial connects and logs in. The connection is closed when ctx ends.
func Dial(ctx context.Context, e netconn.Endpoint, login imapwire.Login) (*Conn, error) {
	wire, err := imapwire.Dial(ctx, e, login)
	if err != nil {
		return nil, err
	}
	c := &Conn{wire: wire, client: imapclient.New(wire, nil), shown: map[string]string{}}
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

// Mailboxes returns the mailboxes that can hold messages.
func (c *Conn) Mailboxes(ctx context.Context) ([]mailbox.Mailbox, error) {
	var options *imap.ListOptions
	if c.wire.HasCap("SPECIAL-USE") && c.wire.HasCap("LIST-EXTENDED") {
		options = &imap.ListOptions{ReturnSpecialUse: true}
	}
	cmd := c.client.List("", "*", options)
	var list []*imap.ListData
	for l := cmd.Next(); l != nil; l = cmd.Next() {
		if list = append(list, l); len(list) > maxMailboxes {
			c.wire.Close()
			return nil, ErrTooMuch
		}
	}
	if err := cmd.Close(); err != nil {
		return nil, fmt.Errorf("list mailboxes: %w", c.explain(ctx, err))
	}
	var found []mailbox.Mailbox
	for _, l := range list {
		if slices.Contains(l.Attrs, imap.MailboxAttrNoSelect) || slices.Contains(l.Attrs, imap.MailboxAttrNonExistent) {
			continue
		}
		m := c.mailbox(l)
		if !slices.ContainsFunc(found, func(f mailbox.Mailbox) bool { return f.Wire == m.Wire }) {
			found = append(found, m)
		}
	}
	return found, nil
}

func (c *Conn) mailbox(l *imap.ListData) mailbox.Mailbox {
	raw, repaired := c.wire.RawName(l.Mailbox)
	name := l.Mailbox
	if repaired {
		name = raw
	} else {
		raw = l.Mailbox // go-imap's decoding and encoding are each other's inverse here
	}
	m := mailbox.Mailbox{Wire: raw, Role: role(l)}
	if l.Delim != 0 {
		m.Delimiter = string(l.Delim)
	}
	m.Name = splitName(name, m.Delimiter)
	c.shown[raw] = l.Mailbox
	return m
}

// splitName makes a Name; the first level INBOX is spelled so whatever its
// case (RFC 9051 section 5.1).
func splitName(name, delimiter string) mailbox.Name {
	elems := []string{name}
	if delimiter != "" {
		elems = strings.Split(name, delimiter)
	}
	if strings.EqualFold(elems[0], "INBOX") {
		elems[0] = "INBOX"
	}
	return mailbox.NewName(elems...)
}

// roles are the special uses that a mailbox may have (RFC 6154, RFC 8457).
var roles = []string{`\All`, `\Archive`, `\Drafts`, `\Flagged`, `\Important`, `\Junk`, `\Sent`, `\Trash`}

func role(l *imap.ListData) string {
	for _, attr := range l.Attrs {
		for _, r := range roles {
			if strings.EqualFold(string(attr), r) {
				return r
			}
		}
	}
	return ""
}

// List asks for the UID and flags of every message in a mailbox. Sizes and
// dates come from [Conn.Describe].
func (c *Conn) List(ctx context.Context, m mailbox.Mailbox) (mailbox.Listing, error) {
	sel, err := c.examine(ctx, m)
	if err != nil {
		return mailbox.Listing{}, err
	}
	l := mailbox.Listing{
		UIDValidity:   sel.UIDValidity,
		UIDNext:       uint32(sel.UIDNext),
		HighestModSeq: sel.HighestModSeq,
	}
	seen := map[imap.UID]bool{}
	add := func(b *imapclient.FetchMessageBuffer) {
		if b.UID == 0 || seen[b.UID] {
			return
		}
		seen[b.UID] = true
		if len(l.Messages) > c.wire.Exists()+maxMailboxes {
			c.wire.Close()
			return
		}
		l.Messages = append(l.Messages, mailbox.Message{ID: formatID(sel.UIDValidity, b.UID), Size: -1, Flags: flags(b.Flags)})
	}
	if sel.NumMessages > 0 {
		err = c.each(ctx, imap.UIDSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, Flags: true}, add)
	}
	if err != nil {
		return mailbox.Listing{}, err
	}
	l.Exists = c.wire.Exists() // now: mail may have come or gone meanwhile
	return l, nil
}

// flags spells flags as in IMAP; \Recent is no flag of the message's.
func flags(list []imap.Flag) []string {
	var out []string
	for _, f := range list {
		if s := string(f); !strings.EqualFold(s, `\Recent`) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

func (c *Conn) examine(ctx context.Context, m mailbox.Mailbox) (*imap.SelectData, error) {
	if strings.ContainsAny(m.Wire, "\r\n\x00") {
		return nil, retry.Refused(errors.New("its name has a line end or a NUL in it, which cannot be sent"))
	}
	shown, ok := c.shown[m.Wire]
	if !ok {
		shown = m.Wire
	}
	sel, err := c.client.Select(shown, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	return sel, nil
}

// each calls f for every message of a FETCH that asks for no body.
func (c *Conn) each(ctx context.Context, set imap.UIDSet, items *imap.FetchOptions, f func(*imapclient.FetchMessageBuffer)) error {
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
	if errors.As(err, &answer) {
		return retry.Refused(answered{answer})
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
