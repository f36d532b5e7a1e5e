package backup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"mailstow/backup"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
	"mailstow/maildir"
)

// Sequences of events that once ended in a lost or doubled message, or in a
// wrong word about it.

func files(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
		if filepath.Base(filepath.Dir(p)) == "cur" {
			n++
		}
		return nil
	})
	return n
}

// A server that is busy makes the crew smaller, but never leaves work undone:
// neither before mailboxes are known nor when they are fetched.
func TestSmallerCrewDoesAllTheWork(t *testing.T) {
	busy := errors.New("NO [INUSE] busy")
	for name, fault := range map[string]func(s *server, n *atomic.Int64){
		"survey": func(s *server, n *atomic.Int64) {
			s.onList = func(string) error {
				k := n.Add(1)
				time.Sleep(5 * time.Millisecond)
				if k <= 4 {
					return retry.Busy(retry.Refused(busy), 0)
				}
				return nil
			}
		},
		"fetch": func(s *server, n *atomic.Int64) {
			s.refuse = func(mailbox.ID) error {
				if n.Add(1) <= 4 {
					return busy
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), &server{validity: 1, condstore: true, closing: func() { time.Sleep(20 * time.Millisecond) }}
			for i := range 12 {
				s.boxes = append(s.boxes, heavy(fmt.Sprintf("Box%02d", i), 25))
			}
			var n atomic.Int64
			fault(s, &n)
			if result, _, err := runWith(t, dir, s, nil, &recorder{}, four); err != nil || files(t, dir) != 300 {
				t.Errorf("%d of 300 files, sum %+v, %v", files(t, dir), result.Sum(), err)
			}
		})
	}
}

// A message that is moved away and back, under another ID, is one message.
func TestMessageThatComesBackIsNotDoubled(t *testing.T) {
	for _, condstore := range []bool{false, true} {
		dir, b := t.TempDir(), numbered("INBOX", 1, 9)
		s := &server{validity: 1, condstore: condstore, qresync: condstore, boxes: []*box{b}}
		for _, step := range []func(){func() {}, func() { b.expunge(4) }, func() { b.append(5); b.messages[8].uid = 20 }} {
			step()
			if _, _, err := run(t, dir, s, nil); err != nil || files(t, dir) != 9 {
				t.Errorf("condstore %v: %d files, want 9; %v", condstore, files(t, dir), err)
			}
		}
	}
}

func TestRunThatLosesTheServerAfterSomethingCameIsIncomplete(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 40)}, lose: ids(20), login: func(n int) error {
		if n > 1 {
			return errLost
		}
		return nil
	}}
	if result, _, err := run(t, t.TempDir(), s, nil); !errors.Is(err, backup.ErrIncomplete) || result.Sum().New == 0 {
		t.Errorf("sum %+v, %v; want %v", result.Sum(), err, backup.ErrIncomplete)
	}
}

// full is an archive that cannot commit.
type full struct{ backup.Archive }

type fullBatch struct{ backup.Batch }

func (f full) Begin() backup.Batch { return fullBatch{f.Archive.Begin()} }

func (f fullBatch) Commit(context.Context) error {
	f.Batch.Discard()
	return errDisk
}

// A limit that is reached must not hide what is wrong with the disk.
func TestLimitHidesNoDiskError(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{heavy("INBOX", 300)}}
	_, _, err := runWith(t, t.TempDir(), s, func(a backup.Archive) backup.Archive { return full{a} }, &recorder{}, backup.Options{MaxOctets: 1 << 20})
	if !errors.As(err, new(*backup.ArchiveError)) {
		t.Errorf("error = %v, want the disk's", err)
	}
}

func TestLimitThatTheLastMessageReachesIsNoPause(t *testing.T) {
	b := numbered("INBOX", 1, 5)
	octets := int64(0)
	for _, m := range b.messages {
		octets += int64(len(m.text))
	}
	s := &server{validity: 1, boxes: []*box{b}}
	if _, _, err := runWith(t, t.TempDir(), s, nil, &recorder{}, backup.Options{MaxOctets: octets - 1}); err != nil {
		t.Errorf("everything has come: %v", err)
	}
}

// A rename that cannot be followed must not spoil later runs, whatever ended
// the one that met it.
func TestRenameThatCannotBeFollowedSpoilsNothing(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, condstore: true, boxes: []*box{numbered("INBOX", 1, 5), numbered("Work/Old", 101, 120)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	s.boxes[1].name = "Work/Old/Older"
	s.boxes[0].append(50)
	if _, _, err := runWith(t, dir, s, nil, &recorder{}, backup.Options{MaxOctets: 1}); !errors.As(err, new(*backup.PausedError)) {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := run(t, dir, s, nil); err != nil {
			t.Error(err)
		}
	}
}

// A mailbox whose mail was all moved elsewhere may have others below it that
// stay.
func TestFolderIsNotMovedFromAboveOthers(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, condstore: true, boxes: []*box{numbered("Projects", 101, 110), numbered("Projects/A", 201, 210)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	s.boxes[0].name = "Done"
	for range 2 {
		if _, _, err := run(t, dir, s, nil); err != nil {
			t.Fatal(err)
		}
		holds(t, dir, s.boxes[1])
	}
	if err := os.Remove(filepath.Join(dir, ".mailstow", "index.db")); err != nil {
		t.Fatal(err)
	}
	s.fetched = 0
	if _, _, err := run(t, dir, s, nil); err != nil || s.fetched != 0 {
		t.Errorf("with a lost index: %d fetched, %v", s.fetched, err)
	}
}

// On a server that gives all mailboxes one UIDVALIDITY, a new mailbox may use
// the IDs of one that is gone for other messages.
func TestIDThatTheFormerMailboxHadMeansNothing(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, condstore: true, boxes: []*box{numbered("Old", 1, 11)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	s.boxes[0].expunge(10)
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	fresh := numbered("Fresh", 1, 10)
	fresh.messages = append(fresh.messages, message{uid: 11, text: "Subject: brand new\r\n\r\nnot to be lost\r\n"})
	s.boxes[0] = fresh
	for range 2 {
		if result, _, err := run(t, dir, s, nil); err != nil || result.Missing() != 0 || files(t, dir) != 12 {
			t.Errorf("%d files, want 12; sum %+v, %v", files(t, dir), result.Sum(), err)
		}
	}
}

// What a folder holds already is not copied into it again.
func TestTwinThatTheFolderHoldsIsNotDoubled(t *testing.T) {
	dir, s := t.TempDir(), labels()
	s.boxes = s.boxes[:2]
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, ".mailstow", "index.db")); err != nil {
		t.Fatal(err)
	}
	s.headers = retry.Refused(errors.New("NO"))
	if result, _, err := run(t, dir, s, nil); err != nil || files(t, dir) != 30 {
		t.Errorf("%d files, want 30; sum %+v, %v", files(t, dir), result.Sum(), err)
	}
}

// One message gone, one new, and no change number moved: the counts agree.
func TestServerThatHidesANewMessageIsFoundOut(t *testing.T) {
	dir, b := t.TempDir(), numbered("INBOX", 1, 9)
	s := &server{validity: 1, condstore: true, boxes: []*box{b}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	b.messages = append(b.messages[1:], message{uid: 20, text: text(20)})
	if _, _, err := run(t, dir, s, nil); err != nil || files(t, dir) != 10 {
		t.Errorf("%d files, want 10; %v", files(t, dir), err)
	}
}

// The second listing of a mailbox in which a message was left out may cost the
// connection. That is no reason to leave other mailboxes.
func TestSecondListingThatFailsStopsNothing(t *testing.T) {
	for _, o := range []backup.Options{{}, {Connections: 2}} {
		s := &server{validity: 1, boxes: []*box{numbered("A", 1, 3), heavy("B", 100), numbered("C", 2001, 2010)}, omit: ids(2)}
		for i := range s.boxes[1].messages {
			s.boxes[1].messages[i].uid += 1000
		}
		var lists atomic.Int64
		s.onList = func(name string) error {
			if name == "A" && lists.Add(1) > 1 {
				return errLost
			}
			return nil
		}
		result, rec, err := runWith(t, t.TempDir(), s, nil, &recorder{}, o)
		if !errors.Is(err, backup.ErrIncomplete) || result.Sum().New != 112 || len(rec.failures()) != 1 {
			t.Errorf("%+v: %d new, want 112; failures %v, %v", o, result.Sum().New, rec.failures(), err)
		}
	}
}

// endsAt cancels a run when the engine reports its plan.
type endsAt struct {
	*recorder
	cancel func()
}

func (e endsAt) Report(ev report.Event) {
	if _, ok := ev.(report.Planned); ok {
		e.cancel()
	}
	e.recorder.Report(ev)
}

func TestInterruptedRunIsNoDiskError(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	s.boxes = append(s.boxes, numbered("Fresh", 11, 15))
	a, err := maildir.Open(t.Context(), dir, maildir.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	in, err := a.From(t.Context(), "imap:alice@example.org")
	if err != nil {
		t.Fatal(err)
	}
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = backup.Run(ctx, s.open, archive{in}, endsAt{&recorder{}, func() { cancel(interrupted) }}, backup.Options{})
	if !errors.Is(err, interrupted) || errors.As(err, new(*backup.ArchiveError)) {
		t.Errorf("error = %v, want %v", err, interrupted)
	}
}

// A message may take longer than the run's patience; the loss of the
// connection behind it is met like any other.
func TestPatienceBeginsAnewWithEachOctet(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}}
	var lost atomic.Bool
	s.slow = func(id mailbox.ID) {
		if id == "1:1" && !lost.Load() {
			time.Sleep(400 * time.Millisecond)
		}
	}
	s.lose = func(id mailbox.ID) bool { return id == "1:1" && !lost.Swap(true) }
	if _, _, err := runWith(t, t.TempDir(), s, nil, &recorder{}, backup.Options{Patience: 300 * time.Millisecond}); err != nil || s.logins != 2 {
		t.Errorf("%d logins, %v", s.logins, err)
	}
}

// Courier sends a stub in place of a message that has gone meanwhile, the same
// one each time.
func TestStubInPlaceOfAnExpungedMessageIsNotKept(t *testing.T) {
	dir := t.TempDir()
	b := numbered("INBOX", 1, 9)
	s := &server{validity: 1, boxes: []*box{b}}
	s.alter = func(id mailbox.ID, times int, body string) string {
		if id == "1:4" {
			if times == 1 { // it has just gone
				b.messages[3].gone = true
			}
			return "Subject: message unavailable\r\n\r\nThis message is no longer available on the server.\r\n"
		}
		return body
	}
	result, _, err := run(t, dir, s, nil)
	if sum := result.Sum(); err != nil || files(t, dir) != 8 || sum.OnServer != 8 || sum.New != 8 {
		t.Errorf("%d files, want 8; sum %+v, %v", files(t, dir), sum, err)
	}
}
