package cli

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mailstow runs the program with arguments and an environment, without terminal.
func mailstow(t *testing.T, env map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = Run(t.Context(), Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(name string) string { return env[name] },
	})
	return status, out.String(), errs.String()
}

// urfave/cli v2 takes an option behind an argument for an argument, and
// drops it: --dry-run would not be one.
func TestOptionsCountWhereverTheyStand(t *testing.T) {
	app := (&program{}).app()
	for _, tt := range []struct{ in, want []string }{
		{[]string{"backup", "work", "--dry-run"}, []string{"backup", "--dry-run", "--", "work"}},
		{[]string{"--json", "backup", "work"}, []string{"backup", "--json", "--", "work"}},
		{[]string{"backup", "a", "--to", "x", "b"}, []string{"backup", "--to=x", "--", "a", "b"}},
		{[]string{"backup", "a", "--to=x"}, []string{"backup", "--to=x", "--", "a"}},
		{[]string{"backup", "-nv", "a"}, []string{"backup", "-n", "-v", "--", "a"}},
		{[]string{"backup", "a", "-t", "x"}, []string{"backup", "-t=x", "--", "a"}},
		{[]string{"backup", "a", "-tx"}, []string{"backup", "-t=x", "--", "a"}},
		{[]string{"backup", "-nt", "x", "a"}, []string{"backup", "-n", "-t=x", "--", "a"}},
		{[]string{"backup", "--", "--dry-run"}, []string{"backup", "--", "--dry-run"}},
		{[]string{"backup", "--to", "--dry-run"}, []string{"backup", "--to=--dry-run", "--"}},
		{[]string{"list", "backup"}, []string{"list", "--", "backup"}},
		{[]string{"backup", "-"}, []string{"backup", "--", "-"}},
		{[]string{"-q", "verify"}, []string{"verify", "-q", "--"}},
	} {
		if got, err := arrange(app, tt.in); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q becomes %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestWrongUseIsTold(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"backup", "a", "--dry"}, "use --dry-run"},
		{[]string{"backup", "a", "--dryrun"}, "did you mean --dry-run?"},
		{[]string{"backup", "--to"}, "needs a value"},
		{[]string{"bakcup"}, `there is no command "bakcup"`},
		{[]string{"backup", "--password", "x"}, "--password-command"},
		{[]string{"backup", "--timeout", "soon"}, `--timeout: "soon" is no length of time`},
		{[]string{"backup", "--every", "5"}, `--every: "5" is no length of time`},
		{[]string{"backup", "--max-duration", "0s"}, "no length of time"},
		{[]string{"backup", "--connections", "x"}, `--connections: "x" is no number above 0`},
		{[]string{"backup", "--jobs", "0"}, "no number above 0"},
		{[]string{"backup", "--json=maybe"}, "--json takes no value"},
		{[]string{"backup", "--delete"}, "\n  nothing: a backup never deletes"},
		{[]string{"backup", "--no-ssl-verify"}, "--tls-ca FILE"},
		{[]string{"backup", "--avz"}, "mailstow backup --help lists them"},
		{[]string{"backup", "--version"}, "use mailstow --version"},
		{[]string{"version"}, "use mailstow --version"},
		{[]string{"sync"}, "use mailstow backup"},
		{[]string{"--json", "bakcup"}, "did you mean mailstow backup?"},
		{[]string{"-c", "file", "bakcup"}, "did you mean mailstow backup?"},
		{[]string{"--json"}, "no command is named"},
		{[]string{"bakcup", "me"}, "did you mean mailstow backup?"},
		{[]string{"verify", "--subset", "8/7"}, "3/7"},
		{[]string{"status", "--max-age", "x"}, "no length of time"},
		{[]string{"list", "a", "b", "c"}, "takes an account and a folder"},
		{[]string{"backup", "-nx"}, "unknown option -nx"},
	} {
		status, out, errs := mailstow(t, nil, tt.args...)
		if status != exitUsage || !strings.Contains(errs, tt.want) || out != "" {
			t.Errorf("%q: status %d, stderr %q, stdout %q; want %d and %q", tt.args, status, errs, out, exitUsage, tt.want)
		}
	}
}

func TestHelpListsWhatThereIs(t *testing.T) {
	status, out, _ := mailstow(t, nil)
	for _, c := range (&program{Env: Env{Getenv: func(string) string { return "" }}}).app().Commands {
		if !strings.Contains(out, c.Name) || !strings.Contains(out, c.Usage) {
			t.Errorf("the help does not name %s", c.Name)
		}
		if s, help, _ := mailstow(t, nil, c.Name, "--help"); s != exitOK || !strings.Contains(help, c.Usage) || !strings.Contains(help, "--json") {
			t.Errorf("%s --help: status %d, %q", c.Name, s, help)
		}
	}
	if status != exitOK {
		t.Errorf("status = %d", status)
	}
	for _, args := range [][]string{{"auth", "login", "--help"}, {"auth", "status", "-h"}, {"config", "show", "--help"}, {"auth", "--help", "login"}} {
		if s, help, errs := mailstow(t, nil, args...); s != exitOK || !strings.HasPrefix(help, "mailstow "+args[0]+" - ") {
			t.Errorf("%q: status %d\n%s%s", args, s, help, errs)
		}
	}
}

func TestMistakesInAccountsAreConfigErrors(t *testing.T) {
	for _, tt := range []struct {
		arg, want string
	}{
		{"work", "no account"},
		{"imaps://mail.example.org", "nobody is named"},
		{"imaps://me:secret@mail.example.org", "password in it"},
		{"http://me@mail.example.org", "no URL of a mail server"},
		{"imaps://", "no URL of a mail server"},
		{"imaps://me@mail.example.org:99999", "no port 99999"},
		{"imap+insecure://me@mail.example.org", "plain text"},
		{"pop3+insecure://me@192.0.2.1", "plain text"},
	} {
		status, _, errs := mailstow(t, map[string]string{"MAILSTOW_CONFIG": "/dev/null"}, "backup", tt.arg, "--to", t.TempDir())
		if status != exitConfig || !strings.Contains(errs, tt.want) || strings.Contains(errs, "secret@") {
			t.Errorf("%s: status %d, %q; want %d and %q", tt.arg, status, errs, exitConfig, tt.want)
		}
	}
}

// Whatever a command makes of a word, a password in it is not shown.
func TestPasswordInAWordIsNotShown(t *testing.T) {
	for _, command := range []string{"backup", "check", "trim", "restore", "verify", "list", "status", "config show", "providers", "auth login", "auth status", "auth logout"} {
		for _, word := range []string{"imaps://me:hunter2@mail.example.org", "me:hunter2@mail.example.org", "--password=hunter2"} {
			status, out, errs := mailstow(t, map[string]string{"MAILSTOW_NO_LOOKUP": "1", "HOME": t.TempDir()}, append(strings.Fields(command), word)...)
			if status == exitOK || strings.Contains(out+errs, "hunter2") {
				t.Errorf("%s %s: status %d\n%s%s", command, word, status, out, errs)
			}
		}
	}
}

func TestMistypedAccountIsGuessed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.toml")
	write(t, file, "[accounts.work]\nserver = \"imaps://me@mail.example.org\"\n")
	for arg, want := range map[string]string{"wrok": "did you mean work?", "other": "name it there"} {
		if status, _, errs := mailstow(t, map[string]string{"MAILSTOW_CONFIG": file}, "backup", arg); status != exitConfig || !strings.Contains(errs, want) {
			t.Errorf("%s: status %d, %q; want %q", arg, status, errs, want)
		}
	}
}

// A program that reads JSON reads nothing else: what went wrong is there too.
func TestErrorsComeAsJSONWhereThatIsAskedFor(t *testing.T) {
	status, out, errs := mailstow(t, map[string]string{"MAILSTOW_CONFIG": "/dev/null"}, "backup", "work", "--json")
	o := last(t, out)
	if status != exitConfig || errs != "" || o["type"] != "summary" || o["exit_code"] != float64(exitConfig) || !strings.Contains(out, `"type":"error"`) {
		t.Errorf("status %d, stderr %q, stdout %s", status, errs, out)
	}
}

func TestInterruptedIsTheSignalsStatus(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(Interrupted{Signal: 15})
	if p := explain(ctx, "a", context.Canceled); p.status != 143 {
		t.Errorf("status = %d, want 143", p.status)
	}
}

// What a stranger writes must not reach the terminal as a command to it.
func FuzzShownTextIsSafe(f *testing.F) {
	f.Add("\x1b[2Jgone\r\n\x07\u0085\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range show(s) {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				t.Errorf("%q is shown as %q", s, show(s))
			}
		}
	})
}

func TestBadCheckIsFoundByConfigCheck(t *testing.T) {
	for _, table := range []string{"[notify]", "[accounts.a]"} {
		file := filepath.Join(t.TempDir(), "config.toml")
		write(t, file, "[accounts.a]\nserver = \"imaps://me@mail.example.org\"\n"+map[string]string{"[notify]": "[notify]\n"}[table]+"healthchecks = \"hc-ping.com/hidden\"\n")
		status, out, errs := mailstow(t, map[string]string{"MAILSTOW_CONFIG": file}, "config", "check")
		if status != exitConfig || !strings.Contains(errs, "healthchecks of "+table) || strings.Contains(out+errs, "hidden") {
			t.Errorf("status %d\n%s%s", status, out, errs)
		}
	}
}

// What runs at night reads the config file that is meant, wherever it begins.
func TestTimerNamesTheConfigFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "my $conf 5%.toml")
	for _, tt := range []struct {
		env  map[string]string
		args []string
	}{{nil, []string{"--config", file}}, {map[string]string{"MAILSTOW_CONFIG": file}, nil}} {
		status, out, errs := mailstow(t, tt.env, append([]string{"init", "--print-timer"}, tt.args...)...)
		if status != exitOK || !strings.Contains(out, ` backup --config "`+dir+`/my $$conf 5%%.toml"`+"\n") || !strings.Contains(out, " backup --config '"+dir+`/my $conf 5\%.toml'`+"\n") {
			t.Errorf("status %d\n%s%s", status, out, errs)
		}
	}
}
