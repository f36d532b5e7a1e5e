package imapconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// ErrTooMuch is returned when a server lists far more than it can have.
var ErrTooMuch = errors.New("the server lists without end")

// maxMessages bounds the messages of a mailbox.
const maxMessages = 10_000_000

// maxAhead bounds the messages for which room is made before they are listed.
const maxAhead = 500_000

// maxMailboxes bounds the mailboxes of an account, and unannounced messages
// of one of them.
const maxMailboxes = 100_000

// useful are capabilities of which use is made.
var useful = []string{"CONDSTORE", "QRESYNC", "IDLE", "UIDPLUS", "MOVE", "QUOTA", "STATUS=SIZE", "SPECIAL-USE", "OBJECTID", "X-GM-EXT-1", "COMPRESS=DEFLATE", "MULTIAPPEND", "LITERAL+", "LITERAL-"}

// Session says how the server can be spoken to.
func (c *Conn) Session() mailbox.Session {
	return mailbox.Session{TLS: c.wire.TLS(), Offers: slices.DeleteFunc(slices.Clone(useful), func(name string) bool { return !c.wire.HasCap(name) })}
}

// Mailboxes returns the mailboxes that can hold messages.
func (c *Conn) Mailboxes(ctx context.Context) ([]mailbox.Mailbox, error) {
	cmd := c.client.List("", "*", c.listOptions())
	var list []*imap.ListData
	for l := cmd.Next(); l != nil; l = cmd.Next() {
		if list = append(list, l); len(list) > maxMailboxes {
			c.wire.Close()
			cmd.Close() // the library waits until all that it has read is taken
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
			if s, ok := stateOf(l.Status); ok {
				c.told[m.Wire] = s
			}
		}
	}
	return found, nil
}

// listOptions asks for roles and states along with the names, where that can
// be done (RFC 6154, RFC 5819).
func (c *Conn) listOptions() *imap.ListOptions {
	var o imap.ListOptions
	if c.wire.HasCap("LIST-EXTENDED") {
		o.ReturnSpecialUse = c.wire.HasCap("SPECIAL-USE")
		if c.wire.HasCap("LIST-STATUS") {
			o.ReturnStatus = c.stateItems()
		}
	}
	return &o
}

func (c *Conn) stateItems() *imap.StatusOptions {
	return &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, HighestModSeq: c.wire.HasCap("CONDSTORE")}
}

// stateOf reads a STATUS; ok is false if it does not tell enough.
func stateOf(s *imap.StatusData) (state mailbox.State, ok bool) {
	if s == nil || s.NumMessages == nil || s.UIDNext == 0 || s.UIDValidity == 0 {
		return state, false
	}
	return mailbox.State{UIDValidity: s.UIDValidity, UIDNext: uint32(s.UIDNext), HighestModSeq: modSeq(s.HighestModSeq), Exists: int(*s.NumMessages)}, true
}

// statusInFlight is how many STATUS commands may be under way at once.
const statusInFlight = 100

// States returns how mailboxes stand, by their spelling on the server: as it
// told with the last call of [Conn.Mailboxes], or by STATUS. Those for which
// it does not tell enough are left out.
func (c *Conn) States(ctx context.Context, boxes []mailbox.Mailbox) (map[string]mailbox.State, error) {
	if c.wire.HasCap("LIST-STATUS") && c.wire.HasCap("LIST-EXTENDED") {
		return c.told, nil
	}
	states := map[string]mailbox.State{}
	type asked struct {
		wire string
		cmd  *imapclient.StatusCommand
	}
	for some := range slices.Chunk(boxes, statusInFlight) {
		var all []asked
		for _, m := range some {
			if sendable(m) {
				all = append(all, asked{m.Wire, c.client.Status(c.wire.Shown(m.Wire), c.stateItems())})
			}
		}
		for _, a := range all {
			data, err := a.cmd.Wait()
			if err = c.explain(ctx, err); err != nil && !retry.IsRefused(err) {
				return nil, err
			}
			if s, ok := stateOf(data); ok && err == nil {
				states[a.wire] = s
			}
		}
	}
	return states, nil
}

func (c *Conn) mailbox(l *imap.ListData) mailbox.Mailbox {
	raw, decoded := c.wire.Raw(l.Mailbox)
	name := l.Mailbox
	if !decoded {
		name = raw
	}
	m := mailbox.Mailbox{Wire: raw, Role: role(l)}
	if l.Delim != 0 {
		m.Delimiter = string(l.Delim)
	}
	m.Name = splitName(name, m.Delimiter)
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

// The items of a listing. The size brings the name of the content with it.
var (
	brief = &imap.FetchOptions{UID: true, Flags: true}
	full  = &imap.FetchOptions{UID: true, Flags: true, InternalDate: true, RFC822Size: true}
)

// List asks for the UID and flags of every message in a mailbox, with details
// for size, date and content name too. told is how the mailbox stood by
// [Conn.States] on any connection: if there was something in it, the question
// need not wait for the mailbox to be open.
func (c *Conn) List(ctx context.Context, m mailbox.Mailbox, told mailbox.State, details bool) (mailbox.Listing, error) {
	items := brief
	if details {
		items = full
	}
	sel, err := c.examine(m)
	if err != nil {
		return mailbox.Listing{}, err
	}
	var l mailbox.Listing
	var once unique
	add := func(b *imapclient.FetchMessageBuffer) {
		switch {
		case !once.add(b.UID, l.Messages):
		case len(l.Messages) > min(c.wire.Exists()+maxMailboxes, maxMessages):
			c.wire.Close()
		default:
			if l.Messages == nil {
				l.Messages = make([]mailbox.Message, 0, min(max(c.wire.Exists(), 1), maxAhead))
			}
			l.Messages = append(l.Messages, c.message(ctx, sel, b))
		}
	}
	// By sequence numbers: the server must not tell that others leave while
	// it answers a FETCH of these (RFC 9051 section 7.5.1), so that what it
	// names is what it has counted.
	limit := c.messageLimit()
	early := told.Exists > 0 && limit == 0
	if early { // no need to wait for EXAMINE's answer
		err = c.each(ctx, imap.SeqSet{{Start: 1, Stop: 0}}, items, add)
	}
	data, selErr := sel.wait(ctx)
	if selErr != nil {
		return mailbox.Listing{}, selErr
	}
	if early && data.NumMessages == 0 && retry.IsRefused(err) {
		err = nil // it has been emptied since it was told
	}
	if limit == 0 {
		limit = data.NumMessages
	}
	for first := int64(1); first <= int64(data.NumMessages) && !early && err == nil; first += int64(limit) {
		before := len(l.Messages)
		last := min(first+int64(limit)-1, int64(data.NumMessages))
		err = c.each(ctx, imap.SeqSet{{Start: uint32(first), Stop: uint32(last)}}, items, add)
		if len(l.Messages) == before {
			break // the count is not true
		}
	}
	if err != nil {
		return mailbox.Listing{}, err
	}
	l.State = stateAt(data)
	l.Exists = int(data.NumMessages)
	if now := c.wire.Exists(); l.Exists < len(l.Messages) && len(l.Messages) <= now { // mail has come meanwhile
		l.Exists = len(l.Messages)
	}
	return l, nil
}

// unique tells UIDs that come for the first time. Servers name them in order,
// so that there is little to be remembered.
type unique struct {
	last imap.UID
	all  map[imap.UID]bool // nil while they come in order
}

// add notes a UID, before which those of msgs have come.
func (u *unique) add(uid imap.UID, msgs []mailbox.Message) (first bool) {
	if uid == 0 || uid == u.last {
		return false
	}
	if u.all == nil && uid > u.last {
		u.last = uid
		return true
	}
	if u.all == nil {
		u.all = map[imap.UID]bool{}
		for _, m := range msgs {
			_, before, _ := parseID(m.ID)
			u.all[before] = true
		}
	}
	first = !u.all[uid]
	u.all[uid] = true
	return first
}

// Changes asks what has changed in a mailbox since it stood as it did
// (RFC 7162): the messages that are new or have other flags, with size, date
// and content name, and those that have vanished, if the server can tell.
func (c *Conn) Changes(ctx context.Context, m mailbox.Mailbox, since mailbox.State) (mailbox.Changes, error) {
	if c.messageLimit() > 0 { // a part of the changes may be all that it tells
		return mailbox.Changes{}, retry.Refused(errors.ErrUnsupported)
	}
	sel, err := c.examine(m)
	if err != nil {
		return mailbox.Changes{}, err
	}
	items := *full
	items.ChangedSince = since.HighestModSeq
	var changes mailbox.Changes
	err = c.each(ctx, imap.UIDSet{{Start: 1, Stop: 0}}, &items, func(b *imapclient.FetchMessageBuffer) {
		switch {
		case b.UID == 0:
		case len(changes.Messages) > min(c.wire.Exists()+maxMailboxes, maxMessages):
			c.wire.Close()
		default:
			changes.Messages = append(changes.Messages, c.message(ctx, sel, b))
		}
	})
	data, selErr := sel.wait(ctx)
	switch {
	case selErr != nil:
		return mailbox.Changes{}, selErr
	case err != nil:
		return mailbox.Changes{}, err
	case data.UIDValidity != since.UIDValidity:
		return mailbox.Changes{}, mailbox.ErrRebuilt
	}
	changes.State = stateAt(data)
	changes.Exists = c.wire.Exists()
	if gone, tells := c.wire.Vanished(); tells {
		slices.SortFunc(gone, func(a, b [2]uint32) int { return cmp.Compare(a[0], b[0]) })
		for i := 1; i < len(gone); i++ { // so that the ends are in order too
			gone[i][1] = max(gone[i][1], gone[i-1][1])
		}
		changes.Vanished = func(id mailbox.ID) bool {
			validity, uid, err := parseID(id)
			return err == nil && (validity != data.UIDValidity || within(gone, uint32(uid)))
		}
	}
	return changes, nil
}

// within reports whether one of the ranges, in order of their firsts and with
// lasts that never become less, has n in it.
func within(ranges [][2]uint32, n uint32) bool {
	i, exact := slices.BinarySearchFunc(ranges, n, func(r [2]uint32, n uint32) int { return cmp.Compare(r[0], n) })
	return exact || i > 0 && n <= ranges[i-1][1]
}

func stateAt(s *imap.SelectData) mailbox.State {
	return mailbox.State{UIDValidity: s.UIDValidity, UIDNext: uint32(s.UIDNext), HighestModSeq: modSeq(s.HighestModSeq)}
}

// modSeq returns a mod-sequence, 0 for what can be none (RFC 7162 section 7:
// they have 63 bits).
func modSeq(n uint64) uint64 {
	if n > math.MaxInt64 {
		return 0
	}
	return n
}

// message is what a server tells of a message in a mailbox. The answer to
// EXAMINE has come before.
func (c *Conn) message(ctx context.Context, sel *selection, b *imapclient.FetchMessageBuffer) mailbox.Message {
	data, err := sel.wait(ctx)
	if err != nil {
		data = &imap.SelectData{}
	}
	m := mailbox.Message{ID: formatID(data.UIDValidity, b.UID), Size: -1, InternalDate: utc(b.InternalDate), Flags: c.flags(b.Flags), Object: c.wire.Object(uint32(b.UID))}
	if b.RFC822Size > 0 {
		m.Size = b.RFC822Size
	}
	return m
}

// utc returns the same moment without the server's time zone, of which there
// would be one for each message.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// flags spells flags as in IMAP; \Recent is no flag of the message's. Equal
// lists are one.
func (c *Conn) flags(list []imap.Flag) []string {
	var out []string
	for _, f := range list {
		if !strings.EqualFold(string(f), `\Recent`) {
			out = append(out, string(f))
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	key := strings.Join(out, " ")
	if same, ok := c.flagLists[key]; ok {
		return same
	}
	if len(c.flagLists) < maxFlagLists && len(key) < maxFlagKey {
		c.flagLists[key] = out
	}
	return out
}

// Bounds of the lists of flags that are shared, in number and octets.
const (
	maxFlagLists = 10_000
	maxFlagKey   = 1000
)
