package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing/iotest"
	"time"

	"mailstow/backup"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// server is a mail server in memory. Its faults are functions that a test
// sets.
type server struct {
	protocol mailbox.Protocol
	validity uint32
	boxes    []*box

	transient bool // there is no UIDL
	condstore bool // HIGHESTMODSEQ is kept (RFC 7162)
	qresync   bool // it is told what has vanished

	mu       sync.Mutex
	opened   []string // boxes that were listed, or asked for changes
	logins   int
	finished int                    // sessions that ended in good order
	fetched  int                    // bodies that were sent
	login    func(n int) error      // nil: let in
	refuse   func(mailbox.ID) error // an error in place of a body
	lose     func(mailbox.ID) bool  // the connection is lost inside a body
	omit     func(mailbox.ID) bool  // the body is left out, with OK
	alter    func(id mailbox.ID, times int, body string) string
	size     func(body string) int64 // what is announced
	times    map[mailbox.ID]int      // how often a body was asked for
	onFetch  func()                  // before a FETCH is answered
	slow     func(mailbox.ID)        // called inside a body
	onList   func(name string) error // called before a box is listed
	headers  error                   // the answer to all questions for headers
	closing  func()                  // called while a connection is closed
}

// slowly calls a function once, and has nothing to read.
type slowly struct {
	f  func(mailbox.ID)
	id mailbox.ID
}

func (s *slowly) Read([]byte) (int, error) {
	s.f(s.id)
	return 0, io.EOF
}

type box struct {
	name     string
	messages []message
	exists   int // what the server says it has, if it is not the truth
	refused  error
	dies     bool // the connection is lost when it is listed
	modseq   uint64
	gone     []int // UIDs that were expunged
}

type message struct {
	uid    int
	text   string
	flags  []string
	modseq uint64
	object string // EMAILID
	gone   bool   // expunged, but its body is still answered
}

// change gives a message other flags.
func (b *box) change(i int, flags ...string) {
	b.modseq++
	b.messages[i].flags, b.messages[i].modseq = flags, b.modseq
}

// append delivers a message.
func (b *box) append(uid int) {
	b.modseq++
	b.messages = append(b.messages, message{uid: uid, text: text(uid), modseq: b.modseq})
}

// expunge removes a message.
func (b *box) expunge(i int) {
	b.modseq++
	b.gone = append(b.gone, b.messages[i].uid)
	b.messages = slices.Delete(b.messages, i, i+1)
}

var errLost = errors.New("connection reset by peer")

func (s *server) open(context.Context) (backup.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins++
	if s.login != nil {
		if err := s.login(s.logins); err != nil {
			return nil, err
		}
	}
	return &session{s: s}, nil
}

type session struct {
	s    *server
	lost bool
}

func (c *session) Protocol() mailbox.Protocol {
	if c.s.protocol == "" {
		return mailbox.IMAP
	}
	return c.s.protocol
}

func (c *session) Close(finished bool) error {
	if c.s.closing != nil {
		c.s.closing()
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if finished {
		c.s.finished++
	}
	return nil
}

func (c *session) Mailboxes(context.Context) (all []mailbox.Mailbox, err error) {
	for _, b := range c.s.boxes {
		all = append(all, mailbox.Mailbox{Name: mailbox.NewName(strings.Split(b.name, "/")...), Wire: b.name, Delimiter: "/"})
	}
	return all, nil
}

func (s *server) box(m mailbox.Mailbox) *box {
	i := slices.IndexFunc(s.boxes, func(b *box) bool { return b.name == m.Wire })
	return s.boxes[i]
}

func (s *server) id(m message) mailbox.ID { return mailbox.ID(fmt.Sprintf("%d:%d", s.validity, m.uid)) }

// state is what STATUS tells.
func (s *server) state(b *box) mailbox.State {
	state := mailbox.State{UIDValidity: s.validity, UIDNext: 1, Exists: len(b.messages)}
	if b.exists != 0 {
		state.Exists = b.exists
	}
	for _, m := range b.messages {
		state.UIDNext = max(state.UIDNext, uint32(m.uid)+1)
	}
	if s.condstore {
		state.HighestModSeq = b.modseq + 1
	}
	return state
}

func (c *session) States(context.Context, []mailbox.Mailbox) (map[string]mailbox.State, error) {
	states := map[string]mailbox.State{}
	for _, b := range c.s.boxes {
		if c.s.condstore && b.refused == nil && !b.dies {
			states[b.name] = c.s.state(b)
		}
	}
	return states, nil
}

func (c *session) Changes(_ context.Context, m mailbox.Mailbox, since mailbox.State) (mailbox.Changes, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	b := c.s.box(m)
	c.s.opened = append(c.s.opened, "changes "+b.name)
	ch := mailbox.Changes{State: c.s.state(b)}
	if ch.UIDValidity != since.UIDValidity {
		return ch, mailbox.ErrRebuilt
	}
	for _, msg := range b.messages {
		if msg.modseq+1 > since.HighestModSeq {
			ch.Messages = append(ch.Messages, mailbox.Message{ID: c.s.id(msg), Size: int64(len(msg.text)), Flags: msg.flags, InternalDate: msg.date(), Object: msg.object})
		}
	}
	if c.s.qresync {
		gone := slices.Clone(b.gone)
		ch.Vanished = func(id mailbox.ID) bool {
			return slices.ContainsFunc(gone, func(uid int) bool { return id == c.s.id(message{uid: uid}) })
		}
	}
	return ch, nil
}

// date is the INTERNALDATE of a message. Copies of one content have the same.
func (m message) date() time.Time {
	if m.object != "" {
		return time.Unix(1700000000, 0)
	}
	return time.Unix(1700000000+int64(m.uid), 0)
}

func (c *session) List(ctx context.Context, m mailbox.Mailbox, _ mailbox.State, details bool) (mailbox.Listing, error) {
	if c.s.onList != nil {
		if err := c.s.onList(m.Wire); err != nil {
			return mailbox.Listing{}, err
		}
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	b := c.s.box(m)
	c.s.opened = append(c.s.opened, "list "+b.name)
	if b.dies {
		c.lost = true
	}
	if c.lost {
		return mailbox.Listing{}, errLost
	}
	if b.refused != nil {
		return mailbox.Listing{}, b.refused
	}
	l := mailbox.Listing{State: c.s.state(b)}
	for _, msg := range b.messages {
		if msg.gone {
			l.Exists--
			continue
		}
		l.Messages = append(l.Messages, mailbox.Message{ID: c.s.id(msg), Size: -1, Flags: msg.flags, Transient: c.s.transient})
	}
	if details {
		return l, c.Describe(ctx, m, l.Messages)
	}
	return l, nil
}

func (c *session) Describe(_ context.Context, m mailbox.Mailbox, msgs []mailbox.Message) error {
	for i := range msgs {
		if msg, ok := c.find(m, msgs[i].ID); ok {
			msgs[i].Size, msgs[i].InternalDate, msgs[i].Object = int64(len(msg.text)), msg.date(), msg.object
			if c.s.size != nil {
				msgs[i].Size = c.s.size(msg.text)
			}
		}
	}
	return nil
}

func (c *session) find(m mailbox.Mailbox, id mailbox.ID) (message, bool) {
	for _, msg := range c.s.box(m).messages {
		if c.s.id(msg) == id {
			return msg, true
		}
	}
	return message{}, false
}

func (c *session) Headers(_ context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error {
	if c.s.headers != nil {
		return c.s.headers
	}
	for _, msg := range msgs {
		if found, ok := c.find(m, msg.ID); ok {
			header, _, _ := strings.Cut(found.text, "\r\n\r\n")
			if err := fn(msg, []byte(header+"\r\n\r\n")); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *session) Fetch(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.lost {
		return errLost
	}
	if s.onFetch != nil {
		s.onFetch()
	}
	if s.refuse != nil {
		for _, msg := range msgs {
			if err := s.refuse(msg.ID); err != nil {
				return retry.MarkBusy(retry.Refused(err), err.Error())
			}
		}
	}
	for _, msg := range msgs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		found, ok := c.find(m, msg.ID)
		if !ok || s.omit != nil && s.omit(msg.ID) {
			continue
		}
		if s.times == nil {
			s.times = map[mailbox.ID]int{}
		}
		s.times[msg.ID]++
		body := found.text
		if s.alter != nil {
			body = s.alter(msg.ID, s.times[msg.ID], body)
		}
		var r io.Reader = strings.NewReader(body)
		if s.lose != nil && s.lose(msg.ID) {
			c.lost = true
			r = io.MultiReader(strings.NewReader(body[:len(body)/2]), iotest.ErrReader(io.ErrUnexpectedEOF))
		}
		s.fetched++
		s.mu.Unlock()
		if s.slow != nil {
			r = io.MultiReader(strings.NewReader(body[:1]), &slowly{s.slow, msg.ID}, strings.NewReader(body[1:]))
		}
		err := fn(msg, int64(len(body)), r)
		s.mu.Lock()
		if err != nil {
			c.lost = true
			return err
		}
		if c.lost {
			return errLost
		}
	}
	return nil
}

func text(n int) string {
	return fmt.Sprintf("Subject: message %d\r\nMessage-ID: <%d@example.org>\r\n\r\n%s", n, n, strings.Repeat(fmt.Sprintf("line of %d\r\n", n), n%7+1))
}

// numbered makes a box with messages from first to last.
func numbered(name string, first, last int) *box {
	b := &box{name: name}
	for n := first; n <= last; n++ {
		b.messages = append(b.messages, message{uid: n, text: text(n)})
	}
	return b
}
