package cli

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// retrieved returns the digests of what RETR gives for messages: POP3 ends
// the last line of each.
func retrieved(messages [][]byte) map[[32]byte]int {
	sums := map[[32]byte]int{}
	for _, m := range messages {
		if s := string(m); strings.HasSuffix(s, "\r\n") {
			sums[sha256.Sum256(m)]++
		} else {
			sums[sha256.Sum256([]byte(s+"\r\n"))]++
		}
	}
	return sums
}

func inboxOf(to string) string { return filepath.Join(to, "alice@127.0.0.1", "INBOX") }

// Whatever a server calls its messages, they come once, also when the line is
// cut all the time and mail arrives between the sessions.
func TestPOP3OverACutLine(t *testing.T) {
	t.Parallel()
	servers := map[string]*mailtest.Server{"cyrus": mailtest.Cyrus(t), "courier": mailtest.Courier(t)}
	for _, format := range []string{"%08Xu%08Xv", "%f", "%Mf", "%v.%u"} {
		servers["dovecot, UIDL "+format] = mailtest.Dovecot(t, "protocol pop3 {\n pop3_uidl_format = "+format+"\n}")
	}
	for name, s := range servers {
		t.Run(name, func(t *testing.T) {
			messages := numbered(0, 150)
			for i := range messages { // about 200 KB
				messages[i] = append(messages[i], strings.Repeat(fmt.Sprintf("line %d\r\n", i), i%300)...)
			}
			fill(t, s, "INBOX", messages[:100])
			relay := mailtest.NewRelay(t, s.POP3, mailtest.Line{Cut: 40 << 10})
			env, to := home(t, s), t.TempDir()
			for round, upTo := range []int{100, 150} {
				if round > 0 {
					fill(t, s, "INBOX", messages[100:])
				}
				status, out, errs := mailstow(t, env, "backup", address("pop3+insecure", relay.Addr), "--to", to, "--json")
				if got := kept(t, inboxOf(to)); status != exitOK || !maps.Equal(got, retrieved(messages[:upTo])) {
					t.Fatalf("round %d: status %d, %d files, want %d, octet for octet\n%s%s", round, status, total(got), upTo, out, errs)
				}
			}
		})
	}
}

// One archive, now over POP3 and now over IMAP, in either order, with mail
// coming in between: one set of messages. What IMAP alone knows is filled in.
func TestHybridEndsAsOneSetOfMessages(t *testing.T) {
	t.Parallel()
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		for _, order := range []string{"pop3 imap pop3", "imap pop3 imap", "pop3 pop3 imap imap"} {
			c := s.Login(t, "alice")
			if _, err := c.Command("SELECT INBOX"); err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{`STORE 1:* +FLAGS (\Deleted)`, "EXPUNGE"} {
				c.Command(line) // the mailbox may be empty
			}
			dir := t.TempDir()
			config := filepath.Join(dir, "config.toml")
			write(t, config, fmt.Sprintf("archive = %q\n[accounts.a]\naddress = \"alice@127.0.0.1\"\nimap = \"imap+insecure://alice@%s\"\npop3 = \"pop3+insecure://alice@%s\"\npassword = %q\n", dir, s.IMAP, s.POP3, s.Password("alice")))
			n := 0
			for round, via := range strings.Fields(order) {
				messages := numbered(100*round, 20)
				if round == 0 {
					messages = append(messages, ugly()...)
				}
				n += fill(t, s, "INBOX", messages)
				status, out, errs := mailstow(t, home(t, s), "backup", "a", "-c", config, "--via", via, "--json")
				o := last(t, out)
				if got := total(kept(t, inboxOf(dir))); status != exitOK || got != n || o["new"] != float64(len(messages)) && round > 0 {
					t.Errorf("%s, round %d: status %d, %d files, want %d; %v\n%s", order, round, status, got, n, o, errs)
				}
			}
			for _, via := range []string{"imap", "auto"} { // what came over POP3 last
				status, out, errs := mailstow(t, home(t, s), "backup", "a", "-c", config, "--via", via, "--json")
				if o := last(t, out); status != exitOK || o["new"] != 0.0 {
					t.Errorf("%s, at last: status %d, %v\n%s", order, status, o, errs)
				}
			}
			paths, err := filepath.Glob(filepath.Join(inboxOf(dir), "cur", "*"))
			if err != nil || len(paths) != n {
				t.Errorf("%s: %d files, want %d", order, len(paths), n)
			}
			for _, p := range paths {
				fi, err := os.Stat(p)
				if err != nil || !fi.ModTime().Equal(arrived) || !strings.HasSuffix(p, ":2,S") {
					t.Errorf("%s: %s of %v, want seen at %v", order, filepath.Base(p), fi.ModTime(), arrived)
					break
				}
			}
		}
	})
}

// POP3 does not tell when a message came: its header does.
func TestAgeOverPOP3IsTheHeaders(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		now := time.Now()
		old, young := now.AddDate(-1, 0, 0).Format(time.RFC1123Z), now.Format(time.RFC1123Z)
		fill(t, s, "INBOX", [][]byte{
			[]byte("Received: from x by y; " + old + "\r\nDate: " + young + "\r\nSubject: came long ago\r\n\r\nx\r\n"),
			[]byte("Received: from x by y; " + young + "\r\nDate: " + old + "\r\nSubject: came today\r\n\r\nx\r\n"),
			[]byte("Date: " + old + "\r\nSubject: written long ago\r\n\r\nx\r\n"),
			[]byte("Subject: nobody knows\r\n\r\nx\r\n"),
			[]byte("Date: " + young + "\r\nSubject: large\r\n\r\n" + strings.Repeat("x\r\n", 1000)),
		})
		for option, want := range map[string]int{"--newer-than=30d": 3, "--older-than=30d": 3, "--max-size=1000": 4} {
			to := t.TempDir()
			for range 2 {
				status, out, errs := mailstow(t, home(t, s), "backup", address("pop3+insecure", s.POP3), "--to", to, option, "--json")
				if got := total(kept(t, inboxOf(to))); status != exitOK || got != want || !strings.Contains(out, fmt.Sprintf(`"excluded":%d,`, 5-want)) {
					t.Errorf("%s: status %d, %d files, want %d\n%s%s", option, status, got, want, out, errs)
				}
			}
		}
	})
}

// Mail that begins with a dot has no header that could be asked for; it keeps
// nothing else from coming.
func TestMailThatBeginsWithADotStopsNothing(t *testing.T) {
	t.Parallel()
	for _, s := range []*mailtest.Server{mailtest.Dovecot(t), mailtest.Courier(t)} {
		messages := numbered(0, 5)
		for i := range 3 {
			messages = append(messages, fmt.Appendf(nil, ".dot %d\r\n+OK\r\nSubject: forged\r\n\r\nx\r\n.\r\n", i), fmt.Appendf(nil, ".\r\n+OK %d\r\nSubject: forged\r\n\r\nx\r\n", i))
		}
		n := fill(t, s, "INBOX", messages)
		if n != len(messages) {
			t.Fatalf("%s takes %d of %d", s.Name, n, len(messages))
		}
		for _, option := range []string{"-v", "--newer-than=30d"} {
			to := t.TempDir()
			status, out, errs := mailstow(t, home(t, s), "backup", address("pop3+insecure", s.POP3), "--to", to, option)
			if got := kept(t, inboxOf(to)); status != exitOK || !maps.Equal(got, retrieved(messages)) {
				t.Errorf("%s, %s: status %d, %d of %d files\n%s%s", s.Name, option, status, total(got), n, out, errs)
			}
		}
	}
}

func TestViaChoosesTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	write(t, config, "[accounts.both]\nuser = \"a\"\nimap = \"imaps://imap.invalid\"\npop3 = \"pop3s://pop.invalid\"\npassword = \"x\"\n[accounts.one]\nserver = \"pop3s://a@pop.invalid\"\npassword = \"x\"\n[accounts.wrong]\nuser = \"a\"\nimap = \"pop3s://pop.invalid\"\npassword = \"x\"\n")
	for _, tt := range []struct {
		args   []string
		status int
		said   string
	}{
		{[]string{"both"}, exitUnavailable, "imap.invalid"},
		{[]string{"both", "--via", "auto"}, exitUnavailable, "imap.invalid"},
		{[]string{"both", "--via", "imap"}, exitUnavailable, "imap.invalid"},
		{[]string{"both", "--via", "pop3"}, exitUnavailable, "pop.invalid"},
		{[]string{"one", "--via", "imap"}, exitConfig, "no IMAP server is named"},
		{[]string{"wrong"}, exitConfig, "other protocol"},
		{[]string{"both", "--via", "smtp"}, exitUsage, "imap, pop3 and auto"},
	} {
		status, out, errs := mailstow(t, map[string]string{"HOME": dir}, append([]string{"backup", "-c", config, "--to", dir}, tt.args...)...)
		if status != tt.status || !strings.Contains(out+errs, tt.said) {
			t.Errorf("%q: status %d, want %d and %q\n%s%s", tt.args, status, tt.status, tt.said, out, errs)
		}
	}
}
