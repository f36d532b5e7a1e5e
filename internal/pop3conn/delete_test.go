package pop3conn

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
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

func TestDeleteRemovesJustWhatIsNamed(t *testing.T) {
	for name, s := range map[string]*mailtest.Server{"dovecot": mailtest.Dovecot(t), "cyrus": mailtest.Cyrus(t), "courier": mailtest.Courier(t)} {
		t.Run(name, func(t *testing.T) {
			n := deletesASession + 5
			if name == "courier" { // it takes its time to store mail
				n = 5
			}
			server, all := deleting(t, s, s.POP3, n+5)
			doomed := slices.Concat(all[:n], []mailbox.ID{"nobody"})
			server.Login.Method = "user"
			d, err := server.Delete(t.Context(), doomed)
			if err != nil || !slices.Equal(d.Done, doomed[:len(doomed)-1]) || !slices.Equal(d.Unlisted, []mailbox.ID{"nobody"}) || len(d.Refused) > 0 {
				t.Errorf("%d done, unlisted %q, refused %q, %v", len(d.Done), d.Unlisted, d.Refused, err)
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
	d, err := server.Delete(t.Context(), all)
	if err == nil || len(d.Done)+len(d.Unlisted) > 0 {
		t.Errorf("%d done, %d unlisted, %v", len(d.Done), len(d.Unlisted), err)
	}
	if left := listed(t, server); len(left) != len(all) {
		t.Errorf("%d are left, want %d", len(left), len(all))
	}
}

// What has happened when the answer to QUIT is lost is told by a new listing.
func TestLostAnswerToQuitIsLookedUp(t *testing.T) {
	for _, committed := range []bool{true, false} {
		gone, quits := false, 0
		addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
			switch word, _, _ := strings.Cut(command, " "); {
			case word == "CAPA":
				return "-ERR\r\n"
			case word == "STAT" && gone:
				return "+OK 1 1\r\n"
			case word == "STAT":
				return "+OK 2 2\r\n"
			case word == "LIST" && gone:
				return "+OK\r\n1 1\r\n.\r\n"
			case word == "LIST":
				return "+OK\r\n1 1\r\n2 1\r\n.\r\n"
			case word == "UIDL" && gone:
				return "+OK\r\n1 b\r\n.\r\n"
			case word == "UIDL":
				return "+OK\r\n1 a\r\n2 b\r\n.\r\n"
			case word == "QUIT":
				if quits++; quits == 1 {
					gone = committed
					return mailtest.HangUp
				}
			}
			return "+OK\r\n"
		})
		server := &Server{Endpoint: netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 5 * time.Second}, Login: sasl.Login{User: "alice", Secret: secret("x")}}
		d, err := server.Delete(t.Context(), []mailbox.ID{"a"})
		if err == nil || len(d.Done) > 0 || (len(d.Unlisted) == 1) != committed {
			t.Errorf("committed %v: %+v, %v", committed, d, err)
		}
	}
}

// A number stands for another message in the next session.
func TestMessageWithoutAUniqueIDIsNotDeleted(t *testing.T) {
	deleted := false
	addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
		switch word, _, _ := strings.Cut(command, " "); word {
		case "STAT":
			return "+OK 2 2\r\n"
		case "LIST":
			return "+OK\r\n1 1\r\n2 1\r\n.\r\n"
		case "UIDL":
			return "+OK\r\n1 same\r\n2 same\r\n.\r\n"
		case "DELE":
			deleted = true
		case "CAPA":
			return "-ERR\r\n"
		}
		return "+OK\r\n"
	})
	server := &Server{Endpoint: netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 5 * time.Second}, Login: sasl.Login{User: "alice", Secret: secret("x")}}
	if d, err := server.Delete(t.Context(), []mailbox.ID{"number 1", "same"}); err != nil || deleted || len(d.Done) > 0 {
		t.Errorf("%+v, %v, deleted %v", d, err, deleted)
	}
}
