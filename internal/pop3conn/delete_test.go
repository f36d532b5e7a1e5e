package pop3conn

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
	"mailstow/mailbox"
)

// deleting returns a server with alice's mailbox of n messages, and the
// messages' IDs.
func deleting(t *testing.T, s *mailtest.Server, addr string, n int) (*Server, []mailbox.ID) {
	t.Helper()
	err := s.Login(t, "alice").AppendAll("INBOX", n, func(i int) ([]byte, time.Time) {
		return fmt.Appendf(nil, "Subject: %d\r\n\r\n%d\r\n", i, i), time.Date(2023, 3, 14, 9, 26, 53, 0, time.UTC)
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{
		Endpoint: netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 10 * time.Second},
		Login:    sasl.Login{User: "alice", Secret: secret(s.Password("alice"))},
	}
	return server, listed(t, server)
}

func listed(t *testing.T, s *Server) (ids []mailbox.ID) {
	t.Helper()
	c, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(true)
	l, err := c.List(t.Context(), inbox, mailbox.State{}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range l.Messages {
		ids = append(ids, m.ID)
	}
	return ids
}

// remove removes messages in a session of its own.
func remove(t *testing.T, s *Server, ids []mailbox.ID) (mailbox.Removal, error) {
	t.Helper()
	c, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	held, err := c.Hold(t.Context(), inbox, ids)
	if err != nil {
		t.Fatal(err)
	}
	var there []mailbox.ID
	for _, m := range held {
		there = append(there, m.ID)
	}
	return c.Remove(t.Context(), inbox, there, "")
}

func TestRemoveRemovesJustWhatIsNamed(t *testing.T) {
	for name, s := range map[string]*mailtest.Server{"dovecot": mailtest.Dovecot(t), "cyrus": mailtest.Cyrus(t), "courier": mailtest.Courier(t)} {
		t.Run(name, func(t *testing.T) {
			n := 205
			if name == "courier" { // it takes its time to store mail
				n = 5
			}
			server, all := deleting(t, s, s.POP3, n+5)
			server.Login.Method = "user"
			r, err := remove(t, server, slices.Concat(all[:n], []mailbox.ID{"nobody"}))
			if err != nil || !slices.Equal(r.Done, all[:n]) || len(r.Left) > 0 || !r.Over {
				t.Errorf("%d done, left %q, %v", len(r.Done), r.Left, err)
			}
			if left := listed(t, server); !slices.Equal(left, all[n:]) {
				t.Errorf("%d are left, want %d", len(left), len(all)-n)
			}
		})
	}
}

// A session that is cut has deleted nothing, and the caller hears that it has
// not.
func TestCutSessionDeletesNothing(t *testing.T) {
	s := mailtest.Dovecot(t)
	relay := mailtest.NewRelay(t, s.POP3, mailtest.Line{Cut: 1200})
	server, all := deleting(t, s, relay.Addr, 30) // the listings take less, 30 answers to DELE more
	if r, err := remove(t, server, all); err == nil || len(r.Done) > 0 {
		t.Errorf("%d done, %v", len(r.Done), err)
	}
	if left := listed(t, server); len(left) != len(all) {
		t.Errorf("%d are left, want %d", len(left), len(all))
	}
}

// answering is a server with the messages "a" and "b", or with those that uidls
// names, which answers in its own way.
func answering(t *testing.T, uidls string, answer func(command string) string) *Server {
	t.Helper()
	addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
		if own := answer(command); own != "" {
			return own
		}
		switch word, _, _ := strings.Cut(command, " "); word {
		case "CAPA":
			return "-ERR\r\n"
		case "STAT":
			return "+OK 2 2\r\n"
		case "LIST":
			return "+OK\r\n1 1\r\n2 1\r\n.\r\n"
		case "UIDL":
			return "+OK\r\n" + uidls + ".\r\n"
		}
		return "+OK\r\n"
	})
	return &Server{Endpoint: netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 5 * time.Second}, Login: sasl.Login{User: "alice", Secret: secret("x")}}
}

// Without a yes to QUIT it is not known what has been done, also where the
// server says no.
func TestNothingIsKnownWithoutAYesToQuit(t *testing.T) {
	for _, said := range []string{mailtest.HangUp, "-ERR some were not removed\r\n"} {
		server := answering(t, "1 a\r\n2 b\r\n", func(command string) string {
			if command == "QUIT" {
				return said
			}
			return ""
		})
		if r, err := remove(t, server, []mailbox.ID{"a"}); err == nil || retry.IsRefused(err) || len(r.Done) > 0 {
			t.Errorf("%q: %+v, %v", said, r, err)
		}
	}
}

func TestRefusedDeletionIsNamed(t *testing.T) {
	server := answering(t, "1 a\r\n2 b\r\n", func(command string) string {
		if command == "DELE 1" {
			return "-ERR no\r\n"
		}
		return ""
	})
	r, err := remove(t, server, []mailbox.ID{"a", "b"})
	if err != nil || !slices.Equal(r.Done, []mailbox.ID{"b"}) || len(r.Left) != 1 || r.Left["a"] == "" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A number stands for another message in the next session.
func TestMessageWithoutAUniqueIDIsNotDeleted(t *testing.T) {
	deleted := false
	server := answering(t, "1 same\r\n2 same\r\n", func(command string) string {
		deleted = deleted || strings.HasPrefix(command, "DELE")
		return ""
	})
	if r, err := remove(t, server, []mailbox.ID{"number 1", "same"}); err != nil || deleted || len(r.Done) > 0 {
		t.Errorf("%+v, %v, deleted %v", r, err, deleted)
	}
}
