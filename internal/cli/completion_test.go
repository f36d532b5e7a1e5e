package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailstow/internal/mailtest"
)

// Words are completed from the program, the config file and the archive; nothing
// is run for that, and no server is asked.
func TestWordsAreCompleted(t *testing.T) {
	s := mailtest.Dovecot(t)
	told(t, s, "CREATE \"Sent Items\"")
	env, _ := configuredHome(t, s, s.IMAP)
	if status, out, errs := mailstow(t, env, "backup", "mine"); status != exitOK {
		t.Fatal(status, out, errs)
	}
	for line, want := range map[string]string{
		"":                          "init check backup migrate restore trim status verify list demo config auth providers completion",
		"ba":                        "backup",
		"backup ":                   "mine",
		"backup --dr":               "--dry-run",
		"backup mine ":              "",
		"backup -- ":                "mine",
		"trim mine --folder ":       "INBOX Sent Items",
		"backup --folder I":         "INBOX",
		"trim mine --folder=INBOX ": "",
		"list mine S":               "Sent Items",
		"auth ":                     "login status logout",
		"auth login ":               "mine",
		"config sh":                 "show",
		"backup --via ":             "imap pop3 auto",
		"backup --to ":              "",
		"backup --to x m":           "mine",
		"providers gm":              "gmail gmx gmx.com",
		"--v":                       "--version",
		"nonsense ":                 "",
	} {
		status, out, errs := mailstow(t, env, append([]string{"__complete"}, strings.Split(line, " ")...)...)
		if got := strings.Join(strings.Fields(out), " "); status != exitOK || errs != "" || line != "nonsense " && got != want {
			t.Errorf("%q: %q, want %q; status %d %s", line, got, want, status, errs)
		}
	}
	if status, _, _ := mailstow(t, env, "completion", "tcsh"); status != exitUsage {
		t.Errorf("status %d", status)
	}

	binary := built(t)
	dir := t.TempDir()
	must(t, os.Symlink(binary, filepath.Join(dir, "mailstow")))
	for shell, script := range map[string]string{
		"bash": `source <(mailstow completion bash); COMP_WORDS=(mailstow list mine S); COMP_CWORD=3; _mailstow; printf "%s\n" "${COMPREPLY[@]}"`,
		"zsh":  `autoload -U compinit; compinit -u -d ` + dir + `/dump; source <(mailstow completion zsh); compadd() { print -l -- $candidates }; words=(mailstow list mine S); CURRENT=4; PREFIX=S; _mailstow`,
		"fish": `mailstow completion fish | source; complete -C "mailstow list mine S" | cut -f1`,
	} {
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		cmd := exec.Command(shell, "-c", script)
		cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + env["HOME"], "MAILSTOW_CONFIG=" + env["MAILSTOW_CONFIG"]}
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "Sent Items" && strings.TrimSpace(string(out)) != `Sent\ Items` {
			t.Errorf("%s: %q, %v", shell, out, err)
		}
	}
}
