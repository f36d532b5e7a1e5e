package cli

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// fakeIMAP is an IMAP server with one mailbox, that answers to some commands in
// its own way: by what is in them, with TAG for the tag.
func fakeIMAP(t *testing.T, messages int, answers map[string]string) (addr string) {
	return mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1] hi\r\n", func(line string) string {
		tag, command, _ := strings.Cut(line, " ")
		answer := "TAG OK done\r\n"
		switch {
		case strings.HasPrefix(command, "LOGIN"):
			answer = "TAG OK [CAPABILITY IMAP4rev1 ID UIDPLUS] in\r\n"
		case strings.HasPrefix(command, "LIST"):
			answer = "* LIST (\\HasNoChildren) \"/\" INBOX\r\nTAG OK done\r\n"
		case strings.HasPrefix(command, "EXAMINE"), strings.HasPrefix(command, "SELECT"):
			answer = fmt.Sprintf("* %d EXISTS\r\n* OK [UIDVALIDITY 1699] v\r\n* OK [UIDNEXT %d] n\r\nTAG OK [READ-ONLY] in\r\n", messages, messages+1)
		case strings.Contains(command, "FETCH") && !strings.Contains(command, "BODY"):
			answer = ""
			for n := 1; n <= messages; n++ {
				answer += fmt.Sprintf("* %d FETCH (UID %d FLAGS (\\Seen) INTERNALDATE \"01-Jan-2020 00:00:00 +0000\" RFC822.SIZE 18)\r\n", n, n)
			}
			answer += "TAG OK done\r\n"
		}
		for part, own := range answers {
			if strings.Contains(command, part) {
				answer = own
			}
		}
		return strings.ReplaceAll(answer, "TAG", tag)
	})
}

// What goes wrong most often, as a person reads it: what has happened, in the
// server's words, and what to do.
func TestMessagesSayWhatToDo(t *testing.T) {
	when := regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d [+-]\d\d:\d\d`)
	for name, c := range map[string]struct {
		addr   func(t *testing.T) string
		config string // of the account
		args   []string
		status int
		want   string
	}{
		"the provider's daily limit": {
			addr: func(t *testing.T) string {
				return fakeIMAP(t, 3, map[string]string{"BODY.PEEK[]": "TAG NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)\r\n"})
			},
			config: "provider = \"gmail\"\ntimeout = \"300ms\"", args: []string{"backup", "mine", "-v"}, status: exitLater,
			want: "mailstow: mine: Gmail's daily limit is reached; 3 messages to go\n  server: NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)\n  do:     nothing; the next run after TIME goes on. Lower daily_download to avoid the lock-out\n",
		},
		"the server lists less than it has": {
			addr: func(t *testing.T) string {
				return fakeIMAP(t, 4028, map[string]string{"FETCH": "TAG OK done\r\n"})
			},
			args: []string{"backup", "mine"}, status: exitIncomplete,
			want: "mailstow: mine: 4,028 of 4,028 messages are missing from the archive\n  folder:  INBOX has 4,028 messages but the server listed 0; it does not count as done\n  do:     nothing now, it is tried again on every run\n",
		},
		"terminal escapes and bidi": {
			addr: func(t *testing.T) string {
				return refusing(t, "NO \x1b[2J\x1b]0;owned\x07 \u202egnihtyreve\u202c go away")
			},
			args: []string{"backup", "mine"}, status: exitLogin,
			want: "mailstow: mine: login refused by ADDR for user \"alice\"\n  server: NO \\x1b[2J\\x1b]0;owned\\x07 \\u202egnihtyreve\\u202c go away\n  do:     check what MAILSTOW_PASSWORD_MINE gives; some servers want the whole address as the name\n",
		},
		"a key that there is not": {
			addr: func(t *testing.T) string { return "127.0.0.1:1" }, config: "pasword_command = \"x\"", args: []string{"backup", "mine"}, status: exitConfig,
			want: "mailstow: CONFIG:4: there is no key \"pasword_command\" in [accounts.mine]\n  do:     did you mean password_command?\n",
		},
		"nobody answers": {
			addr: func(t *testing.T) string { return "127.0.0.1:1" }, args: []string{"backup", "mine"}, status: exitUnavailable,
			want: "mailstow: mine: ADDR cannot be reached: connection refused\n  do:     check name and port, or run it again later\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr, dir := c.addr(t), t.TempDir()
			file := filepath.Join(dir, "config.toml")
			write(t, file, fmt.Sprintf("archive = %q\n[accounts.mine]\nserver = \"imap+insecure://alice@%s\"\n%s\n", dir, addr, c.config))
			status, out, errs := mailstow(t, map[string]string{"HOME": dir, "MAILSTOW_CONFIG": file, "MAILSTOW_PASSWORD_MINE": "x"}, c.args...)
			got := when.ReplaceAllString(strings.NewReplacer(addr, "ADDR", file, "CONFIG").Replace(errs), "TIME")
			if i := strings.Index(got, "mailstow: mine: Gmail's"); i > 0 { // the waiting is told before
				got = got[i:]
			}
			if status != c.status || got != c.want {
				t.Errorf("status %d, want %d\n%s%s\nwant\n%s", status, c.status, out, got, c.want)
			}
		})
	}
}

// showing is a server over TLS that lets nobody in, and counts who asks. It shows a
// certificate for names that is good until a time, which is also the CA in a file.
func showing(t *testing.T, until time.Time, names ...string) (addr, ca string, der []byte, asked *atomic.Int32) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, DNSNames: names, NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	der, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	asked = &atomic.Int32{}
	addr = mailtest.Serve(t, func(raw net.Conn) {
		asked.Add(1)
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1] hi\r\n")
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			tag, _, _ := strings.Cut(lines.Text(), " ")
			io.WriteString(conn, tag+" NO [AUTHENTICATIONFAILED] no\r\n")
		}
	})
	ca = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return addr, ca, der, asked
}

// The server is another name's: the right one is tried, and told.
func TestCertificateOfAnotherNameIsExplained(t *testing.T) {
	addr, ca, der, _ := showing(t, time.Now().Add(time.Hour), "localhost")
	dir := t.TempDir()
	status, out, errs := mailstow(t, map[string]string{"HOME": dir, "MAILSTOW_CONFIG": os.DevNull, "MAILSTOW_PASSWORD": "x"}, "backup", "imaps://alice@"+addr, "--to", dir, "--tls-ca", ca)
	_, port, _ := strings.Cut(addr, ":")
	want := "mailstow: alice@127.0.0.1: 127.0.0.1 showed a certificate for localhost\n  why:    the provider hosts your domain; the name you use is not in its certificate.\n  do:     if that is your provider: server = \"imaps://localhost:" + port + "\"      (that name was tried and its certificate is valid)\n"
	if status != exitUnavailable || errs != want {
		t.Errorf("status %d\n%s%s\nwant\n%s", status, out, errs, want)
	}
	// One that is trusted by its digest needs no name and no CA.
	sum := sha256.Sum256(der)
	for pin, want := range map[string]string{
		fmt.Sprintf("%X", sum):               "login refused",
		fmt.Sprintf("sha256:%x", sum):        "login refused",
		"sha256:" + strings.Repeat("00", 32): "shows another certificate than the one of tls_fingerprint\n  why:    it shows sha256:" + fmt.Sprintf("%x", sum),
		"abc":                                "is no SHA-256",
	} {
		status, out, errs := mailstow(t, map[string]string{"HOME": dir, "MAILSTOW_CONFIG": os.DevNull, "MAILSTOW_PASSWORD": "x"}, "backup", "imaps://alice@"+addr, "--to", dir, "--tls-fingerprint", pin)
		if status == exitOK || !strings.Contains(errs, want) {
			t.Errorf("%s: status %d\n%s%s", pin, status, out, errs)
		}
	}
}

// Nor is one taken that nobody has signed, or that has ended.
func TestCertificateThatCannotBeTrustedIsExplained(t *testing.T) {
	env := map[string]string{"HOME": t.TempDir(), "MAILSTOW_CONFIG": os.DevNull, "MAILSTOW_PASSWORD": "x"}
	_, good, _, _ := showing(t, time.Now().Add(time.Hour), "localhost")
	for want, c := range map[string]struct {
		until time.Time
		ca    string // "" for its own
	}{
		"the server's certificate cannot be trusted\n  why:    nobody whom this machine trusts has signed it\n  do:     if the server is your own: --tls-ca FILE, or tls_fingerprint in the config file; if not, somebody may stand between\n": {time.Now().Add(time.Hour), good},
		"the server's certificate has expired, on 2020-02-03\n  do:     tell whoever runs the server; see that this machine's clock is right\n":                                                                                                {time.Date(2020, 2, 3, 12, 0, 0, 0, time.UTC), ""},
	} {
		addr, ca, _, _ := showing(t, c.until, "localhost")
		_, port, _ := strings.Cut(addr, ":")
		status, out, errs := mailstow(t, env, "check", "imaps://alice@localhost:"+port, "--to", t.TempDir(), "--tls-ca", first(c.ca, ca))
		if status != exitUnavailable || errs != "mailstow: alice@localhost: "+want {
			t.Errorf("status %d\n%s%s\nwant\n%s", status, out, errs, want)
		}
	}
}

// Whoever made a certificate may have put any names into it: mailstow does not ask
// them all.
func TestManyNamesInACertificateAreNotAllTried(t *testing.T) {
	var names []string
	for n := range 50 { // all of them this machine
		name := []byte("localhost")
		for i := range name {
			if n>>i&1 == 1 {
				name[i] -= 'a' - 'A'
			}
		}
		names = append(names, string(name))
	}
	addr, _, _, asked := showing(t, time.Now().Add(time.Hour), names...)
	dir := t.TempDir()
	status, out, errs := mailstow(t, map[string]string{"HOME": dir, "MAILSTOW_CONFIG": os.DevNull, "MAILSTOW_PASSWORD": "x"}, "check", "imaps://alice@"+addr, "--to", dir)
	if n := asked.Load(); status != exitUnavailable || !strings.Contains(errs, "use the provider's own name") || n > 3 {
		t.Errorf("status %d, %d connections\n%s%s", status, n, out, errs)
	}
}

// Outlook.com lets one in over IPv6, and then does not serve the mailbox.
func TestServerThatServesOverIPv4AloneIsReachedSo(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly())
	_, port, _ := strings.Cut(s.IMAP, ":")
	ln, err := net.Listen("tcp6", "[::1]:"+port)
	if addrs, _ := net.LookupHost("localhost"); err != nil || !slices.Contains(addrs, "::1") {
		t.Skip("there is no IPv6 here")
	}
	defer ln.Close()
	var asked atomic.Int32
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			go func() {
				defer conn.Close()
				io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1] hi\r\n")
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					tag, command, _ := strings.Cut(lines.Text(), " ")
					answer := " BAD User is authenticated but not connected.\r\n"
					if strings.HasPrefix(command, "LOGIN") {
						answer = " OK [CAPABILITY IMAP4rev1] in\r\n"
					}
					io.WriteString(conn, tag+answer)
				}
			}()
		}
	}()
	root := t.TempDir()
	status, out, errs := mailstow(t, home(t, s), "backup", "imap+insecure://alice@localhost:"+port, "--to", root)
	if status != exitOK || asked.Load() == 0 || len(messageFiles(t, filepath.Join(root, "alice@localhost"))) != n {
		t.Errorf("status %d, asked %d times\n%s%s", status, asked.Load(), out, errs)
	}
}

// Whatever happens, and however much is said of it, no secret is.
func TestNoSecretIsEverWritten(t *testing.T) {
	const password, ping = "pa55-W0rd-never-shown", "ping-uuid-never-shown"
	dir := t.TempDir()
	echo := mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1] hi\r\n", func(line string) string { // it repeats what it was told
		tag, command, _ := strings.Cut(line, " ")
		return "* OK you said " + command + "\r\n" + tag + " NO [ALERT] wrong: " + command + "\r\n"
	})
	file := filepath.Join(dir, "config.toml")
	must(t, os.WriteFile(file, []byte(fmt.Sprintf("archive = %q\n[notify]\nhealthchecks = \"http://127.0.0.1:1/%s\"\nmetrics_file = %q\n[oauth2.google]\nclient_id = \"x\"\nclient_secret = %q\n[accounts.a]\nserver = \"imap+insecure://alice@%s\"\npassword = %q\nhealthchecks = \"http://127.0.0.1:1/%s\"\n[accounts.b]\naddress = \"me@gmail.com\"\nauth = \"oauth2\"\n",
		dir, ping, filepath.Join(dir, "prom"), password, echo, password, ping)), 0o600))
	env := map[string]string{"HOME": dir, "MAILSTOW_CONFIG": file, "JOURNAL_STREAM": "1:1"}
	log := filepath.Join(dir, "log")
	for _, args := range [][]string{
		{"backup"}, {"backup", "-v"}, {"backup", "--json"}, {"check", "-v"}, {"check", "--json"}, {"trim", "a", "--older-than", "1y", "--yes"}, {"config", "show"}, {"config", "show", "--json"},
		{"config", "check"}, {"auth", "status"}, {"auth", "status", "--json"}, {"status"}, {"auth", "login", "a"}, {"migrate", "a", "a"}, {"restore", "a"}, {"__complete", "backup", ""},
	} {
		if args[0] != "__complete" {
			args = append(args, "--log-file", log)
		}
		_, out, errs := mailstow(t, env, args...)
		if said := out + errs; strings.Contains(said, password) || strings.Contains(said, ping) {
			t.Errorf("%q says\n%s", args, said)
		}
	}
	for _, typed := range []string{"imaps://me:" + password + "@mail.example.org", "imaps:/me:" + password + "@mail.example.org", "imap//me:" + password + "@mail.example.org", "imaps://me:" + password + "%zz@mail.example.org", "imaps:me:" + password + "@mail.example.org", "me:" + password + "@mail.example.org"} {
		for _, args := range [][]string{{"backup", typed}, {"check", typed}, {"migrate", typed, "a"}, {"migrate", "a", typed}} {
			if status, out, errs := mailstow(t, env, append(args, "--to", dir, "--log-file", log)...); strings.Contains(out+errs, password) || status == exitOK {
				t.Errorf("%q: status %d, it says\n%s%s", args, status, out, errs)
			}
		}
		write(t, filepath.Join(dir, "other"), fmt.Sprintf("archive = %q\n[accounts.a]\nimap = \"imap+insecure://alice@%s\"\npop3 = %q\n", dir, echo, typed))
		env := map[string]string{"HOME": dir, "MAILSTOW_CONFIG": filepath.Join(dir, "other")}
		for _, args := range [][]string{{"config", "show"}, {"config", "check"}, {"backup", "--via", "pop3"}} {
			if _, out, errs := mailstow(t, env, args...); strings.Contains(out+errs, password) {
				t.Errorf("%q with %s says\n%s%s", args, typed, out, errs)
			}
		}
		must(t, os.Remove(filepath.Join(dir, "other")))
	}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == file {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), password) || strings.Contains(string(b), ping) {
			t.Errorf("%s has it", path)
		}
		return err
	})
	must(t, err)
	if _, err := os.Stat(log); err != nil {
		t.Error(err)
	}
}

// What mailboxes, archives and destinations do wrong, word by word.
func TestMessagesOfTheWorkSayWhatToDo(t *testing.T) {
	size := regexp.MustCompile(`\d+(\.\d+)? (B|KiB|MiB)`)
	check := func(t *testing.T, status, wantStatus int, got, want string) {
		t.Helper()
		if got = size.ReplaceAllString(got, "SIZE"); status != wantStatus || got != want {
			t.Errorf("status %d, want %d\n%s\nwant\n%s", status, wantStatus, got, want)
		}
	}
	t.Run("the server hides mail", func(t *testing.T) {
		addr, dir := fakeIMAP(t, 10_000, nil), t.TempDir()
		file := filepath.Join(dir, "config.toml")
		write(t, file, fmt.Sprintf("archive = %q\n[accounts.yahoo]\nserver = \"imap+insecure://alice@%s\"\nprovider = \"yahoo\"\n", dir, addr))
		status, _, errs := mailstow(t, map[string]string{"HOME": dir, "MAILSTOW_CONFIG": file, "MAILSTOW_PASSWORD_YAHOO": "x"}, "backup", "yahoo", "--dry-run")
		check(t, status, exitOK, errs, `mailstow: yahoo: warning: INBOX shows exactly 10,000 messages; Yahoo may hide older mail
  why:    it can be set, or is set, to show programs so many of a folder and no more
  do:     server = "imaps://export.imap.mail.yahoo.com"   (it shows more, and is read-only)
`)
	})
	t.Run("a folder that is mistyped", func(t *testing.T) {
		s := mailtest.Dovecot(t)
		put(t, s, "INBOX", old, `\Seen`, "one")
		env, account := configuredHome(t, s, s.IMAP)
		for args, want := range map[string]string{
			"--folder INBOX --folder Inbxo": `the server has no folder called "Inbxo"`,
			"--folder Inbxo":                `the server has no folder called "Inbxo"`,
			"--include Work/**":             "no folder of the server is wanted, so that nothing is backed up",
			"--folder inbox":                "",
			"--exclude Spma":                "",
		} {
			status, out, errs := mailstow(t, env, append([]string{"backup", "mine"}, strings.Fields(args)...)...)
			if want == "" {
				check(t, status, exitOK, out+errs, "")
			} else {
				check(t, status, exitIncomplete, out+errs, "mailstow: mine: "+want+"\n  do:     mailstow check --folders shows which there are\n")
			}
		}
		if n := len(messageFiles(t, account)); n != 1 {
			t.Errorf("%d files", n)
		}
		for via, status := range map[string]int{"--folder Work": exitIncomplete, "--folder Work --folder INBOX": exitOK} {
			if got, out, errs := mailstow(t, env, append([]string{"backup", address("pop3+insecure", s.POP3), "--to", t.TempDir()}, strings.Fields(via)...)...); got != status {
				t.Errorf("POP3, %s: status %d\n%s%s", via, got, out, errs)
			}
		}
	})
	t.Run("a size that cannot be", func(t *testing.T) {
		line := "* %d FETCH (UID %d FLAGS () INTERNALDATE \"01-Jan-2020 00:00:00 +0000\" RFC822.SIZE %d)\r\n"
		addr, to := fakeIMAP(t, 2, map[string]string{
			"RFC822.SIZE": fmt.Sprintf(line, 1, 1, 18) + fmt.Sprintf(line, 2, 2, 9223372036854775) + "TAG OK done\r\n",
			"BODY.PEEK[]": "* 1 FETCH (UID 1 BODY[] {18}\r\nSubject: a\r\n\r\nxx\r\n)\r\nTAG OK done\r\n",
		}), t.TempDir()
		status, _, errs := mailstow(t, map[string]string{"HOME": t.TempDir(), "MAILSTOW_CONFIG": os.DevNull, "MAILSTOW_PASSWORD": "x"}, "backup", address("imap+insecure", addr), "--to", to)
		if status != exitIncomplete || len(messageFiles(t, filepath.Join(to, "alice@127.0.0.1"))) != 1 {
			t.Errorf("status %d\n%s", status, errs)
		}
	})
	t.Run("a mailbox is rebuilt", func(t *testing.T) {
		s := mailtest.Dovecot(t)
		env, _ := configuredHome(t, s, s.IMAP)
		put(t, s, "INBOX", old, `\Seen`, several("old", 8)...)
		told(t, s, "CREATE Work", "SELECT INBOX")
		put(t, s, "Work", old, `\Seen`, several("old", 8)...)
		if status, out, errs := mailstow(t, env, "backup", "mine"); status != exitOK {
			t.Fatal(status, out, errs)
		}
		told(t, s, "DELETE Work")
		time.Sleep(1100 * time.Millisecond) // it is numbered by the time
		told(t, s, "CREATE Work")
		put(t, s, "Work", old, `\Seen`, several("old", 9)...)
		status, _, errs := mailstow(t, env, "backup", "mine")
		check(t, status, exitOK, regexp.MustCompile(`UIDVALIDITY \d+ became \d+`).ReplaceAllString(errs, "UIDVALIDITY A became B"), `mailstow: mine: Work was rebuilt by the server (UIDVALIDITY A became B)
  why:    message numbers have changed; 8 of 9 messages were recognised by content; 1 new.
  do:     nothing; no mail is downloaded twice
`)
	})
	t.Run("no UIDL", func(t *testing.T) {
		heads := map[string]string{"CAPA": "-ERR no\r\n", "STAT": "+OK 2 44\r\n", "LIST": "+OK\r\n1 22\r\n2 22\r\n.\r\n", "UIDL": "-ERR what?\r\n"}
		addr, dir := mailtest.Script(t, "+OK hi\r\n", func(line string) string {
			command, rest, _ := strings.Cut(line, " ")
			answer := "+OK\r\n"
			if own, ok := heads[command]; ok {
				answer = own
			}
			if command == "RETR" || command == "TOP" {
				answer = "+OK\r\nSubject: " + rest[:1] + "\r\n\r\nbody\r\n\r\n.\r\n"
			}
			return answer
		}), t.TempDir()
		env := map[string]string{"HOME": dir, "MAILSTOW_CONFIG": os.DevNull, "MAILSTOW_PASSWORD": "x"}
		args := []string{"backup", "pop3+insecure://alice@" + addr, "--to", dir}
		want := "mailstow: alice@127.0.0.1: this POP3 server cannot name its messages (no UIDL)\n  why:    mailstow must download all headers on every run to see what is new.\n  do:     use IMAP if the provider has it; trim is not possible on this server\n"
		status, _, errs := mailstow(t, env, append(args, "-v")...)
		check(t, status, exitOK, errs, want)
		status, out, errs := mailstow(t, env, args...) // every night
		check(t, status, exitOK, out+errs, "")
		status, _, errs = mailstow(t, env, "trim", "pop3+insecure://alice@"+addr, "--to", dir, "--older-than", "1d", "--keep-newer-than", "1d", "--yes")
		if status == exitOK || !strings.Contains(errs, "the server gives its messages other names in each session") {
			t.Errorf("trim: status %d\n%s", status, errs)
		}
	})
	t.Run("not safe to delete", func(t *testing.T) {
		_, env, account, _ := trimmable(t, "")
		file := messageFiles(t, account)[3]
		b, err := os.ReadFile(file)
		must(t, err)
		b[len(b)-5] ^= 1
		must(t, os.WriteFile(file, b, 0o600))
		status, _, errs := mailstow(t, env, "trim", "mine", "--yes")
		rel, err := filepath.Rel(account, file)
		must(t, err)
		check(t, status, exitDamaged, regexp.MustCompile(`[0-9a-f]{8}\.\.\.`).ReplaceAllString(strings.ReplaceAll(errs, rel, "FILE"), "DIGEST"), `mailstow: mine: INBOX: nothing was deleted: 1 of 8 messages are not safe in the archive
  message: FILE  hash differs (expected DIGEST, found DIGEST)
  why:    the file changed or the disk is failing
  do:     move the file away, then: mailstow backup mine --refetch   (the server still has the message)
`)
	})
	t.Run("a name that the destination refuses", func(t *testing.T) {
		s, d := mailtest.Dovecot(t), mailtest.Cyrus(t)
		told(t, s, `CREATE "Person|K"`)
		put(t, s, "Person|K", old, `\Seen`, "one")
		env, root := home(t, s), t.TempDir()
		env["MAILSTOW_CONFIG"] = filepath.Join(env["HOME"], "config.toml")
		write(t, env["MAILSTOW_CONFIG"], fmt.Sprintf("archive = %q\n[accounts.anna]\nserver = %q\npassword = %q\n[accounts.new]\nserver = %q\npassword = %q\n", root, address("imap+insecure", s.IMAP), s.Password("alice"), address("imap+insecure", d.IMAP), d.Password("alice")))
		must(t, os.Chmod(env["MAILSTOW_CONFIG"], 0o600))
		status, _, errs := mailstow(t, env, "migrate", "anna", "new")
		check(t, status, exitOK, errs, `mailstow: new: folder "Person|K" cannot exist on 127.0.0.1
  server: NO Invalid mailbox name
  do:     nothing, it was created as "INBOX/Person_K"; choose another name with --map 'Person|K=NAME'
`)
		if status, _, errs := mailstow(t, env, "migrate", "anna", "new"); status != exitOK || errs != "" {
			t.Errorf("again: status %d\n%s", status, errs)
		}
	})
	t.Run("too big for the destination", func(t *testing.T) {
		s, d := mailtest.Dovecot(t), mailtest.Dovecot(t, "mail_plugins = quota\nprotocol imap {\n  mail_plugins = quota imap_quota\n}\nplugin {\n  quota = count:User quota\n  quota_vsizes = yes\n  quota_max_mail_size = 20k\n}")
		put(t, s, "INBOX", old, `\Seen`, "one")
		fill(t, s, "INBOX", [][]byte{[]byte("Subject: big\r\n\r\n" + strings.Repeat("x", 30_000)), []byte("Subject: big\r\n\r\n" + strings.Repeat("y", 30_000))})
		env, root := home(t, s), t.TempDir()
		env["MAILSTOW_CONFIG"] = filepath.Join(env["HOME"], "config.toml")
		write(t, env["MAILSTOW_CONFIG"], fmt.Sprintf("archive = %q\n[accounts.dirk]\nserver = %q\npassword = %q\n[accounts.new]\nserver = %q\npassword = %q\n", root, address("imap+insecure", s.IMAP), s.Password("alice"), address("imap+insecure", d.IMAP), d.Password("alice")))
		must(t, os.Chmod(env["MAILSTOW_CONFIG"], 0o600))
		status, _, errs := mailstow(t, env, "migrate", "dirk", "new")
		check(t, status, exitIncomplete, regexp.MustCompile(`NO \[LIMIT\].*`).ReplaceAllString(errs, "NO"), `mailstow: new: 2 messages are larger than 127.0.0.1 accepts
  message: INBOX, no date, SIZE, "big": NO
  message: INBOX, no date, SIZE, "big": NO
  do:     they are safe in the archive; --skip-too-big ends with exit 0, --report DIR lists them
`)
		if status, _, errs := mailstow(t, env, "migrate", "dirk", "new", "--skip-too-big"); status != exitOK {
			t.Errorf("with --skip-too-big: status %d\n%s", status, errs)
		}
		// One that says beforehand how much it takes is not sent them.
		told(t, s, "SELECT INBOX", `STORE 1 +FLAGS (\Deleted)`, "EXPUNGE")
		addr := fakeIMAP(t, 0, map[string]string{"LOGIN": "TAG OK [CAPABILITY IMAP4rev1 UIDPLUS APPENDLIMIT=20480] in\r\n", "APPEND": "TAG NO [ALERT] it was sent\r\n"})
		status, _, errs = mailstow(t, map[string]string{"HOME": t.TempDir(), "MAILSTOW_CONFIG": os.DevNull, "MAILSTOW_PASSWORD": "x"}, "migrate", filepath.Join(root, "dirk"), "imap+insecure://alice@"+addr, "--older-than", "2024-01-01", "--newer-than", "2023-01-01")
		check(t, status, exitIncomplete, errs, `mailstow: alice@127.0.0.1: 2 messages of INBOX cannot be stored: the server takes no message over 20480 octets
mailstow: alice@127.0.0.1: 2 messages are larger than the SIZE that 127.0.0.1 accepts
  message: INBOX, no date, SIZE, "big": it is larger than the server takes (20480 octets)
  message: INBOX, no date, SIZE, "big": it is larger than the server takes (20480 octets)
  do:     they are safe in the archive; --skip-too-big ends with exit 0, --report DIR lists them
`)
	})
}

// What a server says reaches JSON, logs and shells without a character that does
// more than show itself.
func TestNothingRawReachesPrograms(t *testing.T) {
	s := mailtest.Dovecot(t)
	told(t, s, `CREATE "a&IC4-b"`)
	env, _ := configuredHome(t, s, s.IMAP)
	log := filepath.Join(t.TempDir(), "log")
	status, out, errs := mailstow(t, env, "backup", "mine", "--json", "--log-file", log)
	if status != exitOK || errs != "" {
		t.Fatal(status, out, errs)
	}
	logged, err := os.ReadFile(log)
	must(t, err)
	_, listed, _ := mailstow(t, env, "list", "mine", "--json")
	if run := objects(t, out, "start")[0]["run"]; !strings.Contains(string(logged), run.(string)) {
		t.Errorf("run %s is another in the log", run)
	}
	for _, text := range []string{out, string(logged), listed} {
		if strings.ContainsRune(text, 0x202e) || !strings.Contains(text, `a\u202eb`) {
			t.Error(text)
		}
	}
	if !slices.ContainsFunc(objects(t, listed, "folder"), func(o map[string]any) bool { return o["folder"] == "a\u202eb" }) {
		t.Error("it is another name now")
	}
}

// What a server wants its user to read is shown, each text once.
func TestAlertsAreShownOnce(t *testing.T) {
	addr := fakeIMAP(t, 0, map[string]string{
		"LOGIN":   "TAG OK [ALERT] Buy more \x1b[31mroom\r\n",
		"LIST":    "* OK [ALERT] We move on Sunday.\r\n* LIST (\\HasNoChildren) \"/\" INBOX\r\n* OK [ALERT] We move on Sunday.\r\nTAG OK done\r\n",
		"EXAMINE": "* 0 EXISTS\r\n* OK [UIDVALIDITY 1699] v\r\n* OK [UIDNEXT 1] n\r\nTAG OK [READ-ONLY] in\r\n",
	})
	env := map[string]string{"HOME": t.TempDir(), "MAILSTOW_PASSWORD": "x", "MAILSTOW_CONFIG": os.DevNull}
	for _, command := range []string{"check", "backup"} {
		status, out, errs := mailstow(t, env, command, address("imap+insecure", addr), "--to", t.TempDir())
		want := "mailstow: alice@127.0.0.1: warning: the server says: Buy more \\x1b[31mroom\nmailstow: alice@127.0.0.1: warning: the server says: We move on Sunday.\n"
		if status != exitOK || errs != want {
			t.Errorf("%s: status %d\n%s%s\nwant\n%s", command, status, out, errs, want)
		}
	}
}
