package backup_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailstow/backup"
	"mailstow/internal/filter"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
	"mailstow/maildir"
)

// heavy makes a box whose messages are worth several connections.
func heavy(name string, n int) *box {
	b := numbered(name, 1, n)
	for i := range b.messages {
		b.messages[i].text += strings.Repeat("x", 20<<10)
	}
	return b
}

var four = backup.Options{Connections: 4}

func TestConnectionsShareTheWork(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{heavy("INBOX", 300), heavy("Work", 40), numbered("Small", 1, 3)}}
	result, _, err := runWith(t, dir, s, nil, &recorder{}, four)
	if err != nil || result.Sum().New != 343 || s.fetched != 343 {
		t.Errorf("sum = %+v, %d fetched, %v", result.Sum(), s.fetched, err)
	}
	if s.logins != 4 {
		t.Errorf("%d connections, want 4", s.logins)
	}
	for _, b := range s.boxes {
		holds(t, dir, b)
	}
}

// While one large message takes its time, the others are stored.
func TestSlowMessageHoldsUpNoOther(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{heavy("INBOX", 300)}}
	rec := &recorder{}
	stored := func() (n int) {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		for _, e := range rec.events {
			if _, ok := e.(report.MessageStored); ok {
				n++
			}
		}
		return n
	}
	var before int
	s.slow = func(id mailbox.ID) {
		if id != "1:2" {
			return
		}
		// The line that is held up has taken an eighth of the weight at most.
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if before = stored(); before > 200 {
				return
			}
		}
	}
	if _, _, err := runWith(t, t.TempDir(), s, nil, rec, four); err != nil || before <= 200 {
		t.Errorf("%d of 300 were stored meanwhile, %v", before, err)
	}
}

// Servers limit the connections of an account, each in its own words; the run
// goes on with those it has, and asks no more.
func TestServerThatBearsOneConnection(t *testing.T) {
	for _, refusal := range []error{
		retry.Permanent(errors.New("NO [AUTHENTICATIONFAILED] no")),
		retry.Busy(retry.Refused(errors.New("NO [ALERT] Too many simultaneous connections")), 0),
		errLost,
	} {
		dir := t.TempDir()
		s := &server{validity: 1, boxes: []*box{heavy("INBOX", 200), heavy("Work", 100)}, login: func(n int) error {
			if n > 1 {
				return refusal
			}
			return nil
		}}
		if _, _, err := runWith(t, dir, s, nil, &recorder{}, four); err != nil || s.logins > 4 {
			t.Errorf("%v: %d logins, %v", refusal, s.logins, err)
		}
		holds(t, dir, s.boxes[0])
		holds(t, dir, s.boxes[1])
	}
}

// All connections may be lost at the same moment, again and again.
func TestAllConnectionsLostTogether(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{heavy("INBOX", 400)}}
	var n atomic.Int64
	s.lose = func(id mailbox.ID) bool { return n.Add(1)%40 < 4 && s.times[id] == 1 }
	if _, _, err := runWith(t, dir, s, nil, &recorder{}, four); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, s.boxes[0])
}

func TestDeadServerIsGivenUpByAllConnections(t *testing.T) {
	s := &server{validity: 1, boxes: []*box{heavy("INBOX", 400)}}
	s.lose = func(mailbox.ID) bool { return true }
	_, _, err := runWith(t, t.TempDir(), s, nil, &recorder{}, four)
	if err == nil || errors.Is(err, backup.ErrIncomplete) || s.logins > 16 {
		t.Errorf("%d logins, %v; want the connection's error", s.logins, err)
	}
}

// A server that is busy is asked again; a message that it never gives is the
// only one that is missing.
func TestBusyServerIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		times  int64 // that it is given, to the whole question
		bad    func(mailbox.ID) bool
		failed int
	}{
		"for a while":          {"NO [THROTTLED] slow down", 5, nil, 0},
		"backoff time":         {"BAD Request is throttled. Suggested Backoff Time: 3 milliseconds", 4, nil, 0},
		"for one message":      {"NO [UNAVAILABLE] try again later", 0, ids(17), 1},
		"for several messages": {"NO [UNAVAILABLE] try again later", 0, ids(3, 4, 5, 39), 4},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 40)}}
			var n atomic.Int64
			s.refuse = func(id mailbox.ID) error {
				if c.bad != nil && c.bad(id) || c.bad == nil && n.Add(1) <= c.times {
					return errors.New(c.answer)
				}
				return nil
			}
			result, rec, err := run(t, t.TempDir(), s, nil)
			if got := len(rec.failures()); got != c.failed || result.Sum().New != 40-c.failed || (err == nil) != (c.failed == 0) {
				t.Errorf("%d failed, sum %+v, %v; want %d failed", got, result.Sum(), err, c.failed)
			}
		})
	}
}

// When nothing more is to be had for now, the run stops in good order, names
// no message as bad, and the next one goes on.
func TestServerThatStaysBusyPausesTheRun(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, boxes: []*box{heavy("INBOX", 300)}}
	closed := true
	s.refuse = func(mailbox.ID) error {
		if closed && s.fetched > 50 {
			return errors.New("NO [OVERQUOTA] Account exceeded command or bandwidth limits.")
		}
		return nil
	}
	_, rec, err := runWith(t, dir, s, nil, &recorder{}, four)
	if !errors.As(err, new(*backup.PausedError)) || len(rec.failures()) != 0 {
		t.Errorf("%d failures, %v; want a pause", len(rec.failures()), err)
	}
	closed = false
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, s.boxes[0])
}

// Nothing is known of a mailbox that the server did not let us look at.
func TestServerThatIsBusyFromTheBeginningIsNoSuccess(t *testing.T) {
	for _, connections := range []int{1, 4} {
		s := &server{validity: 1, boxes: []*box{numbered("INBOX", 1, 9), numbered("Work", 1, 9), numbered("More", 1, 9)}}
		s.onList = func(string) error { return retry.Busy(retry.Refused(errors.New("NO [THROTTLED] slow down")), 0) }
		result, _, err := runWith(t, t.TempDir(), s, nil, &recorder{}, backup.Options{Connections: connections, Patience: 50 * time.Millisecond})
		if err == nil || result.Sum().New != 0 {
			t.Errorf("%d connections: sum %+v, %v", connections, result.Sum(), err)
		}
		s.onList = func(string) error { time.Sleep(time.Second); return nil }
		if _, _, err := runWith(t, t.TempDir(), s, nil, &recorder{}, backup.Options{Connections: connections, MaxDuration: 50 * time.Millisecond}); !errors.As(err, new(*backup.PausedError)) {
			t.Errorf("%d connections, too late: %v", connections, err)
		}
	}
}

func TestLimitsStopARunInGoodOrder(t *testing.T) {
	for name, o := range map[string]backup.Options{
		"octets":   {Connections: 4, MaxOctets: 1 << 20},
		"duration": {Connections: 4, MaxDuration: 700 * time.Millisecond},
	} {
		dir := t.TempDir()
		s := &server{validity: 1, boxes: []*box{heavy("INBOX", 300)}, slow: func(mailbox.ID) { time.Sleep(20 * time.Millisecond) }}
		result, _, err := runWith(t, dir, s, nil, &recorder{}, o)
		if sum := result.Sum(); !errors.As(err, new(*backup.PausedError)) || sum.New == 0 || sum.New == 300 || sum.Octets > 2<<20 && o.MaxOctets > 0 {
			t.Errorf("%s: sum %+v, %v", name, sum, err)
		}
		s.slow = nil
		if _, _, err := run(t, dir, s, nil); err != nil {
			t.Fatal(err)
		}
		holds(t, dir, s.boxes[0])
	}
}

// What the user does not want is counted as such, and comes when it is
// wanted.
func TestUnwantedMailIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, condstore: true, boxes: []*box{numbered("INBOX", 1, 20), numbered("Junk", 1, 5)}}
	s.boxes[0].messages[4].text += strings.Repeat("y", 2000)
	o := backup.Options{Filter: filter.Filter{Exclude: []string{"Junk"}, MaxSize: 1000}}
	for range 2 {
		result, _, err := runWith(t, dir, s, nil, &recorder{}, o)
		if sum := result.Sum(); err != nil || sum.Excluded != 1 || sum.New+sum.Kept != 19 || result.Missing() != 0 || result.Tallies[1].Skipped == "" {
			t.Errorf("tallies %+v, %v", result.Tallies, err)
		}
	}
	if result, _, err := run(t, dir, s, nil); err != nil || result.Sum().New != 6 {
		t.Errorf("with all wanted: sum %+v, %v", result.Sum(), err)
	}
	holds(t, dir, s.boxes[0])
	holds(t, dir, s.boxes[1])
}

func TestWhatHasNotChangedIsNotOpened(t *testing.T) {
	for _, qresync := range []bool{false, true} {
		dir := t.TempDir()
		inbox, work := numbered("INBOX", 1, 20), numbered("Work", 1, 9)
		s := &server{validity: 1, condstore: true, qresync: qresync, boxes: []*box{inbox, work, {name: "Empty"}}}
		again := func(what, opened string, want report.Tally) {
			t.Helper()
			s.opened, s.fetched = nil, 0
			result, _, err := run(t, dir, s, nil)
			sum := result.Sum()
			got := report.Tally{OnServer: sum.OnServer, Listed: sum.Listed, Kept: sum.Kept, New: sum.New, Removed: sum.Removed, Flags: sum.Flags, Again: sum.Again}
			if err != nil || got != want || strings.Join(s.opened, ", ") != opened {
				t.Errorf("%s, qresync %v: %+v, opened %q, %v; want %+v, %q", what, qresync, got, s.opened, err, want, opened)
			}
		}
		if _, _, err := run(t, dir, s, nil); err != nil {
			t.Fatal(err)
		}
		again("nothing", "", report.Tally{OnServer: 29, Listed: 29, Kept: 29})
		inbox.change(3, `\Seen`)
		again("a flag", "changes INBOX", report.Tally{OnServer: 29, Listed: 29, Kept: 29, Flags: 1})
		work.append(30)
		again("a message", "changes Work", report.Tally{OnServer: 30, Listed: 30, Kept: 29, New: 1})
		again("nothing", "", report.Tally{OnServer: 30, Listed: 30, Kept: 30})
		inbox.expunge(0)
		inbox.expunge(7)
		inbox.append(31)
		how := "changes INBOX, list INBOX"
		if qresync {
			how = "changes INBOX"
		}
		again("two less, one more", how, report.Tally{OnServer: 29, Listed: 29, Kept: 28, New: 1})
		again("nothing", "", report.Tally{OnServer: 29, Listed: 29, Kept: 29})
		s.validity = 2
		again("rebuilt", "list INBOX, list Work, list Empty", report.Tally{OnServer: 29, Listed: 29, Again: 29})
		again("nothing", "", report.Tally{OnServer: 29, Listed: 29, Kept: 29})
	}
}

// A server whose change numbers lie is found out by the count of messages.
func TestWrongChangeNumbersAreFoundOut(t *testing.T) {
	dir := t.TempDir()
	b := numbered("INBOX", 1, 9)
	s := &server{validity: 1, condstore: true, boxes: []*box{b}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	b.messages = append(b.messages, message{uid: 20, text: text(20)}) // without a new modseq
	if result, _, err := run(t, dir, s, nil); err != nil || result.Sum().New != 1 {
		t.Errorf("sum = %+v, %v", result.Sum(), err)
	}
	holds(t, dir, b)
}

func TestRefetchGetsWhatWasRemoved(t *testing.T) {
	dir := t.TempDir()
	s := &server{validity: 1, condstore: true, boxes: []*box{numbered("INBOX", 1, 9)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	remove(t, dir, "INBOX", 2)
	if result, _, err := run(t, dir, s, nil); err != nil || result.Sum().Removed != 2 || result.Sum().New != 0 {
		t.Errorf("without: sum %+v, %v", result.Sum(), err)
	}
	if result, _, err := runWith(t, dir, s, nil, &recorder{}, backup.Options{Refetch: true}); err != nil || result.Sum().New != 2 {
		t.Errorf("with: sum %+v, %v", result.Sum(), err)
	}
	holds(t, dir, s.boxes[0])
	if result, _, err := run(t, dir, s, nil); err != nil || result.Sum().Kept != 9 {
		t.Errorf("after: sum %+v, %v", result.Sum(), err)
	}
	if v := verified(t, dir); v.Messages != 9 || v.Damaged() {
		t.Errorf("what is there again is missing: %+v", v)
	}
}

func verified(t *testing.T, dir string) *maildir.Verified {
	t.Helper()
	a, err := maildir.Open(t.Context(), dir, maildir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	v, err := a.Verify(t.Context(), maildir.VerifyOptions{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What is missing is there again when its octets are, whatever the server calls
// them, and not when something else comes under its name.
func TestMissingMailIsThereAgainByItsOctets(t *testing.T) {
	for name, tt := range map[string]struct {
		protocol mailbox.Protocol
		change   func(s *server)
		missing  int
	}{
		"the same":                        {"", func(*server) {}, 0},
		"under other UIDs":                {"", func(s *server) { s.validity = 2 }, 0},
		"other mail under the UIDs":       {"", func(s *server) { s.boxes[0].messages[0].text, s.boxes[0].messages[1].text = text(50), text(51) }, 2},
		"other mail under the unique-ids": {mailbox.POP3, func(s *server) { s.boxes[0].messages[0].text, s.boxes[0].messages[1].text = text(50), text(51) }, 2},
		"one of two that are alike":       {"", func(s *server) { s.boxes[0].messages = s.boxes[0].messages[:1] }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := &server{protocol: tt.protocol, validity: 1, condstore: tt.protocol == "", boxes: []*box{numbered("INBOX", 1, 2)}}
			if name == "one of two that are alike" {
				s.boxes[0].messages[1].text = s.boxes[0].messages[0].text
			}
			if _, _, err := run(t, dir, s, nil); err != nil {
				t.Fatal(err)
			}
			remove(t, dir, "INBOX", 2)
			if _, _, err := run(t, dir, s, nil); err != nil {
				t.Fatal(err)
			}
			if v := verified(t, dir); len(v.Findings) != 2 {
				t.Fatalf("what was removed is not missing: %+v", v)
			}
			tt.change(s)
			if _, _, err := runWith(t, dir, s, nil, &recorder{}, backup.Options{Refetch: true}); err != nil {
				t.Fatal(err)
			}
			if v := verified(t, dir); len(v.Findings) != tt.missing {
				t.Errorf("%d are missing, want %d: %+v", len(v.Findings), tt.missing, v.Findings)
			}
		})
	}
}

// A unique-id that a server gives to other mail does not stand for what is lost.
func TestUniqueIDUsedAgainLeavesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	s := &server{protocol: mailbox.POP3, boxes: []*box{numbered("INBOX", 1, 2)}}
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	remove(t, dir, "INBOX", 2)
	all := s.boxes[0].messages
	s.boxes[0].messages = nil
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	s.boxes[0].messages = all
	all[0].text, all[1].text = text(50), text(51)
	if _, _, err := run(t, dir, s, nil); err != nil {
		t.Fatal(err)
	}
	if v := verified(t, dir); len(v.Findings) != 2 {
		t.Errorf("lost mail is not missing: %+v", v)
	}
}

func TestNothingToDoTakesOneConnection(t *testing.T) {
	s := &server{validity: 1, condstore: true}
	for i := range 30 {
		s.boxes = append(s.boxes, numbered(fmt.Sprintf("Box %d", i), 1, 2))
	}
	dir := t.TempDir()
	if _, _, err := runWith(t, dir, s, nil, &recorder{}, four); err != nil {
		t.Fatal(err)
	}
	s.logins = 0
	if _, _, err := runWith(t, dir, s, nil, &recorder{}, four); err != nil || s.logins != 1 {
		t.Errorf("%d connections when there is nothing to do, %v; want 1", s.logins, err)
	}
}
