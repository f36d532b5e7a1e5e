package trim_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/internal/retry"
	"mailstow/mailbox"
	"mailstow/trim"
)

var inbox = mailbox.Mailbox{Name: mailbox.NewName("INBOX"), Wire: "INBOX"}

// letter is a message on the server.
type letter struct {
	uid   int
	body  string
	date  time.Time
	flags []string
}

// server is a mail server in memory. Its faults are functions that a test sets.
type server struct {
	protocol mailbox.Protocol
	ways     mailbox.Ways
	boxes    []mailbox.Mailbox
	mail     map[string][]*letter
	validity uint32
	quota    int64
	quotas   int // how often it tells its quota
	usages   int
	noSizes  bool

	logins, holds int
	log           []string // what it was told to do

	onHold   func(n int) // before a mailbox is opened for the nth time
	removing func(ids []mailbox.ID) (handled bool, r mailbox.Removal, err error)
	serve    func(id mailbox.ID, body string) string  // what is sent in place of a body
	headers  func(id mailbox.ID, block string) string // what is sent in place of a header block
	refuse   func(m mailbox.Mailbox) error            // a mailbox
	size     func(l *letter) int64
}

func newServer(n int) *server {
	s := &server{protocol: mailbox.IMAP, ways: mailbox.Ways{Exactly: true, Move: true}, boxes: []mailbox.Mailbox{inbox}, mail: map[string][]*letter{}, validity: 7, quotas: 9}
	for i := range n {
		s.add("INBOX", fmt.Sprintf("Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 100)), time.Date(2019, 1, 1+i, 0, 0, 0, 0, time.UTC), `\Seen`)
	}
	return s
}

func (s *server) add(box, body string, date time.Time, flags ...string) {
	s.mail[box] = append(s.mail[box], &letter{uid: len(s.mail[box]) + 1, body: body, date: date, flags: flags})
}

func (s *server) id(uid int) mailbox.ID { return mailbox.ID(fmt.Sprintf("%d:%d", s.validity, uid)) }

// flag gives a message of INBOX flags.
func (s *server) flag(uid int, flags ...string) {
	for _, l := range s.mail["INBOX"] {
		if l.uid == uid {
			l.flags = flags
		}
	}
}

func (s *server) uids(box string) (all []int) {
	for _, l := range s.mail[box] {
		all = append(all, l.uid)
	}
	return all
}

func (s *server) remove(box string, ids ...mailbox.ID) {
	s.mail[box] = slices.DeleteFunc(s.mail[box], func(l *letter) bool { return slices.Contains(ids, s.id(l.uid)) })
}

func (s *server) open(context.Context) (trim.Session, error) {
	s.logins++
	return &session{server: s}, nil
}

var errLost = errors.New("connection lost")

type session struct {
	*server
	lost bool
	held mailbox.Mailbox
}

func (s *session) Protocol() mailbox.Protocol { return s.protocol }
func (s *session) Ways() mailbox.Ways         { return s.ways }
func (s *session) Close(bool) error           { s.lost = true; return nil }

func (s *session) Mailboxes(context.Context) ([]mailbox.Mailbox, error) {
	return slices.Clone(s.boxes), nil
}

func (s *session) Usage(_ context.Context, boxes []mailbox.Mailbox) (u mailbox.Usage, err error) {
	if s.lost {
		return u, errLost
	}
	for _, m := range boxes {
		for _, l := range s.mail[m.Wire] {
			u.Messages++
			u.Sizes += int64(len(l.body))
		}
	}
	if s.usages++; s.quota > 0 && s.usages <= s.quotas {
		u.Used, u.Quota = u.Sizes, s.quota
	}
	if s.noSizes {
		u.Sizes = -1
	}
	return u, nil
}

func (s *session) message(l *letter) mailbox.Message {
	m := mailbox.Message{ID: s.id(l.uid), Size: int64(len(l.body)), InternalDate: l.date, Flags: l.flags}
	if s.size != nil {
		m.Size = s.size(l)
	}
	if s.protocol == mailbox.POP3 {
		m.InternalDate, m.Flags = time.Time{}, nil
	}
	return m
}

func (s *session) List(_ context.Context, m mailbox.Mailbox, _ mailbox.State, _ bool) (l mailbox.Listing, err error) {
	if s.lost {
		return l, errLost
	}
	if s.refuse != nil {
		if err := s.refuse(m); err != nil {
			return l, err
		}
	}
	l.UIDValidity, l.Exists = s.validity, len(s.mail[m.Wire])
	if s.protocol == mailbox.POP3 {
		l.UIDValidity = 0
	}
	for _, x := range s.mail[m.Wire] {
		l.Messages = append(l.Messages, s.message(x))
	}
	return l, nil
}

func (s *session) Headers(_ context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error {
	return s.each(m, msgs, func(msg mailbox.Message, body string) error {
		block := body[:strings.Index(body, "\r\n\r\n")+4]
		if s.headers != nil {
			block = s.headers(msg.ID, block)
		}
		return fn(msg, []byte(block))
	})
}

func (s *session) Fetch(_ context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error {
	return s.each(m, msgs, func(msg mailbox.Message, body string) error {
		return fn(msg, int64(len(body)), strings.NewReader(body))
	})
}

func (s *session) each(m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, string) error) error {
	if s.lost {
		return errLost
	}
	for _, l := range s.mail[m.Wire] {
		i := slices.IndexFunc(msgs, func(msg mailbox.Message) bool { return msg.ID == s.id(l.uid) })
		if i < 0 {
			continue
		}
		body := l.body
		if s.serve != nil {
			body = s.serve(msgs[i].ID, body)
		}
		if err := fn(msgs[i], body); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) Hold(_ context.Context, m mailbox.Mailbox, ids []mailbox.ID) (now []mailbox.Message, err error) {
	if s.lost {
		return nil, errLost
	}
	if s.holds++; s.onHold != nil {
		s.onHold(s.holds)
	}
	s.held = m
	for _, id := range ids {
		if !strings.HasPrefix(string(id), fmt.Sprintf("%d:", s.validity)) {
			return nil, mailbox.ErrRebuilt
		}
	}
	for _, l := range s.mail[m.Wire] {
		if slices.Contains(ids, s.id(l.uid)) {
			now = append(now, s.message(l))
		}
	}
	return now, nil
}

func (s *session) Remove(_ context.Context, m mailbox.Mailbox, ids []mailbox.ID, trash string) (r mailbox.Removal, err error) {
	if s.lost || s.held != m {
		return r, errLost
	}
	s.log = append(s.log, fmt.Sprintf("remove %d %s", len(ids), trash))
	if s.removing != nil {
		if handled, r, err := s.removing(ids); handled {
			if err != nil && !retry.IsRefused(err) {
				s.lost = true
			}
			return r, err
		}
	}
	if trash != "" {
		for _, l := range s.mail[m.Wire] {
			if slices.Contains(ids, s.id(l.uid)) {
				s.add(trash, l.body, l.date, l.flags...)
			}
		}
	}
	s.remove(m.Wire, ids...)
	if s.protocol == mailbox.POP3 {
		s.lost = true
	}
	return mailbox.Removal{Done: ids, Over: s.protocol == mailbox.POP3}, nil
}

func (s *session) Unmark(_ context.Context, m mailbox.Mailbox, ids []mailbox.ID) error {
	if s.lost || s.held != m {
		return errLost
	}
	for _, l := range s.mail[m.Wire] {
		if slices.Contains(ids, s.id(l.uid)) {
			l.flags = slices.DeleteFunc(slices.Clone(l.flags), func(f string) bool { return f == `\Deleted` })
		}
	}
	return nil
}

// archive is an archive in memory.
type archive struct {
	copies map[string]map[mailbox.ID]trim.Copy
	files  map[int64]string
	forms  map[int64][]fingerprint.Sum
	begun  map[mailbox.ID]bool

	reads  int
	doomed []mailbox.ID
	gone   map[mailbox.ID]bool

	doubt func(message int64, reads int) *trim.Doubt
	doom  func() error
	note  func() error
	notes []string // what became of messages: "gone 200", "left 1"
	read  error    // of a file that is opened
}

// of returns an archive that holds what the server has.
func of(s *server) *archive {
	a := &archive{copies: map[string]map[mailbox.ID]trim.Copy{}, files: map[int64]string{}, gone: map[mailbox.ID]bool{}}
	for box, all := range s.mail {
		a.copies[box] = map[mailbox.ID]trim.Copy{}
		for _, l := range all {
			n := int64(len(a.files) + 1)
			a.files[n] = l.body
			w := fingerprint.NewWriter()
			io.WriteString(w, l.body)
			a.copies[box][s.id(l.uid)] = trim.Copy{
				Candidate: fingerprint.Candidate{Print: w.Print(), Message: n, Flags: l.flags, Arrived: l.date.Unix()},
				Folder:    box, Key: fmt.Sprint(n), Exact: true, Dated: s.protocol == mailbox.IMAP,
			}
		}
	}
	return a
}

// change changes what the archive knows of a message.
func (a *archive) change(box string, id mailbox.ID, f func(*trim.Copy)) {
	c := a.copies[box][id]
	f(&c)
	a.copies[box][id] = c
}

func (a *archive) EachCopy(_ context.Context, m mailbox.Mailbox, fn func(mailbox.ID, trim.Copy)) error {
	for id, c := range a.copies[m.Wire] {
		fn(id, c)
	}
	return nil
}

func (a *archive) Forms(context.Context, []int64) (map[int64][]fingerprint.Sum, error) {
	return a.forms, nil
}

func (a *archive) ReadBack(_ context.Context, messages []int64, progress func(int64)) (map[int64]trim.Doubt, error) {
	a.reads++
	doubts := map[int64]trim.Doubt{}
	for _, n := range messages {
		progress(1)
		if a.doubt != nil {
			if d := a.doubt(n, a.reads); d != nil {
				doubts[n] = *d
			}
		}
	}
	return doubts, nil
}

func (a *archive) Content(_ context.Context, n int64) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(a.files[n])), a.read
}

func (a *archive) Begun() (map[string]map[mailbox.ID]bool, error) {
	return map[string]map[mailbox.ID]bool{"INBOX": a.begun}, nil
}

func (a *archive) Doom(_ mailbox.Mailbox, doomed []trim.Doomed) error {
	if a.doom != nil {
		if err := a.doom(); err != nil {
			return err
		}
	}
	for _, d := range doomed {
		a.doomed = append(a.doomed, d.Message.ID)
	}
	return nil
}

func (a *archive) Became(_ context.Context, _ mailbox.Mailbox, ids []mailbox.ID, why map[mailbox.ID]string, unmarked bool) error {
	if a.note != nil {
		return a.note()
	}
	gone, left := 0, 0
	for _, id := range ids {
		if _, there := why[id]; there {
			left++
			continue
		}
		a.gone[id] = true
		gone++
	}
	a.notes = append(a.notes, fmt.Sprintf("%d gone, %d left", gone, left))
	return nil
}

func sum(s string) fingerprint.Sum { return sha256.Sum256([]byte(s)) }
