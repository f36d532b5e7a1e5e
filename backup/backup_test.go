package backup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailstow/backup"
	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
	"mailstow/maildir"
)

// archive is a real archive as the engine sees it.
type archive struct{ *maildir.Intake }

func (a archive) Begin() backup.Batch { return batch{a.Intake.Begin()} }

func (a archive) Stage(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, content io.Reader) (backup.Staged, error) {
	return a.Intake.Stage(ctx, m, msg, content)
}

func (a archive) Copy(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64) (backup.Staged, error) {
	s, err := a.Intake.Copy(ctx, m, msg, archived)
	if s == nil {
		return nil, err
	}
	return s, err
}

type batch struct{ *maildir.Batch }

func (b batch) Add(s backup.Staged, note string) { b.Batch.Add(s.(*maildir.Staged), note) }

type recorder struct {
	mu     sync.Mutex
	events []report.Event
}

func (r *recorder) Report(e report.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// failures returns the reasons of failed messages by their IDs.
func (r *recorder) failures() map[mailbox.ID]string {
	found := map[mailbox.ID]string{}
	for _, e := range r.events {
		if f, ok := e.(report.MessageFailed); ok {
			found[f.ID] = f.Reason
		}
	}
	return found
}

// run does one whole run over the archive in dir. wrap, if not nil, stands
// between the engine and the archive.
func run(t *testing.T, dir string, s *server, wrap func(backup.Archive) backup.Archive) (report.Result, *recorder, error) {
	t.Helper()
	return runWith(t, dir, s, wrap, &recorder{}, backup.Options{})
}

func runWith(t *testing.T, dir string, s *server, wrap func(backup.Archive) backup.Archive, rec *recorder, o backup.Options) (report.Result, *recorder, error) {
	t.Helper()
	a, err := maildir.Open(t.Context(), dir, maildir.Options{Write: true, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	source := "imap:alice@example.org"
	if s.protocol == mailbox.POP3 {
		source = "pop3:alice@example.org"
	}
	in, err := a.From(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	var ar backup.Archive = archive{in}
	if wrap != nil {
		ar = wrap(ar)
	}
	o.Pause = time.Millisecond
	result, runErr := backup.Run(t.Context(), s.open, ar, rec, o)
	if errors.As(runErr, new(*backup.ArchiveError)) {
		a.Abandon()
	} else if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	return result, rec, runErr
}

// holds checks that a folder of the archive has exactly the box's messages.
func holds(t *testing.T, dir string, b *box) {
	t.Helper()
	want, got := map[string]int{}, map[string]int{}
	for _, m := range b.messages {
		want[m.text]++
	}
	paths, err := filepath.Glob(filepath.Join(dir, b.name, "cur", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		c, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		got[string(c)]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("folder %s has %d files, want %d messages; or they differ", b.name, len(paths), len(b.messages))
	}
	if tmp, _ := filepath.Glob(filepath.Join(dir, b.name, "tmp", "*")); len(tmp) > 0 {
		t.Errorf("tmp has %q", tmp)
	}
}

func TestRunStoresEveryMessageOnce(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 30), numbered("Work/2024", 10, 20), {name: "Empty"}}}
	result, _, err := run(t, dir, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if sum := result.Sum(); sum.New != 41 || sum.OnServer != 41 || sum.InArchive != 41 {
		t.Errorf("sum = %+v", sum)
	}
	for range 2 {
		s.fetched = 0
		if result, _, err = run(t, dir, s, nil); err != nil || s.fetched != 0 || result.Sum().New != 0 {
			t.Errorf("second run: %d fetched, %+v, %v", s.fetched, result.Sum(), err)
		}
	}
	s.boxes[0].messages = append(s.boxes[0].messages, message{uid: 99, text: text(99)})
	if result, _, err = run(t, dir, s, nil); err != nil || s.fetched != 1 || result.Sum().New != 1 {
		t.Errorf("with one new: %d fetched, %+v, %v", s.fetched, result.Sum(), err)
	}
	for _, b := range s.boxes {
		holds(t, dir, b)
	}
	if _, err := os.Stat(filepath.Join(dir, "Empty", "cur")); err != nil {
		t.Errorf("the empty mailbox has no folder: %v", err)
	}
}

func ids(numbers ...int) func(mailbox.ID) bool {
	return func(id mailbox.ID) bool {
		return slices.ContainsFunc(numbers, func(n int) bool { return id == mailbox.ID(fmt.Sprintf("1:%d", n)) })
	}
}

// One message that the server does not give must not cost the others, must be
// named, must be tried again, and must not pass for success.
func TestOneBadMessageStopsNothing(t *testing.T) {
	for name, fault := range map[string]func(s *server, bad func(mailbox.ID) bool){
		"refused": func(s *server, bad func(mailbox.ID) bool) {
			s.refuse = func(id mailbox.ID) error {
				if bad(id) {
					return errors.New("NO [SERVERBUG] internal error")
				}
				return nil
			}
		},
		"left out":        func(s *server, bad func(mailbox.ID) bool) { s.omit = bad },
		"connection lost": func(s *server, bad func(mailbox.ID) bool) { s.lose = bad },
		"empty": func(s *server, bad func(mailbox.ID) bool) {
			s.alter = func(id mailbox.ID, _ int, body string) string {
				if bad(id) {
					return ""
				}
				return body
			}
		},
		"never the same": func(s *server, bad func(mailbox.ID) bool) {
			s.alter = func(id mailbox.ID, n int, body string) string {
				if bad(id) {
					return fmt.Sprintf("X: %d\r\n%s", n, body)
				}
				return body
			}
		},
	} {
		for _, bad := range [][]int{{1}, {17}, {40}, {5, 6, 7}, {38, 39, 40}} {
			t.Run(fmt.Sprint(name, bad), func(t *testing.T) {
				dir := t.TempDir()
				s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 40), numbered("Other", 50, 52)}}
				fault(s, ids(bad...))
				result, rec, err := run(t, dir, s, nil)
				if !errors.Is(err, backup.ErrIncomplete) {
					t.Errorf("error = %v, want %v", err, backup.ErrIncomplete)
				}
				if got := rec.failures(); len(got) != len(bad) {
					t.Errorf("failures = %v, want %v", got, bad)
				}
				if sum := result.Sum(); sum.New != 43-len(bad) || sum.Failed != len(bad) || result.Missing() != len(bad) {
					t.Errorf("sum = %+v, missing %d", sum, result.Missing())
				}
				holds(t, dir, s.boxes[1])
				s.refuse, s.omit, s.lose, s.alter = nil, nil, nil, nil
				s.fetched = 0
				if _, _, err = run(t, dir, s, nil); err != nil || s.fetched != len(bad) {
					t.Errorf("when the server is well: %d fetched, %v; want %d", s.fetched, err, len(bad))
				}
				holds(t, dir, s.boxes[0])
			})
		}
	}
}

// Some servers announce sizes that are not those of what they send. Their
// mail is kept when it comes twice in the same octets.
func TestWrongSizeIsBelievedOnlyTwice(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 10)}, size: func(body string) int64 { return int64(len(body)) - 3 }}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	if s.fetched != 20 {
		t.Errorf("%d bodies were fetched, want each twice", s.fetched)
	}
	holds(t, dir, s.boxes[0])
}

// A message that was asked for again because of its size, and is then refused,
// must not be asked for for ever.
func TestDoubtfulMessageThatIsRefusedEndsTheMatter(t *testing.T) {
	for name, fault := range map[string]func(s *server){
		"left out": func(s *server) { s.omit = func(id mailbox.ID) bool { return s.times[id] > 0 } },
		"refused": func(s *server) {
			s.refuse = func(id mailbox.ID) error {
				if s.times[id] > 0 {
					return errors.New("NO")
				}
				return nil
			}
		},
		"lost": func(s *server) { s.lose = func(id mailbox.ID) bool { return s.times[id] > 1 } },
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}, size: func(body string) int64 { return int64(len(body)) + 3 }}
			fault(s)
			_, rec, err := run(t, t.TempDir(), s, nil)
			if err == nil || len(rec.failures()) != 5 {
				t.Errorf("failures = %v, %v; want all five", rec.failures(), err)
			}
		})
	}
}

// The names of messages on a POP3 server without UIDL hold for one session.
func TestNamesThatDoNotLastAreNotUsedInAnotherSession(t *testing.T) {
	dir := t.TempDir()
	s := &server{protocol: mailbox.POP3, transient: true, boxes: []*box{numbered("INBOX", 1, 20)}}
	lost := false
	s.lose = func(mailbox.ID) bool {
		if s.fetched == 8 && !lost {
			lost = true
			slices.Reverse(s.boxes[0].messages) // the next session counts in another way
			for i := range s.boxes[0].messages {
				s.boxes[0].messages[i].uid = i + 1
			}
			return true
		}
		return false
	}
	if _, _, err := run(t, dir, s, nil); !errors.Is(err, backup.ErrIncomplete) {
		t.Errorf("error = %v, want %v", err, backup.ErrIncomplete)
	}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, s.boxes[0])
}

// A second listing that names less than the server says it has is no proof
// that mail is gone.
func TestListingThatShrinksIsNoProof(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 9)}}
	s.omit = func(mailbox.ID) bool { return true }
	s.onFetch = func() {
		s.boxes[0].exists = 9
		s.boxes[0].messages = s.boxes[0].messages[:1]
	}
	result, _, err := run(t, t.TempDir(), s, nil)
	if !errors.Is(err, backup.ErrIncomplete) || result.Missing() != 9 {
		t.Errorf("missing %d, %v; want 9", result.Missing(), err)
	}
}

func TestMessageWithoutEndIsGivenUp(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 3)}, alter: func(id mailbox.ID, _ int, body string) string {
		if id == "1:2" {
			return strings.Repeat(body, 1<<20)
		}
		return body
	}}
	_, rec, err := run(t, t.TempDir(), s, nil)
	if got := rec.failures(); !errors.Is(err, backup.ErrIncomplete) || len(got) != 1 || got["1:2"] == "" {
		t.Errorf("failures = %v, %v", got, err)
	}
}

// "Backed up 0 of 0" is no success where the server says that it has 4,028.
func TestServerThatHidesMailIsNotBelieved(t *testing.T) {
	for _, exists := range []int{1, 7} {
		s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 3)}}
		s.boxes[0].exists = exists
		if _, _, err := run(t, t.TempDir(), s, nil); !errors.Is(err, backup.ErrIncomplete) {
			t.Errorf("3 listed, %d said: %v, want %v", exists, err, backup.ErrIncomplete)
		}
	}
}

func TestMailboxThatCannotBeReadStopsNothing(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{{name: "Bad", refused: retry.Refused(errors.New("NO permission"))}, numbered("INBOX", 1, 3)}}
	result, _, err := run(t, dir, s, nil)
	if !errors.Is(err, backup.ErrIncomplete) || result.Tallies[0].Reason == "" {
		t.Errorf("tallies %+v, %v", result.Tallies, err)
	}
	holds(t, dir, s.boxes[1])
}

func TestMailboxThatKillsTheConnectionStopsNothing(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("A", 1, 3), {name: "Bad", dies: true}, numbered("C", 1, 3)}}
	result, _, err := run(t, dir, s, nil)
	if !errors.Is(err, backup.ErrIncomplete) || result.Tallies[1].Reason == "" {
		t.Errorf("tallies %+v, %v", result.Tallies, err)
	}
	holds(t, dir, s.boxes[0])
	holds(t, dir, s.boxes[2])
}

// Mail that was expunged while the run went on is not missing.
func TestMessageExpungedMeanwhileIsNotMissing(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 9)}}
	s.onFetch = func() {
		s.boxes[0].messages = slices.DeleteFunc(s.boxes[0].messages, func(m message) bool { return m.uid == 4 })
	}
	dir := t.TempDir()
	if result, _, err := run(t, dir, s, nil); err != nil || result.Sum().OnServer != 8 {
		t.Errorf("sum = %+v, %v", result.Sum(), err)
	}
	holds(t, dir, s.boxes[0])
}

// The six cases of recognition that DESIGN names come down to this: nothing
// is downloaded twice, nothing is doubled.
func TestNothingIsDownloadedAgain(t *testing.T) {
	forget := func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, ".mailstow", "index.db")); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(t *testing.T, dir string, s *server){
		"UIDVALIDITY changed": func(_ *testing.T, _ string, s *server) { s.validity = 2 },
		"UIDs changed": func(_ *testing.T, _ string, s *server) {
			s.validity = 2
			for i := range s.boxes[0].messages {
				s.boxes[0].messages[i].uid = 1000 - i
			}
		},
		"no UIDVALIDITY": func(_ *testing.T, _ string, s *server) { s.validity = 0 },
		"index lost":     func(t *testing.T, dir string, _ *server) { forget(t, dir) },
		"over POP3":      func(_ *testing.T, _ string, s *server) { s.protocol = mailbox.POP3 },
		"LF archive of another program": func(t *testing.T, dir string, _ *server) {
			forget(t, dir)
			paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
			for _, p := range paths {
				b, _ := os.ReadFile(p)
				lf := "X-TUID: abcdefghijkl\n" + strings.ReplaceAll(string(b), "\r\n", "\n")
				if err := os.WriteFile(p, []byte(lf), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 25)}}
			twin := s.boxes[0].messages[3] // two messages that are alike are two
			twin.uid = 77
			s.boxes[0].messages = append(s.boxes[0].messages, twin)
			if _, _, err := run(t, dir, s, nil); err != nil {
				t.Fatal(err)
			}
			change(t, dir, s)
			s.fetched = 0
			result, _, err := run(t, dir, s, nil)
			if err != nil || s.fetched != 0 || result.Sum().Again != 26 {
				t.Errorf("%d fetched, sum %+v, %v", s.fetched, result.Sum(), err)
			}
			if paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*")); len(paths) != 26 {
				t.Errorf("%d files, want 26", len(paths))
			}
			s.fetched = 0
			if _, _, err := run(t, dir, s, nil); err != nil || s.fetched != 0 {
				t.Errorf("third run: %d fetched, %v", s.fetched, err)
			}
		})
	}
}

// Same headers and same size are the same message only within a folder; what
// has another body and the same header is new.
func TestOtherBodyUnderTheSameHeaderIsStored(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{{name: "INBOX", messages: []message{{uid: 1, text: "Subject: x\r\n\r\nbody\r\n"}}}}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	s.boxes[0].messages = append(s.boxes[0].messages, message{uid: 2, text: "Subject: x\r\n\r\nBODY\r\n"})
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, s.boxes[0])
}

func TestMailThatLeavesTheServerStays(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	s.boxes[0].messages = s.boxes[0].messages[2:]
	result, _, err := run(t, dir, s, nil)
	if sum := result.Sum(); err != nil || sum.InArchive != 5 || sum.OnServer != 3 {
		t.Errorf("sum = %+v, %v", sum, err)
	}
	s.boxes = nil // the whole mailbox is gone
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, numbered("INBOX", 1, 5))
}

// A POP3 server may give the unique-id of a message that is gone to another one
// (RFC 1939 section 7); and one that is back is the same.
func TestUniqueIDThatIsGivenAgainNamesAnotherMessage(t *testing.T) {
	dir := t.TempDir()
	b := numbered("INBOX", 1, 5)
	s := &server{protocol: mailbox.POP3, boxes: []*box{b}}
	old, next := b.messages[1], message{uid: 2, text: "Subject: another\r\n\r\nbody\r\n"}
	for _, step := range []struct {
		do      func()
		fetched int
	}{
		{func() {}, 5},
		{func() { b.messages = slices.Delete(b.messages, 1, 2) }, 0},
		{func() { b.messages = slices.Insert(b.messages, 1, next) }, 1},
		{func() {}, 0},
		{func() { b.messages = slices.Delete(b.messages, 1, 2) }, 0},
		{func() { b.messages = slices.Insert(b.messages, 1, old) }, 0},
	} {
		step.do()
		s.fetched = 0
		result, _, err := run(t, dir, s, nil)
		if sum := result.Sum(); err != nil || s.fetched != step.fetched || sum.Kept+sum.New+sum.Again != len(b.messages) {
			t.Errorf("%d fetched, want %d; sum %+v, %v", s.fetched, step.fetched, sum, err)
		}
	}
	b.messages = append(b.messages, next)
	holds(t, dir, b)
}

// remove removes files of a folder, as a user may.
func remove(t *testing.T, dir, folder string, n int) {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(dir, folder, "cur/*"))
	for _, p := range paths[:n] {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMailThatTheUserRemovedIsNotFetchedAgain(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
	s.fetched = 0
	result, _, err := run(t, dir, s, nil)
	if sum := result.Sum(); err != nil || s.fetched != 0 || sum.Removed != 1 || sum.Kept != 4 {
		t.Errorf("%d fetched, sum %+v, %v", s.fetched, sum, err)
	}
}

// Not even when the server gives all its messages new IDs.
func TestMailThatTheUserRemovedStaysRemovedWhenIDsChange(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
	s.validity, s.fetched = 2, 0
	for range 2 {
		result, _, err := run(t, dir, s, nil)
		if sum := result.Sum(); err != nil || s.fetched != 0 || sum.Removed != 1 || sum.Again+sum.Kept != 4 {
			t.Errorf("%d fetched, sum %+v, %v", s.fetched, sum, err)
		}
	}
}

func TestFlagsFollowTheServer(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 2)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	s.boxes[0].messages[0].flags = []string{`\Answered`, `\Seen`}
	if result, _, err := run(t, dir, s, nil); err != nil || result.Sum().Flags != 1 {
		t.Errorf("sum = %+v, %v", result.Sum(), err)
	}
	if paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*:2,RS")); len(paths) != 1 {
		t.Errorf("%d files end in :2,RS, want 1", len(paths))
	}
	if result, _, err := run(t, dir, s, nil); err != nil || result.Sum().Flags != 0 {
		t.Errorf("third run: sum = %+v, %v", result.Sum(), err)
	}
}

func TestServerThatCannotBeReachedIsGivenUp(t *testing.T) {
	s := &server{login: func(int) error { return errLost }}
	if _, _, err := run(t, t.TempDir(), s, nil); !errors.Is(err, errLost) || s.logins != 3 {
		t.Errorf("%d logins, %v; want 3", s.logins, err)
	}
	s = &server{login: func(int) error { return retry.Permanent(errors.New("refused")) }}
	if _, _, err := run(t, t.TempDir(), s, nil); err == nil || s.logins != 1 {
		t.Errorf("wrong password: %d logins, %v; want 1", s.logins, err)
	}
}

// Nothing that a server may delete at QUIT is to be lost: it is told that the
// work is done only when everything is safe.
func TestWorkIsCalledDoneOnlyWhenAllIsSafe(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}}
	if _, _, err := run(t, t.TempDir(), s, nil); err != nil || s.finished != 1 {
		t.Errorf("good run: %d times finished, %v; want once", s.finished, err)
	}
	for name, fault := range map[string]func() (*server, func(backup.Archive) backup.Archive){
		"a message failed": func() (*server, func(backup.Archive) backup.Archive) {
			return &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}, omit: ids(3)}, nil
		},
		"disk failed": func() (*server, func(backup.Archive) backup.Archive) {
			left := new(atomic.Int64)
			left.Store(5)
			return &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 5)}}, func(a backup.Archive) backup.Archive { return brittle{a, left} }
		},
	} {
		s, wrap := fault()
		if _, _, err := run(t, t.TempDir(), s, wrap); err == nil || s.finished != 0 {
			t.Errorf("%s: %d times finished, %v; want never", name, s.finished, err)
		}
	}
}

func TestServerThatNeverSendsABodyIsUnavailable(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{numbered("A", 1, 5), numbered("B", 1, 5), numbered("C", 1, 5), numbered("D", 1, 5), numbered("E", 1, 5)}}
	s.lose = func(mailbox.ID) bool { return true }
	_, _, err := run(t, t.TempDir(), s, nil)
	if err == nil || errors.Is(err, backup.ErrIncomplete) || s.logins > 10 {
		t.Errorf("%d logins, %v; want at most 10, and the connection's error", s.logins, err)
	}
}

// A connection that is lost again and again is made again as long as mail
// arrives.
func TestConnectionLostOften(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 60)}}
	n := 0
	s.lose = func(mailbox.ID) bool { n++; return n%3 == 0 }
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, s.boxes[0])
}

func TestDryRunWritesNothing(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 3)}}
	result, err := backup.Run(t.Context(), s.open, readOnly{t: t}, report.Discard, backup.Options{DryRun: true})
	if sum := result.Sum(); err != nil || sum.New != 3 || sum.Octets == 0 || s.fetched != 0 {
		t.Errorf("sum = %+v, %d fetched, %v", sum, s.fetched, err)
	}
}

// readOnly is an empty archive that nothing may be written to.
type readOnly struct {
	backup.Archive
	t *testing.T
}

func (readOnly) Path(mailbox.Mailbox) string { return "" }
func (readOnly) Standing(context.Context, mailbox.Mailbox) (mailbox.Standing, error) {
	return mailbox.Standing{}, nil
}
func (readOnly) Known(context.Context, mailbox.Mailbox, []mailbox.ID) (map[mailbox.ID]mailbox.Kept, error) {
	return nil, nil
}
func (readOnly) EachKnown(context.Context, mailbox.Mailbox, func(mailbox.ID, mailbox.Kept)) error {
	return nil
}
func (readOnly) Unclaimed(context.Context, mailbox.Mailbox, func(mailbox.ID, bool) bool) ([]fingerprint.Candidate, error) {
	return nil, nil
}
func (readOnly) Holding(context.Context, []string) (map[string]int64, error) { return nil, nil }
func (readOnly) Former(func(string) bool) []string                           { return nil }
func (readOnly) InArchive(context.Context, mailbox.Mailbox) (int, error)     { return 0, nil }
func (r readOnly) Begin() backup.Batch {
	r.t.Error("a dry run begins a batch")
	return nil
}

// brittle loses its disk at one write after another.
type brittle struct {
	backup.Archive
	left *atomic.Int64
}

var errDisk = errors.New("input/output error")

func (b brittle) Begin() backup.Batch { return brittleBatch{b.Archive.Begin(), b.left} }

func (b brittle) Stage(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, content io.Reader) (backup.Staged, error) {
	if b.left.Add(-1) < 0 {
		return nil, errDisk
	}
	return b.Archive.Stage(ctx, m, msg, content)
}

type brittleBatch struct {
	backup.Batch
	left *atomic.Int64
}

func (b brittleBatch) step() error {
	if b.left.Add(-1) < 0 {
		return errDisk
	}
	return nil
}

// Full makes batches small, so that there are many commits.
func (b brittleBatch) Full() bool { return b.left.Load()%4 == 0 || b.Batch.Full() }

func (b brittleBatch) Commit(ctx context.Context) error {
	if err := b.step(); err != nil {
		return errors.Join(err, b.Discard())
	}
	return b.Batch.Commit(ctx)
}

// Whatever the run was doing when the disk failed: what it had reported as
// stored is there, and the next run completes the rest, once.
func TestRunConvergesAfterAFailureAtEachWrite(t *testing.T) {
	points := 0
	for n := 0; ; n++ {
		dir := t.TempDir()
		s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 12), numbered("Work", 5, 15)}}
		var left atomic.Int64
		left.Store(int64(n))
		_, rec, err := run(t, dir, s, func(a backup.Archive) backup.Archive { return brittle{a, &left} })
		if err == nil {
			break
		}
		points++
		if !errors.Is(err, errDisk) {
			t.Fatalf("write %d: %v, want %v", n, err, errDisk)
		}
		stored := 0
		for _, e := range rec.events {
			if _, ok := e.(report.MessageStored); ok {
				stored++
			}
		}
		if paths, _ := filepath.Glob(filepath.Join(dir, "*/cur/*")); len(paths) < stored {
			t.Errorf("write %d: %d reported as stored, %d there", n, stored, len(paths))
		}
		if _, _, err := run(t, dir, s, nil); err != nil {
			t.Errorf("write %d, next run: %v", n, err)
		}
		for _, b := range s.boxes {
			holds(t, dir, b)
		}
	}
	if points < 20 {
		t.Errorf("only %d points of failure were tried", points)
	}
}
