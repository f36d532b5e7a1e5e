package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// old is long before anything that a trim keeps as new.
var old = time.Date(2019, 5, 6, 7, 8, 9, 0, time.UTC)

// put appends messages with a subject each, the first the oldest, a day apart.
func put(t *testing.T, s *mailtest.Server, mailbox string, first time.Time, flags string, subjects ...string) {
	t.Helper()
	c := s.Login(t, "alice")
	for i, subject := range subjects {
		at := first.AddDate(0, 0, i)
		m := fmt.Appendf(nil, "Subject: %s\r\nDate: %s\r\nReceived: from a by b; %s\r\n\r\n%s\r\n", subject, at.Format(time.RFC1123Z), at.Format(time.RFC1123Z), strings.Repeat("body of "+subject+"\r\n", 50))
		if err := c.Append(mailbox, m, at, strings.Fields(flags)...); err != nil {
			t.Fatal(err)
		}
	}
}

var subjectLine = regexp.MustCompile(`(?m)^Subject: (.*?)\r?$`)

// subjects returns what a mailbox holds, sorted.
func subjects(t *testing.T, s *mailtest.Server, mailbox string) []string {
	t.Helper()
	bodies, err := s.Login(t, "alice").Bodies(mailbox)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, b := range bodies {
		all = append(all, string(subjectLine.FindSubmatch(b)[1]))
	}
	slices.Sort(all)
	return all
}

// several are n subjects.
func several(word string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%s%02d", word, i))
	}
	return all
}

// objects returns the JSON lines of a kind.
func objects(t *testing.T, out, kind string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(out) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if o["type"] == kind {
			all = append(all, o)
		}
	}
	return all
}

func wantSubjects(t *testing.T, s *mailtest.Server, mailbox string, want ...[]string) {
	t.Helper()
	all := slices.Sorted(slices.Values(slices.Concat(want...)))
	if got := subjects(t, s, mailbox); !slices.Equal(got, all) {
		t.Errorf("%s holds %q, want %q", mailbox, got, all)
	}
}

// What another program has marked as deleted, and whatever else there is a reason
// to keep, stays.
func TestTrimRemovesJustOldMailThatIsArchived(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		put(t, s, "INBOX", old, `\Seen`, several("old", 12)...)
		put(t, s, "INBOX", old, `\Seen \Flagged`, "flagged")
		put(t, s, "INBOX", old, ``, "unread")
		put(t, s, "INBOX", old, `\Seen \Draft`, "draft")
		put(t, s, "INBOX", old, `\Seen \Deleted`, "marked")
		put(t, s, "INBOX", time.Now().AddDate(0, 0, -20), `\Seen`, "recent")
		env, root := home(t, s), t.TempDir()
		args := []string{"trim", address("imap+insecure", s.IMAP), "--to", root, "--older-than", "1y", "--json", "--yes"}

		status, out, errs := mailstow(t, env, append(args, "--dry-run")...)
		if status != exitConfig || !strings.Contains(out, "there is no archive yet") {
			t.Errorf("dry run without an archive: status %d\n%s%s", status, out, errs)
		}
		status, out, errs = mailstow(t, env, args...)
		if status != exitIncomplete || !strings.Contains(out, `"max_delete"`) {
			t.Errorf("most of an account: status %d\n%s%s", status, out, errs)
		}
		wantSubjects(t, s, "INBOX", several("old", 12), []string{"flagged", "unread", "draft", "marked", "recent"})
		args = append(args, "--max-delete", "80%")
		status, out, errs = mailstow(t, env, append(args, "--dry-run")...)
		if plan := objects(t, out, "plan"); status != exitOK || len(plan) != 1 || plan[0]["delete"] != 12.0 || strings.Count(out, `"would_delete"`) != 12 {
			t.Errorf("dry run: status %d, %v\n%s%s", status, plan, out, errs)
		}
		wantSubjects(t, s, "INBOX", several("old", 12), []string{"flagged", "unread", "draft", "marked", "recent"})

		status, out, errs = mailstow(t, env, args...)
		end := objects(t, out, "account_end")
		if status != exitOK || len(end) != 1 || end[0]["deleted"] != 12.0 || len(objects(t, out, "message")) != 12 {
			t.Fatalf("status %d\n%s%s", status, out, errs)
		}
		kept := objects(t, out, "plan")[0]["kept"]
		if want := map[string]any{"flagged": 1.0, "unread": 1.0, "draft": 1.0, "marked_deleted": 1.0, "recent": 1.0}; !maps.Equal(kept.(map[string]any), want) {
			t.Errorf("kept %v, want %v", kept, want)
		}
		wantSubjects(t, s, "INBOX", []string{"flagged", "unread", "draft", "marked", "recent"})

		status, out, errs = mailstow(t, env, args...)
		if status != exitOK || objects(t, out, "account_end")[0]["deleted"] != 0.0 {
			t.Errorf("second run: status %d\n%s%s", status, out, errs)
		}
		if status, out, errs = mailstow(t, env, "verify", filepath.Join(root, "alice@127.0.0.1")); status != exitOK {
			t.Errorf("verify: status %d\n%s%s", status, out, errs)
		}
		if status, out, errs = mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", root, "--json"); status != exitOK || last(t, out)["new"] != 0.0 {
			t.Errorf("backup afterwards: status %d\n%s%s", status, out, errs)
		}

		// Undone, it is back, once, with flags and dates.
		restore := []string{"restore", address("imap+insecure", s.IMAP), "--to", root, "--trim-run", end[0]["trim_run"].(string), "--json"}
		for range 2 {
			if status, out, errs = mailstow(t, env, restore...); status != exitOK {
				t.Errorf("restore: status %d\n%s%s", status, out, errs)
			}
		}
		wantSubjects(t, s, "INBOX", several("old", 12), []string{"flagged", "unread", "draft", "marked", "recent"})
		untagged, err := func() ([]string, error) {
			c := s.Login(t, "alice")
			if _, err := c.Command("EXAMINE INBOX"); err != nil {
				return nil, err
			}
			return c.Command("FETCH 1:* (FLAGS INTERNALDATE)")
		}()
		if err != nil {
			t.Fatal(err)
		}
		dated := 0
		for _, line := range untagged {
			if strings.Contains(line, "May-2019") && strings.Contains(line, `\Seen`) {
				dated++
			}
		}
		if dated != 15 {
			t.Errorf("%d messages have their flags and dates, want 15: %q", dated, untagged)
		}

		// What the archive has lost of them in the meantime is told.
		lost := archived(t, filepath.Join(root, "alice@127.0.0.1"), "old03")
		content, err := os.ReadFile(lost)
		must(t, err)
		must(t, os.Remove(lost))
		if status, out, errs = mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", root); status != exitOK {
			t.Errorf("backup without a file: status %d\n%s%s", status, out, errs)
		}
		if status, out, errs = mailstow(t, env, restore...); status != exitDamaged || !strings.Contains(out, "1 message was not put back, of 12") || !strings.Contains(out, filepath.Base(lost)[:20]) {
			t.Errorf("restore without a file: status %d\n%s%s", status, out, errs)
		}
		must(t, os.WriteFile(lost, content, 0o600))
		if status, out, errs = mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", root); status != exitOK {
			t.Errorf("backup with it again: status %d\n%s%s", status, out, errs)
		}
		restore[5] = ""
		if status, out, errs = mailstow(t, env, restore...); status != exitConfig || !strings.Contains(out, "names no run") {
			t.Errorf("restore of no run: status %d\n%s%s", status, out, errs)
		}

		// And trimmed again: they were pushed, so they are compared first.
		status, out, errs = mailstow(t, env, args...)
		if end := objects(t, out, "account_end"); status != exitOK || end[0]["deleted"] != 12.0 || objects(t, out, "plan")[0]["compared"] != 12.0 {
			t.Errorf("trimmed again: status %d\n%s%s", status, out, errs)
		}
	})
}

func TestTrimOverPOP3(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *mailtest.Server{
		"dovecot": func(t *testing.T) *mailtest.Server { return mailtest.Dovecot(t) },
		"cyrus":   func(t *testing.T) *mailtest.Server { return mailtest.Cyrus(t) },
		"courier": func(t *testing.T) *mailtest.Server { return mailtest.Courier(t) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			put(t, s, "INBOX", old, ``, several("old", 12)...)
			put(t, s, "INBOX", time.Now().AddDate(0, 0, -20), ``, "recent")
			if name == "dovecot" { // others hide such mail from POP3, or remove it when a session ends
				put(t, s, "INBOX", old, `\Deleted`, "marked")
			}
			env, root := home(t, s), t.TempDir()
			args := []string{"trim", address("pop3+insecure", s.POP3), "--to", root, "--until", "6K", "--quota", "1M", "--json", "--yes", "--max-delete", "100%"}
			status, out, errs := mailstow(t, env, args...)
			end := objects(t, out, "account_end")
			if status != exitOK || len(end) != 1 || end[0]["deleted"] == 0.0 {
				t.Fatalf("status %d\n%s%s", status, out, errs)
			}
			left := subjects(t, s, "INBOX")
			n := 14 - len(left)
			if name != "dovecot" {
				n = 13 - len(left)
			}
			if float64(n) != end[0]["deleted"] || !slices.Contains(left, "recent") || !slices.Contains(left, "old11") || slices.Contains(left, "old00") {
				t.Errorf("%v deleted, and there is %q", end[0]["deleted"], left)
			}
			status, out, errs = mailstow(t, env, "trim", address("pop3+insecure", s.POP3), "--to", root, "--until", "6K", "--yes")
			if status != exitOK || out+errs != "" {
				t.Errorf("second run: status %d\n%s%s", status, out, errs)
			}
			restore := []string{"restore", address("imap+insecure", s.IMAP), "--to", root, "--json"}
			if status, out, errs = mailstow(t, env, restore...); status != exitOK {
				t.Errorf("restore over IMAP: status %d\n%s%s", status, out, errs)
			}
			if got := subjects(t, s, "INBOX"); len(got) != n+len(left) {
				t.Errorf("after a restore there is %q", got)
			}
		})
	}
}

// A backup over POP3 has a server call mail read that nobody has read: who trims
// over IMAP is told.
func TestPlanTellsOfMailThatCameOverPOP3(t *testing.T) {
	t.Parallel()
	s := mailtest.Dovecot(t)
	put(t, s, "INBOX", old, ``, several("old", 3)...)
	env, root := home(t, s), t.TempDir()
	if status, out, errs := mailstow(t, env, "backup", address("pop3+insecure", s.POP3), "--to", root); status != exitOK {
		t.Fatal(status, out, errs)
	}
	put(t, s, "INBOX", old, `\Seen`, "read")
	plan := func(more ...string) string {
		status, out, errs := mailstow(t, env, append([]string{"trim", address("imap+insecure", s.IMAP), "--to", root, "--older-than", "1y", "--dry-run"}, more...)...)
		if status != exitOK {
			t.Errorf("status %d\n%s%s", status, out, errs)
		}
		return out
	}
	if status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", root); status != exitOK {
		t.Fatal(status, out, errs)
	}
	if out := plan(); !strings.Contains(out, "delete    4 messages") || !strings.Contains(out, "3 of them came over POP3") {
		t.Error(out)
	}
	if out := plan("--include-unread"); strings.Contains(out, "POP3") {
		t.Errorf("whether they were read does not matter:\n%s", out)
	}
}

// quotas are settings for Dovecot: 64 KiB for each user.
var quotas = []string{
	"mail_plugins = quota", "protocol imap {\n  mail_plugins = quota imap_quota\n}", "plugin {\n  quota = count:User\n  quota_rule = *:storage=64K\n  quota_vsizes = yes\n}",
}

// used returns the part of the quota that is used, in percent, by the server's
// word.
func used(t *testing.T, s *mailtest.Server) int {
	t.Helper()
	lines, err := s.Login(t, "alice").Command("GETQUOTAROOT INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		var n, of int
		if i := strings.Index(line, "STORAGE"); i > 0 {
			fmt.Sscanf(line[i:], "STORAGE %d %d", &n, &of)
			return 100 * n / of
		}
	}
	t.Fatalf("no quota in %q", lines)
	return 0
}

func TestTrimMakesRoomInAFullMailbox(t *testing.T) {
	for name, s := range map[string]*mailtest.Server{"dovecot": mailtest.Dovecot(t, quotas...), "cyrus": mailtest.Cyrus(t)} {
		t.Run(name, func(t *testing.T) {
			if name == "cyrus" {
				limited(t, s, 64)
			}
			put(t, s, "INBOX", time.Now().AddDate(0, 0, -20), `\Seen`, several("recent", 10)...)
			full := 0
			for i := range 100 { // until 95% are used
				put(t, s, "INBOX", old.AddDate(0, 0, i), `\Seen`, fmt.Sprintf("old%02d", i))
				if full++; used(t, s) >= 95 {
					break
				}
			}
			env, root := home(t, s), t.TempDir()
			args := []string{"trim", address("imap+insecure", s.IMAP), "--to", root, "--until", "80%", "--yes", "--json"}
			status, out, errs := mailstow(t, env, args...)
			end := objects(t, out, "account_end")
			if status != exitOK || used(t, s) > 80 || used(t, s) < 70 {
				t.Fatalf("status %d, %d%% used\n%s%s", status, used(t, s), out, errs)
			}
			n := int(end[0]["deleted"].(float64))
			wantSubjects(t, s, "INBOX", several("recent", 10), several("old", full)[n:])
			if plan := objects(t, out, "plan")[0]; plan["usage_by"] != "quota" || plan["quota"] != float64(64<<10) {
				t.Errorf("plan: %v", plan)
			}
			status, out, errs = mailstow(t, env, "trim", address("imap+insecure", s.IMAP), "--to", root, "--until", "5%", "--yes", "--max-delete", "100%")
			if status != exitIncomplete || !strings.Contains(errs, "old enough") || !strings.Contains(errs, "10 too new") {
				t.Errorf("more than is old enough: status %d\n%s%s", status, out, errs)
			}
			wantSubjects(t, s, "INBOX", several("recent", 10))
		})
	}
}

// limited gives alice on Cyrus a quota of so many KiB.
func limited(t *testing.T, s *mailtest.Server, kib int) {
	t.Helper()
	s.Login(t, "alice") // who exists from then on
	if _, err := s.Login(t, "cyrus").Command(fmt.Sprintf("SETQUOTA user.alice (STORAGE %d)", kib)); err != nil {
		t.Fatal(err)
	}
}

func TestTrimToTheTrash(t *testing.T) {
	s := mailtest.Dovecot(t, "namespace inbox {\n  mailbox Bin {\n    special_use = \\Trash\n    auto = create\n  }\n}")
	put(t, s, "INBOX", old, `\Seen`, several("old", 3)...)
	put(t, s, "Bin", old, `\Seen`, "thrown away")
	env, root := home(t, s), t.TempDir()
	args := []string{"trim", address("imap+insecure", s.IMAP), "--to", root, "--older-than", "1y", "--trash", "--yes", "--max-delete", "100%"}
	status, out, errs := mailstow(t, env, args...)
	if status != exitOK || !strings.Contains(out, "moved 3 messages") || !strings.Contains(out, "to Bin; room is made when that is emptied") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	wantSubjects(t, s, "INBOX")
	wantSubjects(t, s, "Bin", several("old", 3), []string{"thrown away"})

	without := mailtest.Dovecot(t)
	args[1] = address("imap+insecure", without.IMAP)
	if status, out, errs = mailstow(t, env, args...); status != exitConfig || !strings.Contains(errs, "no trash") {
		t.Errorf("without a trash: status %d\n%s%s", status, out, errs)
	}
}

// The command that has to succeed first decides; nothing is asked where nobody is.
func TestTrimIsHeldBack(t *testing.T) {
	s, env, _, _ := trimmable(t, "before = \"echo no backup of $MAILSTOW_ARCHIVE_DIR; exit 3\"\n")
	before := subjects(t, s, "INBOX")
	status, out, errs := mailstow(t, env, "trim", "mine", "--yes")
	if status != exitFailure || !strings.Contains(errs, "`before` failed: exit status 3") || !strings.Contains(errs, "no backup of /") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	for _, args := range [][]string{{"trim", "mine"}, {"trim", "mine", "--json"}, {"trim"}, {"trim", "mine", "--yes", "--until", "0%"}, {"trim", "mine", "--yes", "--max-delete", "x"}} {
		if status, out, errs := mailstow(t, env, args...); status != exitUsage {
			t.Errorf("%q: status %d\n%s%s", args, status, out, errs)
		}
	}
	for _, how := range []string{"--yes", "--dry-run"} {
		if status, out, errs := mailstow(t, env, "trim", "mine", how, "--max-delete", "7"); status != exitIncomplete || !strings.Contains(errs, "8 of 9 messages") {
			t.Errorf("%s, one more than may go: status %d\n%s%s", how, status, out, errs)
		}
	}
	wantSubjects(t, s, "INBOX", before)
	nothingMarked(t, s)
}
