package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/credential"
	"mailstow/internal/lookup"
	"mailstow/internal/mailtest"
	"mailstow/internal/report"
)

// pings is a service that waits for pings.
type pings struct {
	web *httptest.Server
	mu  sync.Mutex
	got []string
}

func (s *pings) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.got = append(s.got, r.URL.Path+"\n"+string(body))
	s.mu.Unlock()
}

func (s *pings) take() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, s.got = s.got, nil
	return all
}

// paths are the first lines of pings.
func paths(all []string) string {
	var list []string
	for _, p := range all {
		path, _, _ := strings.Cut(p, "\n")
		list = append(list, path)
	}
	return strings.Join(list, " ")
}

// watched is a server with mail, an account's environment for it, and a service
// that waits for pings. configure writes the config file: what is in it stands
// below the archive's root, with CHECK for the service's address and SERVER for
// the mail server's.
func watched(t *testing.T) (s *mailtest.Server, env map[string]string, service *pings, root string, configure func(text string)) {
	t.Helper()
	s = mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly())
	service = &pings{}
	service.web = httptest.NewServer(service)
	t.Cleanup(service.web.Close)
	env, root = home(t, s), t.TempDir()
	env["MAILSTOW_CONFIG"] = filepath.Join(env["HOME"], "config.toml")
	for _, name := range []string{"A", "B"} {
		env["MAILSTOW_PASSWORD_"+name] = s.Password("alice")
	}
	return s, env, service, root, func(text string) {
		t.Helper()
		write(t, env["MAILSTOW_CONFIG"], fmt.Sprintf("archive = %q\n", root)+strings.NewReplacer("CHECK", service.web.URL, "SERVER", address("imap+insecure", s.IMAP)).Replace(text))
	}
}

// How full a mailbox is shows before it is too late.
func TestMetricsTellOfTheQuota(t *testing.T) {
	s := mailtest.Dovecot(t, quotas...)
	fill(t, s, "INBOX", ugly()[:3])
	env, metrics := home(t, s), filepath.Join(t.TempDir(), "mailstow.prom")
	env["MAILSTOW_CONFIG"] = filepath.Join(env["HOME"], "config.toml")
	write(t, env["MAILSTOW_CONFIG"], fmt.Sprintf("archive = %q\n[notify]\nmetrics_file = %q\n[accounts.a]\nserver = %q\n[accounts.p]\nserver = %q\n[accounts.p.trim]\nquota = \"1M\"\n",
		t.TempDir(), metrics, address("imap+insecure", s.IMAP), address("pop3+insecure", s.POP3)))
	env["MAILSTOW_PASSWORD_A"], env["MAILSTOW_PASSWORD_P"] = s.Password("alice"), s.Password("alice")
	for range 2 {
		if status, out, errs := mailstow(t, env, "backup"); status != exitOK || out+errs != "" {
			t.Errorf("status %d\n%s%s", status, out, errs)
		}
		b, err := os.ReadFile(metrics)
		must(t, err)
		for _, want := range []string{`limit_bytes\{account="a"\} 65536`, `limit_bytes\{account="p"\} 1048576`, `used_bytes\{account="a"\} [1-9]`, `used_bytes\{account="p"\} [1-9]`} {
			if !regexp.MustCompile("mailstow_quota_" + want).Match(b) {
				t.Errorf("the metrics lack %s:\n%s", want, b)
			}
		}
		must(t, os.Remove(metrics))
	}
}

// Whoever keeps watch at night hears of each run, and of what was wrong; of a run
// that stopped at its limit as of a good one.
func TestWatchIsToldHowRunsGo(t *testing.T) {
	s, env, service, _, configure := watched(t)
	metrics := filepath.Join(t.TempDir(), "mailstow.prom")
	head := fmt.Sprintf("[notify]\nhealthchecks = \"CHECK/all\"\nmetrics_file = %q\n[accounts.a]\nserver = \"SERVER\"\nhealthchecks = \"CHECK/a\"\n", metrics)
	configure(head + "[accounts.b]\nserver = \"SERVER\"\n")
	if status, out, errs := mailstow(t, env, "backup"); status != exitOK || out+errs != "" {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	all := service.take()
	if got := paths(all); got != "/all/start /a/start /a/0 /all/0" || !strings.Contains(strings.Join(all, ""), "54 new messages") {
		t.Errorf("pings %q\n%q", got, all)
	}
	read := func() string {
		b, err := os.ReadFile(metrics)
		must(t, err)
		return string(b)
	}
	for _, want := range []string{`mailstow_archive_messages{account="a"} 54`, `mailstow_archive_messages{account="b"} 54`, `mailstow_last_run_exit_code{account="a"} 0`, `mailstow_missing_messages{account="b"} 0`} {
		if !strings.Contains(read(), want+"\n") {
			t.Errorf("the metrics lack %s:\n%s", want, read())
		}
	}
	success := regexp.MustCompile(`mailstow_last_success_timestamp_seconds\{account="a"\} \d+`).FindString(read())

	configure(head + "[accounts.c]\nserver = \"imap+insecure://alice@127.0.0.1:1\"\npassword_command = \"echo x\"\n")
	env["MAILSTOW_PASSWORD_A"] = "wrong"
	if status, out, errs := mailstow(t, env, "backup"); status != exitIncomplete {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	all = service.take()
	if got := paths(all); got != "/all/start /a/start /a/77 /all/3" || !strings.Contains(strings.Join(all, ""), "login refused") {
		t.Errorf("pings %q\n%q", got, all)
	}
	if !strings.Contains(read(), `exit_code{account="a"} 77`) || !strings.Contains(read(), `exit_code{account="c"} 69`) || !strings.Contains(read(), success) || strings.Contains(read(), `account="b"`) {
		t.Errorf("the success of a night before is lost, or what was said of an account that is gone is kept:\n%s", read())
	}

	env["MAILSTOW_PASSWORD_A"] = s.Password("alice")
	configure(head + "daily_download = \"1K\"\n")
	mailstow(t, env, "backup")
	if got := paths(service.take()); got != "/all/start /a/start /a/0 /all/0" {
		t.Errorf("at the limit: pings %q", got)
	}
	configure(head)
	if status, out, errs := mailstow(t, env, "trim", "a", "--older-than", "1d", "--keep-newer-than", "1d", "--yes", "--max-delete", "100%"); status != exitOK {
		t.Errorf("trim: status %d\n%s%s", status, out, errs)
	}
	if got := paths(service.take()); got != "/all/start /a/start /a/0 /all/0" {
		t.Errorf("trim: pings %q", got)
	}
	for _, args := range [][]string{{"check"}, {"backup", "--dry-run"}} {
		if mailstow(t, env, args...); len(service.take()) > 0 {
			t.Errorf("%q tells the watch", args)
		}
	}
	service.web.Close()
	status, out, errs := mailstow(t, env, "backup")
	if status != exitOK || strings.Count(errs, "warning: ") != 4 || strings.Contains(errs, "/all") {
		t.Errorf("nobody is there: status %d\n%s%s", status, out, errs)
	}
}

// Another run is at work: that one tells how it goes, and whether it has ended.
func TestRunThatFindsAnotherTellsNothing(t *testing.T) {
	_, env, service, root, configure := watched(t)
	configure("[notify]\nhealthchecks = \"CHECK/all\"\n[accounts.a]\nserver = \"SERVER\"\nhealthchecks = \"CHECK/a\"\n[accounts.b]\nserver = \"SERVER\"\n")
	if status, out, errs := mailstow(t, env, "backup"); status != exitOK {
		t.Fatalf("status %d\n%s%s", status, out, errs)
	}
	service.take()
	lock, err := os.Open(filepath.Join(root, "a", ".mailstow", "lock"))
	must(t, err)
	defer lock.Close()
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	for args, want := range map[string]string{"a": "", "b": "/all/start /all/0", "": "/all/start /all/0"} {
		mailstow(t, env, strings.Fields("backup "+args)...)
		if got := paths(service.take()); got != want {
			t.Errorf("backup %s: pings %q, want %q", args, got, want)
		}
	}
}

// What one archive cannot tell is no reason to tell nothing of the others.
func TestUnreadableArchiveLeavesTheOthersTheirMetrics(t *testing.T) {
	_, env, _, root, configure := watched(t)
	metrics := filepath.Join(t.TempDir(), "mailstow.prom")
	configure(fmt.Sprintf("[notify]\nmetrics_file = %q\n[accounts.a]\nserver = \"SERVER\"\n[accounts.b]\nserver = \"SERVER\"\n", metrics))
	must(t, os.MkdirAll(filepath.Join(root, "a", ".mailstow"), 0o700))
	write(t, filepath.Join(root, "a", ".mailstow", "archive.toml"), "format = 1000\nid = \"x\"\n")
	status, out, errs := mailstow(t, env, "backup")
	b, err := os.ReadFile(metrics)
	if status == exitOK || err != nil || !strings.Contains(errs, "mailstow: a: ") || !strings.Contains(string(b), `mailstow_archive_messages{account="b"} 54`) || !regexp.MustCompile(`mailstow_last_run_exit_code\{account="a"\} [1-9]`).Match(b) {
		t.Errorf("status %d, %v\n%s%s\n%s", status, err, out, errs, b)
	}
}

// A program that stays has one check for all its accounts: it is good while all of
// them are, whichever of them has been looked at last.
func TestCheckOfAllIsNotGoodWhileOneAccountIsNot(t *testing.T) {
	t.Parallel()
	s, env, service, _, configure := watched(t)
	var right atomic.Bool
	getenv := func(name string) string {
		if name == "MAILSTOW_PASSWORD_B" && !right.Load() {
			return "wrong"
		}
		return env[name]
	}
	both := "[notify]\nhealthchecks = \"CHECK/all\"\n[accounts.a]\nserver = \"SERVER\"\nhealthchecks = \"CHECK/a\"\n[accounts.b]\nserver = \"SERVER\"\nhealthchecks = \"CHECK/b\"\n"
	var heard string
	var there atomic.Bool // the network
	find := func(context.Context, string) ([]lookup.Server, error) {
		if !there.Load() {
			return nil, lookup.ErrNone
		}
		return []lookup.Server{{URL: address("imap+insecure", s.IMAP), User: "alice", By: "x", Vouched: true}}, nil
	}
	stay := func(config, until string) {
		t.Helper()
		configure(config)
		ctx, end := context.WithCancelCause(t.Context())
		ended := make(chan int)
		go func() {
			ended <- Run(ctx, Env{Args: []string{"backup", "--every", "1s"}, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Getenv: getenv, Find: find})
		}()
		heard = ""
		for deadline := time.Now().Add(time.Minute); !regexp.MustCompile(until).MatchString(heard); time.Sleep(20 * time.Millisecond) {
			if heard += " " + paths(service.take()); time.Now().After(deadline) {
				t.Errorf("it tells %s, want %s", heard, until)
				break
			}
		}
		end(Interrupted{syscall.SIGTERM})
		if status := <-ended; status != 128+int(syscall.SIGTERM) {
			t.Errorf("status %d", status)
		}
		service.take()
	}
	stay(both+"[accounts.c]\nserver = \"imap+insecure://alice@mail.example.org\"\nhealthchecks = \"CHECK/c\"\n", `/a/0.*/a/0`)
	if !strings.Contains(heard, "/c/78") || strings.Count(heard, "/b/77") < 1 || !regexp.MustCompile(`/all/3\b.*/a/0`).MatchString(heard) || regexp.MustCompile(`/(b/77|c/78).*/all/0`).MatchString(heard) {
		t.Errorf("with one that is refused and one that cannot be: %s", heard)
	}
	stay(both, `/all/3.*/b/77.*/all/3`)
	time.AfterFunc(time.Second, func() { right.Store(true) })
	stay(both, `/b/77.*/b/0.*/all/0`)
	stay(strings.ReplaceAll(both, "accounts.b", "accounts.slow")+"password_command = \"sleep 20\"\n", `/a/0.*/a/0`)
	if strings.Contains(heard, "/all/0") {
		t.Errorf("while one has not ended a run yet: %s", heard)
	}
	time.AfterFunc(time.Second, func() { there.Store(true) })
	stay(both+"[accounts.d]\naddress = \"alice@example.org\"\npassword_command = \"echo "+s.Password("alice")+"\"\nhealthchecks = \"CHECK/d\"\n", `/d/78.*/d/0.*/all/0`)
}

// A run that began its work, and could not go on with it because another one took
// its turn, has an end that is not good.
func TestRunThatLosesItsTurnIsTold(t *testing.T) {
	service := &pings{}
	web := httptest.NewServer(service)
	defer web.Close()
	p := &program{}
	for begun, want := range map[bool]string{true: "/a/75", false: ""} {
		w := p.newCheck(cli.NewContext(nil, nil, nil), &output{p: p}, credential.NewSecret(web.URL+"/a"))
		o := outcome{account: &account{name: "a"}, begun: begun, problem: &problem{status: exitLater, code: "locked"}}
		o.result.Tallies = []report.Tally{{New: 3}} // the backup before it did well
		w.end([]outcome{o}, o.status())
		if got := paths(service.take()); got != want {
			t.Errorf("begun %v: pings %q, want %q", begun, got, want)
		}
	}
}

// Whatever name the user calls it by, an account that cannot be made is told of by
// the one that it has.
func TestAccountThatCannotBeMadeIsTold(t *testing.T) {
	_, env, service, _, configure := watched(t)
	metrics := filepath.Join(t.TempDir(), "mailstow.prom")
	text := fmt.Sprintf("[notify]\nmetrics_file = %q\n[accounts.a]\naddress = \"alice@example.org\"\nuser = \"alice\"\nserver = \"SERVER\"\nhealthchecks = \"CHECK/a\"\n[accounts.b]\nserver = \"SERVER\"\n", metrics)
	for _, name := range []string{"a", "alice@example.org"} {
		configure(text)
		if status, out, errs := mailstow(t, env, "backup", name, "b"); status != exitOK {
			t.Fatal(status, out, errs)
		}
		service.take()
		configure(strings.Replace(text, "SERVER", "imap+insecure://mail.example.org", 1))
		status, _, errs := mailstow(t, env, "backup", name, "b")
		b, err := os.ReadFile(metrics)
		if got := paths(service.take()); status != exitIncomplete || got != "/a/78" || err != nil || !strings.Contains(string(b), `exit_code{account="a"} 78`) || strings.Contains(string(b), "example.org") {
			t.Errorf("as %s: status %d, pings %s\n%s\n%s", name, status, got, errs, b)
		}
	}
}

// How far a long run has come is told to who asks for it, and in a line now and
// then if that is wished.
func TestProgressIsToldWithoutATerminal(t *testing.T) {
	t.Parallel()
	s := mailtest.Dovecot(t)
	var all [][]byte
	for i := range 40 {
		all = append(all, fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 20_000)))
	}
	fill(t, s, "INBOX", all)
	line := regexp.MustCompile(`(?m)^\[0:0\d\]  alice@127\.0\.0\.1 +\d+\.\d%  \d+ / 40   .*INBOX$`)
	for name, c := range map[string]struct {
		env  [2]string
		ask  bool
		want int // lines, at least
	}{
		"nobody asks":    {[2]string{"MAILSTOW_PROGRESS", "auto"}, false, 0},
		"somebody asks":  {[2]string{"MAILSTOW_PROGRESS", "off"}, true, 1},
		"every so often": {[2]string{"MAILSTOW_PROGRESS", "300ms"}, false, 2},
	} {
		env := home(t, s)
		env[c.env[0]] = c.env[1]
		to := t.TempDir()
		cmd := command(built(t), env, "backup", address("imap+insecure", s.IMAP), "--to", to, "--bwlimit", "400K", "--connections", "1")
		said := &screen{}
		cmd.Stderr = said
		must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		var err error
		for running := true; running; {
			select {
			case err = <-ended:
				running = false
			case <-time.After(200 * time.Millisecond):
				if left, _ := os.ReadDir(to); c.ask && len(left) > 0 { // it is at work
					cmd.Process.Signal(syscall.SIGUSR1)
				}
			}
		}
		got := len(line.FindAllString(said.text.String(), -1))
		if err != nil || got < c.want || c.want == 0 && said.text.Len() > 0 {
			t.Errorf("%s: %v, %d lines\n%s", name, err, got, said.text.String())
		}
	}
}

// In systemd's journal each line has its priority, and a good run is told of.
func TestJournalGetsPriorities(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly())
	env := home(t, s)
	env["JOURNAL_STREAM"] = "8:1234"
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	env["NOTIFY_SOCKET"] = socket
	status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", t.TempDir())
	if status != exitOK || !strings.HasPrefix(out, "<6>alice@127.0.0.1   ok   54 new messages") || errs != "" {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	heard, b := "", make([]byte, 1000)
	for !strings.Contains(heard, "STATUS=done") {
		n, err := conn.Read(b)
		must(t, err)
		heard += string(b[:n]) + "\n"
	}
	if !strings.HasPrefix(heard, "READY=1\nSTATUS=[0:00]  alice@127.0.0.1") {
		t.Errorf("systemd hears %q", heard)
	}
	env["MAILSTOW_CONFIG"] = filepath.Join(env["HOME"], "config.toml")
	write(t, env["MAILSTOW_CONFIG"], fmt.Sprintf("archive = %q\n[defaults]\npassword_command = \"echo %s\"\n[accounts.a]\nserver = %q\n[accounts.b]\nserver = %q\ndaily_download = \"1K\"\n",
		t.TempDir(), s.Password("alice"), address("imap+insecure", s.IMAP), address("imap+insecure", s.IMAP)))
	for _, want := range []string{"<6>b: stopped early; ", "<6>b: what may be read in a day has been read: "} {
		status, out, errs = mailstow(t, env, "backup")
		if status != exitIncomplete || !strings.Contains(out, "<6>a   ok   ") || !strings.Contains(out, want) || strings.Count(out, "<6>") != strings.Count(out, "\n") || strings.Contains(out, "<6>\n") {
			t.Errorf("two accounts: status %d\n%s%s\nwant %s", status, out, errs, want)
		}
	}
	env["MAILSTOW_PASSWORD"], env["MAILSTOW_CONFIG"] = "wrong", os.DevNull
	status, out, errs = mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", t.TempDir())
	if status != exitLogin || !strings.HasPrefix(errs, "<3>mailstow: alice@127.0.0.1: login refused") || strings.Count(errs, "<3>") != strings.Count(errs, "\n") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

// What goes elsewhere has none: JOURNAL_STREAM says which stream is the journal.
func TestPipeGetsNoPriorities(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly())
	dir := t.TempDir()
	var files [2]*os.File
	for i := range files {
		var err error
		files[i], err = os.Create(filepath.Join(dir, fmt.Sprint(i)))
		must(t, err)
		defer files[i].Close()
	}
	for i, journal := range files {
		fi, err := journal.Stat()
		must(t, err)
		st := fi.Sys().(*syscall.Stat_t)
		env := home(t, s)
		env["JOURNAL_STREAM"] = fmt.Sprintf("%d:%d", st.Dev, st.Ino)
		for _, f := range files {
			must(t, f.Truncate(0))
			f.Seek(0, io.SeekStart)
		}
		for _, password := range []string{s.Password("alice"), "wrong"} {
			env["MAILSTOW_PASSWORD"] = password
			Run(t.Context(), Env{Args: []string{"backup", address("imap+insecure", s.IMAP), "-v", "--to", t.TempDir()}, Stdin: strings.NewReader(""), Stdout: files[0], Stderr: files[1], Getenv: func(name string) string { return env[name] }})
		}
		for n, f := range files {
			b, err := os.ReadFile(f.Name())
			must(t, err)
			if got := strings.HasPrefix(string(b), "<"); len(b) == 0 || got != (n == i) {
				t.Errorf("the journal is stream %d; stream %d:\n%s", i+1, n+1, b)
			}
		}
	}
}

// The log has all that happened, and can be read by nobody else.
func TestLogHasEverything(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly())
	env, path := home(t, s), filepath.Join(t.TempDir(), "log")
	for range 2 {
		if status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", t.TempDir(), "--log-file", path); status != exitOK || out+errs != "" {
			t.Errorf("status %d\n%s%s", status, out, errs)
		}
	}
	b, err := os.ReadFile(path)
	must(t, err)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 || len(objects(t, string(b), "message")) != 2*n || len(objects(t, string(b), "summary")) != 2 || strings.Contains(string(b), s.Password("alice")) {
		t.Errorf("%v, %v\n%.2000s", fi, err, b)
	}
}
