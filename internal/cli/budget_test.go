package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// What a provider allows in a day is kept over all runs, and is no failure.
func TestDailyDownloadIsKeptAcrossRuns(t *testing.T) {
	s := mailtest.Dovecot(t)
	for i := range 20 {
		fill(t, s, "INBOX", [][]byte{fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 1000))})
	}
	env, root := home(t, s), t.TempDir()
	config := filepath.Join(env["HOME"], "config.toml")
	env["MAILSTOW_CONFIG"] = config
	write(t, config, fmt.Sprintf("archive = %q\n[accounts.a]\nserver = %q\ndaily_download = \"8K\"\nconnections = 1\n", root, address("imap+insecure", s.IMAP)))
	account := filepath.Join(root, "a")

	status, out, errs := mailstow(t, env, "backup", "a", "-v")
	first := len(messageFiles(t, account))
	if status != exitLater || first < 8 || first > 12 || !strings.Contains(errs, "stopped early; ") || !strings.Contains(errs, "daily_download: 8.0 KiB may be read in a day") {
		t.Errorf("status %d, %d files\n%s%s", status, first, out, errs)
	}
	if status, out, errs := mailstow(t, env, "status", "--max-age", "26h"); status != exitOK || !strings.Contains(out, "paused") {
		t.Errorf("the first of many nights: status %d\n%s%s", status, out, errs)
	}
	for _, quiet := range []bool{true, false} {
		args := []string{"backup", "a"}
		if !quiet {
			args = append(args, "-v")
		}
		status, out, errs = mailstow(t, env, args...)
		if status != exitLater || len(messageFiles(t, account)) != first || (out+errs == "") != quiet {
			t.Errorf("again at once: status %d, %d files\n%s%s", status, len(messageFiles(t, account)), out, errs)
		}
	}
	if !strings.Contains(errs, "go on after "+time.Now().Add(22*time.Hour).Format("2006-01-02")) {
		t.Errorf("it is not told when to go on:\n%s", errs)
	}
	env["MAILSTOW_PASSWORD"] = "wrong" // which is told today, not on the day when something may be read again
	if status, out, errs = mailstow(t, env, "backup", "a"); status != exitLogin || !strings.Contains(errs, "login refused") {
		t.Errorf("a wrong password: status %d\n%s%s", status, out, errs)
	}
	env["MAILSTOW_PASSWORD"] = s.Password("alice")
	if status, out, errs = mailstow(t, env, "trim", "a", "--older-than", "1d", "--keep-newer-than", "1d", "--yes", "--max-delete", "100%"); status != exitLater {
		t.Errorf("trim: status %d\n%s%s", status, out, errs)
	}
	for range 3 { // on the next days
		index(t, account, "UPDATE message SET archived_at = archived_at - 82800") // 23 hours: it began a little later last night
		status, out, errs = mailstow(t, env, "backup", "a")
	}
	if status != exitOK || len(messageFiles(t, account)) != 20 {
		t.Errorf("on the next days: status %d, %d files\n%s%s", status, len(messageFiles(t, account)), out, errs)
	}
	write(t, config, fmt.Sprintf("archive = %q\n[accounts.a]\nserver = %q\ndaily_download = \"off\"\nprovider = \"gmail\"\n", root, address("imap+insecure", s.IMAP)))
	if status, out, errs = mailstow(t, env, "backup", "a"); status != exitOK || errs != "" {
		t.Errorf("off: status %d\n%s%s", status, out, errs)
	}
}

// A provider that shows a folder's newest messages alone is found out.
func TestMailboxWithJustAsManyAsItsProviderShowsIsSuspicious(t *testing.T) {
	s := mailtest.Dovecot(t)
	c := s.Login(t, "alice")
	for i := range 1000 {
		must(t, c.Append("INBOX", fmt.Appendf(nil, "Subject: %d\r\n\r\n", i), arrived))
	}
	env, root := home(t, s), t.TempDir()
	config := filepath.Join(env["HOME"], "config.toml")
	env["MAILSTOW_CONFIG"] = config
	write(t, config, fmt.Sprintf("archive = %q\n[accounts.a]\nserver = %q\nprovider = \"gmail\"\n", root, address("imap+insecure", s.IMAP)))
	status, out, errs := mailstow(t, env, "backup", "a")
	if status != exitOK || !strings.Contains(errs, "INBOX shows exactly 1,000 messages; Gmail may hide older mail") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	fill(t, s, "INBOX", [][]byte{[]byte("Subject: one more\r\n\r\n")})
	if status, out, errs = mailstow(t, env, "backup", "a"); status != exitOK || errs != "" {
		t.Errorf("with one more: status %d\n%s%s", status, out, errs)
	}
}
