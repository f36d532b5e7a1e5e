package pop3conn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// scripted serves a login and the given answers, by command.
func scripted(t *testing.T, answers map[string]string) netconn.Endpoint {
	t.Helper()
	addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
		if answer, ok := answers[command]; ok {
			return answer
		}
		switch word, _, _ := strings.Cut(command, " "); word {
		case "USER", "PASS", "NOOP", "QUIT":
			return "+OK\r\n"
		}
		return "-ERR unknown\r\n"
	})
	return netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 2 * time.Second}
}

func connect(t *testing.T, answers map[string]string) (*Conn, error) {
	t.Helper()
	c, err := Dial(t.Context(), scripted(t, answers), "alice", credential.NewSecret("secret"))
	if c != nil {
		t.Cleanup(func() { c.Close(true) })
	}
	return c, err
}

var inbox = mailbox.Mailbox{Name: mailbox.NewName("INBOX"), Wire: "INBOX"}

// go-pop3 ends the list at a line it cannot read, without an error: the mail
// behind it would never be fetched.
func TestBrokenLinesOfAListingHideNothing(t *testing.T) {
	c, err := connect(t, map[string]string{
		"STAT": "+OK 5 500\r\n",
		"LIST": "+OK\r\n1 100\r\n2\r\nnonsense\r\n3 100 extra\r\n5 100\r\n.\r\n",
		"UIDL": "+OK\r\n1 aaa\r\n2\r\n3 same\r\n4 same\r\n5 " + strings.Repeat("x", 5000) + "\r\n.\r\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.List(t.Context(), inbox, mailbox.State{}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []mailbox.Message{
		{ID: "aaa", Size: 100}, {ID: "number 2", Size: -1, Transient: true}, {ID: "number 3", Size: 100, Transient: true},
		{ID: "number 4", Size: -1, Transient: true}, {ID: "number 5", Size: 100, Transient: true},
	}
	if l.Exists != 5 || !slices.EqualFunc(l.Messages, want, func(a, b mailbox.Message) bool {
		return a.ID == b.ID && a.Size == b.Size && a.Transient == b.Transient
	}) {
		t.Errorf("listing = %+v, want %+v", l, want)
	}
}

func TestServerWithoutUIDLIsListed(t *testing.T) {
	c, err := connect(t, map[string]string{"STAT": "+OK 1 10\r\n", "LIST": "+OK\r\n1 10\r\n.\r\n"})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := c.List(t.Context(), inbox, mailbox.State{}, true); err != nil || len(l.Messages) != 1 || !l.Messages[0].Transient {
		t.Errorf("listing = %+v, %v", l, err)
	}
}

// A mail whose first octet is a dot ends its own answer on servers that do
// not stuff it; what follows may look like the answer to the next command.
func TestForgedAnswerIsNotBelieved(t *testing.T) {
	c, err := connect(t, map[string]string{
		"STAT":   "+OK 2 60\r\n",
		"LIST":   "+OK\r\n1 50\r\n2 10\r\n.\r\n",
		"UIDL":   "+OK\r\n1 a\r\n2 b\r\n.\r\n",
		"RETR 1": "+OK\r\n.\r\n+OK forged\r\nSubject: forged\r\n\r\nforged\r\n.\r\n.\r\n",
		"RETR 2": "+OK\r\nreal mail\r\n.\r\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.List(t.Context(), inbox, mailbox.State{}, true)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Fetch(t.Context(), inbox, l.Messages, func(m mailbox.Message, _ int64, r io.Reader) error {
		b, err := io.ReadAll(r)
		if strings.Contains(string(b), "forged") {
			t.Errorf("message %s = %q", m.ID, b)
		}
		return err
	})
	if !errors.Is(err, ErrOutOfStep) {
		t.Errorf("error = %v, want %v", err, ErrOutOfStep)
	}
}

func TestRefusedMessageDoesNotStopTheOthers(t *testing.T) {
	c, err := connect(t, map[string]string{
		"STAT": "+OK 2 20\r\n", "LIST": "+OK\r\n1 10\r\n2 7\r\n.\r\n", "UIDL": "+OK\r\n1 a\r\n2 b\r\n.\r\n",
		"RETR 1": "-ERR broken\r\n", "RETR 2": "+OK\r\nhello\r\n.\r\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []mailbox.ID
	err = c.Fetch(t.Context(), inbox, []mailbox.Message{{ID: "a"}, {ID: "b"}}, func(m mailbox.Message, _ int64, r io.Reader) error {
		got = append(got, m.ID)
		return nil
	})
	if !slices.Equal(got, []mailbox.ID{"b"}) || !retry.IsRefused(err) {
		t.Errorf("got %v, %v; want b and a refusal", got, err)
	}
}

func TestLoginAnswers(t *testing.T) {
	for answer, permanent := range map[string]bool{
		"-ERR [AUTH] wrong\r\n": true, "-ERR wrong\r\n": true, "-ERR [IN-USE] locked\r\n": false, "-ERR [SYS/TEMP] later\r\n": false, "-ERR [LOGIN-DELAY] wait\r\n": false,
	} {
		_, err := connect(t, map[string]string{"PASS secret": answer})
		if err == nil || retry.IsPermanent(err) != permanent {
			t.Errorf("%q: %v, permanent %v; want %v", answer, err, retry.IsPermanent(err), permanent)
		}
	}
}

func TestSessionEndsWithQuitOnlyWhenAllIsSafe(t *testing.T) {
	for _, finished := range []bool{true, false} {
		said := make(chan string, 100)
		e := scripted(t, nil)
		e.Addr = tap(t, e.Addr, said)
		c, err := Dial(t.Context(), e, "alice", credential.NewSecret("secret"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close(finished)
		quit := false
		for line := range said {
			quit = quit || strings.HasPrefix(line, "QUIT")
		}
		if quit != finished {
			t.Errorf("finished %v: QUIT was sent: %v", finished, quit)
		}
	}
}

// tap stands before a server and tells what one client says, until it hangs up.
func tap(t *testing.T, addr string, said chan<- string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		defer close(said)
		client, err := ln.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		server, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer server.Close()
		go io.Copy(client, server)
		for lines := bufio.NewScanner(client); lines.Scan(); {
			said <- lines.Text()
			fmt.Fprintf(server, "%s\r\n", lines.Text())
		}
	}()
	return ln.Addr().String()
}
