package pop3conn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
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

func dial(t *testing.T, e netconn.Endpoint) (*Conn, error) {
	t.Helper()
	s := &Server{Endpoint: e, Login: sasl.Login{User: "alice", Secret: credential.NewSecret("secret")}}
	return s.Dial(t.Context())
}

func connect(t *testing.T, answers map[string]string) (*Conn, error) {
	t.Helper()
	c, err := dial(t, scripted(t, answers))
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

// serving serves messages like Dovecot: a dot that is the first octet of one is
// not stuffed. said gets every command.
func serving(t *testing.T, caps string, messages []string, said func(string)) netconn.Endpoint {
	t.Helper()
	var list, uidl strings.Builder
	for i, m := range messages {
		fmt.Fprintf(&list, "%d %d\r\n", i+1, len(m))
		fmt.Fprintf(&uidl, "%d id%d\r\n", i+1, i+1)
	}
	addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
		if said != nil {
			said(command)
		}
		word, rest, _ := strings.Cut(command, " ")
		number, _, _ := strings.Cut(rest, " ")
		n, _ := strconv.Atoi(number)
		switch word {
		case "CAPA":
			return "+OK\r\n" + caps + ".\r\n"
		case "STAT":
			return fmt.Sprintf("+OK %d 1000\r\n", len(messages))
		case "LIST":
			return "+OK\r\n" + list.String() + ".\r\n"
		case "UIDL":
			return "+OK\r\n" + uidl.String() + ".\r\n"
		case "RETR":
			if n < 1 || n > len(messages) || messages[n-1] == refuse {
				return "-ERR no\r\n"
			}
			m := strings.ReplaceAll(messages[n-1], "\r\n.", "\r\n..")
			if m != "" && !strings.HasSuffix(m, "\r\n") {
				m += "\r\n"
			}
			return "+OK\r\n" + m + ".\r\n"
		}
		return "+OK\r\n"
	})
	return netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 20 * time.Second}
}

const refuse = "refuse this one"

// fetchAll fetches every message, as a backup does: what a session leaves out
// is asked for alone in another one.
func fetchAll(t *testing.T, e netconn.Endpoint) map[mailbox.ID]string {
	t.Helper()
	server := &Server{Endpoint: e, Login: sasl.Login{User: "alice", Secret: credential.NewSecret("secret")}}
	got := map[mailbox.ID]string{}
	var want []mailbox.Message
	for tries := 0; tries == 0 || len(want) > 0; tries++ {
		c, err := server.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.List(t.Context(), inbox, mailbox.State{}, true)
		if err != nil {
			t.Fatal(err)
		}
		if tries == 0 {
			want = l.Messages
		}
		some := want
		if tries%2 == 1 {
			some = want[:1]
		}
		err = c.Fetch(t.Context(), inbox, some, func(m mailbox.Message, _ int64, r io.Reader) error {
			b, err := io.ReadAll(r)
			if err == nil && (len(b) == int(m.Size) || len(b) == int(m.Size)+2) {
				got[m.ID] = string(b)
			}
			return err
		})
		if err != nil && !retry.IsRefused(err) && !errors.Is(err, mailbox.ErrOutOfStep) {
			t.Fatal(err)
		}
		c.Close(true)
		if tries > 2*len(l.Messages) {
			t.Fatalf("%d tries, and %d of %d fetched", tries, len(got), len(l.Messages))
		}
		var left []mailbox.Message
		for _, m := range want {
			if _, ok := got[m.ID]; !ok && (len(some) > 1 || m.ID != some[0].ID) {
				left = append(left, m)
			}
		}
		want = left
	}
	return got
}

// Every message comes as it is, also those that begin with a dot, which end
// their own answer and forge those to the next questions.
func TestMailThatBeginsWithADotIsExact(t *testing.T) {
	messages := []string{"first\r\n", ".\r\n+OK\r\nSubject: forged\r\n\r\nforged\r\n", "third\r\n", ".a\r\n", "..b\r\n.\r\n", ".", ".\r\n", "", "last\r\n.dot\r\n"}
	for _, caps := range []string{"", "PIPELINING\r\n"} {
		got := fetchAll(t, serving(t, caps, messages, nil))
		for i, want := range messages {
			if !strings.HasSuffix(want, "\r\n") && want != "" {
				want += "\r\n"
			}
			if b, ok := got[mailbox.ID(fmt.Sprintf("id%d", i+1))]; !ok || b != want {
				t.Errorf("caps %q: message %d = %q, want %q", caps, i+1, b, want)
			}
		}
	}
}

// A server that stuffs every dot is understood as well.
func TestStuffedFirstDotIsTakenOff(t *testing.T) {
	messages := []string{"first\r\n", ".a\r\n", "last\r\n"}
	e := scripted(t, map[string]string{
		"STAT": "+OK 3 20\r\n", "LIST": "+OK\r\n1 7\r\n2 4\r\n3 6\r\n.\r\n", "UIDL": "+OK\r\n1 id1\r\n2 id2\r\n3 id3\r\n.\r\n",
		"RETR 1": "+OK\r\nfirst\r\n.\r\n", "RETR 2": "+OK\r\n..a\r\n.\r\n", "RETR 3": "+OK\r\nlast\r\n.\r\n",
	})
	got := fetchAll(t, e)
	for i, want := range messages {
		if b := got[mailbox.ID(fmt.Sprintf("id%d", i+1))]; b != want {
			t.Errorf("message %d = %q, want %q", i+1, b, want)
		}
	}
}

// After a server was seen to announce too large a size, a short answer proves
// nothing any more: so nothing is asked behind one.
func TestNothingIsAskedAheadOfAServerThatMisstates(t *testing.T) {
	bad := "Subject: bad\r\n\r\nx\r\n.\r\n+OK\r\nSubject: forged\r\n\r\nx\r\n" // a server that stuffs nothing
	addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
		switch command {
		case "CAPA":
			return "+OK\r\nPIPELINING\r\n.\r\n"
		case "STAT":
			return "+OK 3 300\r\n"
		case "LIST":
			return fmt.Sprintf("+OK\r\n1 100\r\n2 %d\r\n3 18\r\n.\r\n", len(bad))
		case "UIDL":
			return "+OK\r\n1 a\r\n2 b\r\n3 c\r\n.\r\n"
		case "RETR 1", "RETR 3":
			return "+OK\r\nSubject: good\r\n\r\nx\r\n.\r\n"
		case "RETR 2":
			return "+OK\r\n" + bad + ".\r\n"
		}
		return "+OK\r\n"
	})
	server := &Server{Endpoint: netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 5 * time.Second}, Login: sasl.Login{User: "alice", Secret: credential.NewSecret("x")}}
	for _, some := range [][]mailbox.Message{{{ID: "a", Size: 100}}, {{ID: "b", Size: int64(len(bad))}, {ID: "c", Size: 18}}} {
		c, err := server.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = c.Fetch(t.Context(), inbox, some, func(m mailbox.Message, _ int64, r io.Reader) error {
			b, err := io.ReadAll(r)
			if strings.Contains(string(b), "forged") {
				t.Errorf("%s = %q", m.ID, b)
			}
			return err
		})
		if len(some) > 1 && !errors.Is(err, mailbox.ErrOutOfStep) {
			t.Errorf("error = %v, want %v", err, mailbox.ErrOutOfStep)
		}
		c.Close(true)
	}
}

// A server that announces PIPELINING and drops what comes ahead is asked one by
// one from the second session on.
func TestServerThatForgetsQuestionsIsAskedOneByOne(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for conn, err := ln.Accept(); err == nil; conn, err = ln.Accept() {
			go func() {
				defer conn.Close()
				fmt.Fprint(conn, "+OK hi\r\n")
				for b := make([]byte, 1000); ; {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					line, _, _ := strings.Cut(string(b[:n]), "\r\n") // and nothing behind it
					fmt.Fprint(conn, map[string]string{"CAPA": "+OK\r\nPIPELINING\r\n.\r\n", "STAT": "+OK 1 10\r\n", "LIST": "+OK\r\n1 10\r\n.\r\n", "UIDL": "+OK\r\n1 a\r\n.\r\n"}[line])
					if strings.HasPrefix(line, "USER") || strings.HasPrefix(line, "PASS") {
						fmt.Fprint(conn, "+OK\r\n")
					}
				}
			}()
		}
	}()
	server := &Server{Endpoint: netconn.Endpoint{Addr: ln.Addr().String(), Security: netconn.Plain, Timeout: time.Second}, Login: sasl.Login{User: "alice", Secret: credential.NewSecret("x")}}
	for try := range 2 {
		c, err := server.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.List(t.Context(), inbox, mailbox.State{}, true)
		if (err == nil) != (try == 1) || err == nil && len(l.Messages) != 1 {
			t.Errorf("session %d: %+v, %v", try+1, l, err)
		}
		c.Close(false)
	}
}

// Nothing in place of a message is told at once, and the session goes on.
func TestEmptyAnswerIsNoEndOfTheSession(t *testing.T) {
	c, err := connect(t, map[string]string{
		"STAT": "+OK 2 20\r\n", "LIST": "+OK\r\n1 10\r\n2 7\r\n.\r\n", "UIDL": "+OK\r\n1 a\r\n2 b\r\n.\r\n",
		"RETR 1": "+OK\r\n.\r\n", "RETR 2": "+OK\r\nhello\r\n.\r\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		m    mailbox.Message
		text string
	}{{mailbox.Message{ID: "a", Size: 10}, ""}, {mailbox.Message{ID: "b", Size: 7}, "hello\r\n"}} {
		err := c.Fetch(t.Context(), inbox, []mailbox.Message{want.m}, func(_ mailbox.Message, _ int64, r io.Reader) error {
			b, err := io.ReadAll(r)
			if string(b) != want.text {
				t.Errorf("%s = %q, want %q", want.m.ID, b, want.text)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", want.m.ID, err)
		}
	}
}

// Questions go ahead of the answers where the server takes that, and nowhere
// else.
func TestQuestionsGoAheadOfTheAnswers(t *testing.T) {
	var messages []string
	for i := range 1200 {
		messages = append(messages, fmt.Sprintf("message %d\r\n", i))
	}
	messages[3] = refuse
	for caps, pipelined := range map[string]bool{"PIPELINING\r\n": true, "": false} {
		var asked atomic.Int64
		c, err := dial(t, serving(t, caps, messages, func(command string) {
			if strings.HasPrefix(command, "RETR") {
				asked.Add(1)
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		l, err := c.List(t.Context(), inbox, mailbox.State{}, true)
		if err != nil {
			t.Fatal(err)
		}
		most, n := 0, 0
		err = c.Fetch(t.Context(), inbox, l.Messages, func(m mailbox.Message, _ int64, r io.Reader) error {
			n++
			most = max(most, int(asked.Load())-n)
			b, err := io.ReadAll(r)
			number, _ := strconv.Atoi(strings.TrimPrefix(string(m.ID), "id"))
			if want := messages[number-1]; err == nil && string(b) != want {
				t.Errorf("%s = %q, want %q", m.ID, b, want)
			}
			return err
		})
		if !retry.IsRefused(err) || n != len(messages)-1 {
			t.Errorf("caps %q: %d messages came, %v", caps, n, err)
		}
		if pipelined != (most > 10) || most > maxAhead {
			t.Errorf("caps %q: up to %d questions went ahead", caps, most)
		}
		c.Close(true)
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
	if !errors.Is(err, mailbox.ErrOutOfStep) {
		t.Errorf("error = %v, want %v", err, mailbox.ErrOutOfStep)
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
		c, err := dial(t, e)
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
