package imapconn_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/demo"
	"mailstow/internal/imapconn"
	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/sasl"
	"mailstow/mailbox"
)

func dial(t *testing.T, addr, user, password string) *imapconn.Conn {
	t.Helper()
	e := netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 10 * time.Second}
	c, err := imapconn.Dial(t.Context(), e, sasl.Login{User: user, Secret: credential.NewSecret(password)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(true) })
	return c
}

// memory is go-imap's own server in memory, with the demo's sample mail.
func memory(t *testing.T) *imapconn.Conn {
	t.Helper()
	servers, err := demo.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Close)
	return dial(t, servers.IMAP, demo.User, demo.Password)
}

// told is a mailbox with messages, so that they are asked for at once.
var told = mailbox.State{Exists: 1}

var inbox = mailbox.Mailbox{Name: mailbox.NewName("INBOX"), Wire: "INBOX"}

func TestAccountOnMemoryServer(t *testing.T) {
	c := memory(t)
	boxes, err := c.Mailboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, b := range boxes {
		names[b.Name.String()] = true
	}
	for _, want := range []string{"INBOX", "Archive/2024", "Projekte/Übersicht", "收件箱旧", "Lists/Dr. Jones"} {
		if !names[want] {
			t.Errorf("there is no %q among %v", want, names)
		}
	}
	l, err := c.List(t.Context(), inbox, told, false)
	if err != nil || l.Exists != 20 || len(l.Messages) != 20 {
		t.Fatalf("listing = %+v, %v", l, err)
	}
	if err := c.Describe(t.Context(), inbox, l.Messages); err != nil {
		t.Fatal(err)
	}
	got := 0
	err = c.Fetch(t.Context(), inbox, l.Messages, func(m mailbox.Message, size int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		if int64(len(b)) != m.Size || size != m.Size || m.InternalDate.IsZero() {
			t.Errorf("message %s: %d octets, literal of %d, announced %d, date %v", m.ID, len(b), size, m.Size, m.InternalDate)
		}
		got++
		return err
	})
	if err != nil || got != 20 {
		t.Errorf("%d bodies, %v", got, err)
	}
}

// A caller that gives up, on a full disk say, must get its answer at once.
func TestFetchStopsWhenItsCallerDoes(t *testing.T) {
	c := memory(t)
	l, err := c.List(t.Context(), inbox, told, false)
	if err != nil {
		t.Fatal(err)
	}
	full, calls := errors.New("disk full"), 0
	err = c.Fetch(t.Context(), inbox, l.Messages, func(_ mailbox.Message, _ int64, r io.Reader) error {
		calls++
		io.CopyN(io.Discard, r, 10)
		return full
	})
	if !errors.Is(err, full) || calls != 1 {
		t.Errorf("Fetch = %v after %d calls, want %v after 1", err, calls, full)
	}
}

func TestIDsOfARebuiltMailboxAreRefused(t *testing.T) {
	c := memory(t)
	err := c.Fetch(t.Context(), inbox, []mailbox.Message{{ID: "99:1"}}, func(mailbox.Message, int64, io.Reader) error {
		t.Error("a body came")
		return nil
	})
	if !errors.Is(err, mailbox.ErrRebuilt) {
		t.Errorf("error = %v, want %v", err, mailbox.ErrRebuilt)
	}
}

// Thousands of messages take several commands, under way two at a time. A
// server may answer them in any order: none may be lost, and nothing may wait
// for ever.
func TestManyMessagesInSeveralCommands(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		const n = 1700
		sender := s.Login(t, "alice")
		for i := range n {
			if err := sender.Append("INBOX", fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", i)), time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		c := dial(t, s.IMAP, "alice", s.Password("alice"))
		l, err := c.List(t.Context(), inbox, told, false)
		if err != nil || len(l.Messages) != n {
			t.Fatalf("%d listed, %v", len(l.Messages), err)
		}
		if err := c.Describe(t.Context(), inbox, l.Messages); err != nil {
			t.Fatal(err)
		}
		seen := map[mailbox.ID]bool{}
		err = c.Fetch(t.Context(), inbox, l.Messages, func(m mailbox.Message, size int64, r io.Reader) error {
			k, err := io.Copy(io.Discard, r)
			if k != m.Size || seen[m.ID] {
				t.Errorf("message %s: %d octets, announced %d; seen before: %v", m.ID, k, m.Size, seen[m.ID])
			}
			seen[m.ID] = true
			return err
		})
		if err != nil || len(seen) != n {
			t.Errorf("%d bodies, %v; want %d", len(seen), err, n)
		}
		headers := 0
		err = c.Headers(t.Context(), inbox, l.Messages, func(_ mailbox.Message, block []byte) error {
			if !strings.HasSuffix(string(block), "\r\n\r\n") {
				t.Errorf("header = %q", block)
			}
			headers++
			return nil
		})
		if err != nil || headers != n {
			t.Errorf("%d headers, %v; want %d", headers, err, n)
		}
	})
}
