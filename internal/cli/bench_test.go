package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// The benchmarks pull whole mailboxes from Dovecot on loopback, as durably as
// each program does by default, in turns with mbsync where that is installed.
// They tell seconds a run and peak memory, and mbsync's seconds as a multiple
// of mailstow's.

func BenchmarkPull20000Of8KB(b *testing.B) { pull(b, 20_000, 8<<10) }

func BenchmarkPull200Of5MB(b *testing.B) { pull(b, 200, 5<<20) }

func pull(b *testing.B, messages, size int) {
	s := mailtest.Dovecot(b, "mail_fsync = never")
	deposit(b, s, "", messages, size)
	binary, root := built(b), b.TempDir()
	var ours, theirs usage
	for i := 0; b.Loop(); i++ {
		dir := filepath.Join(root, strconv.Itoa(i)) // old ones stay: removing them slows ext4 down for minutes
		if err := os.MkdirAll(filepath.Join(dir, "home"), 0o700); err != nil {
			b.Fatal(err)
		}
		cmd := command(binary, map[string]string{"HOME": filepath.Join(dir, "home"), "MAILSTOW_PASSWORD": s.Password("alice")}, "backup", address("imap+insecure", s.IMAP), "--to", filepath.Join(dir, "mailstow"))
		ours.add(measure(b, cmd))
		if got := fileCount(b, filepath.Join(dir, "mailstow", "alice@127.0.0.1", "INBOX", "cur")); got != messages {
			b.Fatalf("mailstow stored %d messages, want %d", got, messages)
		}
		if cmd := mbsync(b, s, s.IMAP, filepath.Join(dir, "mbsync")); cmd != nil {
			theirs.add(measure(b, cmd))
			if got := fileCount(b, filepath.Join(dir, "mbsync", "INBOX", "new")) + fileCount(b, filepath.Join(dir, "mbsync", "INBOX", "cur")); got != messages {
				b.Fatalf("mbsync stored %d messages, want %d", got, messages)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.seconds/float64(ours.runs), "s/run")
	b.ReportMetric(ours.peak/(1<<20), "peak-MiB")
	if theirs.runs > 0 {
		b.ReportMetric(theirs.seconds/float64(theirs.runs), "mbsync-s/run")
		b.ReportMetric(theirs.seconds/ours.seconds, "x-mbsync")
	}
}

// Nothing has changed in 200,000 messages in 20 folders: near, and 80 ms away.
func BenchmarkNothingNewIn200000(b *testing.B) {
	const folders, each = 20, 10_000
	s := mailtest.Dovecot(b, "mail_fsync = never")
	c := s.Login(b, "alice")
	for i := range folders {
		name := fmt.Sprintf("Folder%d", i)
		if _, err := c.Command("CREATE " + name); err != nil {
			b.Fatal(err)
		}
		deposit(b, s, name, each, 500)
	}
	binary, dir := built(b), b.TempDir()
	env := map[string]string{"HOME": dir, "MAILSTOW_PASSWORD": s.Password("alice")}
	for _, rtt := range []time.Duration{0, 80 * time.Millisecond} {
		b.Run(fmt.Sprintf("rtt=%v", rtt), func(b *testing.B) {
			relay := mailtest.NewRelay(b, s.IMAP, mailtest.Line{Delay: rtt / 2})
			ours := func() *exec.Cmd {
				return command(binary, env, "backup", address("imap+insecure", relay.Addr), "--to", filepath.Join(dir, "mailstow", rtt.String()))
			}
			theirs := mbsync(b, s, relay.Addr, filepath.Join(dir, "mbsync", rtt.String()))
			for range 2 { // the first run fetches, the second one sees how the mailboxes stand then
				measure(b, ours())
			}
			if theirs != nil {
				measure(b, again(theirs))
			}
			time.Sleep(3 * time.Second) // a directory that has just changed is looked at again
			var us, them usage
			var said, theySaid int
			for b.Loop() {
				relay.Said()
				us.add(measure(b, ours()))
				said += len(relay.Said())
				if theirs != nil {
					them.add(measure(b, again(theirs)))
					theySaid += len(relay.Said())
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(us.seconds/float64(us.runs), "s/run")
			b.ReportMetric(us.peak/(1<<20), "peak-MiB")
			b.ReportMetric(float64(said)/float64(us.runs), "commands/run")
			if them.runs > 0 {
				b.ReportMetric(them.seconds/float64(them.runs), "mbsync-s/run")
				b.ReportMetric(float64(theySaid)/float64(them.runs), "mbsync-commands/run")
			}
		})
	}
}

// Mail in 12 folders goes to an empty account, beside mbsync; the other way
// round each time, so that neither has the quieter machine.
func BenchmarkMigrate(b *testing.B) {
	for _, c := range []struct {
		name       string
		each, size int
	}{{"2000x8KB", 167, 8 << 10}, {"20000x8KB", 1667, 8 << 10}, {"200x5MB", 17, 5 << 20}} {
		b.Run(c.name, func(b *testing.B) { pushBench(b, c.each, c.size) })
	}
}

func pushBench(b *testing.B, each, size int) {
	const folders = 12
	from := mailtest.Dovecot(b, "mail_fsync = never")
	c := from.Login(b, "alice")
	for i := range folders {
		name := fmt.Sprintf("Folder%d", i)
		if _, err := c.Command("CREATE " + name); err != nil {
			b.Fatal(err)
		}
		deposit(b, from, name, each, size)
	}
	binary, root := built(b), b.TempDir()
	env := map[string]string{"HOME": root, "MAILSTOW_PASSWORD": from.Password("alice"), "MAILSTOW_DESTINATION_PASSWORD": from.Password("alice")}
	measure(b, command(binary, env, "backup", address("imap+insecure", from.IMAP), "--to", filepath.Join(root, "archive")))
	account := filepath.Join(root, "archive", "alice@127.0.0.1")
	for _, rtt := range []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond} {
		b.Run(fmt.Sprintf("rtt=%v", rtt), func(b *testing.B) {
			var us, them usage
			for i := 0; b.Loop(); i++ {
				for turn := range 2 {
					ours := (turn+i)%2 == 0
					to := mailtest.Dovecot(b, "mail_fsync = never")
					relay := mailtest.NewRelay(b, to.IMAP, mailtest.Line{Delay: rtt / 2})
					dir := filepath.Join(b.TempDir(), "archive")
					if err := os.CopyFS(dir, os.DirFS(account)); err != nil {
						b.Fatal(err)
					}
					if ours {
						us.add(measure(b, command(binary, env, "migrate", dir, address("imap+insecure", relay.Addr))))
					} else if cmd := mbsync(b, to, relay.Addr, dir); cmd != nil {
						them.add(measure(b, pushing(b, cmd)))
					} else {
						continue
					}
					n := 0
					for f := range folders {
						n += messagesIn(b, to, fmt.Sprintf("Folder%d", f))
					}
					if n != folders*each {
						b.Fatalf("ours %v: %d messages on the server, want %d", ours, n, folders*each)
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(us.seconds/float64(us.runs), "s/run")
			b.ReportMetric(us.peak/(1<<20), "peak-MiB")
			if them.runs > 0 {
				b.ReportMetric(them.seconds/float64(them.runs), "mbsync-s/run")
			}
		})
	}
}

// pushing makes a run of mbsync store what is here.
func pushing(b *testing.B, cmd *exec.Cmd) *exec.Cmd {
	b.Helper()
	rc, err := os.ReadFile(cmd.Args[3])
	if err != nil {
		b.Fatal(err)
	}
	text := strings.NewReplacer("Create Near", "Create Far", "Sync Pull", "Sync Push").Replace(string(rc))
	if err := os.WriteFile(cmd.Args[3], []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return cmd
}

// messagesIn returns how many messages a mailbox has.
func messagesIn(b *testing.B, s *mailtest.Server, mailbox string) (n int) {
	b.Helper()
	lines, err := s.Login(b, "alice").Command("STATUS " + mailbox + " (MESSAGES)")
	if err != nil {
		b.Fatal(err)
	}
	for _, l := range lines {
		if _, after, ok := strings.Cut(l, "(MESSAGES "); ok {
			n, _ = strconv.Atoi(strings.TrimRight(after, ")\r\n"))
		}
	}
	return n
}

// 10,000 messages of 8 KB are moved from one server to another: pulled and pushed
// at once, or one after the other.
func BenchmarkMoveTwoServers(b *testing.B) {
	from := mailtest.Dovecot(b, "mail_fsync = never")
	deposit(b, from, "", 10_000, 8<<10)
	binary := built(b)
	env := map[string]string{"HOME": b.TempDir(), "MAILSTOW_PASSWORD": from.Password("alice"), "MAILSTOW_DESTINATION_PASSWORD": from.Password("alice")}
	for _, rtt := range []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond} {
		b.Run(fmt.Sprintf("rtt=%v", rtt), func(b *testing.B) {
			var at, after usage
			for b.Loop() {
				for _, once := range []bool{true, false} {
					to := mailtest.Dovecot(b, "mail_fsync = never")
					relay, source := mailtest.NewRelay(b, to.IMAP, mailtest.Line{Delay: rtt / 2}), mailtest.NewRelay(b, from.IMAP, mailtest.Line{Delay: rtt / 2})
					dir := b.TempDir()
					here, there := address("imap+insecure", source.Addr), address("imap+insecure", relay.Addr)
					if once {
						at.add(measure(b, command(binary, env, "migrate", here, there, "--to", dir)))
						continue
					}
					pull := measure(b, command(binary, env, "backup", here, "--to", dir))
					push := measure(b, command(binary, env, "migrate", filepath.Join(dir, "alice@127.0.0.1"), there))
					after.add(usage{seconds: pull.seconds + push.seconds})
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(at.seconds/float64(at.runs), "s/run")
			b.ReportMetric(at.peak/(1<<20), "peak-MiB")
			b.ReportMetric(after.seconds/float64(after.runs), "one-after-the-other-s/run")
		})
	}
}

// again returns the same command, to be run once more.
func again(cmd *exec.Cmd) *exec.Cmd { return exec.Command(cmd.Path, cmd.Args[1:]...) }

// usage is what runs of a program cost.
type usage struct {
	runs    int
	seconds float64
	peak    float64 // octets of memory
}

func (u *usage) add(one usage) {
	u.runs++
	u.seconds += one.seconds
	u.peak = max(u.peak, one.peak)
}

// measure runs a command. Its peak memory is read while it runs: what the
// kernel tells afterwards includes this process's own.
func measure(b testing.TB, cmd *exec.Cmd) usage {
	b.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var u usage
	for {
		select {
		case err := <-done:
			if err != nil {
				b.Fatalf("%v: %s", err, out.String())
			}
			u.seconds = time.Since(start).Seconds()
			return u
		case <-time.After(20 * time.Millisecond):
			u.peak = max(u.peak, peakMemory(cmd.Process.Pid))
		}
	}
}

func peakMemory(pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kib, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	n, _ := strconv.ParseFloat(kib, 64)
	return n * 1024
}

func fileCount(b testing.TB, dir string) int {
	b.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		b.Fatal(err)
	}
	return len(entries)
}

// deposit puts messages into one of alice's mailboxes, "" for INBOX, as
// Dovecot would have stored them.
func deposit(b testing.TB, s *mailtest.Server, mailbox string, messages, size int) {
	b.Helper()
	c := s.Login(b, "alice") // the server makes the Maildir
	dir, name := "", "INBOX"
	if mailbox != "" {
		dir, name = "."+mailbox, mailbox
	}
	if _, err := c.Command("SELECT " + name); err != nil {
		b.Fatal(err)
	}
	cur := filepath.Join(s.Dir, "home", "alice", "Maildir", dir, "cur")
	owner, err := os.Stat(cur)
	if err != nil {
		b.Fatal(err)
	}
	uid, gid := ownerOf(owner)
	line := strings.Repeat("x", 75) + "\n"
	for i := range messages {
		text := fmt.Sprintf("From: a%d@example.org\nSubject: message %d\nMessage-ID: <%d@example.org>\nDate: Tue, 14 Mar 2023 09:26:53 +0000\n\n", i, i, i)
		text += strings.Repeat(line, max(size-len(text), 0)/len(line))
		crlf := len(text) + strings.Count(text, "\n")
		name := filepath.Join(cur, fmt.Sprintf("%d.M%dP1.host,S=%d,W=%d:2,S", 1_700_000_000+i, i, len(text), crlf))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		if err := os.Chown(name, uid, gid); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := c.Command("STATUS " + name + " (MESSAGES)"); err != nil {
		b.Fatal(err)
	}
}

// mbsync returns a run of mbsync into a new directory, nil where it is not
// installed.
func mbsync(b testing.TB, s *mailtest.Server, addr, dir string) *exec.Cmd {
	b.Helper()
	path, err := exec.LookPath("mbsync")
	if err != nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	host, port, _ := strings.Cut(addr, ":")
	rc := filepath.Join(dir, "rc")
	if err := os.WriteFile(rc, fmt.Appendf(nil, `IMAPAccount a
Host %s
Port %s
User alice
Pass %s
SSLType None
AuthMechs LOGIN

IMAPStore far
Account a

MaildirStore near
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel c
Far :far:
Near :near:
Patterns *
Create Near
Sync Pull
CopyArrivalDate yes
SyncState *
`, host, port, s.Password("alice"), dir, dir), 0o600); err != nil {
		b.Fatal(err)
	}
	return exec.Command(path, "-q", "-c", rc, "c")
}

// A message of any size takes the same memory. It needs 3 GiB of disk and
// some time, so it runs where MAILSTOW_TEST_BIG is set.
func TestHugeMessageTakesLittleMemory(t *testing.T) {
	if os.Getenv("MAILSTOW_TEST_BIG") == "" {
		t.Skip("MAILSTOW_TEST_BIG is not set")
	}
	s := mailtest.Dovecot(t)
	deposit(t, s, "", 1, 1<<30)
	binary := built(t)
	for _, u := range []string{address("imap+insecure", s.IMAP), address("pop3+insecure", s.POP3), address("imaps", s.IMAPS)} {
		to := t.TempDir()
		got := measure(t, command(binary, map[string]string{"HOME": to, "MAILSTOW_PASSWORD": s.Password("alice")}, "backup", u, "--to", to, "--tls-ca", s.CA))
		t.Logf("%s: %.1f s, %.1f MiB at most", u, got.seconds, got.peak/(1<<20))
		if got.peak == 0 || got.peak > 64<<20 {
			t.Errorf("%s took %.1f MiB of memory, want at most 64", u, got.peak/(1<<20))
		}
	}
}
