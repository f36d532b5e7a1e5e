package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailstow/internal/config"
	"mailstow/internal/lookup"
	"mailstow/internal/mailtest"
)

// finding runs the program with servers that are found, and counts how often
// they are looked for.
func finding(t *testing.T, env map[string]string, found []lookup.Server, args ...string) (status, asked int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = Run(t.Context(), Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Getenv: func(name string) string { return env[name] },
		Find: func(context.Context, string) ([]lookup.Server, error) {
			if asked++; found == nil {
				return nil, lookup.ErrNone
			}
			return found, nil
		},
	})
	return status, asked, out.String(), errs.String()
}

func TestAddressIsAllThatIsNeeded(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly())
	env, root := home(t, s), t.TempDir()
	servers := []lookup.Server{
		{URL: "imap+insecure://" + s.IMAP, User: "alice", By: "autoconfig of example.org", Vouched: true},
		{URL: "pop3+insecure://" + s.POP3, User: "alice", By: "autoconfig of example.org", Vouched: true},
	}
	status, asked, out, errs := finding(t, env, servers, "backup", "alice@example.org", "--to", root, "-v")
	if status != exitOK || asked != 1 || !strings.Contains(errs, "(autoconfig of example.org)") || !strings.Contains(out, "alice@example.org   ok") {
		t.Errorf("status %d, asked %d times\n%s%s", status, asked, out, errs)
	}
	if got := len(messageFiles(t, filepath.Join(root, "alice@example.org"))); got != n {
		t.Errorf("%d files, want %d", got, n)
	}
	// At night nobody answers; what was found is remembered, for others of the domain too.
	status, asked, out, errs = finding(t, env, nil, "backup", "alice@example.org", "--to", root, "-v")
	if status != exitOK || asked != 0 || !strings.Contains(out, "nothing new") {
		t.Errorf("the second time: status %d, asked %d times\n%s%s", status, asked, out, errs)
	}
	config := filepath.Join(env["HOME"], "config.toml")
	write(t, config, fmt.Sprintf("archive = %q\n[accounts.work]\naddress = \"alice@example.org\"\n", root))
	env["MAILSTOW_CONFIG"] = config
	for via, want := range map[string]string{"pop3": "recognised", "imap": "nothing new"} {
		if status, _, out, errs = finding(t, env, nil, "backup", "work", "--via", via, "-v"); status != exitOK || !strings.Contains(out, want) {
			t.Errorf("over %s: status %d\n%s%s", via, status, out, errs)
		}
	}
	// After a month it is looked for again, and what is remembered counts if nothing is found.
	remembered := filepath.Join(env["HOME"], ".local/state/mailstow/servers/example.org.json")
	b, err := os.ReadFile(remembered)
	must(t, err)
	old := strings.Replace(string(b), fmt.Sprint(time.Now().UTC().Year()), "2001", 1)
	if strings.Contains(old, "alice") {
		t.Errorf("what is remembered of a domain names a user: %s", old)
	}
	must(t, os.WriteFile(remembered, []byte(old), 0o600))
	if status, asked, out, errs = finding(t, env, nil, "backup", "work"); status != exitOK || asked != 1 {
		t.Errorf("after a month: status %d, asked %d times\n%s%s", status, asked, out, errs)
	}
}

// What the domain name system alone says may be anybody's word.
func TestServerThatNobodyVouchesForGetsNoPassword(t *testing.T) {
	s := mailtest.Dovecot(t)
	env := home(t, s)
	relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{})
	servers := []lookup.Server{{URL: "imap+insecure://" + relay.Addr, User: "alice", By: "SRV record of example.org"}}
	status, _, out, errs := finding(t, env, servers, "backup", "alice@example.org", "--to", t.TempDir())
	if status != exitConfig || relay.Connections() != 0 || !strings.Contains(errs, "could be forged") {
		t.Errorf("status %d, %d connections\n%s%s", status, relay.Connections(), out, errs)
	}
}

func TestAddressWithoutAServerIsTold(t *testing.T) {
	env := map[string]string{"HOME": t.TempDir(), "MAILSTOW_CONFIG": os.DevNull, "MAILSTOW_PASSWORD": "x"}
	status, asked, _, errs := finding(t, env, nil, "backup", "me@example.org", "--to", t.TempDir())
	if status != exitConfig || asked != 1 || !strings.Contains(errs, "no mail server was found for me@example.org") {
		t.Errorf("status %d, asked %d times\n%s", status, asked, errs)
	}
	env["MAILSTOW_NO_LOOKUP"] = "1"
	if status, _, errs := mailstow(t, env, "backup", "me@example.org", "--to", t.TempDir()); status != exitConfig || !strings.Contains(errs, "no mail server was found") {
		t.Errorf("without the network: status %d\n%s", status, errs)
	}
}

// refusing is an IMAP server that answers each login with a no.
func refusing(t *testing.T, answer string) string {
	return mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1] hi\r\n", func(line string) string {
		tag, _, _ := strings.Cut(line, " ")
		return tag + " " + answer + "\r\n"
	})
}

// What a provider says to a login, and what the user is told to do.
func TestRefusedLoginIsUnderstood(t *testing.T) {
	for _, c := range []struct{ name, more, answer, want string }{
		{"work", "address = \"me@example.com\"\nuser = \"me\"\npassword_command = \"echo wrong\"", "NO [AUTHENTICATIONFAILED] Authentication failed.", `mailstow: work: login refused by ADDR for user "me"
  server: NO [AUTHENTICATIONFAILED] Authentication failed.
  do:     check what ` + "`echo wrong`" + ` gives; some servers want the whole address: user = "me@example.com"
`},
		{"gmail", "provider = \"gmail\"\naddress = \"me@gmail.com\"\npassword_command = \"echo wrong\"", "NO [ALERT] Application-specific password required: https://support.google.com/accounts/answer/185833 (Failure)", `mailstow: gmail: Google does not accept the account password for IMAP
  server: NO [ALERT] Application-specific password required: https://support.google.com/accounts/answer/185833 (Failure)
  do:     create an app password at https://myaccount.google.com/apppasswords and store it: mailstow auth login gmail
`},
		{"m365", "provider = \"microsoft365\"\naddress = \"me@contoso.example\"\npassword_command = \"echo wrong\"", "NO Basic authentication is disabled.", `mailstow: m365: Microsoft no longer accepts passwords over IMAP and POP3
  server: NO Basic authentication is disabled.
  do:     set auth = "oauth2" for this account, then: mailstow auth login m365      (man mailstow-oauth2)
`},
		{"netease", "provider = \"163\"\naddress = \"me@163.com\"\npassword_command = \"echo wrong\"", "NO LOGIN Login error or password error", `mailstow: netease: imap.163.com refused the login
  server: NO LOGIN Login error or password error
  why:    163 wants an authorization code (授权码), not the mail password, and IMAP must be switched on.
  do:     https://mail.163.com, 设置, POP3/SMTP/IMAP: switch on IMAP, create a code, then: mailstow auth login netease
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := refusing(t, c.answer)
			dir := t.TempDir()
			config := filepath.Join(dir, "config.toml")
			write(t, config, fmt.Sprintf("archive = %q\n[accounts.%s]\nserver = \"imap+insecure://%s\"\n%s\n", dir, c.name, addr, c.more))
			status, out, errs := mailstow(t, map[string]string{"HOME": dir, "MAILSTOW_CONFIG": config}, "backup", c.name)
			if got := strings.ReplaceAll(errs, addr, "ADDR"); status != exitLogin || got != c.want {
				t.Errorf("status %d\n%s%s, want\n%s", status, out, got, c.want)
			}
		})
	}
}

func TestProviderThatIsNotKnownIsTold(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	write(t, config, "[accounts.x]\naddress = \"me@example.org\"\nprovider = \"gmial\"\n")
	status, _, errs := mailstow(t, map[string]string{"HOME": dir, "MAILSTOW_CONFIG": config}, "backup", "x")
	if status != exitConfig || !strings.Contains(errs, `no provider called "gmial"`) {
		t.Errorf("status %d\n%s", status, errs)
	}
}

// One account that is set up wrongly, or has no server, does not keep the others
// from being backed up.
func TestAccountThatIsSetUpWronglyStopsNoOther(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", ugly())
	env, root := home(t, s), t.TempDir()
	config := filepath.Join(env["HOME"], "config.toml")
	env["MAILSTOW_CONFIG"] = config
	env["MAILSTOW_PASSWORD_GOOD"] = s.Password("alice")
	write(t, config, fmt.Sprintf("archive = %q\n[accounts.a]\naddress = \"me@example.org\"\n[accounts.b]\naddress = \"x@y.example\"\nprovider = \"gmial\"\n[accounts.good]\nserver = %q\n[accounts.t]\nserver = \"imaps://h\"\nuser = \"x\"\ntls_ca = \"/none\"\n", root, address("imap+insecure", s.IMAP)))
	for _, command := range []string{"backup", "check"} {
		status, _, out, errs := finding(t, env, nil, command)
		for _, want := range []string{"mailstow: a: no mail server was found for me@example.org", `mailstow: b: no provider called "gmial"`, "mailstow: t: the CA file cannot be read"} {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: it is not told that %s", command, want)
			}
		}
		if status != exitIncomplete || len(messageFiles(t, filepath.Join(root, "good"))) != n {
			t.Errorf("%s: status %d\n%s%s", command, status, out, errs)
		}
	}
	status, _, out, errs := finding(t, env, nil, "trim", "a", "good", "--older-than", "1y", "--yes", "--max-delete", "100%")
	if status != exitIncomplete || len(subjects(t, s, "INBOX")) != 0 || !strings.Contains(errs, "mailstow: a: no mail server was found") {
		t.Errorf("trim: status %d\n%s%s", status, out, errs)
	}
}

// Whatever an account may say is shown where it says it.
func TestEachSettingIsShown(t *testing.T) {
	s := mailtest.Dovecot(t) // whose certificate is at hand
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	const hidden = "5ecret"
	set := map[string]string{
		"address": `"me@example.org"`, "provider": `"gmail"`, "server": `"imaps://mail.example.org"`, "user": `"me"`, "auth_user": `"admin"`, "auth": `"oauth2"`,
		"tls_ca": fmt.Sprintf("%q", s.CA), "tls_fingerprint": `"` + strings.Repeat("00", 32) + `"`, "timeout": `"90s"`, "archive": `"/mail"`,
		"folders": `["INBOX"]`, "include": `["Work/**"]`, "exclude": `['\Junk']`, "max_size": `"25M"`, "bwlimit": `"1M"`, "daily_download": `"1G"`, "daily_upload": `"off"`, "connections": "3",
		"healthchecks": `"https://hc.example.org/` + hidden + `"`, "map": `{ "Old" = "New" }`, "under": `"Moved"`, "automap": "false", "keep_newer_than": `"60d"`,
		"trim.quota": `"2G"`, "trim.until": `"80%"`, "trim.older_than": `"1y"`, "trim.max_delete": `"10%"`, "trim.include_flagged": "true", "trim.include_unread": "true", "trim.include_synced": "true", "trim.trash": "true", "trim.before": `"true"`,
		"oauth2.client_id": `"id"`, "oauth2.client_secret": `"` + hidden + `"`, "oauth2.client_secret_command": `"echo ` + "x" + `"`, "oauth2.tenant": `"t"`, "oauth2.scopes": `["mail"]`,
		"oauth2.auth_url": `"https://a.example.org/a"`, "oauth2.token_url": `"https://a.example.org/t"`, "oauth2.device_url": `"https://a.example.org/d"`, "oauth2.key_file": `"/key"`,
	}
	elsewhere := []string{"imap", "pop3", "password", "password_command", "password_file", "token_command", "tls_cert", "tls_key"} // which do not go with these
	for table, keys := range config.Keys() {
		prefix := map[string]string{"accounts": "", "trim": "trim.", "oauth2": "oauth2."}
		for _, key := range keys {
			if under, ok := prefix[table]; ok && set[under+key] == "" && key != "trim" && key != "oauth2" && !slices.Contains(elsewhere, key) {
				t.Errorf("the test does not know %s", under+key)
			}
		}
	}
	text, lines := "[accounts.a]\n", map[string]int{}
	for key, value := range set {
		text += key + " = " + value + "\n"
		lines[key] = strings.Count(text, "\n")
	}
	text += "[accounts.b]\nimap = \"imaps://me@i.example.org\"\npop3 = \"pop3s://me@p.example.org\"\npassword_command = \"echo " + "x\"\n[accounts.c]\nserver = \"imaps://me@c.example.org\"\nauth = \"xoauth2\"\ntoken_command = \"echo x\"\n"
	must(t, os.WriteFile(file, []byte(text), 0o600))
	env := map[string]string{"HOME": dir, "MAILSTOW_CONFIG": file, "ALL_PROXY": "socks5://me:" + hidden + "@127.0.0.1:1"}
	status, out, errs := mailstow(t, env, "config", "show", "--json")
	got := map[string]string{}
	for _, o := range objects(t, out, "setting") {
		got[fmt.Sprint(o["account"], " ", o["key"])] = fmt.Sprint(o["from"])
	}
	for key, line := range lines {
		if want := fmt.Sprintf("%s:%d", file, line); got["a "+key] != want {
			t.Errorf("%s is from %q, want %s", key, got["a "+key], want)
		}
	}
	for key, want := range map[string]string{"a proxy": "ALL_PROXY", "b imap": file, "b pop3": file, "b password": file, "c password": file} {
		if !strings.HasPrefix(got[key], want) {
			t.Errorf("%s is from %q, want %s", key, got[key], want)
		}
	}
	if status != exitOK || strings.Contains(out+errs, hidden) {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

// What is in force is shown, with where it is from; secrets are not, and the
// network is not asked.
func TestSettingsAreShownWithWhereTheyAreFrom(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	must(t, os.WriteFile(config, []byte("archive = \"/mail\"\n[defaults]\ntimeout = \"90s\"\n[accounts.gmail]\naddress = \"me@gmail.com\"\npassword = \"hunter2\"\n[accounts.new]\naddress = \"me@example.org\"\n"), 0o600))
	env := map[string]string{"HOME": dir, "MAILSTOW_CONFIG": config}
	status, asked, out, errs := finding(t, env, nil, "config", "show", "--connections", "2")
	for _, want := range []string{
		"  server           imap.gmail.com:993 ", "the list of providers", "  timeout          1m30s ", "~/config.toml:3 [defaults]", "  connections      2 ", "--connections\n",
		"  password         ***, from the config file", "  archive          /mail/me@gmail.com ", "~/config.toml:1\n", "is looked up when it is needed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	if status != exitOK || asked != 0 || strings.Contains(out+errs, "hunter2") {
		t.Errorf("status %d, asked %d times\n%s%s", status, asked, out, errs)
	}
	if status, out, errs := mailstow(t, env, "config", "check", "--json"); status != exitOK || len(objects(t, out, "config")[0]["accounts"].([]any)) != 2 {
		t.Errorf("config check --json: status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := mailstow(t, env, "config", "check"); status != exitOK || !strings.Contains(out, "no mistakes; 2 accounts") {
		t.Errorf("check: status %d\n%s%s", status, out, errs)
	}
	if status, out, _ := mailstow(t, env, "config", "path"); status != exitOK || out != config+"\n" {
		t.Errorf("path: status %d, %s", status, out)
	}
	if status, out, errs := mailstow(t, env, "config", "show", "gmail", "--json"); status != exitOK || !strings.Contains(out, `"key":"server","type":"setting","v":1,"value":"imap.gmail.com:993"`) {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	for _, args := range [][]string{{"config"}, {"config", "edit"}} {
		if status, _, _ := mailstow(t, env, args...); status != exitUsage {
			t.Errorf("%q: status %d", args, status)
		}
	}
}

// An empty argument is a variable that is not set, and no account.
func TestEmptyNameIsNoAccount(t *testing.T) {
	s, env, _, _ := trimmable(t, "")
	before := subjects(t, s, "INBOX")
	for _, args := range [][]string{{"trim", "", "--yes"}, {"backup", ""}, {"check", ""}, {"auth", "login", ""}, {"auth", "logout", ""}, {"restore", ""}} {
		if status, out, errs := mailstow(t, env, args...); status != exitUsage {
			t.Errorf("%q: status %d\n%s%s", args, status, out, errs)
		}
	}
	wantSubjects(t, s, "INBOX", before)
}

// What opens one server is no business of another, also where both are found by
// their addresses.
func TestSourcesPasswordDoesNotGoToTheDestination(t *testing.T) {
	s := mailtest.Dovecot(t)
	there, heard := quirky(t, "IMAP4rev1", func(string) string { return "" })
	find := func(_ context.Context, address string) ([]lookup.Server, error) {
		if address == "me@new.example" {
			return []lookup.Server{{URL: "imap+insecure://" + there, User: address, By: "test", Vouched: true}}, nil
		}
		return []lookup.Server{{URL: "imap+insecure://" + s.IMAP, User: "alice", By: "test", Vouched: true}}, nil
	}
	for _, args := range [][]string{
		{"migrate", "me@old.example", "me@new.example", "--password-command", "echo " + s.Password("alice")},
		{"migrate", "me@old.example", "me@new.example"}, {"migrate", address("imap+insecure", s.IMAP), "me@new.example"},
	} {
		env := home(t, s)
		var out bytes.Buffer
		status := Run(t.Context(), Env{Args: append(args, "--to", t.TempDir()), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Getenv: func(name string) string { return env[name] }, Find: find})
		if status != exitConfig || heard.has("LOGIN") || !strings.Contains(out.String(), "nobody to ask") {
			t.Errorf("%q: status %d, it hears %q\n%s", args, status, heard.all, out.String())
		}
	}
}

// A server that nobody vouches for stays out beside one that somebody does.
func TestServerBesideAGoodOneGetsNoPassword(t *testing.T) {
	s := mailtest.Dovecot(t)
	relay := mailtest.NewRelay(t, s.POP3, mailtest.Line{})
	servers := []lookup.Server{{URL: "imap+insecure://" + s.IMAP, User: "alice", By: "test", Vouched: true}, {URL: "pop3+insecure://" + relay.Addr, User: "alice", By: "SRV record"}}
	status, _, out, errs := finding(t, home(t, s), servers, "check", "alice@example.org", "--via", "pop3", "--to", t.TempDir())
	if status != exitConfig || relay.Connections() != 0 {
		t.Errorf("status %d, %d connections\n%s%s", status, relay.Connections(), out, errs)
	}
}
