package cli

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// What a backup over IMAP does on real servers when little has changed, or
// when the line or the server is bad.

// numbered makes small messages that differ.
func numbered(first, n int) (all [][]byte) {
	for i := range n {
		all = append(all, fmt.Appendf(nil, "Subject: %d\r\n\r\nbody of %d\r\n", first+i, first+i))
	}
	return all
}

// opens counts the mailboxes that were opened.
func opens(said []string) int {
	opened := map[string]bool{}
	for _, l := range said {
		if strings.HasPrefix(l, "EXAMINE") || strings.HasPrefix(l, "SELECT") {
			opened[l] = true
		}
	}
	return len(opened)
}

// same checks that a folder of the archive holds what the server has, and
// more only if the server has had it.
func same(t *testing.T, s *mailtest.Server, account, folder, mailbox string, gone int) {
	t.Helper()
	want, got := served(t, s, mailbox), kept(t, filepath.Join(account, folder))
	for sum, n := range want {
		if got[sum] < n {
			t.Errorf("%s: a message is missing", folder)
		}
	}
	if total(got) != total(want)+gone {
		t.Errorf("%s: %d files, want %d and %d that left the server", folder, total(got), total(want), gone)
	}
}

func TestOnlyWhatHasChangedIsLookedAt(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
		relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{})
		url := address("imap+insecure", relay.Addr)
		account := filepath.Join(to, "alice@127.0.0.1")
		boxes := []string{"INBOX", s.Prefix() + "One", s.Prefix() + "Two", s.Prefix() + "Three"}
		folder := func(box string) string {
			if box == "INBOX" {
				return box
			}
			return strings.ReplaceAll(box, ".", "/")
		}
		for i, b := range boxes {
			fill(t, s, b, numbered(100*i, 20))
		}
		run := func(what string, want map[string]any) {
			t.Helper()
			status, out, errs := mailstow(t, env, "backup", url, "--to", to, "--json")
			o := last(t, out)
			for k, v := range want {
				if got := fmt.Sprint(o[k]); status != exitOK || got != fmt.Sprint(v) {
					t.Errorf("%s: status %d, %s = %s, want %v\n%s", what, status, k, got, v, errs)
				}
			}
		}
		run("first", map[string]any{"new": 80})
		run("settle", map[string]any{"new": 0})
		condstore := s.Name != "courier"

		relay.Said()
		run("nothing", map[string]any{"new": 0, "missing": 0})
		if n := opens(relay.Said()); condstore && n != 0 {
			t.Errorf("%d mailboxes were opened when nothing had changed", n)
		}

		c := s.Login(t, "alice")
		tell := func(line string) {
			t.Helper()
			if _, err := c.Command(line); err != nil {
				t.Fatal(line, err)
			}
		}
		tell("SELECT " + boxes[1])
		tell(`STORE 3 +FLAGS (\Flagged $Work)`)
		tell("SELECT " + boxes[2])
		tell(`STORE 5,9 +FLAGS (\Deleted)`)
		tell("EXPUNGE")
		fill(t, s, boxes[2], numbered(900, 3))
		run("changes", map[string]any{"new": 3, "missing": 0})
		if said := relay.Said(); condstore && opens(said) != 2 {
			t.Errorf("more was opened than the 2 mailboxes that had changed: %q", said)
		}
		same(t, s, account, "INBOX", "INBOX", 0)
		same(t, s, account, folder(boxes[1]), boxes[1], 0)
		same(t, s, account, folder(boxes[2]), boxes[2], 2)
		if paths, _ := filepath.Glob(filepath.Join(account, folder(boxes[1]), "cur", "*:2,FSa")); len(paths) != 1 {
			t.Errorf("%d files show the flag and the keyword that were set, want 1", len(paths))
		}
		run("after", map[string]any{"new": 0, "missing": 0})
	})
}

// The connection is cut every few hundred kilobytes, on all connections.
func TestCutEveryFewHundredKilobytes(t *testing.T) {
	t.Parallel()
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
		relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Cut: 300 << 10})
		var mail [][]byte
		for i := range 400 {
			mail = append(mail, fmt.Appendf(nil, "Subject: %d\r\n\r\n%s", i, strings.Repeat(fmt.Sprintf("line of %d\r\n", i), 1000)))
		}
		fill(t, s, "INBOX", mail)
		fill(t, s, s.Prefix()+"Other", mail[:100])
		if status, _, errs := mailstow(t, env, "backup", address("imap+insecure", relay.Addr), "--to", to); status != exitOK {
			t.Errorf("status %d: %s", status, errs)
		}
		account := filepath.Join(to, "alice@127.0.0.1")
		same(t, s, account, "INBOX", "INBOX", 0)
		same(t, s, account, strings.ReplaceAll(s.Prefix(), ".", "/")+"Other", s.Prefix()+"Other", 0)
		if relay.Connections() < 10 {
			t.Errorf("the line was cut %d times, which tests little", relay.Connections())
		}
	})
}

func TestServerThatAllowsOneConnection(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
		relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Most: 1})
		var mail [][]byte
		for i := range 300 {
			mail = append(mail, fmt.Appendf(nil, "Subject: %d\r\n\r\n%s", i, strings.Repeat("x\r\n", 5000)))
		}
		fill(t, s, "INBOX", mail)
		if status, _, errs := mailstow(t, env, "backup", address("imap+insecure", relay.Addr), "--to", to); status != exitOK {
			t.Errorf("status %d: %s", status, errs)
		}
		same(t, s, filepath.Join(to, "alice@127.0.0.1"), "INBOX", "INBOX", 0)
		if relay.Connections() > 5 {
			t.Errorf("%d connections were tried", relay.Connections())
		}
	})
}

// courierStub is the digest of what Courier sends, and announces the size of,
// in place of a message that another client has just expunged.
var courierStub = sha256.Sum256([]byte("From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\nThis message is no longer available on the server.\r\n"))

// Mail comes, goes and changes while the backup runs. What stays is archived,
// and nothing is doubled.
func TestMailboxThatChangesDuringTheRun(t *testing.T) {
	t.Parallel()
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
		relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Delay: 5 * time.Millisecond})
		for _, b := range []string{"INBOX", s.Prefix() + "A", s.Prefix() + "B"} {
			fill(t, s, b, numbered(0, 150))
		}
		done := make(chan struct{})
		churned := make(chan error, 1)
		c := s.Login(t, "alice")
		go func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					churned <- nil
					return
				default:
				}
				box := []string{"INBOX", s.Prefix() + "A", s.Prefix() + "B"}[i%3]
				for _, line := range []string{"SELECT " + box, `STORE 2 FLAGS (\Flagged)`, `STORE 1 +FLAGS (\Deleted)`, "EXPUNGE"} {
					if _, err := c.Command(line); err != nil {
						churned <- err
						return
					}
				}
				if err := c.Append(box, numbered(10000+i, 1)[0], arrived); err != nil {
					churned <- err
					return
				}
			}
		}()
		for range 5 {
			if status, _, errs := mailstow(t, env, "backup", address("imap+insecure", relay.Addr), "--to", to); status != exitOK {
				t.Errorf("while it changes: status %d: %s", status, errs)
			}
		}
		close(done)
		if err := <-churned; err != nil {
			t.Fatal(err)
		}
		if status, _, errs := mailstow(t, env, "backup", address("imap+insecure", relay.Addr), "--to", to); status != exitOK {
			t.Errorf("status %d: %s", status, errs)
		}
		account := filepath.Join(to, "alice@127.0.0.1")
		for _, b := range []string{"INBOX", s.Prefix() + "A", s.Prefix() + "B"} {
			got := kept(t, filepath.Join(account, strings.ReplaceAll(b, ".", "/")))
			for sum, n := range served(t, s, b) {
				if got[sum] != n {
					t.Errorf("%s: a message is there %d times", b, got[sum])
				}
			}
			for sum, n := range got {
				if n != 1 && sum != courierStub {
					t.Errorf("%s: a message is there %d times", b, n)
				}
			}
		}
	})
}

func TestStrangeFolderNames(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
		sent := 0
		for i, name := range []string{
			"&ZTZO9nux-", "R&-D", "50% off", "a b  c", "trailing  ", "100%25", "Entw&APw-rfe", "sp&AOk-cial", "-dash", "~tilde", "#news",
			`quo"te`, `back\\slash`, "Tr&AOk-s long " + strings.Repeat("x", 180), "cur", "tmp",
		} {
			box := s.Prefix() + name
			c := s.Login(t, "alice")
			if _, err := c.Command("CREATE \"" + strings.ReplaceAll(strings.ReplaceAll(box, `\`, `\\`), `"`, `\"`) + "\""); err != nil {
				continue // the server does not have such names
			}
			if err := c.Append(box, numbered(i, 1)[0], arrived); err != nil {
				t.Fatal(box, err)
			}
			sent++
		}
		if sent < 10 {
			t.Errorf("the server took %d names", sent)
		}
		for range 2 {
			status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to, "--json")
			if o := last(t, out); status != exitOK || fmt.Sprint(o["missing"]) != "0" {
				t.Errorf("status %d: %s", status, errs)
			}
		}
		files, _ := exec.Command("find", to, "-path", "*/cur/*", "-type", "f").Output()
		if n := strings.Count(string(files), "\n"); n != sent {
			t.Errorf("%d files, want %d:\n%s", n, sent, files)
		}
	})
}

func TestOnlyWantedMailComes(t *testing.T) {
	s := mailtest.Dovecot(t)
	for i, box := range []string{"INBOX", "Junk", "Lists.a", "Lists.b", "Work"} {
		fill(t, s, box, numbered(10*i, 3))
	}
	c := s.Login(t, "alice")
	if err := c.Append("INBOX", []byte("Subject: large\r\n\r\n"+strings.Repeat("x", 5000)), arrived); err != nil {
		t.Fatal(err)
	}
	if err := c.Append("INBOX", []byte("Subject: new\r\n\r\nx\r\n"), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--folder", "INBOX"}, 5},
		{[]string{"--include", "Lists/*", "--folder", "Work"}, 9},
		{[]string{"--exclude", "Lists/**", "--exclude", "Junk"}, 8},
		{[]string{"--max-size", "1k", "--folder", "INBOX"}, 4},
		{[]string{"--newer-than", "1d"}, 1},
		{[]string{"--older-than", "1d"}, 16},
		{[]string{"--older-than", "2023-03-14"}, 0},
	} {
		env := home(t, s)
		status, out, errs := mailstow(t, env, slices.Concat([]string{"backup", address("imap+insecure", s.IMAP), "--to", t.TempDir(), "--json"}, c.args)...)
		if o := last(t, out); status != exitOK || fmt.Sprint(o["new"]) != fmt.Sprint(c.want) || fmt.Sprint(o["missing"]) != "0" {
			t.Errorf("%q: status %d, new %v, want %d: %s", c.args, status, o["new"], c.want, errs)
		}
	}
}

func TestLimitsEndARunWith75(t *testing.T) {
	s := mailtest.Dovecot(t)
	var mail [][]byte
	for i := range 60 {
		mail = append(mail, fmt.Appendf(nil, "Subject: %d\r\n\r\n%s", i, strings.Repeat("x\r\n", 10000)))
	}
	fill(t, s, "INBOX", mail)
	env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
	url := address("imap+insecure", s.IMAP)
	status, out, _ := mailstow(t, env, "backup", url, "--to", to, "--json", "--max-transfer", "500k")
	if o := last(t, out); status != exitLater || o["result"] != "paused" || fmt.Sprint(o["new"]) == "0" {
		t.Errorf("--max-transfer: status %d, %v", status, o)
	}
	begun := time.Now()
	status, out, _ = mailstow(t, env, "backup", url, "--to", to, "--json", "--bwlimit", "200k", "--max-duration", "2s")
	if o := last(t, out); status != exitLater || o["result"] != "paused" || time.Since(begun) > 4*time.Second || o["bytes_new"].(float64) > 800<<10 {
		t.Errorf("--max-duration: status %d after %v, %v", status, time.Since(begun), o)
	}
	if status, _, errs := mailstow(t, env, "backup", url, "--to", to); status != exitOK {
		t.Errorf("status %d: %s", status, errs)
	}
	same(t, s, filepath.Join(to, "alice@127.0.0.1"), "INBOX", "INBOX", 0)
}

// --watch stays, copies what comes within seconds, and ends when it is told.
func TestWatchCopiesMailAsItComes(t *testing.T) {
	t.Parallel()
	binary := built(t)
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
		fill(t, s, "INBOX", numbered(0, 3))
		every := "1h"
		if s.Name == "courier" { // it looks for news once a minute
			every = "2s"
		}
		cmd := command(binary, env, "backup", address("imap+insecure", s.IMAP), "--to", to, "--watch", "--every", every)
		var errs strings.Builder
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		folder := filepath.Join(to, "alice@127.0.0.1", "INBOX")
		arrives := func(n int) bool {
			for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				if paths, _ := filepath.Glob(filepath.Join(folder, "cur", "*")); len(paths) == n {
					return true
				}
			}
			return false
		}
		for _, n := range []int{3, 4, 5} {
			if n > 3 {
				fill(t, s, "INBOX", numbered(n, 1))
			}
			if !arrives(n) {
				t.Fatalf("message %d did not arrive: %s", n, errs.String())
			}
		}
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("it does not end when it is told to")
			cmd.Process.Kill()
		}
		if cmd.ProcessState.ExitCode() != 128+int(syscall.SIGTERM) {
			t.Errorf("%v: %s", cmd.ProcessState, errs.String())
		}
	})
}

func TestLocalFlagsAreKept(t *testing.T) {
	s := mailtest.Dovecot(t)
	env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
	url := address("imap+insecure", s.IMAP)
	fill(t, s, "INBOX", numbered(0, 2))
	run := func() {
		t.Helper()
		if status, _, errs := mailstow(t, env, "backup", url, "--to", to); status != exitOK {
			t.Fatal(errs)
		}
	}
	run()
	paths, _ := filepath.Glob(filepath.Join(to, "alice@127.0.0.1/INBOX/cur/*"))
	for _, p := range paths {
		if err := os.Rename(p, strings.TrimSuffix(p, ":2,S")+":2,FS"); err != nil {
			t.Fatal(err)
		}
	}
	run()
	c := s.Login(t, "alice")
	for _, line := range []string{"SELECT INBOX", `STORE 1 +FLAGS (\Answered)`, `STORE 2 -FLAGS (\Seen)`} {
		if _, err := c.Command(line); err != nil {
			t.Fatal(err)
		}
	}
	run()
	letters := map[string]int{}
	paths, _ = filepath.Glob(filepath.Join(to, "alice@127.0.0.1/INBOX/cur/*"))
	for _, p := range paths {
		_, l, _ := strings.Cut(p, ":2,")
		letters[l]++
	}
	if !maps.Equal(letters, map[string]int{"FRS": 1, "F": 1}) {
		t.Errorf("letters = %v", letters)
	}
}

// Cyrus names contents (OBJECTID), so that copies in other folders need not be
// downloaded.
func TestCopiesAreDownloadedOnce(t *testing.T) {
	s := mailtest.Cyrus(t)
	env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
	fill(t, s, "INBOX", numbered(0, 20))
	fill(t, s, "INBOX.Copies", numbered(100, 1))
	c := s.Login(t, "alice")
	for _, line := range []string{"SELECT INBOX", "COPY 1:15 INBOX.Copies"} {
		if _, err := c.Command(line); err != nil {
			t.Fatal(err)
		}
	}
	status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to, "--json")
	if status != exitOK || !strings.Contains(out, `"linked":15`) {
		t.Errorf("status %d, %s: %s", status, out, errs)
	}
	account := filepath.Join(to, "alice@127.0.0.1")
	same(t, s, account, "INBOX", "INBOX", 0)
	same(t, s, account, "INBOX/Copies", "INBOX.Copies", 0)
	if status, out, errs := mailstow(t, env, "verify", to); status != exitOK {
		t.Errorf("verify: %s%s", out, errs)
	}
}

// A folder may be renamed, moved, or deleted and made again on the server.
func TestFolderThatIsRenamedOnTheServer(t *testing.T) {
	t.Parallel()
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
		relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{})
		url, p := address("imap+insecure", relay.Addr), s.Prefix()
		fill(t, s, p+"Old", numbered(0, 30))
		fill(t, s, p+"Old.Below", numbered(100, 10))
		fill(t, s, p+"Again", numbered(200, 10))
		run := func(want map[string]any) {
			t.Helper()
			relay.Said()
			status, out, errs := mailstow(t, env, "backup", url, "--to", to, "--json")
			o := last(t, out)
			for k, v := range want {
				if got := fmt.Sprint(o[k]); status != exitOK || got != fmt.Sprint(v) {
					t.Errorf("status %d, %s = %s, want %v\n%s", status, k, got, v, errs)
				}
			}
			for _, l := range relay.Said() {
				if strings.Contains(l, "BODY.PEEK[]") && want["new"] == 0 {
					t.Errorf("a body was fetched: %q", l)
				}
			}
		}
		run(map[string]any{"new": 50})
		c := s.Login(t, "alice")
		for _, line := range []string{
			"RENAME " + p + "Old " + p + "Fresh", "SELECT " + p + "Again", "CREATE " + p + "Tmp", "COPY 1:10 " + p + "Tmp",
			"CLOSE", "DELETE " + p + "Again", "RENAME " + p + "Tmp " + p + "Again",
		} {
			if _, err := c.Command(line); err != nil {
				t.Fatal(line, err)
			}
		}
		run(map[string]any{"new": 0, "missing": 0})
		account := filepath.Join(to, "alice@127.0.0.1", strings.ReplaceAll(p, ".", "/"))
		same(t, s, account, "Fresh", p+"Fresh", 0)
		same(t, s, account, "Fresh/Below", p+"Fresh.Below", 0)
		same(t, s, account, "Again", p+"Again", 0)
		if _, err := os.Stat(filepath.Join(account, "Old")); !os.IsNotExist(err) {
			t.Errorf("the folder of the old name is still there: %v", err)
		}
		if status, out, errs := mailstow(t, env, "verify", to); status != exitOK {
			t.Errorf("verify: %s%s", out, errs)
		}
	})
}

// A connection on which mail is awaited is lost, as in weeks it will be.
func TestWatchIsMadeAgainWhenItIsLost(t *testing.T) {
	t.Parallel()
	s := mailtest.Dovecot(t)
	relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{})
	env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
	cmd := command(built(t), env, "backup", address("imap+insecure", relay.Addr), "--to", to, "--watch", "--every", "1h")
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}()
	waitFor := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s", what, errs.String())
			}
		}
	}
	idles := func() bool { return slices.Contains(relay.Said(), "IDLE") }
	waitFor("no IDLE", idles)
	relay.Sever()
	waitFor("no IDLE after the loss", idles)
	fill(t, s, "INBOX", numbered(0, 1))
	waitFor("the message did not arrive", func() bool {
		paths, _ := filepath.Glob(filepath.Join(to, "alice@127.0.0.1", "INBOX", "cur", "*"))
		return len(paths) == 1
	})
}

// A server that never stops telling must not be asked all the time.
func TestWatchDoesNotRunAllTheTime(t *testing.T) {
	t.Parallel()
	s := mailtest.Dovecot(t)
	relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{})
	env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
	cmd := command(built(t), env, "backup", address("imap+insecure", relay.Addr), "--to", to, "--watch")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		fill(t, s, "INBOX", numbered(i, 1))
		time.Sleep(200 * time.Millisecond)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if n := relay.Connections(); n > 6 {
		t.Errorf("%d connections in 8 seconds", n)
	}
}

func TestWrongLimitsAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"--max-transfer", "bogus"}, {"--max-transfer", "0"}, {"--bwlimit", "fast"}, {"--max-size", "-1"}, {"--every", "-5m"}, {"--timeout", "-1s"},
		{"--connections", "0"}, {"--older-than", "soon"}, {"--exclude", "a[b"}, {"--max-duration", "-1s"},
	} {
		env := map[string]string{"HOME": t.TempDir(), "MAILSTOW_PASSWORD": "x", "MAILSTOW_CONFIG": os.DevNull}
		to := filepath.Join(t.TempDir(), "archive")
		if status, _, errs := mailstow(t, env, slices.Concat([]string{"backup", "imap+insecure://a@127.0.0.1:1", "--to", to}, args)...); status != exitUsage {
			t.Errorf("%q: status %d, want %d: %s", args, status, exitUsage, errs)
		}
	}
}

// Two accounts that would share a directory stop neither the first of them nor any
// other.
func TestAccountsWithOneDirectoryStopNoOther(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly()[:2])
	env := home(t, s)
	env["MAILSTOW_CONFIG"] = filepath.Join(env["HOME"], "config.toml")
	one := fmt.Sprintf("server = %q\npassword_command = \"echo %s\"\n", address("imap+insecure", s.IMAP), s.Password("alice"))
	write(t, env["MAILSTOW_CONFIG"], fmt.Sprintf("archive = %q\n[accounts.a]\naddress = \"me@example.org\"\n%s[accounts.b]\naddress = \"me@example.org\"\n%s[accounts.c]\n%s", t.TempDir(), one, one, one))
	status, out, errs := mailstow(t, env, "backup", "-v")
	if status != exitIncomplete || !strings.Contains(errs, "a and b have the same directory") || !strings.Contains(out, "2 ok, 1 failed") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := mailstow(t, env, "config", "check"); status != exitConfig || !strings.Contains(errs, "a and b have the same directory") {
		t.Errorf("check: status %d\n%s%s", status, out, errs)
	}
}

func TestServerWithoutPasswordsIsToldWithWhatToDo(t *testing.T) {
	addr := mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2] hi\r\n", func(line string) string {
		tag, _, _ := strings.Cut(line, " ")
		return tag + " OK done\r\n"
	})
	env := map[string]string{"HOME": t.TempDir(), "MAILSTOW_PASSWORD": "x", "MAILSTOW_CONFIG": os.DevNull}
	if status, out, errs := mailstow(t, env, "check", "imap+insecure://me@"+addr, "--to", t.TempDir()); status != exitLogin || !strings.Contains(errs, "use TLS: imap://me@"+addr) {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

// What stands at the address of the URL and is no such server is told with the URL
// that may be meant.
func TestWrongPortIsToldWithTheRightURL(t *testing.T) {
	s := mailtest.Dovecot(t)
	env := home(t, s)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	for _, tt := range []struct{ scheme, addr, what, do string }{
		{"imaps", s.IMAP, "does not begin with TLS", "imap://alice@" + s.IMAP + " (STARTTLS)"},
		{"pop3s", s.POP3, "does not begin with TLS", "pop3://alice@" + s.POP3 + " (STLS)"},
		{"pop3+insecure", s.IMAP, "no POP3 server", "it is one of IMAP: imap+insecure://alice@" + s.IMAP},
		{"imap+insecure", s.POP3, "no IMAP server", "it is one of POP3: pop3+insecure://alice@" + s.POP3},
		{"imap", silent.Addr().String(), "does not greet: the server is silent", "imaps://alice@" + silent.Addr().String()},
	} {
		status, out, errs := mailstow(t, env, "check", tt.scheme+"://alice@"+tt.addr, "--timeout", "500ms", "--to", t.TempDir())
		if status != exitUnavailable || !strings.Contains(errs, tt.what) || !strings.Contains(errs, tt.do) {
			t.Errorf("%s://%s: status %d\n%s%s", tt.scheme, tt.addr, status, out, errs)
		}
	}
}
