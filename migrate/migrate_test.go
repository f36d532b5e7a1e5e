package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// server is a mail server with one mailbox.
type server struct {
	mu     sync.Mutex
	stored []string // by UID, from 1

	silent  bool   // it does not say where it stores what
	mangle  bool   // it changes what it stores
	one     bool   // it says the same UID every time
	lie     bool   // it stores nothing, and says that it has
	words   string // with which it refuses; "" for some
	refuse  string // a part of what it refuses
	limits  mailbox.Limits
	wrong   bool                      // the sizes that it lists are
	short   int                       // how many listings leave a message out
	both    bool                      // it stores what it refuses
	full    int                       // how many messages it has room for; 0 for any
	hangUp  func(n int) (stored bool) // ends the connection on the nth message; nil for never
	answers int
	asked   int // how often it has answered a command
}

func (s *server) Look(context.Context) (Destination, error) { return &looking{s}, nil }
func (s *server) Upload(context.Context) (Uploader, error)  { return &uploading{server: s}, nil }
func (s *server) id(uid int) mailbox.ID                     { return mailbox.ID(fmt.Sprintf("7:%d", uid)) }
func (s *server) box() mailbox.Mailbox {
	return mailbox.Mailbox{Name: mailbox.NewName("INBOX"), Wire: "INBOX"}
}

type looking struct{ *server }

func (l *looking) Mailboxes(context.Context) ([]mailbox.Mailbox, error) {
	return []mailbox.Mailbox{l.box()}, nil
}
func (l *looking) Spelling(context.Context, mailbox.Name) (mailbox.Mailbox, bool, error) {
	return l.box(), false, nil
}
func (l *looking) Create(context.Context, []mailbox.Mailbox) (map[string]bool, map[string]error, error) {
	return nil, nil, nil
}
func (l *looking) Limits(context.Context, []mailbox.Mailbox) (mailbox.Limits, error) {
	return l.limits, nil
}
func (l *looking) Flag(context.Context, mailbox.Mailbox, []mailbox.ID, []string, []string) error {
	return nil
}
func (l *looking) Fetch(_ context.Context, _ mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error {
	for _, m := range msgs {
		var uid int
		fmt.Sscanf(string(m.ID), "7:%d", &uid)
		if err := fn(m, 0, strings.NewReader(l.stored[uid-1])); err != nil {
			return err
		}
	}
	return nil
}
func (l *looking) Close(bool) error                                                   { return nil }
func (l *looking) Describe(context.Context, mailbox.Mailbox, []mailbox.Message) error { return nil }

func (l *looking) List(context.Context, mailbox.Mailbox, mailbox.State, bool) (out mailbox.Listing, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, m := range l.stored {
		size := int64(len(m))
		if l.wrong {
			size *= 2
		}
		out.Messages = append(out.Messages, mailbox.Message{ID: l.id(i + 1), Size: size})
	}
	if out.Exists = len(out.Messages); l.short > 0 && out.Exists > 0 {
		l.short--
		out.Messages = out.Messages[1:]
	}
	return out, nil
}

func (l *looking) Headers(_ context.Context, _ mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error {
	for _, m := range msgs {
		l.mu.Lock()
		var uid int
		fmt.Sscanf(string(m.ID), "7:%d", &uid)
		header, _, _ := strings.Cut(l.stored[uid-1], "\r\n\r\n")
		l.mu.Unlock()
		if err := fn(m, []byte(header+"\r\n\r\n")); err != nil {
			return err
		}
	}
	return nil
}

type uploading struct {
	*server
	sent map[string][]string
}

func (u *uploading) Many() bool   { return true }
func (u *uploading) Tells() bool  { return !u.silent }
func (u *uploading) Close() error { return nil }

func (u *uploading) Send(_ context.Context, _ mailbox.Mailbox, msgs []mailbox.Upload) (string, error) {
	var all []string
	for _, m := range msgs {
		b, err := io.ReadAll(m.Content)
		if err != nil {
			return "", err
		}
		all = append(all, string(b))
	}
	if u.sent == nil {
		u.sent = map[string][]string{}
	}
	tag := fmt.Sprint("t", len(u.sent))
	u.sent[tag] = all
	return tag, nil
}

func (u *uploading) Answer(_ context.Context, tag string, _ int) (ids []mailbox.ID, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked++
	for _, m := range u.sent[tag] {
		if u.refuse != "" && strings.Contains(m, u.refuse) {
			words := "NO not this one"
			if u.both {
				u.stored = append(u.stored, m)
			}
			if u.words != "" {
				words = u.words
			}
			return nil, retry.Refused(errors.New(words))
		}
	}
	for _, m := range u.sent[tag] {
		u.answers++
		if u.full > 0 && len(u.stored) >= u.full {
			return nil, retry.Refused(errors.New("NO [OVERQUOTA] full"))
		}
		drop := u.hangUp != nil && u.answers%5 == 0
		if drop && !u.hangUp(u.answers) {
			return nil, errors.New("connection lost")
		}
		if u.mangle {
			m = "X-Server: was here too\r\n" + m
		}
		if !u.lie {
			u.stored = append(u.stored, m)
		}
		if drop {
			return nil, errors.New("connection lost")
		}
		uid := len(u.stored)
		if u.one {
			uid = 1
		}
		if u.lie {
			uid = 1000
		}
		if !u.silent {
			ids = append(ids, u.id(uid))
		}
	}
	return ids, nil
}

// archive holds messages in one folder.
type archive struct {
	mu       sync.Mutex
	messages []string
	mapping  map[mailbox.ID]int64
	forms    []fingerprint.Candidate
	told     []string // flags of each, as the server told them
}

func (a *archive) Folders(context.Context) ([]Folder, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return []Folder{{Path: "INBOX", Name: mailbox.NewName("INBOX"), Messages: len(a.messages)}}, nil
}
func (a *archive) Place(mailbox.Mailbox, string, bool) {}
func (a *archive) EachHeld(_ context.Context, _ string, _ mailbox.Mailbox, fn func(Held)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, m := range a.mapping {
		fn(Held{ID: id, Here: true, Told: a.told, Candidate: a.candidate(m)})
	}
	return nil
}

func (a *archive) candidate(message int64) fingerprint.Candidate {
	w := fingerprint.NewWriter()
	w.Write([]byte(a.messages[message]))
	return fingerprint.Candidate{Print: w.Print(), Message: message}
}

func (a *archive) Forms(context.Context, string) ([]fingerprint.Candidate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.forms), nil
}

func (a *archive) Unclaimed(_ context.Context, _ string, _ mailbox.Mailbox, live func(mailbox.ID) bool) (free []fingerprint.Candidate, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	claimed := map[int64]bool{}
	for id, m := range a.mapping {
		claimed[m] = claimed[m] || live(id)
	}
	for i := range a.messages {
		if !claimed[int64(i)] {
			free = append(free, a.candidate(int64(i)))
		}
	}
	return free, nil
}

func (a *archive) Open(_ context.Context, message int64) (Content, error) {
	a.mu.Lock()
	m := a.messages[message]
	a.mu.Unlock()
	return Content{Upload: mailbox.Upload{Size: int64(len(m)), Content: strings.NewReader(m)}, Close: func() error { return nil }}, nil
}

func (a *archive) Describe(_ context.Context, message int64) (Description, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Description{Subject: a.messages[message]}, nil
}
func (a *archive) Begin() Batch { return &batch{archive: a, notes: map[mailbox.ID]int64{}} }

type batch struct {
	*archive
	notes map[mailbox.ID]int64
	new   []fingerprint.Candidate
}

func (b *batch) Form(archived int64, p fingerprint.Print, _ string) {
	b.new = append(b.new, fingerprint.Candidate{Message: archived, Print: p})
}
func (b *batch) Told(context.Context, mailbox.Mailbox, mailbox.ID, []string) error { return nil }

func (b *batch) Claim(_ context.Context, _ mailbox.Mailbox, m mailbox.Message, archived int64, _ bool) error {
	b.notes[m.ID] = archived
	return nil
}
func (b *batch) Pushed(ctx context.Context, mb mailbox.Mailbox, m mailbox.Message, archived int64) error {
	return b.Claim(ctx, mb, m, archived, false)
}

func (b *batch) Commit(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, m := range b.notes {
		b.mapping[id] = m
	}
	b.forms = append(b.forms, b.new...)
	return nil
}

// Whatever a server does, three runs leave each message on it at most once,
// and just those that are missing are named.
func TestNoServerGetsAMessageTwice(t *testing.T) {
	for name, s := range map[string]*server{
		"plain":                       {},
		"does not tell":               {silent: true},
		"changes":                     {mangle: true},
		"changes and does not tell":   {mangle: true, silent: true},
		"tells one UID":               {one: true},
		"lies":                        {lie: true},
		"lies and does not tell":      {lie: true, silent: true},
		"refuses one":                 {refuse: "message 7\r\n"},
		"is full":                     {full: 20},
		"hangs up and has stored":     {hangUp: func(int) bool { return true }},
		"hangs up and has not stored": {hangUp: func(int) bool { return false }},
		"hangs up now and then":       {hangUp: func(n int) bool { return n%2 == 0 }},
		"hangs up and does not tell":  {hangUp: func(n int) bool { return n%2 == 0 }, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &archive{mapping: map[mailbox.ID]int64{}}
			for i := range 60 {
				a.messages = append(a.messages, fmt.Sprintf("Subject: message %d\r\n\r\n%s\r\n", i, strings.Repeat("x", i%7)))
			}
			a.messages = append(a.messages, a.messages[3], a.messages[3]) // two in the archive are two on the server
			for round := range 3 {
				result, err := Run(t.Context(), s, a, report.Discard, Options{Connections: 3, Pause: time.Millisecond})
				there := map[string]int{}
				for _, m := range s.stored {
					there[strings.TrimPrefix(m, "X-Server: was here too\r\n")]++
				}
				missing := 0
				for _, m := range a.messages {
					if there[m]--; there[m] < 0 {
						missing++
					}
				}
				if len(s.stored) > len(a.messages) || missing != len(a.messages)-len(s.stored) {
					t.Fatalf("run %d: %d messages on the server of %d, %d missing", round, len(s.stored), len(a.messages), missing)
				}
				tally := result.Tallies[0]
				if (err == nil) != (missing == 0) || len(tally.Missing) != missing || tally.There()+missing != len(a.messages) {
					t.Errorf("run %d: %d missing, %d named, %d there, %v", round, missing, len(tally.Missing), tally.There(), err)
				}
			}
		})
	}
}
