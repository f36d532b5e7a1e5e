package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/config"
)

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadAccounts(t *testing.T) {
	f, err := config.Read(write(t, `
archive = "~/mail"
[defaults]
timeout = "90s"
[accounts.work]
address = "me@example.com"
server = "imaps://mail.example.com"
user = "me"
password_command = ["pass", "show", "work"]
[accounts.isp]
server = "pop3s://pop.isp.example"
password_command = "pass show isp"
timeout = "10s"
`, 0o644), "/home/me")
	if err != nil {
		t.Fatal(err)
	}
	if f.Archive != "/home/me/mail" || len(f.Accounts) != 2 {
		t.Fatalf("file = %+v", f)
	}
	isp, work := f.Accounts[0], f.Accounts[1]
	if isp.Name != "isp" || isp.Timeout != 10*time.Second || !slices.Equal(isp.PasswordCommand, []string{"sh", "-c", "pass show isp"}) {
		t.Errorf("isp = %+v", isp)
	}
	if work.User != "me" || work.Timeout != 90*time.Second || !slices.Equal(work.PasswordCommand, []string{"pass", "show", "work"}) {
		t.Errorf("work = %+v", work)
	}
}

func TestAccountIsFoundByNameAndByAddress(t *testing.T) {
	f := &config.File{Accounts: []config.Account{{Name: "isp"}, {Name: "work", Address: "me@example.com"}}}
	for arg, want := range map[string]string{"isp": "isp", "work": "work", "me@example.com": "work", "me": ""} {
		if a, ok := f.Account(arg); a.Name != want || ok != (want != "") {
			t.Errorf("%s: %+v, %v", arg, a, ok)
		}
	}
	if a, ok := (*config.File)(nil).Account("isp"); ok {
		t.Errorf("no file: %+v", a)
	}
}

// A typing mistake must never mean "silently not backed up".
func TestMistakesAreToldWithTheirLine(t *testing.T) {
	const account = "[accounts.isp]\nserver = \"pop3s://pop.isp.example\"\n"
	for _, tt := range []struct {
		name, text string
		line       int
		want, hint string
	}{
		{"unknown account key", account + "pasword_command = \"x\"\n", 3, `there is no key "pasword_command" in [accounts.isp]`, "did you mean password_command?"},
		{"unknown top key", "achive = \"x\"\n" + account, 1, `there is no key "achive"`, "did you mean archive?"},
		{"no TOML", account + "user = \n", 3, "", ""},
		{"bad timeout", account + "timeout = \"soon\"\n", 1, `"soon" is no length of time; write it like "90s"`, ""},
		{"no server", "[accounts.isp]\nuser = \"x\"\n", 1, "neither a server nor an address", "server ="},
		{"bad name", "[accounts.Isp]\nserver = \"x\"\n", 1, `"Isp"`, "small letters"},
		{"a password in a URL", "[accounts.isp]\nimap = \"imaps://h\"\npop3 = \"pop3s://me:secret@h\"\n", 1, "pop3 of [accounts.isp] has a password in it", "password_command"},
		{"two names for one variable", account + "[accounts.my-mail]\nserver = \"imaps://h\"\n[accounts.my_mail]\nserver = \"imaps://h\"\n", 5, "MAILSTOW_PASSWORD_MY_MAIL is for both", "call one of them"},
		{"a number for a text", account + "timeout = 60\n", 3, "timeout cannot be a number", "a text in quotes"},
		{"a text for a list", account + "exclude = \"Junk\"\n", 3, "exclude cannot be a text", `["this"]`},
		{"a number in a list", account + "exclude = [1]\n", 3, "exclude cannot be a number", "a text in quotes"},
		{"a text for a number", account + "connections = \"many\"\n", 3, "connections cannot be a text", "a whole number"},
		{"a text for a yes", account + "[accounts.isp.trim]\ntrash = \"yes\"\n", 4, "trash cannot be a text", "true or false"},
		{"a text for a table", account + "map = \"x\"\n", 3, "map cannot be a text", "a table"},
		{"a number for all accounts", "accounts = 1\n", 1, "accounts cannot be a number", "a table"},
		{"a text without quotes", "[accounts.isp]\nserver = imaps://secret@h\n", 2, "without quotes", "key ="},
		{"another word for true", account + "automap = True\n", 3, "true or false", "key = true"},
		{"a day for a text", account + "timeout = 2020-01-01\n", 3, "timeout cannot be a time", "a text in quotes"},
		{"unknown table", "[account.isp]\nserver = \"imaps://h\"\n", 1, "there is no table [account.isp]", "[accounts.isp]"},
		{"half a key", "[notify]\nmetrics = \"x\"\n", 2, `no key "metrics"`, "metrics_file"},
		{"command is a number", account + "password_command = 3\n", 1, "password_command", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Read(write(t, tt.text, 0o600), "")
			var e *config.Error
			if !errors.As(err, &e) {
				t.Fatalf("error = %v, want a config.Error", err)
			}
			if strings.Contains(e.Error()+e.Hint, "secret") {
				t.Errorf("it shows the password: %v", e)
			}
			if e.Line != tt.line || !strings.Contains(e.Text, tt.want) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("line %d %q hint %q; want line %d %q hint %q", e.Line, e.Text, e.Hint, tt.line, tt.want, tt.hint)
			}
		})
	}
}

func TestPasswordInAFileOthersCanReadIsRefused(t *testing.T) {
	const text = "[accounts.a]\nserver = \"imaps://x\"\npassword = \"hunter2\"\n"
	if _, err := config.Read(write(t, text, 0o600), ""); err != nil {
		t.Errorf("mode 600: %v", err)
	}
	_, err := config.Read(write(t, text, 0o644), "")
	var e *config.Error
	if !errors.As(err, &e) || !strings.Contains(e.Hint, "chmod 600") {
		t.Errorf("mode 644: %v, want a word on chmod", err)
	}
}

// One account's password must not go to another's server.
func TestAccountWithAPasswordTakesNoneOfTheDefaults(t *testing.T) {
	for _, own := range []string{`password = "own"`, `password_file = "own"`, `password_command = "own"`} {
		f, err := config.Read(write(t, "[defaults]\npassword = \"common\"\npassword_file = \"common\"\npassword_command = \"common\"\n[accounts.work]\nserver = \"imaps://h\"\n"+own+"\n", 0o600), "")
		if err != nil {
			t.Fatal(err)
		}
		a := f.Accounts[0]
		if text := a.Password.Reveal() + a.PasswordFile + strings.Join(a.PasswordCommand, ""); strings.Contains(text, "common") || !strings.Contains(text, "own") {
			t.Errorf("%s: %+v", own, a)
		}
	}
}

func TestWhatMailIsWanted(t *testing.T) {
	f, err := config.Read(write(t, `
[defaults]
exclude = ['\Junk']
connections = 2
[accounts.a]
server = "imaps://h"
include = ["Work/**"]
max_size = "25M"
bwlimit = "1MB"
[accounts.b]
server = "imaps://h"
exclude = []
`, 0o644), "")
	if err != nil {
		t.Fatal(err)
	}
	a, b := f.Accounts[0], f.Accounts[1]
	if !slices.Equal(a.Exclude, []string{`\Junk`}) || !slices.Equal(a.Include, []string{"Work/**"}) || a.MaxSize != 25<<20 || a.Bandwidth != 1_000_000 || a.Connections != 2 {
		t.Errorf("a = %+v", a)
	}
	if len(b.Exclude) != 0 {
		t.Errorf("b = %+v", b)
	}
	for _, wrong := range []string{`max_size = "big"`, `bwlimit = "0"`, "connections = -1"} {
		if _, err := config.Read(write(t, "[accounts.a]\nserver = \"imaps://h\"\n"+wrong+"\n", 0o644), ""); !errors.As(err, new(*config.Error)) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// People are told where a setting is from.
func TestSettingsAreFound(t *testing.T) {
	f, err := config.Read(write(t, `archive = "/mail"
[defaults]
timeout = "90s"
trim = { max_delete = "5%" }
[oauth2.google]
client_id = "x"
[accounts.isp]
server = "pop3s://pop.isp.example"
"user" = "me"
trim.until = "80%"
[accounts.work]
server = "imaps://h"
timeout = "1m"
[accounts.work.trim]
# quota = "1G"
quota = "2G"
`, 0o644), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ account, key, want string }{
		{"isp", "server", ":8"}, {"isp", "user", ":9"}, {"isp", "timeout", ":3 [defaults]"}, {"work", "timeout", ":13"}, {"work", "trim.quota", ":16"},
		{"isp", "trim.until", ":10"}, {"isp", "trim.max_delete", ":4 [defaults]"}, {"isp", "trim.quota", ""}, {"isp", "exclude", ""}, {"none", "server", ""},
	} {
		if got := strings.TrimPrefix(f.Where(c.account, c.key), f.Path); got != c.want {
			t.Errorf("%s of %s: %q, want %q", c.key, c.account, got, c.want)
		}
	}
	for key, want := range map[string]string{"archive": ":1", "oauth2.google.client_id": ":6", "oauth2.google.tenant": "", "notify": ""} {
		if got := strings.TrimPrefix(f.WhereTop(key), f.Path); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestHowRoomIsMade(t *testing.T) {
	f, err := config.Read(write(t, `
[defaults]
keep_newer_than = "60d"
[defaults.trim]
max_delete = "1%"
include_unread = true
include_flagged = true
[accounts.isp]
server = "pop3s://pop.isp.example"
[accounts.isp.trim]
quota = "2G"
until = "80%"
older_than = "1y"
max_delete = "10%"
include_flagged = false
before = ["restic", "backup"]
[accounts.work]
server = "imaps://mail.example.com"
keep_newer_than = "2024-01-31"
`, 0o644), "")
	if err != nil {
		t.Fatal(err)
	}
	isp, work := f.Accounts[0], f.Accounts[1]
	if isp.KeepNewerThan != "60d" || work.KeepNewerThan != "2024-01-31" || work.Trim.Until != "" || work.Trim.Before != nil || work.Trim.MaxDelete != "1%" || !work.Trim.IncludeFlagged {
		t.Errorf("%+v, %+v", isp, work)
	}
	if tr := isp.Trim; tr.Quota != "2G" || tr.Until != "80%" || tr.OlderThan != "1y" || tr.MaxDelete != "10%" || tr.IncludeFlagged || !tr.IncludeUnread || tr.Trash || !slices.Equal(tr.Before, []string{"restic", "backup"}) {
		t.Errorf("%+v", tr)
	}
	for line, want := range map[string]string{
		`until = "180%"`: "trim.until", `quota = "x"`: "trim.quota", `older_than = "soon"`: "trim.older_than", `max_delete = "-1"`: "trim.max_delete",
		`before = 5`: "trim.before", `untl = "80%"`: "did you mean until?",
	} {
		_, err := config.Read(write(t, "[accounts.isp]\nserver = \"pop3s://pop.isp.example\"\n[accounts.isp.trim]\n"+line+"\n", 0o644), "")
		var mistake *config.Error
		if !errors.As(err, &mistake) || mistake.Line == 0 || !strings.Contains(mistake.Text+mistake.Hint, want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}
