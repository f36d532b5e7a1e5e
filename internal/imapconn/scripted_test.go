package imapconn_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"mailstow/internal/imapconn"
	"mailstow/internal/mailtest"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// script is an IMAP server that answers as it is told.
type script struct {
	caps    string
	answers func(command string) string // "" for a plain OK; TAG is replaced

	mu   sync.Mutex
	said []string
}

func (s *script) dial(t *testing.T) *imapconn.Conn {
	t.Helper()
	addr := mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 "+s.caps+"] ready\r\n", func(line string) string {
		tag, command, _ := strings.Cut(line, " ")
		s.mu.Lock()
		s.said = append(s.said, command)
		s.mu.Unlock()
		answer := s.answers(command)
		switch {
		case answer != "":
		case strings.HasPrefix(command, "LOGIN"):
			answer = "TAG OK [CAPABILITY IMAP4rev1 " + s.caps + "] in\r\n"
		case strings.HasPrefix(command, "ENABLE"):
			answer = "* ENABLED QRESYNC\r\nTAG OK\r\n"
		default:
			answer = "TAG OK done\r\n"
		}
		return strings.ReplaceAll(answer, "TAG", tag)
	})
	return dial(t, addr, "alice", "secret")
}

func (s *script) commands(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.said {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

const selected = "* 3 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\n* OK [UIDNEXT 20] n\r\n* OK [HIGHESTMODSEQ 55] h\r\nTAG OK [READ-ONLY] in\r\n"

func TestNamesOfContentsAreAskedForAndKept(t *testing.T) {
	for caps, item := range map[string]string{"X-GM-EXT-1": "X-GM-MSGID 1278455344230334865", "OBJECTID": "EMAILID (1278455344230334865)"} {
		s := &script{caps: caps, answers: func(command string) string {
			switch {
			case strings.HasPrefix(command, "EXAMINE"):
				return selected
			case strings.HasPrefix(command, "FETCH") && strings.Contains(command, strings.Fields(item)[0]):
				return "* 1 FETCH (" + item + ` UID 5 RFC822.SIZE 10 FLAGS () INTERNALDATE "17-Jul-1996 02:44:25 -0700")` + "\r\n" +
					"* 2 FETCH (UID 6 RFC822.SIZE 10 FLAGS ())\r\n* 3 FETCH (UID 8 FLAGS ())\r\nTAG OK\r\n"
			}
			return ""
		}}
		l, err := s.dial(t).List(t.Context(), inbox, told, true)
		if err != nil || len(l.Messages) != 3 || l.Messages[0].Object != "1278455344230334865" || l.Messages[1].Object != "" || l.Messages[2].Size != -1 {
			t.Errorf("%s: %+v, %v", caps, l, err)
		}
	}
}

// RFC 9738: Yahoo takes no more than 1,000 messages in a command.
func TestNoCommandNamesMoreThanTheServerAllows(t *testing.T) {
	const exists = 2500
	s := &script{caps: "MESSAGELIMIT=1000"}
	s.answers = func(command string) string {
		var first, last int
		switch {
		case strings.HasPrefix(command, "EXAMINE"):
			return fmt.Sprintf("* %d EXISTS\r\n* OK [UIDVALIDITY 7] v\r\nTAG OK [READ-ONLY] in\r\n", exists)
		case strings.Contains(command, "FETCH"):
			uid := strings.HasPrefix(command, "UID")
			if n, _ := fmt.Sscanf(strings.TrimPrefix(command, "UID "), "FETCH %d:%d", &first, &last); n != 2 || last-first >= 1000 {
				return "TAG NO [MESSAGELIMIT 1000 1] too many\r\n"
			}
			var b strings.Builder
			for i := first; i <= last && !uid; i++ {
				fmt.Fprintf(&b, "* %d FETCH (UID %d FLAGS ())\r\n", i, i)
			}
			for i := first; i <= last && uid; i++ {
				fmt.Fprintf(&b, "* %d FETCH (UID %d RFC822.SIZE 9 INTERNALDATE \"17-Jul-1996 02:44:25 -0700\")\r\n", i, i)
			}
			return b.String() + "TAG OK\r\n"
		}
		return ""
	}
	c := s.dial(t)
	l, err := c.List(t.Context(), inbox, told, false)
	if err != nil || l.Exists != exists || len(l.Messages) != exists {
		t.Fatalf("%d listed of %d, %v", len(l.Messages), l.Exists, err)
	}
	if err := c.Describe(t.Context(), inbox, l.Messages); err != nil || l.Messages[exists-1].Size != 9 {
		t.Errorf("last message %+v, %v", l.Messages[exists-1], err)
	}
}

func TestChangesTellWhatVanished(t *testing.T) {
	s := &script{caps: "ENABLE CONDSTORE QRESYNC", answers: func(command string) string {
		switch {
		case strings.HasPrefix(command, "EXAMINE"):
			return selected
		case strings.HasPrefix(command, "UID FETCH 1:* ") && strings.HasSuffix(command, "(CHANGEDSINCE 40 VANISHED)"):
			return "* VANISHED (EARLIER) 3:5,9\r\n* 3 FETCH (UID 19 RFC822.SIZE 10 FLAGS (\\Seen) MODSEQ (50))\r\nTAG OK\r\n"
		}
		return ""
	}}
	ch, err := s.dial(t).Changes(t.Context(), inbox, mailbox.State{UIDValidity: 7, HighestModSeq: 40})
	if err != nil || ch.Exists != 3 || ch.HighestModSeq != 55 || len(ch.Messages) != 1 || ch.Messages[0].ID != "7:19" || ch.Vanished == nil {
		t.Fatalf("%+v, %v", ch, err)
	}
	for id, want := range map[mailbox.ID]bool{"7:2": false, "7:3": true, "7:5": true, "7:9": true, "7:10": false, "6:1": true} {
		if got := ch.Vanished(id); got != want {
			t.Errorf("Vanished(%s) = %v", id, got)
		}
	}
	if _, err := s.dial(t).Changes(t.Context(), inbox, mailbox.State{UIDValidity: 8, HighestModSeq: 40}); !errors.Is(err, mailbox.ErrRebuilt) {
		t.Errorf("of a rebuilt mailbox: %v", err)
	}
}

// FETCH is sent before EXAMINE is answered. If the mailbox cannot be opened,
// or is another one, nothing of the answer counts.
func TestNothingCountsOfAMailboxThatWasNotOpened(t *testing.T) {
	for name, answer := range map[string]string{
		"refused": "TAG NO [NOPERM] not yours\r\n",
		"rebuilt": "* 1 EXISTS\r\n* OK [UIDVALIDITY 8] v\r\nTAG OK in\r\n",
	} {
		s := &script{answers: func(command string) string {
			switch {
			case strings.HasPrefix(command, "EXAMINE"):
				return answer
			case strings.Contains(command, "BODY"):
				return "* 1 FETCH (UID 5 BODY[] {4}\r\nlie!)\r\nTAG OK\r\n"
			}
			return ""
		}}
		err := s.dial(t).Fetch(t.Context(), inbox, []mailbox.Message{{ID: "7:5", Size: 4}}, func(mailbox.Message, int64, io.Reader) error {
			t.Errorf("%s: a body came", name)
			return nil
		})
		if name == "rebuilt" && !errors.Is(err, mailbox.ErrRebuilt) || name == "refused" && (!retry.IsRefused(err) || !strings.Contains(err.Error(), "NOPERM")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMailboxIsOpenedOnceForSeveralQuestions(t *testing.T) {
	s := &script{answers: func(command string) string {
		if strings.HasPrefix(command, "EXAMINE") {
			return selected
		}
		return ""
	}}
	c := s.dial(t)
	for range 3 {
		if err := c.Fetch(t.Context(), inbox, []mailbox.Message{{ID: "7:5"}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.commands("EXAMINE"); n != 1 {
		t.Errorf("the mailbox was opened %d times", n)
	}
}

// Without LIST-STATUS the states come by STATUS, all asked at once; what
// cannot be told is left out.
func TestStatesByStatus(t *testing.T) {
	s := &script{answers: func(command string) string {
		switch {
		case strings.Contains(command, `"bad"`), strings.Contains(command, " bad"):
			return "TAG NO no\r\n"
		case strings.Contains(command, "odd"):
			return "* STATUS odd (MESSAGES x UIDNEXT 99999999999)\r\nTAG OK\r\n"
		case strings.HasPrefix(command, "STATUS"):
			return "* STATUS INBOX (MESSAGES 4 UIDNEXT 9 UIDVALIDITY 7 HIGHESTMODSEQ 12)\r\nTAG OK\r\n"
		}
		return ""
	}}
	box := func(name string) mailbox.Mailbox { return mailbox.Mailbox{Name: mailbox.NewName(name), Wire: name} }
	states, err := s.dial(t).States(t.Context(), []mailbox.Mailbox{box("bad"), inbox, box("odd"), box("line\r\nend")})
	if err != nil || len(states) != 1 || states["INBOX"] != (mailbox.State{UIDValidity: 7, UIDNext: 9, HighestModSeq: 12, Exists: 4}) {
		t.Errorf("%+v, %v", states, err)
	}
}

// A connection that is lost after an answer must not look like one on which
// everything was asked for.
func TestFetchOnALostConnectionIsAnError(t *testing.T) {
	s := &script{answers: func(command string) string {
		switch {
		case strings.HasPrefix(command, "EXAMINE"):
			return selected
		case strings.Contains(command, "BODY"):
			return "TAG NO [THROTTLED] slow down\r\n* BYE throttled\r\n" + mailtest.HangUp
		}
		return ""
	}}
	c := s.dial(t)
	for range 3 {
		err := c.Fetch(t.Context(), inbox, []mailbox.Message{{ID: "7:5"}}, nil)
		if err == nil {
			t.Fatal("no error")
		}
		time.Sleep(50 * time.Millisecond) // until the end of the connection has been read
	}
}
