package trim_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
	"mailstow/trim"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// whole is a backup of all that the server has.
func whole(s *server) (r report.Result) {
	for _, m := range s.boxes {
		n := len(s.mail[m.Wire])
		t := report.Tally{Mailbox: m.Name, UIDValidity: s.validity, OnServer: n, Listed: n, Kept: n}
		if s.protocol == mailbox.POP3 {
			t.UIDValidity = 0
		}
		r.Tallies = append(r.Tallies, t)
	}
	return r
}

func yes(context.Context, *trim.Plan) error { return nil }

// trimOld removes what is older than a year.
func trimOld(t *testing.T, s *server, a *archive, change ...func(*trim.Options)) (trim.Result, error) {
	t.Helper()
	o := trim.Options{Backup: whole(s), OlderThan: now.AddDate(-1, 0, 0), KeepSince: now.AddDate(0, 0, -30), Confirm: yes, Pause: time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	return trim.Run(t.Context(), s.open, a, report.Discard, o)
}

// Nothing may go if it is not on the list, or not archived; whatever else happens.
func checkInvariants(t *testing.T, s *server, a *archive, before map[int]string) {
	t.Helper()
	there := s.uids("INBOX")
	for uid := range before {
		if slices.Contains(there, uid) {
			continue
		}
		if id := s.id(uid); !slices.Contains(a.doomed, id) {
			t.Errorf("%s is gone, and not on the list", id)
		}
	}
}

func bodies(s *server) map[int]string {
	all := map[int]string{}
	for _, l := range s.mail["INBOX"] {
		all[l.uid] = l.body
	}
	return all
}

func TestTrimRemovesAndCounts(t *testing.T) {
	s := newServer(450)
	a := of(s)
	before := bodies(s)
	r, err := trimOld(t, s, a)
	if err != nil || r.Removed != 450 || r.Delete != 450 || len(s.mail["INBOX"]) != 0 || !r.Looked || len(a.gone) != 450 {
		t.Errorf("%+v, %v", r, err)
	}
	checkInvariants(t, s, a, before)
	if want := []string{"remove 1 ", "remove 199 ", "remove 200 ", "remove 50 "}; !slices.Equal(s.log, want) {
		t.Errorf("the server was told %q, want %q", s.log, want)
	}
	if want := []string{"1 gone, 0 left", "199 gone, 0 left", "200 gone, 0 left", "50 gone, 0 left"}; !slices.Equal(a.notes, want) { // each once
		t.Errorf("noted was %q, want %q", a.notes, want)
	}
}

// Each of these breaks one condition; nothing of the mailbox is removed.
func TestNothingIsRemovedIf(t *testing.T) {
	third := func(s *server) *letter { return s.mail["INBOX"][2] }
	for name, c := range map[string]struct {
		fault func(s *server, a *archive)
		more  func(o *trim.Options)
		want  error
	}{
		"the backup lacks a message": {
			more: func(o *trim.Options) { o.Backup.Tallies[0].Kept--; o.Backup.Tallies[0].Failed++ }, want: trim.ErrUnsafe,
		},
		"the backup could not list the mailbox":    {more: func(o *trim.Options) { o.Backup.Tallies[0].Reason = "NO" }, want: trim.ErrUnsafe},
		"the backup did not look at the mailbox":   {more: func(o *trim.Options) { o.Backup.Tallies = nil }, want: trim.ErrUnsafe},
		"the mailbox was rebuilt since the backup": {more: func(o *trim.Options) { o.Backup.Tallies[0].UIDValidity++ }, want: trim.ErrUnsafe},
		"a file is in doubt": {fault: func(s *server, a *archive) {
			a.doubt = func(n int64, _ int) *trim.Doubt {
				if n == 3 {
					return &trim.Doubt{File: "x", Text: "hash differs"}
				}
				return nil
			}
		}, want: trim.ErrUnsafe},
		"a file becomes doubtful after the plan": {fault: func(s *server, a *archive) {
			a.doubt = func(n int64, reads int) *trim.Doubt {
				if n == 3 && reads > 1 {
					return &trim.Doubt{File: "x", Text: "hash differs"}
				}
				return nil
			}
		}, want: trim.ErrUnsafe},
		"the size is another, and the content": {fault: func(s *server, a *archive) { third(s).body += "more" }, want: trim.ErrUnsafe},
		"the size changes after the plan": {fault: func(s *server, a *archive) {
			s.onHold = func(int) { third(s).body += "more" }
		}, want: trim.ErrUnsafe},
		"the date changes after the plan": {fault: func(s *server, a *archive) {
			s.onHold = func(int) { third(s).date = third(s).date.Add(time.Hour) }
		}, want: trim.ErrUnsafe},
		"it is another message of the same size": {fault: func(s *server, a *archive) {
			s.onHold = func(int) { third(s).body = strings.Replace(third(s).body, "Subject: 2", "Subject: 9", 1) }
		}, want: trim.ErrUnsafe},
		"UIDVALIDITY changes after the plan": {fault: func(s *server, a *archive) { s.onHold = func(int) { s.validity = 8 } }, want: trim.ErrUnsafe},
		"a recognised message has another body": {fault: func(s *server, a *archive) {
			a.change("INBOX", s.id(3), func(c *trim.Copy) { c.Exact = false })
			third(s).body = strings.Replace(third(s).body, "xx", "xy", 1)
		}, want: trim.ErrUnsafe},
		"with paranoid, any message has another body": {fault: func(s *server, a *archive) {
			third(s).body = strings.Replace(third(s).body, "xx", "xy", 1)
		}, more: func(o *trim.Options) { o.Paranoid = true }, want: trim.ErrUnsafe},
		"the server does not send what is to be compared": {fault: func(s *server, a *archive) {
			a.change("INBOX", s.id(3), func(c *trim.Copy) { c.Exact = false })
			s.refuse = nil
			s.serve = func(id mailbox.ID, body string) string {
				if id == s.id(3) {
					return "Subject: x\r\n\r\n"
				}
				return body
			}
		}, want: trim.ErrUnsafe},
		"the list cannot be written": {fault: func(s *server, a *archive) { a.doom = func() error { return errors.New("no space left") } }, want: nil},
		"nobody agrees": {more: func(o *trim.Options) {
			o.Confirm = func(context.Context, *trim.Plan) error { return errors.New("no") }
		}, want: nil},
		"the server can only expunge all": {fault: func(s *server, a *archive) { s.ways = mailbox.Ways{} }, want: nil},
		"there is no trash":               {more: func(o *trim.Options) { o.Trash = true }, want: trim.ErrNoTrash},
		"it is a dry run":                 {more: func(o *trim.Options) { o.DryRun = true }, want: errNone},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(10)
			a := of(s)
			if c.fault != nil {
				c.fault(s, a)
			}
			r, err := trimOld(t, s, a, func(o *trim.Options) {
				if c.more != nil {
					c.more(o)
				}
			})
			if len(s.mail["INBOX"]) != 10 || r.Removed != 0 || len(s.log) > 0 {
				t.Errorf("%d are left, %d removed, the server was told %q", len(s.mail["INBOX"]), r.Removed, s.log)
			}
			switch {
			case c.want == errNone:
				if err != nil {
					t.Error(err)
				}
			case err == nil || c.want != nil && !errors.Is(err, c.want):
				t.Errorf("error = %v, want %v", err, c.want)
			}
		})
	}
}

var errNone = errors.New("none")

// One mailbox that is not safe does not keep the others from being trimmed.
func TestOtherMailboxesGoOn(t *testing.T) {
	s := newServer(5)
	work := mailbox.Mailbox{Name: mailbox.NewName("Work"), Wire: "Work"}
	s.boxes = append(s.boxes, work)
	s.add("Work", "Subject: w\r\n\r\nx\r\n", now.AddDate(-2, 0, 0), `\Seen`)
	a := of(s)
	a.doubt = func(n int64, _ int) *trim.Doubt {
		if n == a.copies["INBOX"][s.id(2)].Message {
			return &trim.Doubt{Text: "hash differs"}
		}
		return nil
	}
	r, err := trimOld(t, s, a)
	if !errors.Is(err, trim.ErrUnsafe) || len(s.mail["INBOX"]) != 5 || len(s.mail["Work"]) != 0 || r.Removed != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWhatIsKept(t *testing.T) {
	s := newServer(1)
	year := now.AddDate(-2, 0, 0)
	s.add("INBOX", "Subject: f\r\n\r\n\r\n", year, `\Seen`, `\Flagged`)
	s.add("INBOX", "Subject: u\r\n\r\n\r\n", year)
	s.add("INBOX", "Subject: d\r\n\r\n\r\n", year, `\Seen`, `\Draft`)
	s.add("INBOX", "Subject: x\r\n\r\n\r\n", year, `\Seen`, `\deleted`)
	s.add("INBOX", "Subject: recent\r\n\r\n\r\n", now.AddDate(0, 0, -29), `\Seen`)
	s.add("INBOX", "Subject: young\r\n\r\n\r\n", now.AddDate(0, 0, -31), `\Seen`)
	s.add("INBOX", "Subject: at the limit\r\n\r\n\r\n", now.AddDate(-1, 0, 0), `\Seen`)
	s.add("INBOX", "Subject: future\r\n\r\n\r\n", now.AddDate(1, 0, 0), `\Seen`)
	s.add("INBOX", "Subject: 1970\r\n\r\n\r\n", time.Unix(0, 0), `\Seen`)
	s.add("INBOX", "Subject: no date\r\n\r\n\r\n", time.Time{}, `\Seen`)
	s.add("INBOX", "Subject: twin\r\n\r\n\r\n", year, `\Seen`)
	s.add("INBOX", "Subject: twin\r\n\r\n\r\n", year, `\Seen`)
	s.add("INBOX", "Subject: gone here\r\n\r\n\r\n", year, `\Seen`)
	s.add("INBOX", "Subject: not here\r\n\r\n\r\n", year, `\Seen`)
	a := of(s)
	a.change("INBOX", s.id(13), func(c *trim.Copy) { *c = a.copies["INBOX"][s.id(12)] })
	a.change("INBOX", s.id(14), func(c *trim.Copy) { c.Removed = true })
	delete(a.copies["INBOX"], s.id(15))
	r, err := trimOld(t, s, a)
	if want := []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; err != nil || !slices.Equal(s.uids("INBOX"), want) {
		t.Errorf("%v are left, want %v; %v", s.uids("INBOX"), want, err)
	}
	want := map[trim.Kept]int{
		trim.Flagged: 1, trim.Unread: 1, trim.Draft: 1, trim.Marked: 1, trim.Recent: 2, trim.TooYoung: 2, trim.Undated: 2, trim.Twin: 2, trim.RemovedHere: 1, trim.NotArchived: 1,
	}
	if got := r.Folders[0].Kept; !maps.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
}

// The oldest go first, and no more than have to.
func TestUntilTakesTheOldest(t *testing.T) {
	s := newServer(10)
	s.quota = 10 * int64(len(s.mail["INBOX"][0].body))
	slices.Reverse(s.mail["INBOX"]) // the server's order is not that of time
	for i, l := range s.mail["INBOX"] {
		l.uid = i + 1
	}
	a := of(s)
	r, err := trimOld(t, s, a, func(o *trim.Options) { o.OlderThan = time.Time{}; o.Until.Percent = 75 })
	if err != nil || r.Removed != 3 || !slices.Equal(s.uids("INBOX"), []int{1, 2, 3, 4, 5, 6, 7}) || r.By != trim.ByQuota || r.UsedNow > r.Goal {
		t.Errorf("%v are left; %+v, %v", s.uids("INBOX"), r, err)
	}
	r, err = trimOld(t, s, a, func(o *trim.Options) { o.OlderThan = time.Time{}; o.Until.Percent = 75 })
	if err != nil || r.Delete != 0 || len(s.mail["INBOX"]) != 7 {
		t.Errorf("a second time: %+v, %v", r, err)
	}
	var short *trim.ShortError
	r, err = trimOld(t, s, a, func(o *trim.Options) {
		o.OlderThan, o.Until.Percent = s.mail["INBOX"][4].date, 10
	})
	if !errors.As(err, &short) || r.Removed != 2 {
		t.Errorf("what is old enough is too little: %+v, %v", r, err)
	}
	if _, err = trimOld(t, newServer(1), of(newServer(1)), func(o *trim.Options) { o.Until.Percent = 75 }); !errors.Is(err, trim.ErrNoQuota) {
		t.Errorf("75%% of nothing: %v", err)
	}
}

// A server that says yes and does nothing is believed in nothing.
func TestServerThatRemovesNothing(t *testing.T) {
	s := newServer(450)
	a := of(s)
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		left := map[mailbox.ID]string{}
		for _, id := range ids {
			left[id] = "the server says yes, and keeps it"
		}
		return true, mailbox.Removal{Left: left}, nil
	}
	r, err := trimOld(t, s, a)
	if !errors.Is(err, trim.ErrNotRemoved) || r.Removed != 0 || len(a.gone) != 0 || len(s.log) != 1 || len(r.Folders[0].Left) != 1 {
		t.Errorf("%d removed, %d left, told %q, %v", r.Removed, len(r.Folders[0].Left), s.log, err)
	}
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) { return true, mailbox.Removal{Done: ids}, nil }
	r, err = trimOld(t, s, of(s))
	if !errors.Is(err, trim.ErrNotRemoved) || r.Removed != 0 {
		t.Errorf("where it is a lie: %d removed, %v", r.Removed, err)
	}
}

// A server that removes one more is stopped at once.
func TestServerThatRemovesMore(t *testing.T) {
	for _, said := range []bool{true, false} {
		s := newServer(450)
		s.add("INBOX", "Subject: marked\r\n\r\n\r\n", now.AddDate(-2, 0, 0), `\Seen`, `\Deleted`)
		a := of(s)
		delete(a.copies["INBOX"], s.id(451))
		s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
			s.remove("INBOX", append(ids, s.id(451))...)
			return true, mailbox.Removal{Done: ids, More: said}, nil
		}
		r, err := trimOld(t, s, a)
		f := r.Folders[0]
		if !errors.Is(err, trim.ErrUnsafe) || f.Others != 1 || f.OthersArchived != 0 {
			t.Errorf("%+v, %v", f, err)
		}
		if said && (r.Removed != 1 || !slices.Equal(s.log, []string{"remove 1 "})) {
			t.Errorf("%d removed, told %q", r.Removed, s.log)
		}
	}
}

// Between marking and expunging the connection is lost: the run goes on and
// finishes what it has begun, and what others have marked stays.
func TestLostBetweenMarkingAndExpunging(t *testing.T) {
	s := newServer(300)
	s.add("INBOX", "Subject: marked\r\n\r\n\r\n", now.AddDate(-2, 0, 0), `\Seen`, `\Deleted`)
	a := of(s)
	n := 0
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		if n++; n == 2 || n == 3 {
			for _, l := range s.mail["INBOX"] {
				if slices.Contains(ids, s.id(l.uid)) {
					l.flags = []string{`\Seen`, `\Deleted`}
				}
			}
			return true, mailbox.Removal{}, errLost
		}
		return false, mailbox.Removal{}, nil
	}
	before := bodies(s)
	r, err := trimOld(t, s, a)
	if err != nil || r.Removed != 300 || !slices.Equal(s.uids("INBOX"), []int{301}) {
		t.Errorf("%v are left; %d removed, %v", s.uids("INBOX"), r.Removed, err)
	}
	checkInvariants(t, s, a, before)
	if len(a.doomed) != 300 {
		t.Errorf("%d are on the list, want each once", len(a.doomed))
	}
}

// What a killed run has marked, and that is on its list, is finished by the next.
func TestMarksOfAKilledRunAreFinished(t *testing.T) {
	s := newServer(5)
	s.mail["INBOX"][1].flags = []string{`\Seen`, `\Deleted`}
	s.mail["INBOX"][3].flags = []string{`\Seen`, `\Deleted`}
	a := of(s)
	a.begun = map[mailbox.ID]bool{s.id(2): true}
	if _, err := trimOld(t, s, a); err != nil || !slices.Equal(s.uids("INBOX"), []int{4}) {
		t.Errorf("%v are left, %v", s.uids("INBOX"), err)
	}
}

// It gives up on a server that does not let anything be done, and says what is
// still there.
func TestServerThatAlwaysHangsUp(t *testing.T) {
	s := newServer(5)
	s.removing = func([]mailbox.ID) (bool, mailbox.Removal, error) { return true, mailbox.Removal{}, errLost }
	r, err := trimOld(t, s, of(s))
	if !errors.Is(err, errLost) || !errors.Is(err, trim.ErrNotRemoved) || r.Removed != 0 || s.logins > 8 {
		t.Errorf("%d logins, %d removed, %v", s.logins, r.Removed, err)
	}
}

// The connection is lost, and what was done was done.
func TestAnswerIsLostAfterTheRemoval(t *testing.T) {
	s := newServer(5)
	a := of(s)
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		s.remove("INBOX", ids...)
		return true, mailbox.Removal{}, errLost
	}
	if r, err := trimOld(t, s, a); err != nil || r.Removed != 5 || len(a.gone) != 5 {
		t.Errorf("%d removed, %d noted, %v", r.Removed, len(a.gone), err)
	}
}

// Somebody flags a message, and reads mail, while the plan is looked at.
func TestWhatIsFlaggedMeanwhileIsKept(t *testing.T) {
	s := newServer(5)
	s.onHold = func(int) { s.flag(3, `\Seen`, `\Flagged`) }
	r, err := trimOld(t, s, of(s))
	if err != nil || r.Removed != 4 || r.Folders[0].Meanwhile != 1 || !slices.Equal(s.uids("INBOX"), []int{3}) {
		t.Errorf("%v are left; %+v, %v", s.uids("INBOX"), r, err)
	}
}

// A refusal ends the work on that mailbox alone.
func TestRefusedMailboxIsNamed(t *testing.T) {
	s := newServer(5)
	s.removing = func([]mailbox.ID) (bool, mailbox.Removal, error) {
		return true, mailbox.Removal{}, retry.Refused(errors.New("NO [READ-ONLY]"))
	}
	r, err := trimOld(t, s, of(s))
	if !errors.Is(err, trim.ErrNotRemoved) || r.Removed != 0 || !strings.Contains(r.Folders[0].Refused, "READ-ONLY") {
		t.Errorf("%+v, %v", r.Folders[0], err)
	}
}

// What was recognised, or has another size by the server's word, is compared and
// then goes.
func TestWhatIsNotExactIsCompared(t *testing.T) {
	s := newServer(6)
	a := of(s)
	a.change("INBOX", s.id(1), func(c *trim.Copy) { c.Exact = false })
	s.size = func(l *letter) int64 {
		if l.uid == 2 { // without the end of its last line
			return int64(len(l.body)) - 2
		}
		return int64(len(l.body))
	}
	// POP3 gave it without the end of its last line.
	a.change("INBOX", s.id(3), func(c *trim.Copy) { c.Exact = false; c.SHA256 = sum("other") })
	a.files[a.copies["INBOX"][s.id(3)].Message] = strings.TrimSuffix(s.mail["INBOX"][2].body, "\r\n")
	// Another program keeps it with bare line feeds.
	a.change("INBOX", s.id(4), func(c *trim.Copy) { c.Exact, c.Foreign = false, true; c.SHA256 = sum("other") })
	a.files[a.copies["INBOX"][s.id(4)].Message] = strings.ReplaceAll(s.mail["INBOX"][3].body, "\r\n", "\n")
	// It was repaired before it was sent.
	n := a.copies["INBOX"][s.id(5)].Message
	a.change("INBOX", s.id(5), func(c *trim.Copy) { c.Exact = false; c.SHA256 = sum("other") })
	a.files[n] = "something else"
	r, err := trimOld(t, s, a)
	if !errors.Is(err, trim.ErrUnsafe) || r.Removed != 0 || len(r.Folders[0].Unsafe) != 1 || r.Folders[0].Unsafe[0].ID != s.id(5) {
		t.Errorf("without the form: %+v, %v", r.Folders[0], err)
	}
	a.forms = map[int64][]fingerprint.Sum{n: {sum(s.mail["INBOX"][4].body)}}
	if r, err = trimOld(t, s, a); err != nil || r.Removed != 6 || r.Compared != 5 {
		t.Errorf("with the form: %+v, %v", r.Folders[0], err)
	}
}

// The mailbox of which one cannot be compared is left alone; the run goes on.
func TestWhatCannotBeComparedIsLeftAlone(t *testing.T) {
	work := mailbox.Mailbox{Name: mailbox.NewName("Work"), Wire: "Work"}
	for name, fault := range map[string]func(s *server, a *archive){
		"the server sends without end": func(s *server, a *archive) {
			s.serve = func(_ mailbox.ID, body string) string { return body + strings.Repeat("x", 100<<10) }
		},
		"the server sends without end after the plan": func(s *server, a *archive) {
			a.change("INBOX", s.id(2), func(c *trim.Copy) { c.Exact = true })
			s.headers = func(id mailbox.ID, block string) string {
				if id == s.id(2) {
					return "Subject: other\r\n\r\n"
				}
				return block
			}
			s.serve = func(_ mailbox.ID, body string) string { return body + strings.Repeat("x", 100<<10) }
		},
		"the file is gone when it is opened": func(s *server, a *archive) {
			a.change("INBOX", s.id(2), func(c *trim.Copy) { c.SHA256 = sum("other") })
			a.read = errors.New("no such file")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(3)
			s.boxes = append(s.boxes, work)
			s.add("Work", "Subject: w\r\n\r\nx\r\n", now.AddDate(-3, 0, 0), `\Seen`)
			a := of(s)
			a.change("INBOX", s.id(2), func(c *trim.Copy) { c.Exact = false })
			fault(s, a)
			r, err := trimOld(t, s, a)
			if !errors.Is(err, trim.ErrUnsafe) || len(r.Folders[0].Unsafe) != 1 || len(s.mail["INBOX"]) != 3 || len(s.mail["Work"]) != 0 {
				t.Errorf("%+v, left %v and %v, %v", r.Folders[0], s.uids("INBOX"), s.uids("Work"), err)
			}
		})
	}
}

// A server that tells its quota before and not after has not made room.
func TestQuotaThatIsToldOnceIsNoProof(t *testing.T) {
	s := newServer(10)
	s.quota, s.quotas, s.noSizes = 10*int64(len(s.mail["INBOX"][0].body)), 1, true
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		return true, mailbox.Removal{}, retry.Refused(errors.New("NO"))
	}
	until := func(o *trim.Options) { o.OlderThan, o.Until.Percent = time.Time{}, 50 }
	if r, err := trimOld(t, s, of(s), until); err == nil || r.Measured || r.Removed != 0 {
		t.Errorf("measured %v, %d removed, %v", r.Measured, r.Removed, err)
	}
	s.removing, s.usages = nil, 0
	s.onHold = func(n int) { s.mail["INBOX"][0].flags = []string{`\Seen`, `\Flagged`} } // meanwhile, so that it stays
	var short *trim.ShortError
	if r, err := trimOld(t, s, of(s), until); !errors.As(err, &short) || r.Measured || r.Removed != 4 {
		t.Errorf("measured %v, %d removed, %v", r.Measured, r.Removed, err)
	}
}

// What the server says of its quota counts, not what the user says of it.
func TestQuotaOfTheServerCounts(t *testing.T) {
	s := newServer(10)
	s.quota = 10 * int64(len(s.mail["INBOX"][0].body))
	until := func(o *trim.Options) { o.OlderThan, o.Until.Percent, o.Quota = time.Time{}, 50, 2*s.quota }
	if r, err := trimOld(t, s, of(s), until); err != nil || r.Quota != s.quota || r.Removed != 5 {
		t.Errorf("quota %d, %d removed, %v", r.Quota, r.Removed, err)
	}
}

// Over POP3 a session tells what the one before has done.
func TestPOP3ServerThatRemovesMoreIsStopped(t *testing.T) {
	s := newServer(450)
	s.protocol, s.ways = mailbox.POP3, mailbox.Ways{Exactly: true}
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		s.remove("INBOX", s.id(450))
		return false, mailbox.Removal{}, nil
	}
	r, err := trimOld(t, s, of(s))
	f := r.Folders[0]
	if err == nil || !errors.Is(err, trim.ErrUnsafe) || r.Removed != 200 || len(s.log) != 1 || f.Others != 1 || !strings.Contains(f.Why, "more messages than") {
		t.Errorf("%d removed, told %q, %+v, %v", r.Removed, s.log, f, err)
	}
}

// A mailbox that nobody trims, and that does not let its sizes be seen, does not
// end the run; it is told.
func TestMailboxThatCannotBeAddedUpIsTold(t *testing.T) {
	s := newServer(10)
	s.noSizes = true
	junk := mailbox.Mailbox{Name: mailbox.NewName("Junk"), Wire: "Junk"}
	s.boxes = append(s.boxes, junk)
	s.refuse = func(m mailbox.Mailbox) error {
		if m == junk {
			return retry.Refused(errors.New("NO [NOPERM]"))
		}
		return nil
	}
	r, err := trimOld(t, s, of(s), func(o *trim.Options) {
		o.OlderThan, o.Until.Octets, o.Filter.Exclude = time.Time{}, 5*int64(len(s.mail["INBOX"][0].body)), []string{"Junk"}
	})
	if !errors.Is(err, trim.ErrNotRemoved) || r.Removed != 5 || !strings.Contains(r.Folders[1].Refused, "NOPERM") {
		t.Errorf("%d removed, %+v, %v", r.Removed, r.Folders[1], err)
	}
}

func TestTrashIsMovedTo(t *testing.T) {
	s := newServer(5)
	s.boxes = append(s.boxes, mailbox.Mailbox{Name: mailbox.NewName("Bin"), Wire: "Bin", Role: `\Trash`})
	r, err := trimOld(t, s, of(s), func(o *trim.Options) { o.Trash = true })
	if err != nil || r.Removed != 5 || len(s.mail["Bin"]) != 5 || !slices.Equal(s.log, []string{"remove 1 Bin", "remove 4 Bin"}) || !r.ToTrash {
		t.Errorf("%+v, %v, told %q", r, err, s.log)
	}
}

// A server with labels: what is removed from All goes to the trash, and nothing
// is removed from what only shows it.
func TestLabelsAreLeftAlone(t *testing.T) {
	s := newServer(3)
	s.ways.Labels = true
	s.boxes = append(s.boxes, mailbox.Mailbox{Name: mailbox.NewName("All"), Wire: "All", Role: `\All`}, mailbox.Mailbox{Name: mailbox.NewName("Bin"), Wire: "Bin", Role: `\Trash`})
	for _, l := range s.mail["INBOX"] {
		s.add("All", l.body, l.date, l.flags...)
	}
	r, err := trimOld(t, s, of(s))
	if err != nil || r.Removed != 3 || len(s.mail["All"]) != 0 || len(s.mail["INBOX"]) != 3 || len(s.mail["Bin"]) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestTrimOverPOP3HasASessionASlice(t *testing.T) {
	s := newServer(450)
	s.protocol, s.ways = mailbox.POP3, mailbox.Ways{Exactly: true}
	a := of(s)
	for id := range a.copies["INBOX"] {
		a.change("INBOX", id, func(c *trim.Copy) { c.Flags = nil }) // it is not known that they were read
	}
	s.size = func(l *letter) int64 { return int64(len(l.body)) + 2 } // a last line without an end
	a.change("INBOX", s.id(7), func(c *trim.Copy) { c.Read = true })
	a.change("INBOX", s.id(8), func(c *trim.Copy) { c.Flags = []string{`\Flagged`} })
	r, err := trimOld(t, s, a)
	if err != nil || r.Removed != 448 || !slices.Equal(s.uids("INBOX"), []int{7, 8}) || len(s.log) != 3 || s.logins != 5 || r.Compared != 0 {
		t.Errorf("%v are left; %d logins, told %q, %+v, %v", s.uids("INBOX"), s.logins, s.log, r.Folders[0], err)
	}
}

// However large the archive's disk trouble is, nothing is removed without the
// list; and a note that fails ends the run.
func TestFailingNoteEndsTheRun(t *testing.T) {
	s := newServer(450)
	a := of(s)
	a.note = func() error { return errors.New("disk full") }
	_, err := trimOld(t, s, a)
	if !errors.As(err, new(*trim.ArchiveError)) || len(s.log) != 1 {
		t.Errorf("told %q, %v", s.log, err)
	}
}

// By its own word the server has another message than it sends, in the same way
// each time.
func TestServerThatContradictsItselfIsNotBelieved(t *testing.T) {
	for _, p := range []mailbox.Protocol{mailbox.IMAP, mailbox.POP3} {
		s := newServer(3)
		s.protocol = p
		a := of(s)
		s.headers = func(id mailbox.ID, block string) string { // the true one, of which the archive knows nothing
			if id == s.id(2) {
				return "Subject: true\r\n\r\n"
			}
			return block
		}
		if r, err := trimOld(t, s, a, func(o *trim.Options) { o.Unread = true }); !errors.Is(err, trim.ErrUnsafe) || r.Removed != 0 {
			t.Errorf("%s, header: %+v, %v", p, r.Folders[0], err)
		}
		s.headers = nil
		s.size = func(l *letter) int64 {
			if l.uid == 2 {
				return 60
			}
			return int64(len(l.body))
		}
		if r, err := trimOld(t, s, a, func(o *trim.Options) { o.Unread = true }); !errors.Is(err, trim.ErrUnsafe) || r.Removed != 0 {
			t.Errorf("%s, size: %+v, %v", p, r.Folders[0], err)
		}
		a.change("INBOX", s.id(2), func(c *trim.Copy) { c.Exact = false }) // it was so when it was archived
		if r, err := trimOld(t, s, a, func(o *trim.Options) { o.Unread = true }); err != nil || r.Removed != 2 || r.Folders[0].Kept[trim.Missized] != 1 {
			t.Errorf("%s, size from the start: %+v, %v", p, r.Folders[0], err)
		}
	}
}

// What cannot be removed in the end is not left marked as deleted.
func TestMarksAreTakenBack(t *testing.T) {
	s := newServer(5)
	n := 0
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		if n++; n != 2 {
			return false, mailbox.Removal{}, nil
		}
		for _, l := range s.mail["INBOX"] {
			l.flags = []string{`\Seen`, `\Deleted`}
		}
		s.flag(3, `\Seen`, `\Deleted`, `\Flagged`) // by its owner
		return true, mailbox.Removal{}, errLost
	}
	r, err := trimOld(t, s, of(s))
	if !errors.Is(err, trim.ErrNotRemoved) || r.Removed != 4 || !slices.Equal(s.uids("INBOX"), []int{3}) || !slices.Equal(s.mail["INBOX"][0].flags, []string{`\Seen`, `\Flagged`}) {
		t.Errorf("%+v, flags %v, %v", r.Folders[0], s.mail["INBOX"][0].flags, err)
	}

	// The same by a run before, that was killed.
	s = newServer(2)
	s.mail["INBOX"][1].flags = []string{`\Seen`, `\Deleted`, `\Flagged`}
	a := of(s)
	a.begun = map[mailbox.ID]bool{s.id(2): true}
	if _, err := trimOld(t, s, a); err != nil || !slices.Equal(s.mail["INBOX"][0].flags, []string{`\Seen`, `\Flagged`}) {
		t.Errorf("flags %v, %v", s.mail["INBOX"][0].flags, err)
	}
}

// Somebody flags a message while the headers are compared.
func TestWhatIsFlaggedInTheLastMomentIsKept(t *testing.T) {
	s := newServer(3)
	s.headers = func(id mailbox.ID, block string) string {
		s.flag(2, `\Seen`, `\Flagged`)
		return block
	}
	if r, err := trimOld(t, s, of(s)); err != nil || r.Removed != 2 || r.Folders[0].Meanwhile != 1 || !slices.Equal(s.uids("INBOX"), []int{2}) {
		t.Errorf("%+v, %v", r.Folders[0], err)
	}
}

// What waits in the trash is going to be free: a second run moves no more.
func TestUntilCountsWhatIsInTheTrash(t *testing.T) {
	s := newServer(10)
	s.quota = 10 * int64(len(s.mail["INBOX"][0].body))
	s.boxes = append(s.boxes, mailbox.Mailbox{Name: mailbox.NewName("Bin"), Wire: "Bin", Role: `\Trash`})
	for day := range 3 {
		r, err := trimOld(t, s, of(s), func(o *trim.Options) { o.Trash, o.OlderThan, o.Until.Percent = true, time.Time{}, 75 })
		if err != nil || len(s.mail["INBOX"]) != 7 {
			t.Errorf("day %d: %d are left, %+v, %v", day, len(s.mail["INBOX"]), r.Plan, err)
		}
	}
}

// What its sender alone has dated may have come today.
func TestDatesOfSendersDoNotMakeMailOld(t *testing.T) {
	s := newServer(2)
	s.protocol = mailbox.POP3
	a := of(s)
	a.change("INBOX", s.id(1), func(c *trim.Copy) { c.Guessed, c.Since = true, now.Unix() })
	a.change("INBOX", s.id(2), func(c *trim.Copy) { c.Guessed, c.Since = true, now.AddDate(0, 0, -31).Unix() })
	if r, err := trimOld(t, s, a); err != nil || !slices.Equal(s.uids("INBOX"), []int{1}) {
		t.Errorf("%+v, %v", r.Folders[0], err)
	}
}

// A POP3 server that empties the mailbox when a session ends: what it has taken
// with it counts as archived only if it is found whole.
func TestPOP3ServerThatEmptiesTheMailboxIsNotOK(t *testing.T) {
	s := newServer(10)
	s.protocol = mailbox.POP3
	a := of(s)
	for uid := 6; uid <= 10; uid++ {
		a.change("INBOX", s.id(uid), func(c *trim.Copy) { c.Arrived = now.Unix() })
	}
	damaged := a.copies["INBOX"][s.id(9)].Message
	a.doubt = func(n int64, _ int) *trim.Doubt {
		if n == damaged {
			return &trim.Doubt{File: "x", Text: "hash differs"}
		}
		return nil
	}
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		s.mail["INBOX"] = nil
		return true, mailbox.Removal{Done: ids, Over: true}, nil
	}
	r, err := trimOld(t, s, a)
	if f := r.Folders[0]; !errors.Is(err, trim.ErrUnsafe) || f.Others != 5 || f.OthersArchived != 4 {
		t.Errorf("%+v, %v", f, err)
	}
}

// One that says yes and removes nothing gets no second slice.
func TestPOP3ServerThatRemovesNothingIsStopped(t *testing.T) {
	s := newServer(1000)
	s.protocol = mailbox.POP3
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		return true, mailbox.Removal{Done: ids, Over: true}, nil
	}
	if r, err := trimOld(t, s, of(s)); !errors.Is(err, trim.ErrNotRemoved) || r.Removed != 0 || len(s.log) != 1 {
		t.Errorf("told %q, removed %d, %v", s.log, r.Removed, err)
	}
}

// The file is the last thing that is looked at before the server is told.
func TestFileThatGoesWhileHeadersComeKeepsItsMessage(t *testing.T) {
	s := newServer(3)
	a := of(s)
	bad := false
	a.doubt = func(n int64, _ int) *trim.Doubt {
		if bad && n == 2 {
			return &trim.Doubt{File: "x", Text: "its file is not there"}
		}
		return nil
	}
	s.headers = func(_ mailbox.ID, b string) string { bad = true; return b }
	if _, err := trimOld(t, s, a); !errors.Is(err, trim.ErrUnsafe) || len(s.uids("INBOX")) != 3 {
		t.Errorf("left %v, %v", s.uids("INBOX"), err)
	}
}

// The archive may be what the server serves, or another program may follow the
// server: then one message is all that is lost.
func TestFilesThatGoWithTheirMessagesStopTheRun(t *testing.T) {
	s := newServer(300)
	a := of(s)
	a.doubt = func(n int64, _ int) *trim.Doubt {
		if len(s.uids("INBOX")) < 300 && n == 1 {
			return &trim.Doubt{File: "x", Text: "its file is not there"}
		}
		return nil
	}
	r, err := trimOld(t, s, a)
	if !errors.Is(err, trim.ErrUnsafe) || r.Removed != 1 || len(s.log) != 1 || len(r.Folders[0].Unsafe) != 1 || !r.Folders[0].Unsafe[0].Gone {
		t.Errorf("%d removed, told %q, %+v, %v", r.Removed, s.log, r.Folders[0], err)
	}
}

func TestWhatAnotherProgramKeepsInStepStays(t *testing.T) {
	s := newServer(3)
	a := of(s)
	a.change("INBOX", s.id(2), func(c *trim.Copy) { c.Synced = true })
	r, err := trimOld(t, s, a)
	if err != nil || !slices.Equal(s.uids("INBOX"), []int{2}) || r.Folders[0].Kept[trim.Synced] != 1 {
		t.Errorf("%v are left, %+v, %v", s.uids("INBOX"), r.Folders[0], err)
	}
	if _, err := trimOld(t, s, a, func(o *trim.Options) { o.Synced = true }); err != nil || len(s.uids("INBOX")) != 0 {
		t.Errorf("%v are left, %v", s.uids("INBOX"), err)
	}
}

// However a run ends, what a killed one has marked, and this one has not removed,
// is not marked any more.
func TestMarksOfAKilledRunDoNotStay(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(s *server, a *archive)
		more  func(o *trim.Options)
	}{
		"a file is in doubt": {fault: func(_ *server, a *archive) {
			a.doubt = func(n int64, _ int) *trim.Doubt { return &trim.Doubt{File: "x", Text: "hash differs"} }
		}},
		"nothing has to go":         {more: func(o *trim.Options) { o.OlderThan, o.Until.Octets = time.Time{}, 1<<30 }},
		"nobody agrees":             {more: func(o *trim.Options) { o.Confirm = func(context.Context, *trim.Plan) error { return errors.New("no") } }},
		"the mailbox is left out":   {more: func(o *trim.Options) { o.Filter.Exclude = []string{"INBOX"} }},
		"the backup was incomplete": {more: func(o *trim.Options) { o.Backup.Tallies[0].Reason = "NO" }},
		"the list cannot be written": {fault: func(_ *server, a *archive) {
			a.doom = func() error { return errors.New("no space left") }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(5)
			s.flag(2, `\Seen`, `\Deleted`) // by the killed run
			s.flag(4, `\Seen`, `\Deleted`) // by another program
			a := of(s)
			a.begun = map[mailbox.ID]bool{s.id(2): true, s.id(5): true}
			if c.fault != nil {
				c.fault(s, a)
			}
			trimOld(t, s, a, func(o *trim.Options) {
				if c.more != nil {
					c.more(o)
				}
			})
			for _, l := range s.mail["INBOX"] {
				if marked := slices.Contains(l.flags, `\Deleted`); marked != (l.uid == 4) {
					t.Errorf("message %d: %v", l.uid, l.flags)
				}
			}
			if len(s.mail["INBOX"]) != 5 {
				t.Errorf("%v are left", s.uids("INBOX"))
			}
		})
	}
}

// A run that is interrupted between marking and removing takes its marks back.
func TestInterruptedRunLeavesNoMarks(t *testing.T) {
	s := newServer(5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.removing = func(ids []mailbox.ID) (bool, mailbox.Removal, error) {
		s.flag(1, `\Seen`, `\Deleted`)
		cancel()
		return true, mailbox.Removal{}, errLost
	}
	o := trim.Options{Backup: whole(s), OlderThan: now, KeepSince: now, Confirm: yes, Pause: time.Millisecond}
	r, err := trim.Run(ctx, s.open, of(s), report.Discard, o)
	if err == nil || len(s.mail["INBOX"]) != 5 || slices.Contains(s.mail["INBOX"][0].flags, `\Deleted`) || r.Folders[0].StillMarked != 0 {
		t.Errorf("flags %v, %+v, %v", s.mail["INBOX"][0].flags, r.Folders[0], err)
	}
}
