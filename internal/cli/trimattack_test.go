package cli

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"mailstow/internal/mailtest"
)

// attack is something that goes wrong with an archive or a server.
type attack struct {
	name string
	do   func(t *testing.T, s *mailtest.Server, account string)
	want int    // the exit status
	says string // in the output
	cut  bool   // the connection is lost then, too
}

// archived returns the file of the archived message with a subject.
func archived(t *testing.T, account, subject string) string {
	t.Helper()
	for _, p := range messageFiles(t, account) {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte("Subject: "+subject+"\r\n")) {
			return p
		}
	}
	t.Fatalf("%s is not in the archive", subject)
	return ""
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// edit changes the content of a file, and not its time.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	b, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(b), 0o600))
	must(t, os.Chtimes(path, fi.ModTime(), fi.ModTime()))
}

func index(t *testing.T, account, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(account, ".mailstow", "index.db"))
	must(t, err)
	defer db.Close()
	r, err := db.Exec(statement)
	must(t, err)
	if n, _ := r.RowsAffected(); n == 0 {
		t.Fatalf("%q changes nothing", statement)
	}
}

// onServer returns the file of a message in Dovecot's Maildir.
func onServer(t *testing.T, s *mailtest.Server, subject string) string {
	t.Helper()
	for _, sub := range []string{"cur", "new"} {
		all, err := filepath.Glob(filepath.Join(s.Dir, "home", "alice", "Maildir", sub, "*"))
		must(t, err)
		for _, p := range all {
			if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte("Subject: "+subject)) {
				return p
			}
		}
	}
	t.Fatalf("%s is not on the server", subject)
	return ""
}

// attacks break one condition each under which a message may be removed.
var attacks = []attack{
	{name: "a flipped bit in the file", do: func(t *testing.T, s *mailtest.Server, account string) {
		edit(t, archived(t, account, "old03"), func(b []byte) []byte { b[len(b)-5] ^= 1; return b })
	}, want: exitDamaged, says: "hash differs (expected"},
	{name: "a truncated file", do: func(t *testing.T, s *mailtest.Server, account string) {
		edit(t, archived(t, account, "old03"), func(b []byte) []byte { return b[:len(b)-1] })
	}, want: exitDamaged, says: "another size"},
	{name: "an empty file", do: func(t *testing.T, s *mailtest.Server, account string) {
		edit(t, archived(t, account, "old03"), func(b []byte) []byte { return nil })
	}, want: exitDamaged, says: "another size"},
	{name: "a file replaced by another message of the same size", do: func(t *testing.T, s *mailtest.Server, account string) {
		other, err := os.ReadFile(archived(t, account, "old04"))
		must(t, err)
		edit(t, archived(t, account, "old03"), func([]byte) []byte { return other })
	}, want: exitDamaged, says: "hash differs"},
	{name: "a digest in the index that is edited", do: func(t *testing.T, s *mailtest.Server, account string) {
		index(t, account, "UPDATE message SET sha256 = randomblob(32) WHERE subject = 'old03'")
	}, want: exitDamaged, says: "hash differs"},
	{name: "a size in the index that is edited", do: func(t *testing.T, s *mailtest.Server, account string) {
		index(t, account, "UPDATE message SET size = size + 1 WHERE subject = 'old03'")
	}, want: exitDamaged, says: "another size"},
	{name: "two messages on the server that have changed places", do: func(t *testing.T, s *mailtest.Server, account string) {
		a, b := onServer(t, s, "old03"), onServer(t, s, "old04")
		other, err := os.ReadFile(b)
		must(t, err)
		edit(t, a, func([]byte) []byte { return other })
	}, want: exitDamaged, says: "not the same"},
}

// byHand are attacks that are seen to be the user's will if they come before the
// run.
var byHand = []attack{
	{name: "a file that the user removes", do: func(t *testing.T, s *mailtest.Server, account string) {
		must(t, os.Remove(archived(t, account, "old03")))
	}, want: exitDamaged, says: "its file is not there"},
	{name: "a directory in place of the file", do: func(t *testing.T, s *mailtest.Server, account string) {
		p := archived(t, account, "old03")
		must(t, os.Remove(p))
		must(t, os.Mkdir(p, 0o700))
	}, want: exitDamaged, says: "its file is not there"},
}

var rebuilt = attack{name: "a new UIDVALIDITY", do: func(t *testing.T, s *mailtest.Server, account string) {
	maildir := filepath.Join(s.Dir, "home", "alice", "Maildir")
	edit(t, filepath.Join(maildir, "dovecot-uidlist"), func(b []byte) []byte { return bytes.Replace(b, []byte("3 V1"), []byte("3 V2"), 1) })
	all, err := filepath.Glob(filepath.Join(maildir, "dovecot.*"))
	must(t, err)
	for _, p := range all {
		must(t, os.RemoveAll(p))
	}
}, want: exitDamaged, says: "UIDVALIDITY changed", cut: true}

// trimmable is an account on Dovecot whose old mail is going to be trimmed, and
// its archive.
func trimmable(t *testing.T, more string) (s *mailtest.Server, env map[string]string, account string, relay *mailtest.Relay) {
	t.Helper()
	s = mailtest.Dovecot(t)
	put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
	put(t, s, "INBOX", old, `\Seen \Flagged`, "flagged")
	env, root := home(t, s), t.TempDir()
	relay = mailtest.NewRelay(t, s.IMAP, mailtest.Line{})
	file := filepath.Join(env["HOME"], "config.toml")
	env["MAILSTOW_CONFIG"] = file
	write(t, file, fmt.Sprintf("archive = %q\n[accounts.mine]\nserver = %q\n[accounts.mine.trim]\nolder_than = \"1y\"\nmax_delete = \"100%%\"\n%s", root, address("imap+insecure", relay.Addr), more))
	account = filepath.Join(root, "mine")
	if status, out, errs := mailstow(t, env, "backup", "mine"); status != exitOK {
		t.Fatalf("backup: status %d\n%s%s", status, out, errs)
	}
	return s, env, account, relay
}

func TestNothingIsRemovedIfAConditionIsBrokenBefore(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			s, env, account, _ := trimmable(t, "")
			a.do(t, s, account)
			before := subjects(t, s, "INBOX")
			status, out, errs := mailstow(t, env, "trim", "mine", "--yes")
			if status != a.want || !strings.Contains(errs, a.says) || !strings.Contains(errs, "nothing was deleted") {
				t.Errorf("status %d\n%s%s", status, out, errs)
			}
			wantSubjects(t, s, "INBOX", before)
			nothingMarked(t, s)
		})
	}
}

// What the user removes from the archive stays on the server.
func TestWhatTheUserRemovedFromTheArchiveIsKept(t *testing.T) {
	for _, a := range byHand {
		t.Run(a.name, func(t *testing.T) {
			s, env, account, _ := trimmable(t, "")
			a.do(t, s, account)
			status, out, errs := mailstow(t, env, "trim", "mine", "--yes", "--json")
			if kept := objects(t, out, "plan")[0]["kept"].(map[string]any); status != exitOK || kept["removed_locally"] != 1.0 {
				t.Errorf("status %d\n%s%s", status, out, errs)
			}
			wantSubjects(t, s, "INBOX", []string{"flagged", "old03"})
		})
	}
}

// The same in the moment between the plan and the removal.
func TestNothingIsRemovedIfAConditionBreaksMeanwhile(t *testing.T) {
	for _, a := range slices.Concat(attacks, byHand, []attack{rebuilt}) {
		t.Run(a.name, func(t *testing.T) {
			s, account, relay, trim := interrupted(t)
			var before []string
			status, said := trim(func() {
				a.do(t, s, account)
				if a.cut {
					relay.Sever()
				}
				before = subjects(t, s, "INBOX")
			})
			if status != a.want || !strings.Contains(said, a.says) || !strings.Contains(said, "nothing was deleted") {
				t.Errorf("status %d\n%s", status, said)
			}
			wantSubjects(t, s, "INBOX", before)
			nothingMarked(t, s)
		})
	}
}

// interrupted is as trimmable; trim runs, and between the plan and the removal it
// waits until what it is given is done.
func interrupted(t *testing.T) (s *mailtest.Server, account string, relay *mailtest.Relay, trim func(meanwhile func()) (status int, said string)) {
	t.Helper()
	signs := t.TempDir()
	s, env, account, relay := trimmable(t, fmt.Sprintf("before = \"cd %s && touch ready && while [ ! -e go ]; do sleep 0.02; done\"\n", signs))
	return s, account, relay, func(meanwhile func()) (status int, said string) {
		t.Helper()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			var out, errs string
			status, out, errs = mailstow(t, env, "trim", "mine", "--yes")
			said = out + errs
		}()
		for n := 0; ; n++ {
			if _, err := os.Stat(filepath.Join(signs, "ready")); err == nil {
				break
			}
			if time.Sleep(20 * time.Millisecond); n > 1000 {
				t.Fatal("trim does not get to its plan")
			}
		}
		func() {
			defer os.WriteFile(filepath.Join(signs, "go"), nil, 0o600)
			meanwhile()
		}()
		<-ended
		return status, said
	}
}

func nothingMarked(t *testing.T, s *mailtest.Server) {
	t.Helper()
	for subject, flags := range flagsOf(t, s) {
		if strings.Contains(flags, `\Deleted`) {
			t.Errorf("%s is marked as deleted", subject)
		}
	}
}

// A connection that is lost at any command leaves nothing undone and removes
// nothing else: the run goes on over another one.
func TestTrimGoesOnAfterALostConnection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ scheme, command string }{
		{"imap+insecure", "UID STORE"}, {"imap+insecure", "UID EXPUNGE"}, {"imap+insecure", "SELECT"}, {"imap+insecure", "BODY.PEEK[HEADER]"},
		{"pop3+insecure", "DELE 3"}, {"pop3+insecure", "QUIT"},
	} {
		t.Run(c.command, func(t *testing.T) {
			s := mailtest.Dovecot(t)
			put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
			put(t, s, "INBOX", old, `\Seen \Deleted`, "marked")
			put(t, s, "INBOX", time.Now(), `\Seen`, "recent")
			env, root := home(t, s), t.TempDir()
			addr := map[string]string{"imap+insecure": s.IMAP, "pop3+insecure": s.POP3}[c.scheme]
			var lost atomic.Int32
			var deleted atomic.Bool
			relay := mailtest.NewRelay(t, addr, mailtest.Line{Pass: func(line string) bool {
				if strings.HasPrefix(line, "DELE") {
					deleted.Store(true) // a session that only reads ends in QUIT too
				}
				return !strings.Contains(line, c.command) || c.command == "QUIT" && !deleted.Load() || lost.Add(1) > 2
			}})
			status, out, errs := mailstow(t, env, "trim", address(c.scheme, relay.Addr), "--to", root, "--until", "1K", "--quota", "1M", "--yes", "--max-delete", "100%", "--keep-newer-than", "1d", "--json")
			if lost.Load() == 0 {
				t.Error("the connection was not lost")
			}
			end := objects(t, out, "account_end")[0]
			if left := subjects(t, s, "INBOX"); (status != exitOK && status != exitIncomplete) || float64(10-len(left)) != end["deleted"] || !slices.Contains(left, "recent") || c.scheme == "imap+insecure" && !slices.Contains(left, "marked") {
				t.Errorf("status %d, left %q\n%s%s", status, left, out, errs)
			}
		})
	}
}

// Whenever it is killed, what is gone is in the archive, and on the undo list;
// and the next run brings it to an end.
func TestTrimKilledAtAnyCommandLosesNothing(t *testing.T) {
	binary, every := built(t), 7
	if os.Getenv("MAILSTOW_TEST_SCALE") != "" {
		every = 1
	}
	for _, scheme := range []string{"imap+insecure", "pop3+insecure"} {
		for at := 1; ; at += every {
			if !killedTrim(t, binary, scheme, at) {
				if at < 5 {
					t.Errorf("%s: %d commands were given", scheme, at)
				}
				break
			}
		}
	}
}

// killedTrim kills a trim when it has given so many commands, and reports
// whether there were as many.
func killedTrim(t *testing.T, binary, scheme string, at int) (killed bool) {
	s := mailtest.Dovecot(t)
	put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
	put(t, s, "INBOX", old, `\Seen \Deleted`, "marked")
	put(t, s, "INBOX", time.Now(), `\Seen`, "recent")
	env, root := home(t, s), t.TempDir()
	addr := map[string]string{"imap+insecure": s.IMAP, "pop3+insecure": s.POP3}[scheme]
	if status, out, errs := mailstow(t, env, "backup", address(scheme, addr), "--to", root); status != exitOK {
		t.Fatalf("backup: status %d\n%s%s", status, out, errs)
	}
	account := filepath.Join(root, "alice@127.0.0.1")
	all := served(t, s, "INBOX")

	var cmd *exec.Cmd
	said := 0
	var one sync.Mutex
	relay := mailtest.NewRelay(t, addr, mailtest.Line{Pass: func(line string) bool {
		one.Lock()
		defer one.Unlock()
		if said++; said == at && cmd != nil {
			killed = true
			cmd.Process.Kill()
		}
		return !killed || at%2 == 0 // every other time the server still gets it
	}})
	args := func(addr string) []string {
		return []string{"trim", address(scheme, addr), "--to", root, "--older-than", "1y", "--yes", "--max-delete", "100%", "--json"}
	}
	// The port is a part of a server's name in the archive, so that the first backup was of another.
	if status, out, errs := mailstow(t, env, "backup", address(scheme, relay.Addr), "--to", root); status != exitOK {
		t.Fatalf("backup: status %d\n%s%s", status, out, errs)
	}
	one.Lock()
	said = 0
	cmd = command(binary, env, args(relay.Addr)...)
	must(t, cmd.Start())
	one.Unlock()
	cmd.Wait()
	one.Lock()
	was := killed
	at = -1
	killed = false
	one.Unlock()
	time.Sleep(50 * time.Millisecond) // the server may still be at it
	left, have := served(t, s, "INBOX"), kept(t, filepath.Join(account, "INBOX"))
	for sum := range all {
		if left[sum] == 0 && have[sum] == 0 {
			t.Errorf("%s, command %d: a message is neither on the server nor in the archive", scheme, said)
		}
	}
	status, out, errs := mailstow(t, env, args(relay.Addr)...)
	if status != exitOK {
		t.Errorf("the next run: status %d\n%s%s", status, out, errs)
	}
	want := []string{"marked", "recent"}
	if scheme != "imap+insecure" { // POP3 does not show marks
		want = []string{"recent"}
	}
	wantSubjects(t, s, "INBOX", want)
	if got := kept(t, filepath.Join(account, "INBOX")); total(got) != 10 {
		t.Errorf("the archive has %d messages, want 10", total(got))
	}
	return was
}
