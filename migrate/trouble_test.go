package migrate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// odd is a server that is odd in one way.
type odd struct {
	*server
	some   string // a part of the messages that it adds a field to; "" for none
	once   bool   // only the first connection hangs up
	slow   bool   // what it is sent is stored later, and never answered
	boxes  func() []mailbox.Mailbox
	create func([]mailbox.Mailbox) (map[string]bool, map[string]error)
	after  int // answers after which the mailbox is gone; 0 for never

	gone bool
	ups  int
}

type oddUp struct {
	*uploading
	o *odd
}

type oddLook struct {
	*looking
	o *odd
}

func (o *odd) Look(context.Context) (Destination, error) {
	return &oddLook{&looking{o.server}, o}, nil
}

func (o *odd) Upload(context.Context) (Uploader, error) {
	if o.ups++; o.once && o.ups > 1 {
		o.hangUp = nil
	}
	return &oddUp{&uploading{server: o.server}, o}, nil
}

func (u *oddUp) Many() bool { return false }

func (u *oddUp) Send(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Upload) (string, error) {
	tag, err := u.uploading.Send(ctx, m, msgs)
	if all := u.sent[tag]; u.o.slow {
		time.AfterFunc(50*time.Millisecond, func() {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.stored = append(u.stored, all...)
		})
	}
	return tag, err
}

func (u *oddUp) Answer(ctx context.Context, tag string, n int) ([]mailbox.ID, error) {
	if u.o.slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for i, m := range u.sent[tag] {
		if u.o.some != "" && strings.Contains(m, u.o.some) {
			u.sent[tag][i] = "X-Server: was here too\r\n" + m
		}
	}
	u.mu.Lock()
	if u.o.after--; u.o.after == 0 {
		u.o.gone, u.stored = true, nil
	}
	gone := u.o.gone
	u.mu.Unlock()
	if gone {
		return nil, retry.Refused(errors.New("NO [TRYCREATE] there is no such mailbox"))
	}
	return u.uploading.Answer(ctx, tag, n)
}

func (l *oddLook) List(ctx context.Context, m mailbox.Mailbox, s mailbox.State, details bool) (mailbox.Listing, error) {
	if l.o.gone {
		return mailbox.Listing{}, retry.Refused(errors.New("NO [NONEXISTENT] there is no such mailbox"))
	}
	return l.looking.List(ctx, m, s, details)
}

func (l *oddLook) Mailboxes(ctx context.Context) ([]mailbox.Mailbox, error) {
	if l.o.boxes != nil {
		return l.o.boxes(), nil
	}
	return l.looking.Mailboxes(ctx)
}

func (l *oddLook) Spelling(_ context.Context, n mailbox.Name) (mailbox.Mailbox, bool, error) {
	return mailbox.Mailbox{Name: n, Wire: n.String()}, false, nil
}

func (l *oddLook) Create(_ context.Context, boxes []mailbox.Mailbox) (map[string]bool, map[string]error, error) {
	if l.o.create != nil {
		made, refused := l.o.create(boxes)
		return made, refused, nil
	}
	l.o.gone = false
	return map[string]bool{boxes[0].Wire: true}, nil, nil
}

func none() []mailbox.Mailbox { return nil }

// plain returns an archive of n messages that no server refuses.
func plain(n int) *archive {
	a := stocked(n)
	for i, m := range a.messages {
		a.messages[i] = strings.ReplaceAll(m, "\x00", "")
	}
	return a
}

func TestOddServersGetEachMessageOnce(t *testing.T) {
	always := func(int) bool { return true }
	for name, o := range map[string]*odd{
		"changes some and does not tell":              {server: &server{silent: true}, some: "message 7\r\n"},
		"changes, and hangs up once":                  {server: &server{mangle: true, hangUp: always}, once: true},
		"changes, hangs up once and does not tell":    {server: &server{mangle: true, silent: true, hangUp: always}, once: true},
		"loses the mailbox while it is being sent to": {server: &server{}, after: 10},
	} {
		t.Run(name, func(t *testing.T) {
			a := plain(60)
			for range 2 {
				if result, err := Run(t.Context(), o, a, report.Discard, Options{Connections: 1, Pause: time.Millisecond}); err != nil {
					t.Errorf("%v: %v", err, result.Tallies[0].Missing)
				}
			}
			if len(o.stored) != len(a.messages) {
				t.Errorf("%d stored of %d", len(o.stored), len(a.messages))
			}
		})
	}
}

// What was sent just before a run was interrupted may be stored after the next
// has begun.
func TestInterruptedAndRunAgainAtOnceDoublesNothing(t *testing.T) {
	s, a := &server{}, plain(5)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	o := Options{Connections: 1, Pause: 100 * time.Millisecond}
	first, err := Run(ctx, &odd{server: s, slow: true}, a, report.Discard, o)
	if err == nil || !first.Unsettled {
		t.Errorf("the first run: %v, unsettled %v", err, first.Unsettled)
	}
	o.Unsettled = first.Unsettled
	second, err := Run(t.Context(), s, a, report.Discard, o)
	if err != nil || second.Unsettled || len(s.stored) != 5 {
		t.Errorf("%d stored of 5, %v, unsettled %v", len(s.stored), err, second.Unsettled)
	}
}

// growing is an archive that is filled after its folders were asked for.
type growing struct{ *archive }

func (a *growing) Folders(ctx context.Context) ([]Folder, error) {
	f, err := a.archive.Folders(ctx)
	if len(a.messages) == 0 {
		a.messages = plain(50).messages
	}
	return f, err
}

func TestWhatComesMeanwhileIsCountedOnce(t *testing.T) {
	ready, done := make(chan struct{}), make(chan struct{})
	close(ready)
	time.AfterFunc(100*time.Millisecond, func() { close(done) })
	coming := func() (int64, int64) { return 50, 1000 }
	result, err := Run(t.Context(), &server{}, &growing{plain(0)}, report.Discard, Options{Filling: &Filling{ready, done, coming}})
	if tally := result.Tallies[0]; err != nil || tally.Before != 0 || tally.Sent != 50 || tally.Archived != 50 {
		t.Errorf("%v, %+v", err, tally)
	}
}

func TestADryRunTellsOfWhatCannotBeStored(t *testing.T) {
	for _, limits := range []mailbox.Limits{{Message: 25}, {Denied: map[string]string{"INBOX": "lrs"}}, {Quota: 10}} {
		result, err := Run(t.Context(), &server{limits: limits}, plain(20), report.Discard, Options{DryRun: true})
		if tally := result.Tallies[0]; err == nil || len(tally.Missing)+tally.Sent != 20 || len(tally.Missing) != result.Missing() {
			t.Errorf("%+v: %v, %d to be sent, %d named", limits, err, tally.Sent, len(tally.Missing))
		}
	}
}

func TestEachMissingMessageHasTheRightReason(t *testing.T) {
	refused := func(boxes []mailbox.Mailbox) (map[string]bool, map[string]error) {
		return nil, map[string]error{boxes[0].Wire: errors.New("create: NO no permission")}
	}
	for want, o := range map[string]*odd{
		"no permission":        {server: &server{}, boxes: none, create: refused},
		"there is no room":     {server: &server{limits: mailbox.Limits{Quota: 10}}},
		"you may not store":    {server: &server{limits: mailbox.Limits{Denied: map[string]string{"INBOX": "lr"}}}},
		"larger than the":      {server: &server{limits: mailbox.Limits{Message: 5}}},
		"NO not this one":      {server: &server{refuse: "Subject"}},
		"and does not list it": {server: &server{lie: true}},
	} {
		result, err := Run(t.Context(), o, plain(3), report.Discard, Options{Pause: time.Millisecond})
		missing := result.Tallies[0].Missing
		if err == nil || len(missing) != 3 || !strings.Contains(missing[0].Text, want) {
			t.Errorf("want 3 with %q: %v, %+v", want, err, missing)
		}
	}
}

// several is an archive with more than one folder, all empty.
type several struct {
	*archive
	names []string
}

func (s several) Folders(context.Context) (all []Folder, err error) {
	for _, n := range s.names {
		all = append(all, Folder{Path: n, Name: nameOf(n)})
	}
	return all, nil
}

// A server that tells no case apart says of the second of two that it is there.
func TestFoldersThatMeetOnTheServerAreNotMerged(t *testing.T) {
	first := func(boxes []mailbox.Mailbox) (map[string]bool, map[string]error) {
		return map[string]bool{boxes[0].Wire: true}, nil
	}
	_, err := Run(t.Context(), &odd{server: &server{}, boxes: none, create: first}, several{plain(0), []string{"Work", "work"}}, report.Discard, Options{Pause: time.Millisecond})
	if !errors.As(err, new(*CollisionError)) {
		t.Errorf("error = %v", err)
	}
}

// fragile is a server whose looks fail.
type fragile struct {
	*server
	lists   int // listings that succeed; 0 for all
	headers int // questions for headers that fail first
	flagged []mailbox.ID
}

type fragileLook struct {
	*looking
	f *fragile
}

func (f *fragile) Look(context.Context) (Destination, error) {
	return &fragileLook{&looking{f.server}, f}, nil
}

func (l *fragileLook) List(ctx context.Context, m mailbox.Mailbox, s mailbox.State, details bool) (mailbox.Listing, error) {
	if l.f.lists--; l.f.lists < 0 {
		return mailbox.Listing{}, errors.New("connection lost")
	}
	return l.looking.List(ctx, m, s, details)
}

func (l *fragileLook) Headers(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error {
	if l.f.headers--; l.f.headers >= 0 {
		return errors.New("connection lost")
	}
	return l.looking.Headers(ctx, m, msgs, fn)
}

func (l *fragileLook) Flag(_ context.Context, _ mailbox.Mailbox, ids []mailbox.ID, _, _ []string) error {
	l.f.flagged = append(l.f.flagged, ids...)
	return nil
}

// A server that changes what it stores, and a run that ends before it has seen
// that: the next believes the answers.
func TestALookThatFailsDoublesNothing(t *testing.T) {
	for name, f := range map[string]*fragile{
		"every look after the first":     {server: &server{mangle: true}, lists: 1},
		"one question for headers":       {server: &server{mangle: true}, lists: 100, headers: 1},
		"all questions for headers":      {server: &server{mangle: true}, lists: 100, headers: 100},
		"every look, and it is not told": {server: &server{mangle: true, silent: true}, lists: 1},
	} {
		a, o := plain(20), Options{Connections: 1, Pause: time.Millisecond}
		first, err := Run(t.Context(), f, a, report.Discard, o)
		o.Unsettled = first.Unsettled || f.silent // as after a run that was killed
		for range 2 {
			if _, err := Run(t.Context(), f.server, a, report.Discard, o); err != nil {
				t.Errorf("%s: then %v", name, err)
			}
			for i, m := range f.stored { // and later it adds something to all of them
				f.stored[i] = "X-Spam-Status: no\r\n" + m
			}
		}
		if len(f.stored) != 20 {
			t.Errorf("%s: first %v; %d stored of 20", name, err, len(f.stored))
		}
	}
}

// A number that stands for another message now is no place for our flags.
func TestFlagsOfAnotherMessageAreLeftAlone(t *testing.T) {
	f := &fragile{server: &server{stored: []string{"Subject: somebody else's\r\n\r\nunread mail\r\n"}}, lists: 100}
	a := plain(1)
	a.mapping["7:1"], a.told = 0, []string{`\Seen`}
	if _, err := Run(t.Context(), f, a, report.Discard, Options{Connections: 1, Pause: time.Millisecond, UpdateFlags: true}); err != nil || len(f.stored) != 2 {
		t.Errorf("%v, %d stored", err, len(f.stored))
	}
	if len(f.flagged) > 0 {
		t.Errorf("flags of %v were changed", f.flagged)
	}
}

// What a server lists, refuses or leaves out is no ground to send again.
func TestNoLieMakesADouble(t *testing.T) {
	for name, c := range map[string]struct {
		s    fragile
		lost bool // the index, after the first run
	}{
		"a listing is short":              {s: fragile{server: &server{short: 1}, lists: 100}},
		"three listings are short":        {s: fragile{server: &server{short: 3}, lists: 100}},
		"stores what it refuses":          {s: fragile{server: &server{refuse: "message 7\r", both: true}, lists: 100}},
		"stores what it says is too much": {s: fragile{server: &server{refuse: "message 7\r", words: "NO [UNAVAILABLE] later", both: true}, lists: 100}},
		"wrong sizes, and hangs up":       {s: fragile{server: &server{wrong: true, hangUp: func(int) bool { return true }}, lists: 100}},
		"wrong sizes, and the index lost": {s: fragile{server: &server{wrong: true}, lists: 100}, lost: true},
		"adds fields, and the index lost": {s: fragile{server: &server{mangle: true}, lists: 100}, lost: true},
	} {
		a := plain(20)
		for run := range 3 {
			if _, err := Run(t.Context(), &c.s, a, report.Discard, Options{Connections: 2, Pause: time.Millisecond}); err != nil && run == 2 {
				t.Errorf("%s: %v", name, err)
			}
			c.s.refuse, c.s.hangUp = "", nil
			if c.lost && run == 0 {
				a.mapping, a.forms = map[mailbox.ID]int64{}, nil
			}
		}
		seen := map[string]bool{}
		for _, m := range c.s.stored {
			if seen[m] {
				t.Errorf("%s: %q is there twice", name, m)
			}
			seen[m] = true
		}
		if len(c.s.stored) != 20 {
			t.Errorf("%s: %d stored of 20", name, len(c.s.stored))
		}
	}
}

// placed is an archive whose folder has been put into a mailbox once.
type placed struct{ *archive }

func (a placed) Folders(ctx context.Context) ([]Folder, error) {
	all, err := a.archive.Folders(ctx)
	all[0].Placed = "Work"
	return all, err
}

// A mailbox that has gone, or has another name, does not get everything again
// but by the user's word.
func TestAMailboxThatHasGoneIsAskedAbout(t *testing.T) {
	for _, c := range []struct {
		o      Options
		stored int
	}{{Options{}, 0}, {Options{Remake: true}, 5}, {Options{Mapping: Mapping{Renamed: map[string]string{"INBOX": "INBOX"}}}, 5}} {
		s := &server{}
		c.o.Pause = time.Millisecond
		result, err := Run(t.Context(), &odd{server: s, boxes: none}, placed{plain(5)}, report.Discard, c.o)
		if len(s.stored) != c.stored || (err == nil) != (c.stored > 0) || result.Missing() != 5-c.stored {
			t.Errorf("%+v: %d stored, %v, %d missing", c.o, len(s.stored), err, result.Missing())
		}
	}
}
