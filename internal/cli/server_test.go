package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// The tests of this file run against real servers: Dovecot, Cyrus, Courier.

// home is the environment of a user with a password and a place of their own.
func home(t *testing.T, s *mailtest.Server) map[string]string {
	t.Helper()
	return map[string]string{"HOME": t.TempDir(), "MAILSTOW_PASSWORD": s.Password("alice"), "MAILSTOW_CONFIG": os.DevNull}
}

func address(scheme, addr string) string { return scheme + "://alice@" + addr }

// ugly is mail that is hard to keep.
func ugly() [][]byte {
	var all [][]byte
	for _, s := range []string{
		"Subject: plain\r\n\r\nbody\r\n",
		"Subject: no final line end\r\n\r\nbody",
		"Subject: header only\r\n\r\n",
		"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n\r\n.\r\n",
		"Subject: long line\r\n\r\n" + strings.Repeat("x", 200<<10) + "\r\n",
		"Subject: 8 bit\r\n\r\nGr\xc3\xbc\xc3\x9fe und \xe4\r\n",
		"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nencoded\r\n",
		"Subject: same\r\nMessage-ID: <same@example.org>\r\n\r\none body\r\n",
		"Subject: same\r\nMessage-ID: <same@example.org>\r\n\r\ntwo body\r\n",
		"Subject: twin\r\n\r\ntwin\r\n", "Subject: twin\r\n\r\ntwin\r\n",
		"Subject: blank lines\r\n\r\n\r\n\r\n\r\n",
		"Subject: bare\r\n\r\na\rb\r\n",
		"Subject: LF\n\nbody\n",
	} {
		all = append(all, []byte(s))
	}
	for i := range 40 {
		all = append(all, fmt.Appendf(nil, "Subject: number %d\r\nDate: Tue, 14 Mar 2023 09:26:%02d +0000\r\n\r\n%s", i, i, strings.Repeat(fmt.Sprintf("line of %d\r\n", i), i*i)))
	}
	return all
}

var arrived = time.Date(2023, 3, 14, 9, 26, 53, 0, time.UTC)

// fill appends messages and returns how many the server accepted.
func fill(t *testing.T, s *mailtest.Server, mailbox string, messages [][]byte) int {
	t.Helper()
	c := s.Login(t, "alice")
	n := 0
	for _, m := range messages {
		if err := c.Append(mailbox, m, arrived, `\Seen`); err == nil {
			n++
		} else if !errors.As(err, new(mailtest.Refused)) {
			t.Fatal(err)
		}
	}
	return n
}

// served returns the digests of what the server sends for a mailbox.
func served(t *testing.T, s *mailtest.Server, mailbox string) map[[32]byte]int {
	t.Helper()
	bodies, err := s.Login(t, "alice").Bodies(mailbox)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[[32]byte]int{}
	for _, b := range bodies {
		sums[sha256.Sum256(b)]++
	}
	return sums
}

// kept returns the digests of the files in a folder of the archive.
func kept(t *testing.T, folder string) map[[32]byte]int {
	t.Helper()
	sums := map[[32]byte]int{}
	for _, sub := range []string{"cur", "new"} {
		paths, err := filepath.Glob(filepath.Join(folder, sub, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			sums[sha256.Sum256(b)]++
		}
	}
	if tmp, _ := filepath.Glob(filepath.Join(folder, "tmp", "*")); len(tmp) > 0 {
		t.Errorf("tmp has %q", tmp)
	}
	return sums
}

func total(m map[[32]byte]int) (n int) {
	for _, k := range m {
		n += k
	}
	return n
}

// last returns the last JSON object of an output.
func last(t *testing.T, out string) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	o := map[string]any{}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &o); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return o
}

func TestWholeAccountComesBackExactlyOverIMAP(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
		boxes := map[string]string{"INBOX": "INBOX", s.Prefix() + "Work.2024": "Work/2024", s.Prefix() + "Entw&APw-rfe": "Entwürfe", s.Prefix() + "&ZTZO9nux-": "收件箱", s.Prefix() + "a &- b": "a & b"}
		all := 0
		for wire := range boxes {
			all += fill(t, s, wire, ugly())
		}
		status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to, "--json")
		if status != exitOK || errs != "" {
			t.Fatalf("status %d, %s%s", status, out, errs)
		}
		if o := last(t, out); o["new"] != float64(all) || o["missing"] != 0.0 {
			t.Errorf("summary = %v, want %d new", o, all)
		}
		account := filepath.Join(to, "alice@127.0.0.1")
		for wire, dir := range boxes {
			if s.Prefix() != "" && dir != "INBOX" {
				dir = "INBOX/" + dir
			}
			if got, want := kept(t, filepath.Join(account, dir)), served(t, s, wire); !maps.Equal(got, want) {
				t.Errorf("%s: %d files, want the %d messages that the server sends, octet for octet", dir, total(got), total(want))
			}
		}
		// Cron: nothing new and nothing wrong, so nothing is said.
		if status, out, errs = mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to); status != exitOK || out+errs != "" {
			t.Errorf("second run: status %d, %q %q; want silence", status, out, errs)
		}
		if status, out, errs = mailstow(t, env, "verify", to); status != exitOK || !strings.Contains(out, "all hashes match") {
			t.Errorf("verify: status %d, %q %q", status, out, errs)
		}
	})
}

// A backup must not be seen on the server: no mail is marked as read.
func TestBackupChangesNoFlag(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		c := s.Login(t, "alice")
		for i := range 3 {
			if err := c.Append("INBOX", fmt.Appendf(nil, "Subject: %d\r\n\r\nx\r\n", i), arrived); err != nil {
				t.Fatal(err)
			}
		}
		if status, _, errs := mailstow(t, home(t, s), "backup", address("imap+insecure", s.IMAP), "--to", t.TempDir()); status != exitOK {
			t.Fatal(errs)
		}
		if _, err := c.Command("EXAMINE INBOX"); err != nil {
			t.Fatal(err)
		}
		flags, err := c.Command("FETCH 1:* (FLAGS)")
		if err != nil || len(flags) < 3 || strings.Contains(strings.Join(flags, ""), `\Seen`) {
			t.Errorf("flags = %q, %v", flags, err)
		}
	})
}

func TestInboxComesBackOverPOP3(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		env, to := home(t, s), t.TempDir()
		n := fill(t, s, "INBOX", ugly())
		status, out, errs := mailstow(t, env, "backup", address("pop3+insecure", s.POP3), "--to", to, "--json")
		if status != exitOK {
			t.Fatalf("status %d, %s%s", status, out, errs)
		}
		want := map[[32]byte]int{} // POP3 ends the last line of each message
		bodies, err := s.Login(t, "alice").Bodies("INBOX")
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bodies {
			if !bytes.HasSuffix(b, []byte("\r\n")) {
				b = append(b, "\r\n"...)
			}
			want[sha256.Sum256(b)]++
		}
		got := kept(t, filepath.Join(to, "alice@127.0.0.1", "INBOX"))
		if !maps.Equal(got, want) || total(got) != n {
			t.Errorf("%d files, want %d, octet for octet", total(got), n)
		}
		if status, out, errs = mailstow(t, env, "backup", address("pop3+insecure", s.POP3), "--to", to); status != exitOK || out+errs != "" {
			t.Errorf("second run: status %d, %q %q; want silence", status, out, errs)
		}
		// The hybrid: the same inbox over IMAP is recognised.
		status, out, errs = mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to, "--json")
		if o := last(t, out); status != exitOK || o["new"] != 0.0 {
			t.Errorf("over IMAP: status %d, %v %s", status, o, errs)
		}
		if again := kept(t, filepath.Join(to, "alice@127.0.0.1", "INBOX")); !maps.Equal(again, got) {
			t.Errorf("over IMAP the folder has %d files, had %d", total(again), total(got))
		}
	})
}

func TestEveryKindOfTLS(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		n := fill(t, s, "INBOX", ugly()[:5])
		for _, u := range []string{address("imaps", s.IMAPS), address("imap", s.IMAP), address("pop3s", s.POP3S), address("pop3", s.POP3)} {
			to := t.TempDir()
			if status, _, errs := mailstow(t, home(t, s), "backup", u, "--to", to, "--tls-ca", s.CA); status != exitOK || errs != "" {
				t.Errorf("%s: status %d, %s", u, status, errs)
			}
			if got := total(kept(t, filepath.Join(to, "alice@127.0.0.1", "INBOX"))); got != n {
				t.Errorf("%s: %d files, want %d", u, got, n)
			}
			status, _, errs := mailstow(t, home(t, s), "backup", u, "--to", t.TempDir())
			if status != exitUnavailable || !strings.Contains(errs, "certificate") {
				t.Errorf("%s without the CA: status %d, %q", u, status, errs)
			}
		}
	})
}

func TestWrongPasswordIsALoginError(t *testing.T) {
	s := mailtest.Dovecot(t)
	env := home(t, s)
	env["MAILSTOW_PASSWORD"] = "wrong-horse"
	for _, u := range []string{address("imap+insecure", s.IMAP), address("pop3+insecure", s.POP3)} {
		to := t.TempDir()
		status, out, errs := mailstow(t, env, "backup", u, "--to", to)
		if entries, _ := os.ReadDir(to); len(entries) != 0 {
			t.Errorf("%s: an archive was begun: %v", u, entries)
		}
		if status != exitLogin || !strings.Contains(errs, "login refused") || strings.Contains(out+errs, "wrong-horse") {
			t.Errorf("%s: status %d, %q", u, status, errs)
		}
	}
}

// corpus returns real and ugly mail where it is there.
func corpus(t *testing.T) [][]byte {
	t.Helper()
	paths, err := filepath.Glob("../../../shared/corpus/*.eml")
	if err != nil || len(paths) == 0 {
		t.Skip("the corpus of real mail is not here")
	}
	var all [][]byte
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func TestRealMailComesBackExactly(t *testing.T) {
	t.Parallel()
	corpus(t)
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		mail := corpus(t)
		if s.Name == "cyrus" { // it refuses bare line feeds
			for i, m := range mail {
				mail[i] = bytes.ReplaceAll(bytes.ReplaceAll(m, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
			}
		}
		n := fill(t, s, "INBOX", mail)
		env, to := home(t, s), t.TempDir()
		status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to)
		if status != exitOK {
			t.Fatalf("status %d, %s%s", status, out, errs)
		}
		got, want := kept(t, filepath.Join(to, "alice@127.0.0.1", "INBOX")), served(t, s, "INBOX")
		if !maps.Equal(got, want) || total(got) != n {
			t.Errorf("%d files, want %d, octet for octet", total(got), n)
		}
		t.Logf("%d of %d messages accepted by the server, all came back octet for octet", n, len(mail))
	})
}

// The archive belongs to the user: programs that know nothing of mailstow
// must read all of it.
func TestOtherProgramsReadTheArchive(t *testing.T) {
	s := mailtest.Dovecot(t)
	boxes := []string{"INBOX", "Work.2024", "Entw&APw-rfe", "&ZTZO9nux-"}
	n := 0
	for i, box := range boxes {
		n += fill(t, s, box, slices.DeleteFunc(ugly(), func(m []byte) bool { return len(m)%4 != i%4 || bytes.Contains(m, []byte("twin")) }))
	}
	to, env := t.TempDir(), home(t, s)
	if status, _, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to); status != exitOK {
		t.Fatal(errs)
	}
	account := filepath.Join(to, "alice@127.0.0.1")
	t.Run("mutt", func(t *testing.T) {
		need(t, "mutt")
		read := 0
		for _, dir := range []string{"INBOX", "Work/2024", "Entwürfe", "收件箱"} {
			if got := total(kept(t, filepath.Join(account, dir))); got == 0 {
				continue
			}
			home := t.TempDir()
			line := "timeout --foreground -k 5 60 mutt -F /dev/null -R -f '" + filepath.Join(account, dir) + "' -e 'set folder=" + home + "' -e 'set status_format=\"MSGS=%m=\"' -e 'set quit=yes' -e 'push <refresh><exit>'"
			screen := outputOf(t, []string{"TERM=xterm", "LC_ALL=C.UTF-8", "HOME=" + home}, "script", "-qec", line, os.DevNull)
			_, after, ok := strings.Cut(screen, "MSGS=")
			count, _, _ := strings.Cut(after, "=")
			if k, err := strconv.Atoi(count); ok && err == nil {
				read += k
			}
		}
		if read != n {
			t.Errorf("mutt reads %d messages, want %d", read, n)
		}
	})
	t.Run("notmuch", func(t *testing.T) {
		need(t, "notmuch")
		config := filepath.Join(t.TempDir(), "config")
		write(t, config, "[database]\npath="+to+"\n[user]\nname=a\nprimary_email=a@example.org\n[new]\nignore=.mailstow\n")
		outputOf(t, []string{"NOTMUCH_CONFIG=" + config}, "notmuch", "new")
		if got := strings.TrimSpace(outputOf(t, []string{"NOTMUCH_CONFIG=" + config}, "notmuch", "count", "--output=files", "*")); got != fmt.Sprint(n) {
			t.Errorf("notmuch counts %s messages, want %d", got, n)
		}
		os.RemoveAll(filepath.Join(to, ".notmuch"))
	})
	t.Run("mu", func(t *testing.T) {
		need(t, "mu")
		dir := []string{"MUHOME=" + t.TempDir()}
		outputOf(t, dir, "mu", "init", "--maildir="+to)
		outputOf(t, dir, "mu", "index")
		if got := strings.Count(outputOf(t, dir, "mu", "find", "", "--fields", "p"), "\n"); got != n {
			t.Errorf("mu finds %d messages, want %d", got, n)
		}
	})
	t.Run("dovecot", func(t *testing.T) {
		shown := filepath.Join("/tmp", fmt.Sprintf("mailstow-test-%d", os.Getpid()))
		outputOf(t, nil, "cp", "-r", account, shown)
		outputOf(t, nil, "chmod", "-R", "a+rX", shown)
		t.Cleanup(func() { os.RemoveAll(shown) })
		reader := mailtest.Dovecot(t, "mail_location = maildir:"+shown+":LAYOUT=fs:UTF-8:INBOX="+shown+"/INBOX:INDEX=~/index:CONTROL=~/control", "namespace inbox {\n separator = /\n}")
		read := 0
		for _, box := range []string{"INBOX", "Work/2024", "Entw&APw-rfe", "&ZTZO9nux-"} {
			bodies, err := reader.Login(t, "alice").Bodies(box)
			if err != nil {
				t.Errorf("%s: %v", box, err)
			}
			read += len(bodies)
		}
		if read != n {
			t.Errorf("Dovecot reads %d messages, want %d", read, n)
		}
	})
	if status, out, errs := mailstow(t, env, "verify", to); status != exitOK {
		t.Errorf("after all of them: %s%s", out, errs)
	}
}

func ownerOf(fi os.FileInfo) (uid, gid int) {
	st := fi.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid)
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(program + " is not installed")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func outputOf(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second // what it started may hold its output open
	cmd.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s%s", name, args, err, out, errs.String())
	}
	return string(out)
}

// built returns the program, for tests that kill it.
func built(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// buildDir is where the program is built once for all tests.
var buildDir = filepath.Join(os.TempDir(), fmt.Sprintf("mailstow-built-%d", os.Getpid()))

var build = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(buildDir, "mailstow")
	if out, err := exec.Command("go", "build", "-o", path, "mailstow").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	status := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(status)
}

// command returns the program as a process of its own.
func command(binary string, env map[string]string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

// kill -9 at any moment, again and again, costs time and nothing else.
func TestKilledTwentyTimesConverges(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		var mail [][]byte
		for i := range 400 {
			mail = append(mail, fmt.Appendf(nil, "Subject: %d\r\nMessage-ID: <%d@x>\r\n\r\n%s", i, i, strings.Repeat(fmt.Sprintf("%d\r\n", i), i*20)))
		}
		n := fill(t, s, "INBOX", mail[:300]) + fill(t, s, s.Prefix()+"Other", mail[200:])
		binary, env, to := built(t), home(t, s), t.TempDir()
		run := func(i int) *exec.Cmd { // over POP3 every third time
			url := address("imap+insecure", s.IMAP)
			if i%3 == 2 {
				url = address("pop3+insecure", s.POP3)
			}
			return command(binary, env, "backup", url, "--to", to, "-v")
		}
		killed := 0
		for i := range 20 {
			cmd := run(i)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(10+rand.N(200)) * time.Millisecond)
			cmd.Process.Kill()
			if err := cmd.Wait(); err != nil {
				killed++
			}
		}
		for i := range 3 {
			if out, err := run(i).CombinedOutput(); err != nil {
				t.Fatalf("clean run: %v: %s", err, out)
			}
		}
		account, other := filepath.Join(to, "alice@127.0.0.1"), "Other"
		if s.Prefix() != "" {
			other = "INBOX/Other"
		}
		got := kept(t, filepath.Join(account, "INBOX"))
		if !maps.Equal(got, served(t, s, "INBOX")) {
			t.Errorf("INBOX has %d files, want each of 300 once", total(got))
		}
		gotOther := kept(t, filepath.Join(account, other))
		if !maps.Equal(gotOther, served(t, s, s.Prefix()+"Other")) {
			t.Errorf("Other has %d files, want each of 200 once", total(gotOther))
		}
		if out, err := command(binary, env, "verify", to).CombinedOutput(); err != nil || !strings.Contains(string(out), fmt.Sprintf("%d messages", n)) {
			t.Errorf("verify: %v: %s", err, out)
		}
		if killed == 0 {
			t.Error("no run was killed: the test shows nothing")
		}
		t.Logf("%d of 20 runs were killed", killed)
	})
}

func TestSecondRunMeanwhileStepsBack(t *testing.T) {
	s := mailtest.Dovecot(t)
	env, to := home(t, s), t.TempDir()
	args := []string{"backup", address("imap+insecure", s.IMAP), "--to", to}
	if status, _, errs := mailstow(t, env, args...); status != exitOK {
		t.Fatal(errs)
	}
	lock, err := os.OpenFile(filepath.Join(to, "alice@127.0.0.1", ".mailstow", "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := mailstow(t, env, args...); status != exitLater || out+errs != "" {
		t.Errorf("status %d, %q %q; want %d and silence in cron", status, out, errs, exitLater)
	}
	if status, _, errs := mailstow(t, env, append(args, "-v")...); status != exitLater || !strings.Contains(errs, "another run") {
		t.Errorf("with -v: status %d, %q", status, errs)
	}
	for _, path := range []string{lock.Name(), filepath.Join(filepath.Dir(lock.Name()), "index.db")} {
		then := time.Now().Add(-3*time.Hour - time.Minute)
		must(t, os.Chtimes(path, then, then))
	}
	want := "mailstow: alice@127.0.0.1: another run is writing to this archive, and has written nothing for 3 h\n  do:     see what that run waits for, and end it if it hangs; nothing is lost\n"
	for _, command := range []string{"backup", "trim"} { // it does not hang for systemd alone, which takes 75 for good
		args := append([]string{command}, args[1:]...)
		if command == "trim" {
			args = append(args, "--older-than", "1y", "--yes")
		}
		if status, out, errs := mailstow(t, env, args...); status != exitFailure || out+errs != want {
			t.Errorf("it hangs: %s: status %d\n%s%s", command, status, out, errs)
		}
	}
}

// The archive's disk is not mounted: a new archive in its place would hide
// that for months.
func TestVanishedArchiveIsNotBegunAnew(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly()[:3])
	env, mount := home(t, s), t.TempDir()
	args := []string{"backup", address("imap+insecure", s.IMAP), "--to", filepath.Join(mount, "mail")}
	if status, _, errs := mailstow(t, env, args...); status != exitOK {
		t.Fatal(errs)
	}
	elsewhere := filepath.Join(t.TempDir(), "unmounted")
	if err := os.Rename(filepath.Join(mount, "mail"), elsewhere); err != nil {
		t.Fatal(err)
	}
	status, _, errs := mailstow(t, env, args...)
	if status != exitConfig || !strings.Contains(errs, "vanished") || !strings.Contains(errs, "--new-archive") {
		t.Errorf("status %d, %q", status, errs)
	}
	if entries, _ := os.ReadDir(mount); len(entries) != 0 {
		t.Errorf("something was created: %v", entries)
	}
	if err := os.Rename(elsewhere, filepath.Join(mount, "mail")); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := mailstow(t, env, args...); status != exitOK {
		t.Errorf("mounted again: status %d, %s", status, errs)
	}
	os.RemoveAll(filepath.Join(mount, "mail"))
	if status, _, errs := mailstow(t, env, append(args, "--new-archive")...); status != exitOK {
		t.Errorf("--new-archive: status %d, %s", status, errs)
	}
}

// A run that looked at a part of the archive does not count the whole.
func TestSummaryTellsOfWhatWasLookedAt(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly()[:3])
	fill(t, s, "Work", ugly()[:2])
	env, root := home(t, s), t.TempDir()
	imap, pop3 := address("imap+insecure", s.IMAP), address("pop3+insecure", s.POP3)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{imap}, fmt.Sprintf("   2 folders, %d messages, every", n+2)},
		{[]string{imap, "--folder", "INBOX"}, fmt.Sprintf("   2 folders, %d messages, every", n+2)},
		{[]string{pop3}, fmt.Sprintf("   looked at 1 folder, %d messages, every", n)},
	} {
		if status, out, errs := mailstow(t, env, append([]string{"backup", "-v", "--to", root}, tt.args...)...); status != exitOK || !strings.Contains(out, tt.want) {
			t.Errorf("%q: status %d, want %q\n%s%s", tt.args, status, tt.want, out, errs)
		}
	}
}

// An archive that is not there is no account without a backup.
func TestStatusTellsOfAnArchiveThatHasVanished(t *testing.T) {
	s := mailtest.Dovecot(t)
	env, dir := configuredHome(t, s, s.IMAP)
	if status, out, errs := mailstow(t, env, "status"); status != exitOK || !strings.Contains(out, "never") {
		t.Errorf("before the first run: status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := mailstow(t, env, "backup"); status != exitOK {
		t.Fatal(status, out, errs)
	}
	time.Sleep(20 * time.Millisecond)
	if status, out, _ := mailstow(t, env, "status", "--max-age", "1ms"); status != exitIncomplete || !strings.Contains(out, "now, too old") {
		t.Errorf("too old: status %d\n%s", status, out)
	}
	if _, out, _ := mailstow(t, env, "status", "--max-age", "1ms", "--json"); objects(t, out, "status")[0]["old"] != true {
		t.Errorf("too old: %s", out)
	}
	must(t, os.Rename(dir, dir+".elsewhere"))
	config, err := os.ReadFile(env["MAILSTOW_CONFIG"])
	must(t, err)
	write(t, env["MAILSTOW_CONFIG"], string(config)+"[accounts.new]\nserver = \""+address("imap+insecure", s.IMAP)+"\"\n")
	if status, out, _ := mailstow(t, env, "status", "new"); status != exitOK || !strings.Contains(out, "never") {
		t.Errorf("one that was never filled, beside it: status %d\n%s", status, out)
	}
	if status, out, errs := mailstow(t, env, "status"); status != exitConfig || !strings.Contains(out, "vanished") || !strings.Contains(errs, "mount its disk") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if status, out, _ := mailstow(t, env, "status", "--json"); status != exitConfig || objects(t, out, "status")[0]["last_result"] != "vanished" {
		t.Errorf("status %d\n%s", status, out)
	}
}

func TestStatusListsWhatFailed(t *testing.T) {
	s := mailtest.Dovecot(t)
	env, account := configuredHome(t, s, s.IMAP)
	if status, out, errs := mailstow(t, env, "backup"); status != exitOK {
		t.Fatal(status, out, errs)
	}
	index(t, account, "INSERT INTO failure (mailbox, id, reason, since) SELECT id, '7:99', 'it will not come', 0 FROM mailbox LIMIT 1")
	if status, out, errs := mailstow(t, env, "status", "--failed"); status != exitOK || !strings.Contains(out, "INBOX uid 99: it will not come") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	_, out, _ := mailstow(t, env, "status", "--failed", "--json")
	if all := objects(t, out, "message"); len(all) != 1 || all[0]["reason"] != "it will not come" || all[0]["folder"] != "INBOX" || all[0]["uid"] != 99.0 {
		t.Errorf("%v\n%s", all, out)
	}
}

func TestNewerIndexIsRefusedUntouched(t *testing.T) {
	s := mailtest.Dovecot(t)
	env, to := home(t, s), t.TempDir()
	args := []string{"backup", address("imap+insecure", s.IMAP), "--to", to}
	if status, _, errs := mailstow(t, env, args...); status != exitOK {
		t.Fatal(errs)
	}
	path := filepath.Join(to, "alice@127.0.0.1", ".mailstow", "index.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[63] = 99 // the user version, see the SQLite file format
	write(t, path, string(b))
	for _, a := range [][]string{args, {"verify", to}, {"list", to}, {"status", to}} {
		if status, _, errs := mailstow(t, env, a...); status != exitConfig || !strings.Contains(errs, "newer") {
			t.Errorf("%s: status %d, %q", a[0], status, errs)
		}
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, b) {
		t.Error("the index was changed")
	}
}

func TestAccountsOfAConfigFile(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly()[:6])
	env, to := home(t, s), t.TempDir()
	delete(env, "MAILSTOW_PASSWORD")
	env["MAILSTOW_CONFIG"] = filepath.Join(t.TempDir(), "config.toml")
	write(t, env["MAILSTOW_CONFIG"], fmt.Sprintf(`archive = %q
[accounts.good]
address = "alice@example.org"
server = "imap+insecure://%s"
user = "alice"
password_command = ["echo", "alice-secret"]
[accounts.bad]
server = "imap+insecure://%s"
user = "bob"
password_command = "echo wrong"
[accounts.inbox]
server = "pop3+insecure://%s"
user = "alice"
password = "alice-secret"
`, to, s.IMAP, s.IMAP, s.POP3))
	status, out, errs := mailstow(t, env, "backup")
	if status != exitIncomplete || !strings.Contains(errs, "bad: login refused") || !strings.Contains(errs, "2 ok, 1 failed") {
		t.Errorf("status %d, %q %q", status, out, errs)
	}
	for _, dir := range []string{"alice@example.org", "inbox"} {
		if got := total(kept(t, filepath.Join(to, dir, "INBOX"))); got != n {
			t.Errorf("%s: %d files, want %d", dir, got, n)
		}
	}
	if status, out, errs = mailstow(t, env, "backup", "good", "-v"); status != exitOK || !strings.Contains(out, "good   ok   nothing new") {
		t.Errorf("one account: status %d, %q %q", status, out, errs)
	}
	if status, out, errs = mailstow(t, env, "status", "--max-age", "1h", "good"); status != exitOK || !strings.Contains(out, "good") {
		t.Errorf("status: %d, %q %q", status, out, errs)
	}
	if status, out, errs = mailstow(t, env, "list", "good", "INBOX"); status != exitOK || strings.Count(out, "\n") != n || !strings.Contains(out, "plain") {
		t.Errorf("list: status %d, %q %q", status, out, errs)
	}
	status, out, _ = mailstow(t, env, "list", "good", "INBOX", "--paths", "-0")
	if status != exitOK || strings.Count(out, "\x00") != n {
		t.Errorf("list --paths -0: status %d, %q", status, out)
	}
}

func TestDamageIsFoundAndNamed(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly())
	env, to := home(t, s), t.TempDir()
	if status, _, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to); status != exitOK {
		t.Fatal(errs)
	}
	cur := filepath.Join(to, "alice@127.0.0.1", "INBOX", "cur")
	paths, err := filepath.Glob(filepath.Join(cur, "*"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	write(t, paths[0], string(b))
	if err := os.Remove(paths[1]); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(cur, "1700000000.hand-copied:2,S"), "Subject: x\n\n")
	status, out, _ := mailstow(t, env, "verify", filepath.Join(to, "alice@127.0.0.1"))
	for _, want := range []string{"DAMAGED", "1 changed, 1 missing; 1 foreign", filepath.Base(paths[0]), "hand-copied"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify does not say %q: %s", want, out)
		}
	}
	if status != exitDamaged {
		t.Errorf("status = %d, want %d", status, exitDamaged)
	}
	if status, _, _ := mailstow(t, env, "verify", "--quick", to); status != exitDamaged {
		t.Errorf("quick: status = %d, want %d for the missing file", status, exitDamaged)
	}
}

func TestDryRunTellsAndWritesNothing(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly())
	env, to := home(t, s), filepath.Join(t.TempDir(), "archive")
	status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to, "--dry-run")
	if status != exitOK || !strings.Contains(out, fmt.Sprintf("would copy %d messages", n)) || !strings.Contains(out, "Nothing was written.") {
		t.Errorf("status %d, %q %q", status, out, errs)
	}
	if _, err := os.Stat(to); !os.IsNotExist(err) {
		t.Errorf("%s was made: %v", to, err)
	}
}

func TestDemoRuns(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	status, out, errs := mailstow(t, map[string]string{"MAILSTOW_PASSWORD": "of somebody else"}, "demo")
	for _, want := range []string{"41 new messages", "nothing new", "20 recognised", "all hashes match", "收件箱旧", "41 stored now", "41 octet by octet", "Nothing has left this machine."} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if status != exitOK || errs != "" {
		t.Errorf("status %d, %s", status, errs)
	}
}
