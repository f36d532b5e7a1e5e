package imapconn_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"mailstow/internal/imapconn"
	"mailstow/internal/mailtest"
	"mailstow/mailbox"
)

// within fails the test if f takes longer than a hang would.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it hangs")
	}
}

// FETCH is sent before EXAMINE is answered. What a server tells of messages
// before it answers belongs to the mailbox that was open before, and must
// neither be taken for this one's nor block what comes behind.
func TestMessagesBeforeTheMailboxIsOpenAreNotItsOwn(t *testing.T) {
	const stray = "* 1 FETCH (UID 5 FLAGS (\\Deleted))\r\n* 2 FETCH (UID 99 BODY[] {3}\r\nabc)\r\n* VANISHED (EARLIER) 1:9\r\n"
	s := &script{caps: "ENABLE CONDSTORE QRESYNC", answers: func(command string) string {
		switch {
		case strings.HasPrefix(command, "EXAMINE"):
			return strings.Repeat(stray, 300) + "* OK [CLOSED]\r\n* 2 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\nTAG OK in\r\n"
		case strings.HasPrefix(command, "FETCH"), strings.Contains(command, "CHANGEDSINCE"):
			return "* 1 FETCH (UID 4 FLAGS () RFC822.SIZE 3)\r\n* 2 FETCH (UID 5 FLAGS (\\Seen) RFC822.SIZE 3)\r\nTAG OK\r\n"
		case strings.Contains(command, "BODY"):
			return "* 2 FETCH (UID 5 BODY[] {3}\r\nxyz)\r\nTAG OK\r\n"
		}
		return ""
	}}
	within(t, func() {
		l, err := s.dial(t).List(t.Context(), inbox, told, true)
		if err != nil || len(l.Messages) != 2 || l.Messages[0].ID != "7:4" || l.Messages[1].ID != "7:5" || fmt.Sprint(l.Messages[1].Flags) != `[\Seen]` {
			t.Errorf("listing %+v, %v", l, err)
		}
		ch, err := s.dial(t).Changes(t.Context(), inbox, mailbox.State{UIDValidity: 7, HighestModSeq: 1})
		if err != nil || len(ch.Messages) != 2 || ch.Vanished("7:5") {
			t.Errorf("changes %+v, %v", ch, err)
		}
		var got []string
		err = s.dial(t).Fetch(t.Context(), inbox, []mailbox.Message{{ID: "7:5", Size: 3}}, func(m mailbox.Message, _ int64, r io.Reader) error {
			b, err := io.ReadAll(r)
			got = append(got, string(m.ID)+string(b))
			return err
		})
		if err != nil || fmt.Sprint(got) != "[7:5xyz]" {
			t.Errorf("bodies %q, %v", got, err)
		}
	})
}

// Whatever a server counts, a listing ends.
func TestListingOfAMailboxThatCountsWrongEnds(t *testing.T) {
	for _, caps := range []string{"", "MESSAGELIMIT=1000"} {
		s := &script{caps: caps, answers: func(command string) string {
			if strings.HasPrefix(command, "EXAMINE") {
				return "* 4294967295 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\nTAG OK in\r\n"
			}
			return ""
		}}
		within(t, func() {
			l, err := s.dial(t).List(t.Context(), inbox, told, false)
			if err == nil && l.Exists == len(l.Messages) {
				t.Errorf("%q: %d messages of %d", caps, len(l.Messages), l.Exists)
			}
		})
	}
}

func TestTooManyMailboxesAreRefusedAndTheConnectionEnds(t *testing.T) {
	list := strings.Repeat("* LIST () \"/\" x\r\n", 101_000)
	s := &script{answers: func(command string) string {
		if strings.HasPrefix(command, "LIST") {
			return list + "TAG OK\r\n"
		}
		return ""
	}}
	within(t, func() {
		c := s.dial(t)
		if _, err := c.Mailboxes(t.Context()); !errors.Is(err, imapconn.ErrTooMuch) {
			t.Errorf("error = %v", err)
		}
		c.Close(false)
	})
}

// A mailbox may be emptied between LIST, which told of messages in it, and
// the question for them. Servers refuse 1:* in an empty one.
func TestMailboxThatHasBeenEmptiedIsEmpty(t *testing.T) {
	s := &script{caps: "LIST-EXTENDED LIST-STATUS", answers: func(command string) string {
		switch {
		case strings.HasPrefix(command, "LIST"):
			return "* LIST () \"/\" INBOX\r\n* STATUS INBOX (MESSAGES 5 UIDNEXT 6 UIDVALIDITY 7)\r\nTAG OK\r\n"
		case strings.HasPrefix(command, "EXAMINE"):
			return "* 0 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\nTAG OK in\r\n"
		case strings.HasPrefix(command, "FETCH"):
			return "TAG BAD Invalid messageset\r\n"
		}
		return ""
	}}
	c := s.dial(t)
	if _, err := c.Mailboxes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l, err := c.List(t.Context(), inbox, told, true); err != nil || l.Exists != 0 || len(l.Messages) != 0 {
		t.Errorf("listing %+v, %v", l, err)
	}
}

func TestManyFlagsTakeLittleTime(t *testing.T) {
	var flags strings.Builder
	for i := range 80_000 {
		fmt.Fprintf(&flags, "f%d ", i)
	}
	s := &script{answers: func(command string) string {
		switch {
		case strings.HasPrefix(command, "EXAMINE"):
			return "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] v\r\nTAG OK in\r\n"
		case strings.HasPrefix(command, "FETCH"):
			return "* 1 FETCH (UID 5 FLAGS (" + flags.String() + "))\r\nTAG OK\r\n"
		}
		return ""
	}}
	within(t, func() {
		if l, err := s.dial(t).List(t.Context(), inbox, told, false); err != nil || len(l.Messages) != 1 {
			t.Errorf("%d messages, %v", len(l.Messages), err)
		}
	})
}

// A server may tell anything, or nothing, while it is watched.
func TestIdleEndsWhenTheServerEndsIt(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		lost   bool
	}{
		"news":    {"+ idling\r\n* 4 EXISTS\r\n", false},
		"OK":      {"+ idling\r\nTAG OK enough\r\n", false},
		"refused": {"TAG NO not today\r\n", true},
		"dropped": {"+ idling\r\n* BYE good night\r\n" + mailtest.HangUp, true},
	} {
		s := &script{caps: "IDLE", answers: func(command string) string {
			switch {
			case strings.HasPrefix(command, "EXAMINE"):
				return selected
			case command == "IDLE":
				return c.answer
			}
			return ""
		}}
		within(t, func() {
			conn := s.dial(t)
			if err := conn.Examine(t.Context(), inbox); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			begun := time.Now()
			if err := conn.Idle(ctx, time.Minute); (err != nil) != c.lost && name != "news" || time.Since(begun) > 5*time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(begun))
			}
		})
	}
}
