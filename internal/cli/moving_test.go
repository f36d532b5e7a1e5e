package cli

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// flagsOf returns the flags of INBOX's messages, by their subjects.
func flagsOf(t *testing.T, s *mailtest.Server) map[string]string {
	t.Helper()
	c := s.Login(t, "alice")
	bodies, err := c.Bodies("INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Command("SELECT INBOX"); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for uid, b := range bodies {
		lines, err := c.Command(fmt.Sprintf("UID FETCH %d (FLAGS)", uid))
		if err != nil || len(lines) == 0 {
			t.Fatal(lines, err)
		}
		_, flags, _ := strings.Cut(lines[0], "FLAGS (")
		flags, _, _ = strings.Cut(flags, ")")
		words := slices.DeleteFunc(strings.Fields(flags), func(f string) bool { return f == `\Recent` })
		slices.Sort(words)
		_, subject, _ := strings.Cut(string(b), "Subject: ")
		subject, _, _ = strings.Cut(subject, "\r\n")
		all[subject] = strings.Join(words, " ")
	}
	return all
}

// store gives the message with a subject flags, or takes some away.
func store(t *testing.T, s *mailtest.Server, subject, flags string) {
	t.Helper()
	bodies, err := s.Login(t, "alice").Bodies("INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for uid, b := range bodies {
		if strings.Contains(string(b), "Subject: "+subject+"\r\n") {
			do(t, s, fmt.Sprintf("UID STORE %d %s", uid, flags))
		}
	}
}

// do gives commands to a mailbox.
func do(t *testing.T, s *mailtest.Server, commands ...string) {
	t.Helper()
	c := s.Login(t, "alice")
	for _, line := range append([]string{"SELECT INBOX"}, commands...) {
		if _, err := c.Command(line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
}

// Flags that change at the source after a message was stored are carried over;
// what changes at the destination stays; \Deleted goes nowhere.
func TestFlagChangesAreCarriedOver(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, to *mailtest.Server) {
		from := mailtest.Dovecot(t)
		fill(t, from, "INBOX", numbered(0, 5))
		do(t, from, `STORE 1:* -FLAGS (\Seen)`)
		store(t, from, "0", `+FLAGS (\Seen \Deleted)`)
		store(t, from, "1", `+FLAGS (\Flagged work)`)
		archive := t.TempDir()
		move := func(more ...string) string {
			t.Helper()
			args := append([]string{"migrate", address("imap+insecure", from.IMAP), address("imap+insecure", to.IMAP), "--to", archive, "-v"}, more...)
			status, out, errs := mailstow(t, moving(t, to), args...)
			if status != exitOK {
				t.Fatal(status, out, errs)
			}
			return out
		}
		want := map[string]string{"0": `\Seen`, "1": `\Flagged work`, "2": "", "3": "", "4": ""}
		move()
		if got := flagsOf(t, to); !maps.Equal(got, want) {
			t.Fatalf("flags are %q, want %q", got, want)
		}
		store(t, from, "1", `-FLAGS (\Flagged)`)
		store(t, from, "2", `+FLAGS (\Answered \Deleted)`)
		store(t, to, "3", `+FLAGS (\Draft)`)
		store(t, to, "0", `-FLAGS (\Seen)`)
		want["3"], want["0"] = `\Draft`, ""
		move()
		if got := flagsOf(t, to); !maps.Equal(got, want) {
			t.Errorf("without --update-flags they are %q, want %q", got, want)
		}
		want["1"], want["2"] = "work", `\Answered`
		for range 2 {
			move("--update-flags")
			if got := flagsOf(t, to); !maps.Equal(got, want) {
				t.Errorf("with it they are %q, want %q", got, want)
			}
		}
	})
}

// While mail is pulled and pushed at once, killed and severed, each message
// comes once.
func TestMoveKilledWhileItRunsDoublesNothing(t *testing.T) {
	source := mailtest.Dovecot(t)
	size, kills := 400, 5
	if os.Getenv("MAILSTOW_TEST_SCALE") != "" {
		size, kills = 20_000, 20
	}
	mail := numbered(0, size)
	for i := range mail {
		mail[i] = append(mail[i], strings.Repeat(fmt.Sprintf("line %d\r\n", i), i%400*10)...)
	}
	mail = append(mail, mail[7], mail[7])
	half := len(mail) / 2
	fill(t, source, "INBOX", mail[:half])
	fill(t, source, "Work", mail[half-50:])
	binary := built(t)
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		t.Parallel() // each run is a process, and waits most of the time
		archive, env := t.TempDir(), moving(t, s)
		pull := mailtest.NewRelay(t, source.IMAP, mailtest.Line{Delay: 10 * time.Millisecond})
		relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Delay: 5 * time.Millisecond})
		args := []string{"migrate", address("imap+insecure", pull.Addr), address("imap+insecure", relay.Addr), "--to", archive, "--json"}
		killed := 0
		for i := range kills {
			cmd := command(binary, env, args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(250+200*(i%5)+rand.N(200+size/4*(i%5))) * time.Millisecond)
			cmd.Process.Kill()
			if cmd.Wait() != nil {
				killed++
			}
		}
		go func() {
			for range 4 {
				time.Sleep(700 * time.Millisecond)
				relay.Sever()
			}
		}()
		if out, err := command(binary, env, args...).CombinedOutput(); err != nil {
			t.Errorf("the last run: %v: %s", err, out)
		}
		for mailbox, want := range map[string][][]byte{"INBOX": mail[:half], s.Prefix() + "Work": mail[half-50:]} {
			if got := served(t, s, mailbox); !maps.Equal(got, retrieved(want)) {
				t.Errorf("%s has %d messages, want each of %d once", mailbox, total(got), len(want))
			}
		}
		if killed == 0 {
			t.Error("no run was killed: the test shows nothing")
		}
	})
}

// Run ends at once when it is interrupted, and the next run waits for what the
// server is still storing.
func TestMoveInterruptedAndRunAgainAtOnce(t *testing.T) {
	t.Parallel()
	a, b := mailtest.Dovecot(t), mailtest.Dovecot(t)
	mail := numbered(0, 60)
	fill(t, a, "INBOX", mail)
	root := t.TempDir()
	if status, out, errs := mailstow(t, home(t, a), "backup", address("imap+insecure", a.IMAP), "--to", root); status != exitOK {
		t.Fatal(out, errs)
	}
	relay := mailtest.NewRelay(t, b.IMAP, mailtest.Line{Delay: 300 * time.Millisecond})
	env, from := moving(t, b), filepath.Join(root, "alice@127.0.0.1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if slices.ContainsFunc(relay.Said(), func(l string) bool { return strings.Contains(l, "APPEND") }) {
				relay.Hasten(0) // what comes after
				cancel()
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	run := func(ctx context.Context) (status int) {
		var out, errs bytes.Buffer
		return Run(ctx, Env{Args: []string{"migrate", from, address("imap+insecure", relay.Addr)}, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(n string) string { return env[n] }})
	}
	if status := run(ctx); status == exitOK {
		t.Error("the first run was not interrupted")
	}
	if status := run(t.Context()); status != exitOK {
		t.Errorf("the second: status %d", status)
	}
	time.Sleep(time.Second)
	if n := total(served(t, b, "INBOX")); n != 60 {
		t.Errorf("%d stored of 60", n)
	}
}

// Moving from an account to itself would store what it has once more.
func TestMoveToItselfIsRefused(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly()[:3])
	env := home(t, s)
	env["MAILSTOW_DESTINATION_PASSWORD"] = s.Password("alice")
	imap := address("imap+insecure", s.IMAP)
	for _, more := range [][]string{{imap}, {strings.Replace(imap, "alice", "Alice", 1)}, {imap, "--under", "Old"}, {imap, "--dry-run"}} {
		status, out, errs := mailstow(t, env, append([]string{"migrate", imap, "--to", t.TempDir()}, more...)...)
		if status != exitConfig || !strings.Contains(errs, "one account") || len(subjects(t, s, "INBOX")) != n {
			t.Errorf("%q: status %d\n%s%s", more, status, out, errs)
		}
	}
	if lines, err := s.Login(t, "alice").Command("LIST \"\" *"); err != nil || strings.Contains(strings.Join(lines, "\n"), "Old") {
		t.Errorf("a mailbox was made: %q, %v", lines, err)
	}
}

// What is counted is what has happened, also where a mailbox is there already.
func TestMoveCountsWhatItStores(t *testing.T) {
	a, b := mailtest.Dovecot(t), mailtest.Dovecot(t)
	fill(t, a, "INBOX", numbered(0, 300))
	relay := mailtest.NewRelay(t, b.IMAP, mailtest.Line{Delay: 15 * time.Millisecond})
	status, out, errs := mailstow(t, moving(t, b), "migrate", address("imap+insecure", a.IMAP), address("imap+insecure", relay.Addr), "--to", t.TempDir(), "--json")
	if o := last(t, out); status != exitOK || o["there_before"] != 0.0 || o["stored"] != 300.0 || o["there"] != 300.0 || o["missing"] != 0.0 {
		t.Errorf("status %d, %v\n%s", status, o, errs)
	}
}

// A dry run of two servers tells what the run does, and touches nothing.
func TestDryRunOfTwoServersIsExact(t *testing.T) {
	a, b := mailtest.Dovecot(t), mailtest.Cyrus(t)
	n := fill(t, a, "INBOX", numbered(0, 20)) + fill(t, a, "Work.2024", numbered(20, 30))
	root := t.TempDir()
	args := func(more ...string) []string {
		return append([]string{"migrate", address("imap+insecure", a.IMAP), address("imap+insecure", b.IMAP), "--to", root, "--json"}, more...)
	}
	status, out, errs := mailstow(t, moving(t, b), args("--dry-run")...)
	plan := last(t, out)
	if entries, _ := os.ReadDir(root); status != exitOK || plan["would_store"] != float64(n) || plan["there"] != 0.0 || len(entries) > 0 || total(served(t, b, "INBOX")) > 0 {
		t.Fatalf("status %d, %v, %d directories\n%s", status, plan, len(entries), errs)
	}
	status, out, errs = mailstow(t, moving(t, b), args()...)
	if o := last(t, out); status != exitOK || o["stored"] != plan["would_store"] || o["bytes_stored"] != plan["would_store_bytes"] {
		t.Errorf("status %d, planned %v, came to %v\n%s", status, plan, o, errs)
	}
	fill(t, a, "INBOX", numbered(50, 3))
	if _, out, _ = mailstow(t, moving(t, b), args("--dry-run")...); last(t, out)["would_store"] != 3.0 || last(t, out)["there"] != float64(n) {
		t.Errorf("the second plan is %v", last(t, out))
	}
	for _, bad := range [][]string{{"--map", "Nowhere=X"}, {"--map", "Work/2024=INBOX"}} {
		if status, _, _ := mailstow(t, moving(t, b), args(append(bad, "--dry-run")...)...); status != exitConfig {
			t.Errorf("%v: status %d", bad, status)
		}
	}
	status, _, errs = mailstow(t, moving(t, b), "migrate", address("imap+insecure", a.IMAP), "imap+insecure://nobody@127.0.0.1:1", "--to", root, "--dry-run")
	if status != exitUnavailable {
		t.Errorf("a server that is not there: status %d, %s", status, errs)
	}
}

// What is restored elsewhere does not keep the rest from being restored.
func TestRestoredElsewhereIsNotRestored(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", numbered(0, 5))
	root, env, url := t.TempDir(), home(t, s), address("imap+insecure", s.IMAP)
	run := func(args ...string) {
		t.Helper()
		if status, out, errs := mailstow(t, env, append(args, "--to", root)...); status != exitOK {
			t.Fatal(args, status, out, errs)
		}
	}
	run("backup", url)
	do(t, s, `STORE 1:* +FLAGS (\Deleted)`, "EXPUNGE")
	run("restore", url, "--under", "Restored")
	if n := total(served(t, s, "Restored.INBOX")); n != 5 {
		t.Errorf("%d in Restored, want 5", n)
	}
	account := filepath.Join(root, "alice@127.0.0.1")
	if status, _, errs := mailstow(t, env, "verify", account, "--against", url); status != exitDamaged || !strings.Contains(errs, "5 messages are missing") {
		t.Errorf("the proof: status %d, %s", status, errs)
	}
	run("restore", url)
	run("restore", url)
	if n := total(served(t, s, "INBOX")); n != 5 {
		t.Errorf("%d in INBOX, want 5", n)
	}
	run("verify", account, "--against", url, "--full")
	fill(t, s, "Restored.INBOX", numbered(100, 1))
	run("backup", url)
	if n := len(kept(t, filepath.Join(account, "INBOX"))); n != 5 {
		t.Errorf("the folder INBOX holds %d, want 5", n)
	}
}

// The proof names what is missing, and the report holds it in each form.
func TestProofNamesWhatIsMissing(t *testing.T) {
	from, to := mailtest.Dovecot(t), mailtest.Courier(t)
	mail := numbered(0, 20)
	mail[4] = []byte("From: =cmd@example.org\r\nSubject: =1+1\r\nMessage-ID: <4@x>\r\n\r\nx\r\n")
	fill(t, from, "INBOX", mail)
	root, report := t.TempDir(), filepath.Join(t.TempDir(), "proof")
	if status, out, errs := mailstow(t, moving(t, to), "migrate", address("imap+insecure", from.IMAP), address("imap+insecure", to.IMAP), "--to", root, "--report", report); status != exitOK {
		t.Fatal(out, errs)
	}
	account := filepath.Join(root, "alice@127.0.0.1")
	verify := func(more ...string) (int, string, string) {
		return mailstow(t, home(t, to), append([]string{"verify", account, "--against", address("imap+insecure", to.IMAP), "--report", report}, more...)...)
	}
	if status, out, errs := verify("--full"); status != exitOK || !strings.Contains(out, "20 octet by octet") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	bodies, err := to.Login(t, "alice").Bodies("INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for uid, b := range bodies {
		if bytes.Contains(b, []byte("<4@x>")) {
			do(t, to, fmt.Sprintf(`UID STORE %d +FLAGS (\Deleted)`, uid), "EXPUNGE")
		}
	}
	status, out, errs := verify("--json")
	if o := last(t, out); status != exitDamaged || o["missing"] != 1.0 || o["result"] != "incomplete" {
		t.Errorf("status %d, %v\n%s", status, o, errs)
	}
	text, err := os.ReadFile(filepath.Join(report, "missing.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 2 || rows[1][1] != "INBOX" || rows[1][2] != "missing" || rows[1][5] != "'=1+1" || !strings.Contains(rows[1][6], "4@x") {
		t.Errorf("missing.csv: %q, %v", rows, err)
	}
	if _, err := os.Stat(filepath.Join(account, rows[1][9])); err != nil {
		t.Errorf("the file that it names: %v", err)
	}
	var proof struct {
		Accounts []struct {
			Missing  int
			Messages []struct{ Subject, State string }
		}
	}
	b, _ := os.ReadFile(filepath.Join(report, "proof.json"))
	if err := json.Unmarshal(b, &proof); err != nil || proof.Accounts[0].Missing != 1 || proof.Accounts[0].Messages[0].Subject != "=1+1" {
		t.Errorf("proof.json: %s, %v", b, err)
	}
	for _, name := range []string{"summary.txt", "folders.csv", "accounts.csv"} {
		if b, err := os.ReadFile(filepath.Join(report, name)); err != nil || !strings.Contains(string(b), "INBOX") && name != "accounts.csv" {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
}

// What a strict server refuses is repaired, or named; the archive keeps what
// came.
func TestStrictServersGetRepairedMail(t *testing.T) {
	to := mailtest.Cyrus(t)
	dir := t.TempDir()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "INBOX", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range []string{"Subject: ok\n\nx\n", "From a@b Mon Jan  1\nSubject: mbox\n\nx\n", "Subject: nul\n\nx\x00y\n", "Subject: odd\nno colon here\nTo: a@b\n\nx\n", ""} {
		write(t, filepath.Join(dir, "INBOX", "cur", fmt.Sprintf("%d.host:2,", i+1)), text)
	}
	before := kept(t, filepath.Join(dir, "INBOX"))
	run := func(more ...string) map[string]any {
		t.Helper()
		status, out, errs := mailstow(t, moving(t, to), append([]string{"migrate", dir, address("imap+insecure", to.IMAP), "--json"}, more...)...)
		o := last(t, out)
		if (status == exitOK) != (o["missing"] == 0.0) {
			t.Errorf("status %d, %v\n%s", status, o, errs)
		}
		return o
	}
	without := run("--no-repair")
	refused := without["missing"].(float64)
	if refused < 3 || without["stored"] != 5-refused || without["altered"] != 0.0 {
		t.Errorf("without repairs: %v", without)
	}
	if o := run(); o["stored"] != refused || o["altered"] != refused || o["missing"] != 0.0 {
		t.Errorf("with repairs: %v", o)
	}
	if o := run(); o["stored"] != 0.0 || o["there"] != 5.0 {
		t.Errorf("again: %v", o)
	}
	if !maps.Equal(kept(t, filepath.Join(dir, "INBOX")), before) {
		t.Error("the archive has changed")
	}
	status, out, errs := mailstow(t, home(t, to), "verify", dir, "--against", address("imap+insecure", to.IMAP), "--full")
	if status != exitOK || !strings.Contains(out, "5 octet by octet") {
		t.Errorf("the proof: status %d\n%s%s", status, out, errs)
	}
	write(t, filepath.Join(dir, "INBOX", "cur", "9.host:2,"), "Subject: new\n\nx\n") // which the server does not have
	if status, _, errs := mailstow(t, home(t, to), "verify", dir, "--against", address("imap+insecure", to.IMAP)); status != exitDamaged || !strings.Contains(errs, "not compared") {
		t.Errorf("a file that was not compared: status %d, %s", status, errs)
	}
}

// A list is read whole before anything begins; one account that fails does not
// hold up the others.
func TestPairsAreMoved(t *testing.T) {
	from, to := mailtest.Dovecot(t), mailtest.Cyrus(t)
	for i, user := range []string{"alice", "bob", "carol"} {
		for _, m := range numbered(100*i, 10+i) {
			if err := from.Append(user, "INBOX", m, arrived); err != nil {
				t.Fatal(err)
			}
		}
	}
	root, list := t.TempDir(), filepath.Join(t.TempDir(), "users.csv")
	url := func(user, addr string) string { return "imap+insecure://" + user + "@" + addr }
	env := home(t, to)
	env["CAROL"] = "carol-secret"
	run := func(command string, more ...string) (int, string, string) {
		return mailstow(t, env, append([]string{command, "--pairs", list, "--to", root}, more...)...)
	}
	write(t, list, "source;source_password;destination;destination_pasword\n"+
		"nonsense;x;imap+insecure://a@127.0.0.1;y\n"+"imap+insecure://a@mail.example.org;x;pop3s://a@mail.example.org;y\n")
	status, _, errs := run("migrate")
	for _, want := range []string{"nothing was begun", "line 1", "did you mean destination_password"} {
		if status != exitConfig || !strings.Contains(errs, want) {
			t.Errorf("a bad list: status %d, %s; want %s", status, errs, want)
		}
	}
	write(t, list, "\ufeff# who moves\nsource,source_password,destination,destination_password,options\n"+
		url("alice", from.IMAP)+",alice-secret,"+url("alice", to.IMAP)+",cmd:echo alice-secret,\n"+
		url("bob", from.IMAP)+",bob-secret,"+url("bob", to.IMAP)+",wrong,\n"+
		url("carol", from.IMAP)+",env:CAROL,"+url("carol", to.IMAP)+",carol-secret,under=Old\n")
	if status, _, errs := run("status"); status != exitIncomplete {
		t.Errorf("before: status %d, %s", status, errs)
	}
	status, out, errs := run("check")
	if status != exitIncomplete || !strings.Contains(out, "Ready: 2. With remarks: 0. Blocked: 1.") || !strings.Contains(out, "destination password") {
		t.Errorf("check: status %d\n%s%s", status, out, errs)
	}
	report := filepath.Join(root, "proof")
	status, out, errs = run("migrate", "--report", report)
	if status != exitIncomplete || !strings.Contains(out, "2 ok, 1 failed") || !strings.Contains(errs, "login refused") {
		t.Errorf("migrate: status %d\n%s%s", status, out, errs)
	}
	for user, mailbox := range map[string]string{"alice": "INBOX", "carol": "INBOX.Old.INBOX"} {
		want := map[string]int{"alice": 10, "carol": 12}[user]
		if bodies, err := to.Login(t, user).Bodies(mailbox); err != nil || len(bodies) != want {
			t.Errorf("%s has %d in %s, want %d: %v", user, len(bodies), mailbox, want, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(report, "accounts.csv")); err != nil || strings.Count(string(b), "\n") != 4 {
		t.Errorf("accounts.csv: %s, %v", b, err)
	}
	text, _ := os.ReadFile(list)
	write(t, list, strings.Replace(string(text), ",wrong,", ",bob-secret,", 1))
	status, out, errs = run("migrate", "--json")
	if o := last(t, out); status != exitOK || o["ok"] != 3.0 || o["missing"] != 0.0 {
		t.Errorf("again: status %d, %v\n%s", status, o, errs)
	}
	status, out, errs = run("verify", "--full", "--report", report)
	if status != exitOK || strings.Count(out, "octet by octet") != 3 || !strings.Contains(out, "3 ok") {
		t.Errorf("verify: status %d\n%s%s", status, out, errs)
	}
	if status, out, _ := run("status"); status != exitOK || !strings.Contains(out, "3 done") || !strings.Contains(out, "33 / 33") {
		t.Errorf("status: %d\n%s", status, out)
	}
}

// One login opens every mailbox: a list with defaults, and a master user.
func TestPairsWithOneLoginForAll(t *testing.T) {
	from := mailtest.Dovecot(t, "passdb {\n  driver = static\n  args = password=admin-secret\n  master = yes\n}")
	to := mailtest.Dovecot(t)
	want := map[string]int{"alice": 7, "bob": 5}
	for user, n := range want {
		for _, m := range numbered(0, n) {
			if err := from.Append(user, "INBOX", m, arrived); err != nil {
				t.Fatal(err)
			}
		}
	}
	list := filepath.Join(t.TempDir(), "users.toml")
	write(t, list, fmt.Sprintf(`[source]
server = "imap+insecure://%s"
auth_user = "admin"
password_command = "echo admin-secret"
[destination]
server = "imap+insecure://%s"
[[pair]]
source = "alice"
destination = "alice"
destination_password = "alice-secret"
[[pair]]
source = "bob"
destination = "bob"
destination_password = "cmd:echo bob-secret"
`, from.IMAP, to.IMAP))
	if status, out, errs := mailstow(t, home(t, to), "migrate", "--pairs", list, "--to", t.TempDir()); status != exitOK {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	for user, n := range want {
		if bodies, err := to.Login(t, user).Bodies("INBOX"); err != nil || len(bodies) != n {
			t.Errorf("%s has %d messages, want %d: %v", user, len(bodies), n, err)
		}
	}
}

// So much a day, kept across runs, and never more.
func TestDailyUploadIsKeptAcrossRuns(t *testing.T) {
	a, b := mailtest.Dovecot(t), mailtest.Dovecot(t)
	fill(t, a, "INBOX", numbered(0, 10))
	root := t.TempDir()
	if status, out, errs := mailstow(t, home(t, a), "backup", address("imap+insecure", a.IMAP), "--to", root); status != exitOK {
		t.Fatal(out, errs)
	}
	from, cfg, env := filepath.Join(root, "alice@127.0.0.1"), filepath.Join(t.TempDir(), "c.toml"), moving(t, b)
	write(t, cfg, "[accounts.new]\nserver = \""+address("imap+insecure", b.IMAP)+"\"\ndaily_upload = \"100\"\n")
	env["MAILSTOW_CONFIG"] = cfg
	var stored []int
	for range 3 {
		status, _, errs := mailstow(t, env, "migrate", from, "new", "--to", root, "-v")
		if status != exitLater || !strings.Contains(errs, "stopped early") {
			t.Errorf("status %d, %s", status, errs)
		}
		stored = append(stored, total(served(t, b, "INBOX")))
	}
	if stored[0] == 0 || stored[0] > 5 || stored[2] > 5 {
		t.Errorf("stored %v", stored)
	}
	if status, out, errs := mailstow(t, env, "migrate", from, "new", "--to", root, "--dry-run"); status != exitOK || !strings.Contains(out, "would store") {
		t.Errorf("the plan: status %d, %s%s", status, out, errs)
	}
}

// The config file may say where folders go, and the command line otherwise.
func TestConfigSaysWhereFoldersGo(t *testing.T) {
	a, b := mailtest.Dovecot(t), mailtest.Dovecot(t)
	fill(t, a, "INBOX", numbered(0, 2))
	fill(t, a, "Work", numbered(2, 2))
	fill(t, a, "Rest", numbered(4, 2))
	root := t.TempDir()
	if status, out, errs := mailstow(t, home(t, a), "backup", address("imap+insecure", a.IMAP), "--to", root); status != exitOK {
		t.Fatal(out, errs)
	}
	from, cfg, env := filepath.Join(root, "alice@127.0.0.1"), filepath.Join(t.TempDir(), "c.toml"), moving(t, b)
	write(t, cfg, "[accounts.new]\nserver = \""+address("imap+insecure", b.IMAP)+"\"\nunder = \"Old\"\nautomap = false\n[accounts.new.map]\nWork = \"Jobs\"\nINBOX = \"Inbox of then\"\n")
	env["MAILSTOW_CONFIG"] = cfg
	if status, out, errs := mailstow(t, env, "migrate", from, "new", "--to", root, "--map", "INBOX=Other"); status != exitOK {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	for _, name := range []string{"Jobs", "Other", "Old.Rest"} {
		if got := total(served(t, b, name)); got != 2 {
			t.Errorf("%d messages in %s, want 2", got, name)
		}
	}
}

// A name that a server refuses is changed, always in the same way; the second
// run finds what the first has stored.
func TestNamesThatAreRefusedAreChanged(t *testing.T) {
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		dir := t.TempDir()
		names := []string{"INBOX", `a%b{c}"d`, "~home", "x^y", "Dr. Jones", strings.Repeat("L", 150), "100 %"}
		for i, name := range names {
			for _, sub := range []string{"cur", "new", "tmp"} {
				if err := os.MkdirAll(filepath.Join(dir, name, sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			write(t, filepath.Join(dir, name, "cur", "1.host:2,"), fmt.Sprintf("Subject: %d\n\nx\n", i))
		}
		for round, want := range []float64{7, 0, 0} {
			if round == 2 { // what was noted
				if err := os.RemoveAll(filepath.Join(dir, ".mailstow")); err != nil {
					t.Fatal(err)
				}
			}
			status, out, errs := mailstow(t, moving(t, s), "migrate", dir, address("imap+insecure", s.IMAP), "--json")
			if o := last(t, out); status != exitOK || o["stored"] != want || o["there"] != 7.0 {
				t.Errorf("round %d: status %d, %v\n%s", round, status, o, errs)
			}
		}
		if entries, _ := os.ReadDir(dir); len(entries) != len(names)+1 {
			t.Errorf("the archive has %d directories, want %d and the index", len(entries), len(names))
		}
	})
}

// Maildirs of one name belong to different people; Maildirs in a Maildir are
// taken along.
func TestMaildirsOfTwoPeopleStayApart(t *testing.T) {
	s, root, homes := mailtest.Dovecot(t), t.TempDir(), t.TempDir()
	for person, folders := range map[string][]string{"anna": {"", ".Sent", "Work/2024"}, "bob": {""}} {
		for _, f := range folders {
			for _, sub := range []string{"cur", "new", "tmp"} {
				if err := os.MkdirAll(filepath.Join(homes, person, "Maildir", f, sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			write(t, filepath.Join(homes, person, "Maildir", f, "cur", "1.host:2,"), "Subject: "+person+" "+f+"\n\nx\n")
		}
	}
	for _, person := range []string{"anna", "bob"} {
		for range 2 {
			status, out, errs := mailstow(t, moving(t, s), "migrate", filepath.Join(homes, person, "Maildir"), address("imap+insecure", s.IMAP), "--to", root, "--under", person, "-v")
			if want := map[string]string{"anna": "3 of 3", "bob": "1 of 1"}[person]; status != exitOK || !strings.Contains(out, want) {
				t.Errorf("%s: status %d\n%s%s", person, status, out, errs)
			}
		}
	}
	for mailbox, want := range map[string]int{"anna.INBOX": 1, "anna.Sent": 1, "anna.Work.2024": 1, "bob.INBOX": 1} {
		if n := total(served(t, s, mailbox)); n != want {
			t.Errorf("%s has %d messages, want %d", mailbox, n, want)
		}
	}
}

// No error shows a password that stands where it should not.
func TestPasswordsInListsAreNotShown(t *testing.T) {
	for name, c := range map[string][2]string{
		"a list of imapsync": {"l.csv", "old.example;alice;sekrit-1;new.example;alice;sekrit-2;\n"},
		"a bad URL":          {"l.csv", "source,destination\nimaps://me:sekrit%1@old.example,imaps://me@new.example\n"},
		"a password in one":  {"l.csv", "source,destination\nimaps://me:sekrit@old.example,imaps://me@new.example\n"},
		"a slipped cell":     {"l.csv", "source,destination,options\nimaps://me@old.example,imaps://me@new.example,sekrit sek=rit sekrit=x\n"},
	} {
		list := filepath.Join(t.TempDir(), c[0])
		write(t, list, c[1])
		for _, more := range [][]string{nil, {"--json"}} {
			status, out, errs := mailstow(t, map[string]string{"HOME": t.TempDir()}, append([]string{"migrate", "--pairs", list}, more...)...)
			if status != exitConfig || strings.Contains(out+errs, "sekrit") {
				t.Errorf("%s: status %d\n%s%s", name, status, out, errs)
			}
		}
	}
	if status, out, errs := mailstow(t, map[string]string{"HOME": t.TempDir()}, "backup", "imaps://me:sekrit%1@old.example"); status != exitConfig || strings.Contains(out+errs, "sekrit") {
		t.Errorf("backup: status %d\n%s%s", status, out, errs)
	}
}

// What a report says is what the exit status says: of a source that fails, and
// of an archive that is damaged.
func TestReportsTellTheTruth(t *testing.T) {
	from, to := mailtest.Dovecot(t), mailtest.Dovecot(t)
	fill(t, from, "INBOX", numbered(0, 5))
	root, list, report := t.TempDir(), filepath.Join(t.TempDir(), "l.csv"), filepath.Join(t.TempDir(), "r")
	line := "source,source_password,destination,destination_password\n" + address("imap+insecure", from.IMAP) + ",PASSWORD," + address("imap+insecure", to.IMAP) + ",alice-secret\n"
	run := func(command, password string, more ...string) (int, string) {
		write(t, list, strings.Replace(line, "PASSWORD", password, 1))
		status, out, errs := mailstow(t, home(t, to), append([]string{command, "--pairs", list, "--to", root}, more...)...)
		return status, out + errs
	}
	accounts := func() string {
		b, err := os.ReadFile(filepath.Join(report, "accounts.csv"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if status, said := run("migrate", "alice-secret", "--report", report); status != exitOK || !strings.HasSuffix(accounts(), ",ok") {
		t.Errorf("status %d, %s\n%s", status, accounts(), said)
	}
	fill(t, from, "INBOX", numbered(5, 5))
	if status, said := run("migrate", "wrong", "--report", report); status != exitLogin || !strings.HasSuffix(accounts(), ",failed") {
		t.Errorf("the source fails: status %d, %s\n%s", status, accounts(), said)
	}
	if status, said := run("status", "alice-secret"); status != exitIncomplete || !strings.Contains(said, "login refused") {
		t.Errorf("status: %d, %s", status, said)
	}
	if status, said := run("status", "alice-secret", "--json"); status != exitIncomplete || !strings.Contains(said, `"result":"incomplete"`) {
		t.Errorf("status --json: %d, %s", status, said)
	}
	account := filepath.Join(root, "alice@127.0.0.1")
	files := messageFiles(t, account)
	write(t, files[0], "Subject: changed\r\n\r\nx\r\n")
	for _, args := range [][]string{{"verify", "--pairs", list, "--to", root}, {"verify", account, "--against", address("imap+insecure", to.IMAP)}} {
		status, out, errs := mailstow(t, home(t, to), append(args, "--report", report)...)
		if status != exitDamaged || !strings.HasSuffix(accounts(), ",failed") || !strings.Contains(errs, "damaged") {
			t.Errorf("%v: status %d, %s\n%s%s", args, status, accounts(), out, errs)
		}
	}
}

func TestCheckTellsWhatABackupWouldPull(t *testing.T) {
	t.Parallel()
	mailtest.Each(t, func(t *testing.T, s *mailtest.Server) {
		n := fill(t, s, "INBOX", numbered(0, 12))
		root := t.TempDir()
		status, out, errs := mailstow(t, home(t, s), "check", address("imap+insecure", s.IMAP), "--to", root)
		if entries, _ := os.ReadDir(root); status != exitOK || !strings.Contains(out, fmt.Sprintf("%d", n)) || len(entries) > 0 {
			t.Errorf("status %d, %d directories\n%s%s", status, len(entries), out, errs)
		}
		if !strings.Contains(out, fmt.Sprintf("a backup would pull %d messages", n)) || !strings.Contains(out, "disk ") || !strings.Contains(out, "password from MAILSTOW_PASSWORD") {
			t.Errorf("it is told:\n%s", out)
		}
		env := home(t, s)
		status, out, errs = mailstow(t, env, "check", address("imap+insecure", s.IMAP), "--to", root, "--json")
		if k := objects(t, out, "check"); status != exitOK || len(k) != 1 || k[0]["new"] != float64(n) || k[0]["in_archive"] != 0.0 || k[0]["protocol"] != "imap" || len(k[0]["offers"].([]any)) == 0 {
			t.Errorf("status %d\n%s%s", status, out, errs)
		}
		put(t, s, "INBOX", time.Now().Add(-time.Minute), "", "new")
		for _, step := range []struct {
			do   string
			want []string
		}{
			{"", []string{", 2023-03-14 to today", "archive   0 messages; a backup would pull 13 messages"}},
			{"backup", []string{", 2023-03-14 to today", "archive   13 messages; nothing is missing; not verified yet: mailstow verify\n"}},
			{"verify --quick", []string{"not verified yet"}},
			{"verify", []string{"nothing is missing; just verified\n"}},
		} {
			if step.do != "" {
				args := append(strings.Fields(step.do), address("imap+insecure", s.IMAP), "--to", root)
				if strings.HasPrefix(step.do, "verify") {
					args = append(strings.Fields(step.do), root)
				}
				if status, out, errs := mailstow(t, env, args...); status != exitOK {
					t.Fatalf("%q: status %d\n%s%s", args, status, out, errs)
				}
			}
			_, out, _ := mailstow(t, env, "check", address("imap+insecure", s.IMAP), "--to", root)
			for _, want := range step.want {
				if !strings.Contains(out, want) {
					t.Errorf("after %q it is not told that %q:\n%s", step.do, want, out)
				}
			}
		}
		files, err := filepath.Glob(filepath.Join(env["HOME"], ".local/state/mailstow/verified/*"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		write(t, files[0], time.Now().AddDate(0, 0, -12).UTC().Format(time.RFC3339)+" x\n")
		if _, out, _ := mailstow(t, env, "check", address("imap+insecure", s.IMAP), "--to", root); !strings.Contains(out, "last verified 12 d ago\n") {
			t.Errorf("it is told:\n%s", out)
		}
		env["MAILSTOW_PASSWORD"] = "wrong"
		if status, out, errs := mailstow(t, env, "check", address("imap+insecure", s.IMAP), "--to", root, "--json"); status != exitLogin || last(t, out)["failed"] != 1.0 {
			t.Errorf("a wrong password: status %d\n%s%s", status, out, errs)
		}
	})
}

// A real quota: nothing moves if there is no room; with --ignore-quota what
// fits is stored, and the rest is named.
func TestNoRoomIsSaidBeforeAnythingMoves(t *testing.T) {
	from := mailtest.Dovecot(t)
	to := mailtest.Dovecot(t, "mail_plugins = quota", "protocol imap {\n  mail_plugins = quota imap_quota\n}", "plugin {\n  quota = count:User\n  quota_rule = *:storage=64K\n  quota_vsizes = yes\n}")
	mail := numbered(0, 40)
	for i := range mail {
		mail[i] = append(mail[i], strings.Repeat("x\r\n", 1000)...)
	}
	fill(t, from, "INBOX", mail)
	root := t.TempDir()
	run := func(more ...string) (int, map[string]any, string) {
		args := append([]string{"migrate", address("imap+insecure", from.IMAP), address("imap+insecure", to.IMAP), "--to", root, "--json"}, more...)
		status, out, errs := mailstow(t, moving(t, to), args...)
		return status, last(t, out), out + errs
	}
	for _, more := range [][]string{{"--dry-run"}, nil} {
		status, o, said := run(more...)
		if status != exitIncomplete || o["reason"] != "no_room" || o["missing"] != 40.0 || !strings.Contains(said, "nothing was stored") || total(served(t, to, "INBOX")) != 0 {
			t.Errorf("%v: status %d, %v\n%s", more, status, o, said)
		}
	}
	status, o, said := run("--ignore-quota")
	if n := total(served(t, to, "INBOX")); status != exitIncomplete || o["reason"] != "no_room" || n == 0 || o["missing"] != float64(40-n) || o["there"] != float64(n) {
		t.Errorf("--ignore-quota: status %d, %d stored, %v\n%s", status, n, o, said)
	}
	status, out, errs := mailstow(t, moving(t, to), "migrate", filepath.Join(root, "alice@127.0.0.1"), address("imap+insecure", to.IMAP), "--dry-run", "--max-size", "1K")
	if status != exitOK {
		t.Errorf("what is small has room: status %d\n%s%s", status, out, errs)
	}
}
