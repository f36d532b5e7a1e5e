package mailtest_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// eightBit has octets above 127 that are not UTF-8, and lines with dots and "From ".
const eightBit = "From: a@example.org\r\nSubject: h\r\nContent-Type: text/plain; charset=iso-8859-1\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n\r\n.\r\n..\r\nFrom here: gr\xfc\xdfe \xff\r\n"

func message(n int) []byte {
	return fmt.Appendf(nil, "From: a@example.org\r\nSubject: %d\r\n\r\nText %[1]d\r\n", n)
}

func TestServersKeepMessagesExactly(t *testing.T) {
	date := time.Date(2023, 3, 4, 9, 26, 53, 0, time.FixedZone("", 5400))
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		c := s.Login(t, "alice")
		for _, mailbox := range []string{"INBOX", s.Prefix() + "Entw&APw-rfe.2023"} {
			sent := [][]byte{[]byte(eightBit), message(1), message(2)}
			for _, msg := range sent {
				must(t, c.Append(mailbox, msg, date, `\Seen`, `\Flagged`))
			}
			bodies, err := c.Bodies(mailbox)
			must(t, err)
			if len(bodies) != len(sent) {
				t.Fatalf("%s has %d messages, want %d", mailbox, len(bodies), len(sent))
			}
			for i, msg := range sent {
				if got := bodies[uint32(i+1)]; !bytes.Equal(got, msg) {
					t.Errorf("%s: message %d came back as %q, want %q", mailbox, i+1, got, msg)
				}
			}
			_, err = c.Command(`EXAMINE "` + mailbox + `"`)
			must(t, err)
			fetched, err := c.Command("FETCH 1 (FLAGS INTERNALDATE)")
			must(t, err)
			for _, want := range []string{`\Seen`, `\Flagged`, "-Mar-2023 "} {
				if all := strings.Join(fetched, "\n"); !strings.Contains(all, want) {
					t.Errorf("%s: no %s in %s", mailbox, want, all)
				}
			}
		}
	})
}

func TestPOP3HasTheInbox(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		must(t, s.Append("bob", "INBOX", message(1), time.Time{}))
		must(t, s.Append("bob", "INBOX", message(2), time.Time{}))
		p := dial(t, s.POP3)
		p.say(t, "")
		p.say(t, "USER bob")
		p.say(t, "PASS "+s.Password("bob"))
		want := fmt.Sprintf("+OK 2 %d", 2*len(message(1)))
		if got := p.say(t, "STAT"); !strings.HasPrefix(got, want) {
			t.Errorf("STAT says %q, want %q", got, want)
		}
	})
}

func TestNewUsersHaveAnEmptyInbox(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		for _, user := range []string{"alice", "bob", "carol"} {
			c := s.Login(t, user)
			boxes, err := c.Command(`LIST "" "*"`)
			must(t, err)
			if len(boxes) != 1 {
				t.Errorf("%s has the folders %q, want INBOX only", user, boxes)
			}
			bodies, err := c.Bodies("INBOX")
			if err != nil || len(bodies) != 0 {
				t.Errorf("INBOX of %s has %d messages, %v", user, len(bodies), err)
			}
		}
	})
}

func TestRefusedMailIsAnError(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		c := s.Login(t, "alice")
		err := c.Append("INBOX", message(1), time.Time{}, `\NoSuchFlag`)
		var refused mailtest.Refused
		if !errors.As(err, &refused) {
			t.Errorf("a flag that cannot be: the error is %v, want a refusal", err)
		}
		must(t, c.Append("INBOX", message(1), time.Time{}))
	})
}

func TestUsersCanLogInInEveryWay(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		pem, err := os.ReadFile(s.CA)
		must(t, err)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		for _, way := range []struct{ addr, starttls, login string }{
			{s.IMAP, "", "a LOGIN carol carol-secret"},
			{s.IMAP, "a STARTTLS", "a LOGIN carol carol-secret"},
			{s.IMAPS, "", "a LOGIN carol carol-secret"},
			{s.POP3, "", "USER carol\r\nPASS carol-secret"},
			{s.POP3, "STLS", "USER carol\r\nPASS carol-secret"},
			{s.POP3S, "", "USER carol\r\nPASS carol-secret"},
		} {
			for _, name := range []string{"localhost", "127.0.0.1"} {
				config := &tls.Config{RootCAs: pool, ServerName: name}
				l := dial(t, way.addr)
				if way.addr == s.IMAPS || way.addr == s.POP3S {
					l.startTLS(t, config)
				}
				l.say(t, "") // the greeting
				if way.starttls != "" {
					l.say(t, way.starttls)
					l.startTLS(t, config)
				}
				for line := range strings.SplitSeq(way.login, "\r\n") {
					l.say(t, line)
				}
			}
		}
	})
}

func TestWrongPasswordsAreRefusedAtOnce(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *mailtest.Server{
		"dovecot": func(t testing.TB) *mailtest.Server { return mailtest.Dovecot(t) },
		"cyrus":   mailtest.Cyrus, // Courier waits for 5 s
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			for range 3 {
				began := time.Now()
				l := dial(t, s.IMAP)
				l.say(t, "")
				if got := l.ask(t, "a LOGIN alice wrong"); !strings.HasPrefix(got, "a NO") {
					t.Errorf("%s says %q", s.Name, got)
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("%s took %v", s.Name, took)
				}
			}
		})
	}
}

func TestOneUserMayHaveManyConnections(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		for range 30 {
			s.Login(t, "alice")
		}
	})
}

func TestDovecotTakesSettings(t *testing.T) {
	s := mailtest.Dovecot(t, "mail_location = mdbox:~/mdbox", "namespace inbox {\n  separator = /\n}")
	must(t, s.Append("alice", "a/b", message(1), time.Time{}))
	if _, err := os.Stat(filepath.Join(s.Dir, "home/alice/mdbox/mailboxes/a/b")); err != nil {
		t.Error(err)
	}
}

func TestServersEndWithTheTest(t *testing.T) {
	var ended []*mailtest.Server
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) { ended = append(ended, s) })
	for _, s := range ended {
		mustBeGone(t, s.IMAP, s.IMAPS, s.POP3, s.POP3S)
		if _, err := os.Stat(s.CA); err == nil {
			t.Errorf("%s left files behind", s.Name)
		}
	}
}

// TestServersDieWithTheTestProcess runs this test in another process, and kills that.
func TestServersDieWithTheTestProcess(t *testing.T) {
	const child = "MAILTEST_CHILD"
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		if os.Getenv(child) != "" {
			s.Login(t, "alice") // so that there are processes of several users
			fmt.Println("ports", s.IMAP, s.IMAPS, s.POP3, s.POP3S)
			time.Sleep(time.Minute)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
		cmd.Env = append(os.Environ(), child+"=1", "TMPDIR="+t.TempDir())
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		line := bufio.NewScanner(out)
		for line.Scan() && !strings.HasPrefix(line.Text(), "ports ") {
		}
		ports := strings.Fields(line.Text())
		cmd.Process.Kill()
		cmd.Wait()
		if len(ports) != 5 {
			t.Fatal("the server did not start in the other process")
		}
		mustBeGone(t, ports[1:]...)
	})
}

// mustBeGone waits up to 5 s until nobody listens.
func mustBeGone(t *testing.T, addrs ...string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for _, addr := range addrs {
		for {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				break
			}
			conn.Close()
			if time.Now().After(deadline) {
				t.Fatalf("%s still answers", addr)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// lines is a raw connection to a server of lines.
type lines struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *lines {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &lines{conn, bufio.NewReader(conn)}
}

func (l *lines) startTLS(t *testing.T, config *tls.Config) {
	t.Helper()
	conn := tls.Client(l.Conn, config)
	must(t, conn.Handshake())
	l.Conn, l.r = conn, bufio.NewReader(conn)
}

// ask sends a line, if any, and gives the next one from the server that is not untagged.
func (l *lines) ask(t *testing.T, line string) string {
	t.Helper()
	if line != "" {
		_, err := fmt.Fprintf(l, "%s\r\n", line)
		must(t, err)
	}
	for {
		answer, err := l.r.ReadString('\n')
		must(t, err)
		if line == "" || !strings.HasPrefix(answer, "* ") {
			return strings.TrimSpace(answer)
		}
	}
}

// say is ask for what must succeed.
func (l *lines) say(t *testing.T, line string) string {
	t.Helper()
	answer := l.ask(t, line)
	if !strings.Contains(strings.SplitN(answer, "[", 2)[0], "OK") {
		t.Fatalf("%q: the server says %q", line, answer)
	}
	return answer
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
