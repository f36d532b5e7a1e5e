package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// configuredHome is the environment of a user with an account "mine", whose server is
// at addr, and its directory in the archive.
func configuredHome(t *testing.T, s *mailtest.Server, addr string) (env map[string]string, account string) {
	t.Helper()
	env, root := home(t, s), t.TempDir()
	file := filepath.Join(env["HOME"], "config.toml")
	env["MAILSTOW_CONFIG"] = file
	write(t, file, fmt.Sprintf("archive = %q\n[accounts.mine]\nserver = %q\n[accounts.mine.trim]\nmax_delete = \"100%%\"\n", root, address("imap+insecure", addr)))
	return env, filepath.Join(root, "mine")
}

// told gives commands as another mail program does.
func told(t *testing.T, s *mailtest.Server, commands ...string) {
	t.Helper()
	c := s.Login(t, "alice")
	for _, cmd := range commands {
		if _, err := c.Command(cmd); err != nil {
			t.Fatal(cmd, err)
		}
	}
}

// runNames are the trim runs of an account, the oldest first.
func runNames(t *testing.T, account string) (all []string) {
	t.Helper()
	lists, err := filepath.Glob(filepath.Join(account, ".mailstow", "trim", "*.jsonl"))
	must(t, err)
	for _, p := range lists {
		all = append(all, strings.TrimSuffix(filepath.Base(p), ".jsonl"))
	}
	slices.SortFunc(all, func(a, b string) int { return len(a) - len(b) })
	return all
}

// marking is a server on which a trim was killed when it had marked the last
// seven of eight messages; the first is gone.
func marking(t *testing.T) (s *mailtest.Server, env map[string]string, account string) {
	t.Helper()
	s = mailtest.Dovecot(t)
	put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
	put(t, s, "INBOX", time.Now(), `\Seen`, "recent")
	var running atomic.Pointer[exec.Cmd]
	var expunges, dead atomic.Int32
	relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Pass: func(line string) bool {
		if strings.Contains(line, "UID EXPUNGE") && expunges.Add(1) == 2 {
			dead.Store(1)
			running.Load().Process.Kill()
			return false
		}
		return true
	}})
	env, account = configuredHome(t, s, relay.Addr)
	cmd := command(built(t), env, "trim", "mine", "--yes", "--older-than", "1y")
	must(t, cmd.Start())
	running.Store(cmd)
	cmd.Wait()
	time.Sleep(100 * time.Millisecond)
	n := 0
	for _, flags := range flagsOf(t, s) {
		if strings.Contains(flags, `\Deleted`) {
			n++
		}
	}
	if dead.Load() == 0 || n != 7 {
		t.Fatalf("%d are marked, want 7", n)
	}
	return s, env, account
}

// What a killed run has marked would go with the next CLOSE of any program; the
// next run does not leave it so, whatever it decides.
func TestMarksOfAKilledTrimAreTakenBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault func(t *testing.T, account string)
		args  []string
		want  int
	}{
		"a file is damaged": {func(t *testing.T, account string) {
			edit(t, archived(t, account, "old03"), func(b []byte) []byte { b[len(b)-5] ^= 1; return b })
		}, []string{"--older-than", "1y"}, exitDamaged},
		"nothing has to go":   {nil, []string{"--until", "1G"}, exitOK},
		"too much has to go":  {nil, []string{"--older-than", "1y", "--max-delete", "1"}, exitIncomplete},
		"the folder is left":  {nil, []string{"--older-than", "1y", "--exclude", "INBOX"}, exitOK},
		"it is put back":      {nil, nil, exitOK},
		"nothing is old then": {nil, []string{"--older-than", "90y"}, exitOK},
	} {
		t.Run(name, func(t *testing.T) {
			s, env, account := marking(t)
			if c.fault != nil {
				c.fault(t, account)
			}
			args := append([]string{"trim", "mine", "--yes"}, c.args...)
			if c.args == nil {
				args = []string{"restore", "mine", "--trim-run", runNames(t, account)[0]}
			}
			if status, out, errs := mailstow(t, env, args...); status != c.want {
				t.Errorf("status %d\n%s%s", status, out, errs)
			}
			nothingMarked(t, s)
			told(t, s, "SELECT INBOX", "CLOSE")
			want := several("old", 8)[1:]
			if c.args == nil {
				want = several("old", 8)
			}
			wantSubjects(t, s, "INBOX", want, []string{"recent"})
		})
	}
}

// A mark that was taken back is nobody's any more: what its owner does then counts.
func TestMarkThatWasTakenBackIsForgotten(t *testing.T) {
	s, env, account := marking(t)
	told(t, s, "SELECT INBOX", `STORE 3 +FLAGS.SILENT (\Flagged)`) // old03
	if status, out, errs := mailstow(t, env, "trim", "mine", "--yes", "--older-than", "1y"); status != exitOK {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	wantSubjects(t, s, "INBOX", []string{"old03", "recent"})
	nothingMarked(t, s)
	told(t, s, "SELECT INBOX", `STORE 1 FLAGS.SILENT (\Seen \Deleted)`) // its owner
	status, out, errs := mailstow(t, env, "trim", "mine", "--yes", "--older-than", "1y", "--json")
	if kept := objects(t, out, "plan")[0]["kept"].(map[string]any); status != exitOK || kept["marked_deleted"] != 1.0 {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	wantSubjects(t, s, "INBOX", []string{"old03", "recent"})
	told(t, s, "SELECT INBOX", "CLOSE") // and it is what its owner wanted
	for _, run := range runNames(t, account) {
		if status, out, errs := mailstow(t, env, "restore", "mine", "--trim-run", run); status != exitOK {
			t.Errorf("%s: status %d\n%s%s", run, status, out, errs)
		}
	}
	wantSubjects(t, s, "INBOX", []string{"old00", "old01", "old02", "old04", "old05", "old06", "old07", "recent"})
}

// A person who presses Ctrl-C leaves no marks behind.
func TestInterruptedTrimLeavesNoMarks(t *testing.T) {
	s := mailtest.Dovecot(t)
	put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
	var running atomic.Pointer[exec.Cmd]
	var expunges atomic.Int32
	relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Pass: func(line string) bool {
		if strings.Contains(line, "UID EXPUNGE") && expunges.Add(1) == 2 {
			running.Load().Process.Signal(os.Interrupt)
			time.Sleep(300 * time.Millisecond)
			return false
		}
		return true
	}})
	env, _ := configuredHome(t, s, relay.Addr)
	cmd := command(built(t), env, "trim", "mine", "--yes", "--older-than", "1y")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	running.Store(cmd)
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != 130 || !strings.Contains(out.String(), "deleted 1 message") {
		t.Errorf("%v\n%s", cmd.ProcessState, out.String())
	}
	nothingMarked(t, s)
	wantSubjects(t, s, "INBOX", several("old", 8)[1:])
}

// Another program that keeps the archive's files in step with the server would
// remove them, as its messages are gone.
func TestArchiveThatAnotherProgramKeepsInStepIsNotTrimmed(t *testing.T) {
	s := mailtest.Dovecot(t)
	put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
	env, account := configuredHome(t, s, s.IMAP)
	cmd := mbsync(t, s, s.IMAP, account)
	if cmd == nil {
		t.Skip("mbsync is not here")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, os.Remove(filepath.Join(account, "rc")))
	status, out, errs := mailstow(t, env, "trim", "mine", "--yes", "--older-than", "1y", "--json")
	if kept := objects(t, out, "plan")[0]["kept"].(map[string]any); status != exitOK || kept["synced"] != 8.0 {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	wantSubjects(t, s, "INBOX", several("old", 8))
	if status, out, errs = mailstow(t, env, "trim", "mine", "--yes", "--older-than", "1y", "--include-synced"); status != exitOK {
		t.Errorf("when it is not in use any more: status %d\n%s%s", status, out, errs)
	}
	wantSubjects(t, s, "INBOX")
}

// The server may serve the archive itself: what it removes is gone from both.
func TestServersOwnStoreIsNotTrimmed(t *testing.T) {
	root := t.TempDir()
	for _, hidden := range []bool{false, true} { // where the server keeps its own files elsewhere
		dir := filepath.Join(root, fmt.Sprint(hidden), "mine", "INBOX")
		must(t, os.MkdirAll(dir, 0o777))
		location := "mail_location = maildir:" + dir
		if hidden {
			location += ":INDEX=" + root + "/index:CONTROL=" + root + "/control"
		}
		must(t, os.MkdirAll(root+"/index", 0o777))
		must(t, os.MkdirAll(root+"/control", 0o777))
		outputOf(t, nil, "chmod", "-R", "a+rwx", filepath.Dir(root))
		s := mailtest.Dovecot(t, location, "first_valid_uid = 0")
		put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
		env := home(t, s)
		args := []string{"trim", "mine", "--yes", "--older-than", "1y", "--max-delete", "100%", "--to", filepath.Join(root, fmt.Sprint(hidden))}
		file := filepath.Join(env["HOME"], "config.toml")
		env["MAILSTOW_CONFIG"] = file
		write(t, file, fmt.Sprintf("[accounts.mine]\nserver = %q\n", address("imap+insecure", s.IMAP)))
		status, out, errs := mailstow(t, env, args...)
		if files := len(messageFiles(t, filepath.Dir(dir))); !hidden && (status != exitOK || files != 8) || hidden && (status != exitDamaged || files != 7) {
			t.Errorf("hidden %v: status %d, %d files\n%s%s", hidden, status, files, out, errs)
		}
	}
}

// The archive loses its files while the server is asked for headers, or told.
func TestArchiveThatIsRemovedMeanwhileIsNoProof(t *testing.T) {
	for at, left := range map[string]int{"BODY.PEEK[HEADER]": 8, "UID STORE": 7} {
		s := mailtest.Dovecot(t)
		put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
		var armed atomic.Bool
		var account string
		relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Pass: func(line string) bool {
			if strings.Contains(line, at) && armed.CompareAndSwap(true, false) {
				os.RemoveAll(filepath.Join(account, "INBOX"))
			}
			return true
		}})
		var env map[string]string
		env, account = configuredHome(t, s, relay.Addr)
		if status, out, errs := mailstow(t, env, "backup", "mine"); status != exitOK {
			t.Fatal(status, out, errs)
		}
		armed.Store(true)
		status, out, errs := mailstow(t, env, "trim", "mine", "--yes", "--older-than", "1y")
		if got := len(subjects(t, s, "INBOX")); status != exitDamaged || got != left {
			t.Errorf("%s: status %d, %d are left, want %d\n%s%s", at, status, got, left, out, errs)
		}
		nothingMarked(t, s)
	}
}

// Its directory is moved away, and perhaps another put in its place, while the
// plan is looked at.
func TestArchiveThatIsMovedAwayIsNoProof(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		s, account, _, trim := interrupted(t)
		status, said := trim(func() {
			must(t, os.Rename(account, filepath.Join(t.TempDir(), "mine")))
			if replaced {
				must(t, os.MkdirAll(filepath.Join(account, ".mailstow"), 0o700))
			}
		})
		if status != exitDisk || len(subjects(t, s, "INBOX")) != 9 {
			t.Errorf("status %d, %q are left\n%s", status, subjects(t, s, "INBOX"), said)
		}
		nothingMarked(t, s)
	}
}

// A user has copied a folder of the archive with the names of its files.
func TestRunWithEqualNamesInTwoFoldersIsPutBackWhole(t *testing.T) {
	s := mailtest.Dovecot(t)
	told(t, s, "CREATE Copy")
	put(t, s, "INBOX", old, `\Seen`, several("old", 4)...)
	put(t, s, "Copy", old, `\Seen`, several("old", 4)...)
	env, account := configuredHome(t, s, s.IMAP)
	if status, out, errs := mailstow(t, env, "backup", "mine", "--folder", "INBOX"); status != exitOK {
		t.Fatal(status, out, errs)
	}
	outputOf(t, nil, "cp", "-a", filepath.Join(account, "INBOX"), filepath.Join(account, "Copy"))
	status, out, errs := mailstow(t, env, "trim", "mine", "--yes", "--older-than", "1y", "--json")
	end := objects(t, out, "account_end")[0]
	if status != exitOK || end["deleted"] != 8.0 {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	if status, out, errs = mailstow(t, env, "restore", "mine", "--trim-run", end["trim_run"].(string)); status != exitOK || !strings.Contains(out, "8 of 8") {
		t.Errorf("restore: status %d\n%s%s", status, out, errs)
	}
	wantSubjects(t, s, "INBOX", several("old", 4))
	wantSubjects(t, s, "Copy", several("old", 4))
}

// One of two that look alike was trimmed; the server has given all its messages
// new numbers since. The other is not taken for it.
func TestLookAlikeIsNotTakenForWhatWasTrimmed(t *testing.T) {
	for _, other := range []string{"B", "A"} {
		s := mailtest.Dovecot(t)
		c := s.Login(t, "alice")
		letter := func(x string) []byte {
			return []byte("Subject: report\r\nFrom: cron@x\r\nDate: Mon, 06 May 2019 07:08:09 +0000\r\n\r\n" + strings.Repeat(x, 400) + "\r\n")
		}
		must(t, c.Append("INBOX", letter("A"), old, `\Seen`))
		must(t, c.Append("INBOX", letter(other), old.Add(time.Second), `\Seen`, `\Flagged`))
		env, account := configuredHome(t, s, s.IMAP)
		status, out, errs := mailstow(t, env, "trim", "mine", "--yes", "--older-than", "1y", "--json")
		end := objects(t, out, "account_end")[0]
		if status != exitOK || end["deleted"] != 1.0 {
			t.Fatalf("status %d\n%s%s", status, out, errs)
		}
		rebuilt.do(t, s, account)
		status, out, errs = mailstow(t, env, "restore", "mine", "--trim-run", end["trim_run"].(string))
		if status != exitOK || !strings.Contains(out, "1 of 1") {
			t.Errorf("%s: status %d\n%s%s", other, status, out, errs)
		}
		bodies, err := s.Login(t, "alice").Bodies("INBOX")
		must(t, err)
		var got []string
		for _, b := range bodies {
			got = append(got, string(b[len(b)-3:len(b)-2]))
		}
		if slices.Sort(got); !slices.Equal(got, []string{"A", other}) {
			t.Errorf("there is %q, want A and %s", got, other)
		}
	}
}
