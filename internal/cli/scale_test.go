package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// Large accounts on real servers, near and far: `make scale`. The test fails
// when something is missing or memory grows; the times are for the reader.

func scaled(t *testing.T, name string, usual int) int {
	t.Helper()
	if os.Getenv("MAILSTOW_TEST_SCALE") == "" {
		t.Skip("set MAILSTOW_TEST_SCALE=1, or run make scale")
	}
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return usual
}

var roundTrips = []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond}

// note is one run's figures.
func note(t *testing.T, what string, rtt time.Duration, u usage, relay *mailtest.Relay) {
	t.Helper()
	t.Logf("%-28s rtt %3d ms  %7.2f s  %5.1f MiB  %d commands, %d connections in all", what, rtt.Milliseconds(), u.seconds, u.peak/(1<<20), len(relay.Said()), relay.Connections())
	if u.peak > 100<<20 {
		t.Errorf("%s: %.1f MiB of memory", what, u.peak/(1<<20))
	}
}

func TestLargeMailbox(t *testing.T) {
	n := scaled(t, "MAILSTOW_TEST_MESSAGES", 200_000)
	binary := built(t)
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		stock(t, s, n)
		c := s.Login(t, "alice")
		for _, rtt := range roundTrips {
			relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Delay: rtt / 2})
			env, to := home(t, s), t.TempDir()
			run := func(what string, files int) {
				t.Helper()
				note(t, what, rtt, measure(t, command(binary, env, "backup", address("imap+insecure", relay.Addr), "--to", to)), relay)
				if got := fileCount(t, filepath.Join(to, "alice@127.0.0.1", "INBOX", "cur")); got != files {
					t.Errorf("%s: %d files, want %d", what, got, files)
				}
			}
			run("first", n)
			time.Sleep(3 * time.Second) // a directory that has just changed is looked at again
			run("nothing new", n)
			run("nothing new", n)
			fill(t, s, "INBOX", numbered(0, 10))
			run("10 new", n+10)
			for _, line := range []string{"SELECT INBOX", `STORE 1:100 +FLAGS (\Flagged)`, `STORE 1:10 +FLAGS (\Deleted)`, "EXPUNGE"} {
				if _, err := c.Command(line); err != nil {
					t.Fatal(err)
				}
			}
			run("100 flags, 10 expunged", n+10)
		}
	})
}

// stock puts n messages into alice's inbox.
func stock(t *testing.T, s *mailtest.Server, n int) {
	t.Helper()
	begun := time.Now()
	if s.Name == "cyrus" {
		err := s.Login(t, "alice").AppendAll("INBOX", n, func(i int) ([]byte, time.Time) {
			return fmt.Appendf(nil, "From: a@example.org\r\nSubject: message %d\r\nMessage-ID: <%d@example.org>\r\n\r\n%s", i, i, strings.Repeat(fmt.Sprintf("line of %d\r\n", i), i%60)), arrived.Add(time.Duration(i) * time.Second)
		})
		if err != nil {
			t.Fatal(err)
		}
	} else { // APPEND would take a long time
		deposit(t, s, "", n, 700)
	}
	t.Logf("%d messages stored on %s in %v", n, s.Name, time.Since(begun).Round(time.Second))
}

func TestLargeInboxOverPOP3(t *testing.T) {
	all := scaled(t, "MAILSTOW_TEST_MESSAGES", 20_000)
	binary := built(t)
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		n := all
		stock(t, s, n)
		for _, rtt := range roundTrips {
			relay := mailtest.NewRelay(t, s.POP3, mailtest.Line{Delay: rtt / 2})
			env, to := home(t, s), t.TempDir()
			run := func(what string, files int) {
				t.Helper()
				note(t, what, rtt, measure(t, command(binary, env, "backup", address("pop3+insecure", relay.Addr), "--to", to)), relay)
				if got := fileCount(t, filepath.Join(inboxOf(to), "cur")); got != files {
					t.Errorf("%s: %d files, want %d", what, got, files)
				}
			}
			run("first", n)
			time.Sleep(3 * time.Second) // a directory that has just changed is looked at again
			run("nothing new", n)
			fill(t, s, "INBOX", numbered(0, 10))
			run("10 new", n+10)
			n += 10
		}
	})
}

func TestManyFolders(t *testing.T) {
	n := scaled(t, "MAILSTOW_TEST_FOLDERS", 2000)
	binary := built(t)
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		c := s.Login(t, "alice")
		for i := range n {
			if err := c.Append(fmt.Sprintf("%sGroup %d.Folder %d", s.Prefix(), i%40, i), numbered(i, 1)[0], arrived); err != nil {
				t.Fatal(err)
			}
		}
		for _, rtt := range roundTrips {
			relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Delay: rtt / 2})
			env, to := home(t, s), t.TempDir()
			run := func(what string) {
				t.Helper()
				note(t, what, rtt, measure(t, command(binary, env, "backup", address("imap+insecure", relay.Addr), "--to", to)), relay)
			}
			run("first")
			files, err := filepath.Glob(filepath.Join(to, "alice@127.0.0.1", strings.ReplaceAll(s.Prefix(), ".", "/"), "*", "*", "cur", "*"))
			if err != nil || len(files) != n {
				t.Errorf("%d files, want %d", len(files), n)
			}
			run("nothing new")
		}
	})
}
