package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailstow/internal/mailtest"
)

// Answers that are none: the text is waited for, and the key that interrupts; and
// how one begins that comes after two seconds.
const (
	unanswered = "\x00"
	ctrlC      = "\x03"
	late       = "\x01"
)

// terminal runs a command on a terminal of its own, where answers are typed when
// their questions are seen, and returns its exit status and what was shown.
func terminal(t *testing.T, cmd *exec.Cmd, answers ...[2]string) (status int, shown string) {
	t.Helper()
	main, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no terminals: ", err)
	}
	defer main.Close()
	must(t, unix.IoctlSetPointerInt(int(main.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(main.Fd()), unix.TIOCGPTN)
	must(t, err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	cmd.Env = append(cmd.Env, "TERM=xterm")
	must(t, cmd.Start())
	tty.Close()
	var mu sync.Mutex
	var screen strings.Builder
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := main.Read(b)
			mu.Lock()
			screen.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	seen := 0
	for _, a := range answers {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			i := strings.Index(screen.String()[seen:], a[0])
			if i >= 0 {
				seen += i + len(a[0])
			}
			text := screen.String()
			mu.Unlock()
			if i >= 0 {
				break
			}
			if time.Now().After(deadline) {
				cmd.Process.Kill()
				t.Fatalf("%q is not asked:\n%s", a[0], text)
			}
		}
		switch a[1] {
		case unanswered:
		case ctrlC:
			time.Sleep(50 * time.Millisecond) // until it is read
			fmt.Fprint(main, ctrlC)
		default:
			text, isLate := strings.CutPrefix(a[1], late)
			if isLate {
				time.Sleep(2 * time.Second)
			}
			time.Sleep(50 * time.Millisecond) // until the echo is off
			fmt.Fprint(main, text+"\n")
		}
	}
	hangs := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	cmd.Wait()
	if !hangs.Stop() {
		t.Errorf("the program did not end")
	}
	<-ended
	mu.Lock()
	defer mu.Unlock()
	return cmd.ProcessState.ExitCode(), strings.ReplaceAll(screen.String(), "\r\n", "\n")
}

// Someone who has never seen mailstow has a backup after a few questions; the
// second account is added to what they have written themselves.
func TestFirstRunOnATerminal(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly())
	binary, env := built(t), map[string]string{"HOME": t.TempDir()}
	config := filepath.Join(env["HOME"], ".config/mailstow/config.toml")
	server := "imap+insecure://alice@" + s.IMAP
	status, shown := terminal(t, command(binary, env, "init", "--offline"),
		[2]string{"Address: ", "alice@example.org"}, [2]string{"Its server, as imaps://HOST", server}, [2]string{"Name for this account [example]", "work"},
		[2]string{"Password for alice@example.org: ", "wrong"}, [2]string{"login refused", unanswered}, [2]string{"Password for", s.Password("alice")},
		[2]string{"Where should the password be kept?", unanswered}, [2]string{"Choose [1]: ", "1"}, [2]string{"Archive folder [~/mail-archive]: ", ""})
	if status != exitOK || !strings.Contains(shown, fmt.Sprintf("Login ok. 1 folder, %d messages", n)) || !strings.Contains(shown, "Wrote [accounts.work] to "+config) || strings.Contains(shown, s.Password("alice")) {
		t.Fatalf("status %d\n%s", status, shown)
	}
	b, err := os.ReadFile(config)
	must(t, err)
	want := "# mailstow.toml(5) says what may stand here.\n\narchive = \"~/mail-archive\"   # each account gets a folder in it\n\n[accounts.work]\naddress = \"alice@example.org\"\nserver = \"" + server + "\"\n"
	if fi, err := os.Stat(config); err != nil || fi.Mode().Perm() != 0o600 || string(b) != want {
		t.Errorf("%v, %v\n%s\nwant\n%s", fi.Mode(), err, b, want)
	}
	if status, out, errs := mailstow(t, env, "backup"); status != exitOK || len(messageFiles(t, filepath.Join(env["HOME"], "mail-archive/alice@example.org"))) != n {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}

	named := map[string]string{"HOME": t.TempDir()} // before it is there, as in a container
	named["MAILSTOW_CONFIG"] = filepath.Join(named["HOME"], "mail/own.toml")
	if status, shown := terminal(t, command(binary, named, "init", "alice@example.org", "--offline", "--name", "work", "--to", "/archive"), [2]string{"Its server", server}, [2]string{"Password", s.Password("alice")}, [2]string{"Choose [1]: ", "1"}); status != exitOK || !strings.Contains(shown, "to "+named["MAILSTOW_CONFIG"]) {
		t.Errorf("status %d\n%s", status, shown)
	}

	own := strings.TrimSuffix(string(b), "\n") + "   # my own words, and no line end"
	must(t, os.WriteFile(config, []byte(own), 0o600))
	status, shown = terminal(t, command(binary, env, "init", "bob@example.org", "--offline"),
		[2]string{"Its server", "pop3+insecure://bob@" + s.POP3}, [2]string{"Name for this account [example]", "work"}, [2]string{"There is an account work already", unanswered}, [2]string{"[example]: ", "bob"},
		[2]string{"Password for bob@example.org: ", s.Password("bob")}, [2]string{"Choose [1]: ", "2"}, [2]string{"The command", "echo wrong"}, [2]string{"prints another password", unanswered}, [2]string{"The command", "echo \"" + s.Password("bob") + "\""})
	now, err := os.ReadFile(config)
	must(t, err)
	if status != exitOK || !strings.HasPrefix(string(now), own+"\n\n[accounts.bob]\n") || !strings.Contains(string(now), `password_command = "echo \"bob-secret\""`) {
		t.Errorf("status %d\n%s\n%s", status, shown, now)
	}
	if status, out, errs := mailstow(t, env, "check"); status != exitOK {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := mailstow(t, env, "init"); status != exitConfig || !strings.Contains(errs, "nobody to ask") {
		t.Errorf("without a terminal: status %d\n%s%s", status, out, errs)
	}
	if status, shown := terminal(t, command(binary, env, "init", "bob@example.org")); status != exitConfig || !strings.Contains(shown, "already") {
		t.Errorf("twice: status %d\n%s", status, shown)
	}
}

// Whatever is asked, Ctrl-C ends the program, and leaves a terminal that shows
// what is typed.
func TestCtrlCEndsEveryQuestion(t *testing.T) {
	s := mailtest.Dovecot(t)
	put(t, s, "INBOX", old, `\Seen`, several("old", 3)...)
	binary := built(t)
	env, _ := configuredHome(t, s, s.IMAP)
	fresh := map[string]string{"HOME": t.TempDir()}
	asked := map[string]string{"HOME": env["HOME"], "MAILSTOW_CONFIG": env["MAILSTOW_CONFIG"], "MAILSTOW_PASSWORD_MINE": s.Password("alice")}
	server := "imap+insecure://alice@" + s.IMAP
	for _, tt := range []struct {
		question string
		env      map[string]string
		args     []string
		answers  [][2]string
	}{
		{"Address: ", fresh, []string{"init"}, nil},
		{"Password for alice@example.org: ", fresh, []string{"init", "alice@example.org", "--offline", "--name", "work"}, [][2]string{{"Its server", server}}},
		{"Password for alice on", fresh, []string{"backup", server}, nil},
		{"Password for alice on", fresh, []string{"auth", "login", server}, nil},
		{"Type the account name", asked, []string{"trim", "mine", "--older-than", "1y"}, nil},
	} {
		t.Run(strings.Join(tt.args[:1], " ")+" "+tt.question, func(t *testing.T) {
			script := binary + " " + strings.Join(tt.args, " ") + "; echo status $?; stty -a"
			_, shown := terminal(t, command("sh", tt.env, "-c", "trap : INT; "+script), append(tt.answers, [2]string{tt.question, ctrlC})...)
			if !strings.Contains(shown, ": interrupted by SIGINT") || !strings.Contains(shown, "status 130") || !strings.Contains(shown, " echo ") {
				t.Error(shown)
			}
		})
	}
	if len(subjects(t, s, "INBOX")) != 3 {
		t.Error("mail was deleted")
	}
}

// A run that stops meanwhile does not leave a question behind that takes the answer
// to the next one.
func TestEachQuestionGetsItsOwnAnswer(t *testing.T) {
	s := mailtest.Dovecot(t)
	env, to := home(t, s), t.TempDir()
	args := []string{"backup", address("imap+insecure", s.IMAP), "imap+insecure://bob@" + s.IMAP, "--to", to, "--jobs", "1"}
	answers := [][2]string{{"Password for alice", s.Password("alice")}, {"Password for bob", s.Password("bob")}}
	delete(env, "MAILSTOW_PASSWORD")
	if status, shown := terminal(t, command(built(t), env, args...), answers...); status != exitOK {
		t.Fatalf("status %d\n%s", status, shown)
	}
	answers[0][1] = late + answers[0][1]
	status, shown := terminal(t, command(built(t), env, append(args, "--max-duration", "1500ms")...), answers...)
	if strings.Contains(shown, "secret") || strings.Contains(shown, "refused") || strings.Contains(shown, "bob: ") {
		t.Errorf("status %d\n%s", status, shown)
	}
}

// Nobody types a password for a server that cannot be reached, or is not what it
// ought to be.
func TestPasswordIsAskedWhereThereIsAServer(t *testing.T) {
	s := mailtest.Dovecot(t)
	binary, env := built(t), map[string]string{"HOME": t.TempDir()}
	for _, args := range [][]string{{"check", "imaps://alice@" + s.IMAP}, {"auth", "login", "imaps://alice@" + s.IMAP}, {"backup", "imap+insecure://alice@127.0.0.1:1"}} {
		if status, shown := terminal(t, command(binary, env, args...)); status != exitUnavailable || strings.Contains(shown, "Password") || !strings.Contains(shown, "do:") {
			t.Errorf("%q: status %d\n%s", args, status, shown)
		}
	}
	if status, shown := terminal(t, command(binary, env, "init", "alice@example.org", "--offline", "--name", "x"), [2]string{"Its server", "imaps://" + s.IMAP}); status != exitUnavailable || strings.Contains(shown, "Password") || !strings.Contains(shown, "does not begin with TLS") {
		t.Errorf("init: status %d\n%s", status, shown)
	}
}

// A server that is typed is asked for until it is one, and shows whose it is, or a
// provider's name does: with that the ways to log in are known.
func TestTypedServerShowsTheProvider(t *testing.T) {
	binary := built(t)
	for _, typed := range []string{"imaps://outlook.office365.com", "microsoft365"} {
		env := map[string]string{"HOME": t.TempDir()}
		status, shown := terminal(t, command(binary, env, "init", "me@contoso.example", "--offline", "--name", "x"),
			[2]string{"Its server", "http://nonsense"}, [2]string{"no URL of a mail server", unanswered}, [2]string{"Its server", typed}, [2]string{"How should mailstow log in?", unanswered}, [2]string{"token command", unanswered}, [2]string{"Choose", ctrlC})
		if status != 130 || strings.Contains(shown, "Password") {
			t.Errorf("%s: status %d\n%s", typed, status, shown)
		}
	}
}

// A terminal need not be that of the session: su -c makes a session without one.
func TestTerminalOfAnotherSessionIsAsked(t *testing.T) {
	s := mailtest.Dovecot(t)
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip(err)
	}
	env := map[string]string{"HOME": t.TempDir()}
	status, shown := terminal(t, command("setsid", env, "--wait", built(t), "check", "imap+insecure://alice@"+s.IMAP), [2]string{"Password for alice", s.Password("alice")})
	if status != exitOK || strings.Contains(shown, s.Password("alice")) || strings.Count(shown, "Password for") != 1 {
		t.Errorf("status %d\n%s", status, shown)
	}
}

// A trim at a terminal asks for the account's name, and for unanswered less.
func TestTrimAsksForTheName(t *testing.T) {
	s := mailtest.Dovecot(t)
	put(t, s, "INBOX", old, `\Seen`, several("old", 3)...)
	env, _ := configuredHome(t, s, s.IMAP)
	env["MAILSTOW_PASSWORD_MINE"] = s.Password("alice")
	if status, shown := terminal(t, command(built(t), env, "trim", "mine", "--older-than", "1y"), [2]string{"Type the account name to delete 3 messages", "yes"}); status != exitFailure || len(subjects(t, s, "INBOX")) != 3 {
		t.Errorf("status %d\n%s", status, shown)
	}
	if status, shown := terminal(t, command(built(t), env, "trim", "mine", "--older-than", "1y"), [2]string{"Type the account name to delete 3 messages", "mine"}); status != exitOK || len(subjects(t, s, "INBOX")) != 0 || !strings.Contains(shown, "deleted 3 messages") {
		t.Errorf("status %d\n%s", status, shown)
	}
}

// A folder may be called anything: what the shell completes is that name, and no
// more than a name, however it has been begun.
func TestCompletedNamesAreNotCommands(t *testing.T) {
	s := mailtest.Dovecot(t)
	names := []string{"Sent Items", "$(touch owned) x", "a;touch owned", "it's \"so\"", "back`touch owned`"}
	for _, name := range names {
		told(t, s, "CREATE \""+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)+"\"")
	}
	env, _ := configuredHome(t, s, s.IMAP)
	if status, out, errs := mailstow(t, env, "backup", "mine"); status != exitOK {
		t.Fatal(status, out, errs)
	}
	dir := t.TempDir()
	must(t, os.Symlink(built(t), filepath.Join(dir, "mailstow")))
	const stub = ` mailstow() { if [ "$1" = __complete ]; then command mailstow "$@"; else printf '<%s>' "$@"; echo; fi; }; echo rea""dy`
	for shell, start := range map[string]string{
		"bash": `bind 'set enable-bracketed-paste off'; source <(mailstow completion bash);` + stub,
		"zsh":  `autoload -U compinit; compinit -u -d ` + dir + `/dump; source <(mailstow completion zsh);` + stub,
		"fish": `mailstow completion fish | source; function mailstow; if test "$argv[1]" = __complete; command mailstow $argv; else; printf '<%s>' $argv; echo; end; end; echo rea""dy`,
	} {
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		t.Run(shell, func(t *testing.T) {
			answers := [][2]string{{"", start}, {"ready", ""}}
			for begun, whole := range map[string]string{"Se": names[0], `Sent\ It`: names[0], `"Se`: names[0], `'Se`: names[0], `\$`: names[1], `'$`: names[1], "a": names[2], `it`: names[3], "ba": names[4]} {
				if shell == "fish" && begun != "Se" && strings.ContainsAny(begun, `'"\`) {
					continue // it completes what it has unquoted by itself
				}
				end := " "
				if strings.HasPrefix(begun, `"`) || strings.HasPrefix(begun, "'") {
					end = "" // the shell has closed it
				}
				answers = append(answers, [2]string{"", "mailstow list mine " + begun + "\t" + end}, [2]string{"<list><mine><" + whole + ">", unanswered})
			}
			answers = append(answers, [2]string{"", "exit"})
			cmd := exec.Command(shell, map[string][]string{"bash": {"--norc", "-i"}, "zsh": {"-f", "-i"}, "fish": {"--no-config", "-i"}}[shell]...)
			cmd.Dir = t.TempDir()
			cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "HOME=" + env["HOME"], "MAILSTOW_CONFIG=" + env["MAILSTOW_CONFIG"]}
			_, shown := terminal(t, cmd, answers...)
			if left, _ := os.ReadDir(cmd.Dir); len(left) > 0 {
				t.Errorf("a name was run:\n%s", shown)
			}
		})
	}
}
