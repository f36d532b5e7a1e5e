package cli

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// moving returns the environment for a migration to s.
func moving(t *testing.T, s *mailtest.Server) map[string]string {
	t.Helper()
	env := home(t, s)
	env["MAILSTOW_DESTINATION_PASSWORD"] = s.Password("alice")
	return env
}

// holding returns what an archive has: folder, octets, flags and time of each
// message.
func holding(t *testing.T, account string) map[string]int {
	t.Helper()
	all := map[string]int{}
	var paths []string
	err := filepath.WalkDir(account, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Base(filepath.Dir(path)) == "cur" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		folder, _ := filepath.Rel(account, filepath.Dir(filepath.Dir(p)))
		_, flags, _ := strings.Cut(filepath.Base(p), ":2,")
		all[fmt.Sprintf("%s %x %s %d", strings.TrimPrefix(folder, "INBOX/"), sha256.Sum256(b), flags, fi.ModTime().Unix())]++
	}
	return all
}

// From server to server to server and back: the same messages, flags, times
// and folders as at the start, and nothing twice when each step is repeated.
func TestRoundTripOverThreeServers(t *testing.T) {
	a, b, c := mailtest.Dovecot(t), mailtest.Cyrus(t), mailtest.Courier(t)
	back := mailtest.Dovecot(t)
	client := a.Login(t, "alice")
	n := 0
	for i, m := range numbered(0, 60) {
		flags := []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`}[:i%5]
		mailbox := []string{"INBOX", "Work", "Work.2024", "Entw&APw-rfe"}[i%4]
		if err := client.Append(mailbox, m, arrived.Add(time.Duration(i)*time.Hour), flags...); err != nil {
			t.Fatal(err)
		}
		n++
	}
	twin := []byte("Subject: twin\r\n\r\none of two\r\n") // two in the source are two at the destination
	for range 2 {
		if err := client.Append("INBOX", twin, arrived); err != nil {
			t.Fatal(err)
		}
		n++
	}
	first := filepath.Join(t.TempDir(), "a")
	if status, out, errs := mailstow(t, home(t, a), "backup", address("imap+insecure", a.IMAP), "--to", first); status != exitOK {
		t.Fatal(out, errs)
	}
	start := holding(t, filepath.Join(first, "alice@127.0.0.1"))
	from, source := filepath.Join(first, "alice@127.0.0.1"), a
	for _, to := range []*mailtest.Server{b, c, back} {
		for round := range 2 {
			status, out, errs := mailstow(t, moving(t, to), "migrate", from, address("imap+insecure", to.IMAP), "--json")
			o := last(t, out)
			if status != exitOK || o["missing"] != 0.0 {
				t.Fatalf("%s to %s, round %d: status %d\n%s%s", source.Name, to.Name, round, status, out, errs)
			}
			if round > 0 && strings.Contains(out, `"stored":`) && !onlyZero(out, "stored") {
				t.Errorf("%s to %s stores again: %s", source.Name, to.Name, out)
			}
		}
		// From now on the archive backs up the new server, which has nothing new.
		status, out, errs := mailstow(t, home(t, to), "backup", address("imap+insecure", to.IMAP), "--to", filepath.Dir(from), "--json")
		if o := last(t, out); status != exitOK || o["new"] != 0.0 || !strings.Contains(out, `"recognised":0`) || len(holding(t, from)) != len(start) {
			t.Errorf("the archive does not go on with %s: status %d, %d files\n%s%s", to.Name, status, len(holding(t, from)), out, errs)
		}
		next := filepath.Join(t.TempDir(), "next")
		if status, out, errs := mailstow(t, home(t, to), "backup", address("imap+insecure", to.IMAP), "--to", next); status != exitOK {
			t.Fatal(out, errs)
		}
		got := holding(t, filepath.Join(next, "alice@127.0.0.1"))
		if !maps.Equal(got, start) {
			t.Errorf("on %s: %d of %d are as they were", to.Name, alike(got, start), n)
			for k := range start {
				if got[k] == 0 {
					t.Logf("want %s", k)
				}
			}
			for k := range got {
				if start[k] == 0 {
					t.Logf("got  %s", k)
				}
			}
		}
		from, source = filepath.Join(next, "alice@127.0.0.1"), to
	}
}

// kill -9 while it sends, again and again, and a line that is cut: each message
// is there exactly once. After a run that was killed the next one waits until
// the server has stored what it was sent.
func TestMigrationKilledWhileItSendsDoublesNothing(t *testing.T) {
	source := mailtest.Dovecot(t)
	mail := numbered(0, 400)
	for i := range mail {
		mail[i] = append(mail[i], strings.Repeat(fmt.Sprintf("line %d\r\n", i), i*20)...)
	}
	fill(t, source, "INBOX", mail[:250])
	fill(t, source, "Work", mail[200:])
	archive := t.TempDir()
	if status, out, errs := mailstow(t, home(t, source), "backup", address("imap+insecure", source.IMAP), "--to", archive); status != exitOK {
		t.Fatal(out, errs)
	}
	binary := built(t)
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		t.Parallel() // each run is a process, and waits most of the time
		from := filepath.Join(t.TempDir(), "a")
		if err := os.CopyFS(from, os.DirFS(filepath.Join(archive, "alice@127.0.0.1"))); err != nil {
			t.Fatal(err)
		}
		env, killed := moving(t, s), 0
		relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Delay: 5 * time.Millisecond})
		run := func() *exec.Cmd { return command(binary, env, "migrate", from, address("imap+insecure", relay.Addr)) }
		for i := range 4 {
			cmd := run()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			wait := 100
			if i > 0 {
				wait = 2150
			}
			time.Sleep(time.Duration(wait+rand.N(300)) * time.Millisecond)
			cmd.Process.Kill()
			if err := cmd.Wait(); err != nil {
				killed++
			}
		}
		go func() {
			for range 4 {
				time.Sleep(2300 * time.Millisecond)
				relay.Sever()
			}
		}()
		if out, err := run().CombinedOutput(); err != nil {
			t.Fatalf("last run: %v: %s", err, out)
		}
		for mailbox, want := range map[string][][]byte{"INBOX": mail[:250], s.Prefix() + "Work": mail[200:]} {
			if got := served(t, s, mailbox); !maps.Equal(got, retrieved(want)) {
				t.Errorf("%s has %d messages, want each of %d once", mailbox, total(got), len(want))
			}
		}
		if killed == 0 {
			t.Error("no run was killed: the test shows nothing")
		}
		t.Logf("%d of 4 runs were killed", killed)
	})
}

// Whatever a server has taken comes back as it was sent, and what it refuses is
// named; a second run sends nothing that is there.
func TestUglyMailIsStoredOrNamed(t *testing.T) {
	source := mailtest.Dovecot(t)
	n := fill(t, source, "INBOX", ugly())
	archive := t.TempDir()
	if status, out, errs := mailstow(t, home(t, source), "backup", address("imap+insecure", source.IMAP), "--to", archive); status != exitOK {
		t.Fatal(out, errs)
	}
	from := filepath.Join(archive, "alice@127.0.0.1")
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		var stored int
		for round := range 2 {
			status, out, errs := mailstow(t, moving(t, s), "migrate", from, address("imap+insecure", s.IMAP), "--json")
			missing, refused := int(summary(t, out)["missing"].(float64)), strings.Count(out, `"action":"failed"`)
			there := total(served(t, s, "INBOX"))
			if there+missing != n || refused != missing || (status == exitOK) != (missing == 0) || status != exitOK && status != exitIncomplete {
				t.Errorf("round %d: status %d, %d there, %d missing, %d named, of %d\n%s%s", round, status, there, missing, refused, n, out, errs)
			}
			if round > 0 && there != stored {
				t.Errorf("%d messages, %d after the second run", stored, there)
			}
			stored = there
		}
		t.Logf("%s takes %d of %d", s.Name, stored, n)
	})
}

// What is the source's is no business of the destination's.
func TestPasswordsGoToTheirOwnServers(t *testing.T) {
	hears := func() (addr string, said func() string) {
		var mu sync.Mutex
		var all strings.Builder
		addr = mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] hi\r\n", func(line string) string {
			mu.Lock()
			defer mu.Unlock()
			if b, err := base64.StdEncoding.DecodeString(line); err == nil {
				line = string(b)
			}
			fmt.Fprintln(&all, line)
			tag, rest, _ := strings.Cut(line, " ")
			if strings.HasPrefix(rest, "AUTHENTICATE") {
				return "+ \r\n"
			}
			return tag + " NO [AUTHENTICATIONFAILED] no\r\n"
		})
		return addr, func() string {
			mu.Lock()
			defer mu.Unlock()
			return all.String()
		}
	}
	source := mailtest.Dovecot(t)
	fill(t, source, "INBOX", numbered(0, 3))
	for name, tt := range map[string]struct {
		options []string
		env     string // of the destination
	}{
		"MAILSTOW_PASSWORD":  {nil, "destination-secret"},
		"--password-command": {[]string{"--password-command", "echo " + source.Password("alice")}, "destination-secret"},
		"--user":             {[]string{"--user", "alice"}, "destination-secret"},
	} {
		addr, said := hears()
		dir := t.TempDir()
		config := filepath.Join(dir, "config.toml")
		write(t, config, fmt.Sprintf("[accounts.new]\nuser = \"bob\"\nserver = \"imap+insecure://%s\"\n", addr))
		for _, to := range []string{"imap+insecure://bob@" + addr, "new"} {
			env := home(t, source)
			env["MAILSTOW_DESTINATION_PASSWORD"] = tt.env
			args := append([]string{"migrate", address("imap+insecure", source.IMAP), to, "--to", dir, "-c", config}, tt.options...)
			status, out, errs := mailstow(t, env, args...)
			if status != exitLogin || strings.Contains(said(), source.Password("alice")) || !strings.Contains(said(), `"bob" "destination-secret"`) {
				t.Errorf("%s, to %s: status %d, the destination heard %q\n%s%s", name, to, status, said(), out, errs)
			}
			delete(env, "MAILSTOW_DESTINATION_PASSWORD")
			mailstow(t, env, append(args, "--no-input")...)
			if strings.Contains(said(), source.Password("alice")) || strings.Contains(said(), "alice") {
				t.Errorf("%s, to %s without a password: the destination heard %q", name, to, said())
			}
		}
	}
}

// A mailbox that is there under another spelling is not new; a folder that is
// not there cannot go elsewhere.
func TestNamesThatAreSpelledOtherwise(t *testing.T) {
	s := mailtest.Dovecot(t)
	dir := t.TempDir()
	for i, folder := range []string{"INBOX", "Inbox/sub", "Top"} {
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(dir, folder, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		write(t, filepath.Join(dir, folder, "new", fmt.Sprintf("1.%d.host", i)), fmt.Sprintf("X-TUID: abcdefghijkl\nSubject: %d\n\nx\n", i))
	}
	for round, lost := range []bool{false, false, true} {
		if lost { // what was noted: it is recognised
			if err := os.RemoveAll(filepath.Join(dir, ".mailstow")); err != nil {
				t.Fatal(err)
			}
		}
		status, out, errs := mailstow(t, moving(t, s), "migrate", dir, address("imap+insecure", s.IMAP), "-v")
		if status != exitOK || !strings.Contains(out, "3 of 3 messages") || round > 0 && !strings.Contains(out, "nothing new") {
			t.Errorf("round %d: status %d\n%s%s", round, status, out, errs)
		}
	}
	if status, _, errs := mailstow(t, moving(t, s), "migrate", dir, address("imap+insecure", s.IMAP), "--map", "Nowhere=Top"); status != exitConfig || !strings.Contains(errs, "no folder Nowhere") {
		t.Errorf("--map of no folder: status %d, %s", status, errs)
	}
}

// What mbsync has fetched goes to a server as it was on the first one.
func TestMaildirsOfMbsyncAreStored(t *testing.T) {
	from, to := mailtest.Dovecot(t), mailtest.Dovecot(t)
	fill(t, from, "INBOX", numbered(0, 30))
	fill(t, from, "Work.2024", numbered(30, 30))
	dir := t.TempDir()
	cmd := mbsync(t, from, from.IMAP, dir)
	if cmd == nil {
		t.Skip("mbsync is not installed")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for range 2 {
		status, out, errs := mailstow(t, moving(t, to), "migrate", dir, address("imap+insecure", to.IMAP), "-v")
		if status != exitOK || !strings.Contains(out, "60 of 60 messages") {
			t.Fatalf("status %d, %s%s", status, out, errs)
		}
	}
	for mailbox, want := range map[string]int{"INBOX": 30, "Work.2024": 30} {
		bodies, err := to.Login(t, "alice").Bodies(mailbox)
		if err != nil || len(bodies) != want {
			t.Errorf("%s has %d messages, want %d: %v", mailbox, len(bodies), want, err)
		}
		for _, b := range bodies {
			if s := string(b); strings.Count(s, "\n") != strings.Count(s, "\r\n") || !strings.Contains(s, "body of") {
				t.Errorf("%s: %q", mailbox, s)
			}
		}
	}
	empty := t.TempDir()
	if status, _, errs := mailstow(t, moving(t, to), "migrate", empty, address("imap+insecure", to.IMAP)); status != exitConfig || !strings.Contains(errs, "neither") {
		t.Errorf("an empty directory: status %d, %s", status, errs)
	}
}

// summary returns the summary among JSON lines.
func summary(t *testing.T, out string) map[string]any {
	t.Helper()
	for line := range strings.Lines(out) {
		o := map[string]any{}
		if json.Unmarshal([]byte(line), &o) == nil && o["type"] == "summary" {
			return o
		}
	}
	t.Fatalf("no summary in %s", out)
	return nil
}

func alike(a, b map[string]int) (n int) {
	for k := range a {
		n += min(a[k], b[k])
	}
	return n
}

// onlyZero reports whether every field of this name in JSON lines is 0.
func onlyZero(lines, field string) bool {
	return strings.Count(lines, `"`+field+`":`) == strings.Count(lines, `"`+field+`":0,`)
}
