package imapconn_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// Just what is named goes, although other mail is marked as deleted.
func TestRemoveRemovesJustWhatIsNamed(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		c := s.Login(t, "alice")
		for i := range 6 {
			flags := []string{`\Seen`}
			if i == 4 {
				flags = append(flags, `\Deleted`)
			}
			if err := c.Append("INBOX", fmt.Appendf(nil, "Subject: %d\r\n\r\n%d\r\n", i, i), time.Now(), flags...); err != nil {
				t.Fatal(err)
			}
		}
		conn := dial(t, s.IMAP, "alice", s.Password("alice"))
		l, err := conn.List(t.Context(), inbox, mailbox.State{}, true)
		if err != nil {
			t.Fatal(err)
		}
		var all []mailbox.ID
		for _, m := range l.Messages {
			all = append(all, m.ID)
		}
		if _, err := conn.Remove(t.Context(), inbox, all[:1], ""); err == nil {
			t.Error("a mailbox that is open for reading is changed")
		}
		now, err := conn.Hold(t.Context(), inbox, all[1:3])
		if err != nil || len(now) != 2 || now[0].ID != all[1] || now[0].Size != l.Messages[1].Size || !now[0].InternalDate.Equal(l.Messages[1].InternalDate) {
			t.Fatalf("held %v, %v", now, err)
		}
		r, err := conn.Remove(t.Context(), inbox, all[1:3], "")
		if err != nil || !slices.Equal(r.Done, all[1:3]) || len(r.Left) > 0 || r.More {
			t.Errorf("%+v, %v", r, err)
		}
		l, err = conn.List(t.Context(), inbox, mailbox.State{}, false)
		var left []mailbox.ID
		for _, m := range l.Messages {
			left = append(left, m.ID)
		}
		if want := []mailbox.ID{all[0], all[3], all[4], all[5]}; err != nil || !slices.Equal(left, want) {
			t.Errorf("%v are left, want %v; %v", left, want, err)
		}
	})
}

// removing is a server with the messages 1 to 3 that does what is asked of it
// unless it is told to answer otherwise.
func removing(caps string, answers map[string]string) *script {
	return &script{caps: caps, answers: func(command string) string {
		for prefix, answer := range answers {
			if strings.HasPrefix(command, prefix) {
				return answer
			}
		}
		if strings.HasPrefix(command, "SELECT") {
			return "* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 4] x\r\nTAG OK [READ-WRITE] x\r\n"
		}
		return ""
	}}
}

func TestRemoveTellsWhatTheServerDoes(t *testing.T) {
	two := []mailbox.ID{"7:1", "7:2"}
	for name, c := range map[string]struct {
		answers    map[string]string
		done, left int
		more       bool
		unmarked   int
	}{
		"it does what it is told":     {map[string]string{"UID EXPUNGE": "* 1 EXPUNGE\r\n* 1 EXPUNGE\r\nTAG OK\r\n"}, 2, 0, false, 0},
		"it tells it with VANISHED":   {map[string]string{"UID EXPUNGE": "* VANISHED 1:2\r\nTAG OK\r\n"}, 2, 0, false, 0},
		"it removes one more":         {map[string]string{"UID EXPUNGE": "* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n* 1 EXPUNGE\r\nTAG OK\r\n"}, 2, 0, true, 0},
		"it removes nothing":          {map[string]string{"UID FETCH": "* 1 FETCH (UID 1 FLAGS (\\Deleted))\r\n* 2 FETCH (UID 2 FLAGS (\\Deleted))\r\nTAG OK\r\n"}, 0, 2, false, 1},
		"it removes one of two":       {map[string]string{"UID EXPUNGE": "* 1 EXPUNGE\r\nTAG OK\r\n", "UID FETCH": "* 1 FETCH (UID 2 FLAGS (\\Deleted))\r\nTAG OK\r\n"}, 1, 1, false, 1},
		"it does not mark":            {map[string]string{"UID STORE": "TAG NO [READ-ONLY] x\r\n", "UID FETCH": "* 1 FETCH (UID 1 FLAGS ())\r\n* 2 FETCH (UID 2 FLAGS ())\r\nTAG OK\r\n"}, 0, 2, false, 1},
		"it knows no UID EXPUNGE":     {map[string]string{"UID EXPUNGE": "TAG BAD what\r\n", "UID FETCH": "* 1 FETCH (UID 1 FLAGS (\\Deleted))\r\n* 2 FETCH (UID 2 FLAGS (\\Deleted))\r\nTAG OK\r\n"}, 0, 2, false, 1},
		"it tells of another message": {map[string]string{"UID EXPUNGE": "* 1 EXPUNGE\r\n* 1 EXPUNGE\r\nTAG OK\r\n", "UID FETCH": "* 1 FETCH (UID 3 FLAGS ())\r\nTAG OK\r\n"}, 2, 0, false, 0},
	} {
		s := removing("UIDPLUS", c.answers)
		conn := s.dial(t)
		if _, err := conn.Hold(t.Context(), inbox, two); err != nil {
			t.Fatal(err)
		}
		r, err := conn.Remove(t.Context(), inbox, two, "")
		if err != nil || len(r.Done) != c.done || len(r.Left) != c.left || r.More != c.more || s.commands("UID STORE 1:2 -FLAGS.SILENT (\\Deleted)")+s.commands("UID STORE 2 -FLAGS.SILENT (\\Deleted)") != c.unmarked {
			t.Errorf("%s: %+v, %v; it was told %q", name, r, err, s.said)
		}
		if s.commands("EXPUNGE")+s.commands("CLOSE") > 0 {
			t.Errorf("%s: it was told %q", name, s.said)
		}
	}
}

// Without the means to do just that, nothing is sent.
func TestNothingIsRemovedInAnotherWay(t *testing.T) {
	for _, c := range []struct{ caps, trash string }{{"MOVE", ""}, {"UIDPLUS", "Trash"}} {
		s := removing(c.caps, nil)
		conn := s.dial(t)
		if _, err := conn.Hold(t.Context(), inbox, []mailbox.ID{"7:1"}); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Remove(t.Context(), inbox, []mailbox.ID{"7:1"}, c.trash); !retry.IsRefused(err) || s.commands("UID STORE")+s.commands("UID COPY")+s.commands("UID MOVE")+s.commands("UID EXPUNGE") > 0 {
			t.Errorf("%v; it was told %q", err, s.said)
		}
		if _, err := conn.Hold(t.Context(), inbox, []mailbox.ID{"6:1"}); err != mailbox.ErrRebuilt {
			t.Errorf("of another UIDVALIDITY: %v", err)
		}
	}
}

func TestUsageIsTheServersWord(t *testing.T) {
	boxes := []mailbox.Mailbox{inbox, {Name: mailbox.NewName("Work"), Wire: "Work"}}
	answers := map[string]string{
		"GETQUOTAROOT":    "* QUOTAROOT INBOX \"\"\r\n* QUOTA \"\" (STORAGE 100 2048)\r\nTAG OK\r\n",
		"STATUS INBOX":    "* STATUS INBOX (MESSAGES 5 SIZE 1000)\r\nTAG OK\r\n",
		"STATUS \"Work\"": "* STATUS Work (MESSAGES 5 SIZE 1000)\r\nTAG OK\r\n",
	}
	for caps, want := range map[string]mailbox.Usage{
		"QUOTA STATUS=SIZE": {Used: 100 << 10, Quota: 2048 << 10, Sizes: 2000, Messages: 10},
		"STATUS=SIZE":       {Sizes: 2000, Messages: 10},
		"QUOTA":             {Used: 100 << 10, Quota: 2048 << 10, Sizes: -1, Messages: 10},
	} {
		conn := removing(caps, answers).dial(t)
		for range 2 { // the second time it is no other
			if u, err := conn.Usage(t.Context(), boxes); err != nil || u != want {
				t.Errorf("%s: %+v, %v; want %+v", caps, u, err, want)
			}
		}
	}
}
