package migrate

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailstow/internal/filter"
	"mailstow/internal/repair"
	"mailstow/internal/report"
	"mailstow/mailbox"
)

// stocked returns an archive of n messages, of which every tenth has a NUL.
func stocked(n int) *archive {
	a := &archive{mapping: map[mailbox.ID]int64{}}
	for i := range n {
		nul := ""
		if i%10 == 0 {
			nul = "\x00"
		}
		a.messages = append(a.messages, fmt.Sprintf("Subject: message %d\r\n\r\n%s%s\r\n", i, nul, strings.Repeat("x", i%7)))
	}
	return a
}

// A message that is refused is stored in the first form that the server takes,
// once, also when the connection is lost before the answer comes.
func TestRepairedMailIsStoredOnce(t *testing.T) {
	for name, s := range map[string]*server{
		"plain":                       {},
		"does not tell":               {silent: true},
		"hangs up and has stored":     {hangUp: func(int) bool { return true }},
		"hangs up and has not stored": {hangUp: func(int) bool { return false }},
		"hangs up and does not tell":  {hangUp: func(n int) bool { return n%2 == 0 }, silent: true},
		"changes":                     {mangle: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.refuse = "\x00"
			a := stocked(60)
			for round := range 3 {
				result, err := Run(t.Context(), s, a, report.Discard, Options{Connections: 3, Pause: time.Millisecond})
				if round == 2 && err != nil {
					t.Fatal(err)
				}
				if altered := len(result.Tallies[0].Altered); round == 0 && name == "plain" && altered != 6 {
					t.Errorf("%d messages were altered, want 6", altered)
				}
			}
			there := map[string]int{}
			for _, m := range s.stored {
				there[strings.TrimPrefix(m, "X-Server: was here too\r\n")]++
			}
			for _, m := range a.messages {
				if n := there[strings.ReplaceAll(m, "\x00", "")]; n != 1 {
					t.Errorf("%q is there %d times", m, n)
				}
			}
		})
	}
}

func TestWithoutRepairsARefusedMessageIsNamed(t *testing.T) {
	s, a := &server{refuse: "\x00"}, stocked(20)
	result, err := Run(t.Context(), s, a, report.Discard, Options{NoRepair: true, Pause: time.Millisecond})
	tally := result.Tallies[0]
	if err == nil || len(tally.Missing) != 2 || tally.Missing[0].Text != "NO not this one" || len(s.stored) != 18 {
		t.Errorf("%d stored, %v, %+v", len(s.stored), err, tally.Missing)
	}
}

// One mailbox into which nothing may be stored does not cost a question for
// each of its messages.
func TestAMailboxThatIsReadOnlyIsLeftAlone(t *testing.T) {
	s, a := &server{refuse: "message", words: "NO [NOPERM] read-only"}, stocked(5000)
	result, err := Run(t.Context(), s, a, report.Discard, Options{Pause: time.Millisecond})
	if err == nil || len(result.Tallies[0].Missing) != 5000 || s.asked > 20 {
		t.Errorf("%v, %d missing after %d questions", err, len(result.Tallies[0].Missing), s.asked)
	}
}

func TestNothingMovesWhenThereIsNoRoom(t *testing.T) {
	for _, c := range []struct {
		limits mailbox.Limits
		o      Options
		stored int
	}{
		{mailbox.Limits{Used: 100, Quota: 600}, Options{}, 0},
		{mailbox.Limits{Used: 100, Quota: 600}, Options{IgnoreQuota: true}, 20},
		{mailbox.Limits{Used: 100, Quota: 600}, Options{DryRun: true}, 0},
		{mailbox.Limits{UsedMessages: 5, QuotaMessages: 20}, Options{}, 0},
		{mailbox.Limits{Used: 100, Quota: 100_000}, Options{}, 20},
		{mailbox.Limits{Denied: map[string]string{"INBOX": "lr"}}, Options{}, 0},
	} {
		s := &server{limits: c.limits}
		c.o.Pause = time.Millisecond
		_, err := Run(t.Context(), s, stocked(20), report.Discard, c.o)
		if len(s.stored) != c.stored || (err == nil) != (c.stored > 0) {
			t.Errorf("%+v: %d stored, %v", c.limits, len(s.stored), err)
		}
	}
}

func TestWhatIsTooLargeIsNotSent(t *testing.T) {
	for _, skip := range []bool{false, true} {
		a := stocked(20)
		a.messages[3] += strings.Repeat("y", 5000)
		s := &server{limits: mailbox.Limits{Message: 4096}}
		result, err := Run(t.Context(), s, a, report.Discard, Options{SkipTooBig: skip, Pause: time.Millisecond})
		tally := result.Tallies[0]
		if len(s.stored) != 19 || (err == nil) != skip || (len(tally.TooLarge) == 1) != skip || (len(tally.Missing) == 1) == skip {
			t.Errorf("skip %v: %d stored, %v, %+v", skip, len(s.stored), err, tally)
		}
	}
}

func TestARunEndsAtItsLimits(t *testing.T) {
	s, a := &server{}, stocked(100)
	total := 0
	for round := range 50 {
		result, err := Run(t.Context(), s, a, report.Discard, Options{MaxOctets: 500, Pause: time.Millisecond})
		if n := len(s.stored) - total; n == 0 || n > 30 {
			t.Fatalf("round %d stored %d messages", round, n)
		}
		if total = len(s.stored); err == nil {
			if total != 100 || result.Missing() != 0 {
				t.Errorf("done with %d stored", total)
			}
			return
		}
		if !errors.As(err, new(*PausedError)) || result.Missing() != 100-total {
			t.Fatalf("round %d: %v, %d missing of %d", round, err, result.Missing(), 100-total)
		}
	}
	t.Error("it was never done")
}

func TestWhatIsNotWantedIsNoGap(t *testing.T) {
	s, a := &server{}, stocked(70)
	result, err := Run(t.Context(), s, a, report.Discard, Options{Filter: filter.Filter{MaxSize: 27}, Pause: time.Millisecond})
	tally := result.Tallies[0]
	if err != nil || tally.Excluded == 0 || tally.Sent+tally.Excluded != 70 || len(s.stored) != tally.Sent {
		t.Errorf("%v, %+v, %d stored", err, tally, len(s.stored))
	}
	dry, err := Run(t.Context(), &server{}, stocked(70), report.Discard, Options{DryRun: true, Filter: filter.Filter{MaxSize: 27}})
	if d := dry.Tallies[0]; err != nil || d.Sent != tally.Sent || d.SentOctets != tally.SentOctets {
		t.Errorf("the plan was %d, %d octets; it came to %d, %d", d.Sent, d.SentOctets, tally.Sent, tally.SentOctets)
	}
}

// What comes into the archive while a run goes on is stored, once, whatever
// the server does; what was there before is recognised.
func TestAnArchiveThatIsBeingFilledIsFollowed(t *testing.T) {
	for name, s := range map[string]*server{
		"empty":                      {},
		"does not tell":              {silent: true},
		"hangs up now and then":      {hangUp: func(n int) bool { return n%2 == 0 }},
		"hangs up and does not tell": {hangUp: func(n int) bool { return n%3 == 0 }, silent: true},
		"has a part":                 {stored: stocked(40).messages[:20]},
		"is refusing":                {refuse: "\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := stocked(200).messages
			a := &archive{mapping: map[mailbox.ID]int64{}}
			ready, done := make(chan struct{}), make(chan struct{})
			go func() {
				time.Sleep(5 * time.Millisecond)
				close(ready)
				for i := 0; i < len(all); i += 10 {
					a.mu.Lock()
					a.messages = append(a.messages, all[i:i+10]...)
					a.mu.Unlock()
					time.Sleep(60 * time.Millisecond)
				}
				close(done)
			}()
			f := &Filling{Ready: ready, Done: done, Coming: func() (int64, int64) { return int64(len(all)), 0 }}
			var result Result
			var err error
			for round := range 3 {
				if result, err = Run(t.Context(), s, a, report.Discard, Options{Connections: 2, Pause: time.Millisecond, Filling: f}); err == nil {
					break
				}
				t.Logf("run %d: %v", round, err)
			}
			if err != nil || result.Missing() != 0 || len(s.stored) != len(all) {
				t.Errorf("%d stored, want %d: %v", len(s.stored), len(all), err)
			}
			seen := map[string]bool{}
			for _, m := range s.stored {
				if m = strings.ReplaceAll(m, "\x00", ""); seen[m] {
					t.Errorf("%q is there twice", m)
				}
				seen[m] = true
			}
		})
	}
}

// A server that gives the numbers of a mailbox to other messages is not
// believed.
func TestNumbersOfOtherMessagesProveNothing(t *testing.T) {
	s, a := &server{}, stocked(30)
	if _, err := Run(t.Context(), s, a, report.Discard, Options{Pause: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	for i := range s.stored { // the mailbox was made anew, and holds other mail
		s.stored[i] = fmt.Sprintf("Subject: stranger %d\r\n\r\n%s\r\n", i, strings.Repeat("z", 100+i))
	}
	if result, err := Prove(t.Context(), s, a, report.Discard, Options{}, false); err == nil || result.Missing() != 30 {
		t.Errorf("the proof says %v, %d missing", err, result.Missing())
	}
	result, err := Run(t.Context(), s, a, report.Discard, Options{Pause: time.Millisecond})
	if err != nil || len(s.stored) != 60 || result.Tallies[0].Sent != 30 {
		t.Errorf("%d there, %v", len(s.stored), err)
	}
}

func TestProofComparesOctets(t *testing.T) {
	s, a := &server{refuse: "\x00", mangle: true}, stocked(30) // it adds a field to each
	if _, err := Run(t.Context(), s, a, report.Discard, Options{Pause: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	for i, m := range s.stored {
		switch {
		case strings.Contains(m, "message 4\r"):
			s.stored[i] = strings.Replace(m, "xx", "xy", 1)
		case strings.Contains(m, "message 9\r"):
			s.stored[i] = strings.Replace(m, "message", "mXssage", 1)
		}
	}
	for full, differ := range map[bool]int{false: 0, true: 2} {
		result, err := Prove(t.Context(), s, a, report.Discard, Options{}, full)
		tally := result.Tallies[0]
		if (err == nil) == full || len(tally.Differ) != differ || full && tally.Compared != 28 || result.Missing() != 0 {
			t.Errorf("full %v: %v, %d differ, %d the same, %d missing", full, err, len(tally.Differ), tally.Compared, result.Missing())
		}
	}
}

func TestNoRepairIsTriedTwice(t *testing.T) {
	for needs := range 1 << 6 {
		n := form{unkeyed: needs&1 != 0, undated: needs&2 != 0, repairs: allRepairs & repair.Steps(needs>>2)}
		seen, last := map[form]bool{}, form{}
		for _, f := range forms[1:] {
			if now := f.within(n); now != last && now != (form{}) {
				if seen[now] {
					t.Errorf("%+v is tried twice for %+v", now, n)
				}
				seen[now], last = true, now
			}
		}
	}
}
