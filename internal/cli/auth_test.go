package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mailstow/internal/mailtest"
)

// tokenServer is a Dovecot that lets in who has a good access token, and a config
// file with an account "m365" on it.
func tokenServer(t *testing.T, pass func(people *mailtest.SignIn, line string) bool) (s *mailtest.Server, people *mailtest.SignIn, env map[string]string) {
	t.Helper()
	people = mailtest.NewSignIn(t)
	file := filepath.Join(t.TempDir(), "oauth2.conf")
	must(t, os.WriteFile(file, []byte("introspection_mode = post\nintrospection_url = "+people.URL+"/introspect\nusername_attribute = username\nactive_attribute = active\nactive_value = true\n"), 0o644))
	must(t, os.Chmod(filepath.Dir(file), 0o755))
	s = mailtest.Dovecot(t, "auth_mechanisms = plain login xoauth2 oauthbearer\npassdb {\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = "+file+"\n}")
	relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{Pass: func(line string) bool { return pass == nil || pass(people, line) }})
	env = map[string]string{"HOME": t.TempDir()}
	config := filepath.Join(env["HOME"], "config.toml")
	env["MAILSTOW_CONFIG"] = config
	oauth := fmt.Sprintf("[oauth2.microsoft]\nclient_id = \"me\"\nauth_url = \"%s/auth\"\ntoken_url = \"%s/token\"\ndevice_url = \"%s/device\"\n", people.URL, people.URL, people.URL)
	write(t, config, fmt.Sprintf("archive = %q\n%s[accounts.m365]\naddress = \"alice@contoso.example\"\nprovider = \"microsoft365\"\nuser = \"alice\"\nauth = \"oauth2\"\nserver = \"imap+insecure://%s\"\n[accounts.pop]\nprovider = \"microsoft365\"\nuser = \"alice\"\nauth = \"oauth2\"\nserver = \"pop3+insecure://%s\"\n",
		filepath.Join(env["HOME"], "archive"), oauth, relay.Addr, s.POP3))
	return s, people, env
}

// screen is what a person sees, who does what it says.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	on   func(text string)
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.text.Write(p)
	text := s.text.String()
	s.mu.Unlock()
	if s.on != nil {
		s.on(text)
	}
	return len(p), nil
}

var address302 = regexp.MustCompile(`http://127\.0\.0\.1:\d+/auth\?\S+`)

// signedIn has the person sign in, with a browser elsewhere.
func signedIn(t *testing.T, env map[string]string, flow, account string) (status int, said string) {
	t.Helper()
	in, typing := io.Pipe()
	var once sync.Once
	eyes := &screen{}
	eyes.on = func(text string) {
		address := address302.FindString(text)
		if address == "" || !strings.Contains(text, "\n\n") {
			return
		}
		once.Do(func() {
			go func() {
				c := &http.Client{}
				if flow == "paste" {
					c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				}
				resp, err := c.Get(address)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if flow == "paste" {
					io.WriteString(typing, resp.Header.Get("Location")+"\n")
				}
			}()
		})
	}
	status = Run(t.Context(), Env{Args: []string{"auth", "login", account, "--flow", flow}, Stdin: in, Stdout: eyes, Stderr: eyes, Getenv: func(name string) string { return env[name] }})
	return status, eyes.text.String()
}

func TestSignInWithABrowserLastsForEveryNight(t *testing.T) {
	s, people, env := tokenServer(t, nil)
	n := fill(t, s, "INBOX", ugly())
	if status, out, errs := mailstow(t, env, "backup", "m365"); status != exitLogin || !strings.Contains(errs, "nobody has signed in for this account yet") || !strings.Contains(errs, "mailstow auth login m365") {
		t.Errorf("before: status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := mailstow(t, env, "auth", "status"); status != exitLogin || strings.Count(out, "nobody has signed in for this account yet: mailstow auth login") != 2 {
		t.Errorf("before: status %d\n%s%s", status, out, errs)
	}
	for _, flow := range []string{"browser", "paste", "device"} {
		if status, said := signedIn(t, env, flow, "m365"); status != exitOK || !strings.Contains(said, "m365: signed in; kept in ") {
			t.Errorf("%s: status %d\n%s", flow, status, said)
		}
	}
	if status, said := signedIn(t, env, "paste", "pop"); status != exitOK {
		t.Errorf("over POP3: status %d\n%s", status, said)
	}
	for night := range 3 {
		for _, account := range []string{"m365", "pop"} {
			if status, out, errs := mailstow(t, env, "backup", account, "--to", filepath.Join(env["HOME"], "archive", account)); status != exitOK || errs != "" {
				t.Errorf("night %d, %s: status %d\n%s%s", night, account, status, out, errs)
			}
		}
		people.Expire()
	}
	if got := len(messageFiles(t, filepath.Join(env["HOME"], "archive", "m365", "alice@contoso.example"))); got != n || people.Renewals() != 4 {
		t.Errorf("%d files, want %d; %d renewals, want 4", got, n, people.Renewals())
	}
	if status, out, errs := mailstow(t, env, "auth", "status"); status != exitOK || !strings.Contains(out, "ok, renewed just now") {
		t.Errorf("after: status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := mailstow(t, env, "auth", "logout", "m365"); status != exitOK {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := mailstow(t, env, "auth", "logout", "m365"); status != exitConfig {
		t.Errorf("twice: status %d\n%s%s", status, out, errs)
	}
}

// A token ends in the middle of a run, whatever was said of how long it is good:
// it is renewed, and the run goes on.
func TestTokenThatEndsInTheMiddleIsRenewed(t *testing.T) {
	var fetches atomic.Int32
	s, people, env := tokenServer(t, func(people *mailtest.SignIn, line string) bool {
		if strings.Contains(line, "UID FETCH") && strings.Contains(line, "BODY") && fetches.Add(1) == 1 {
			people.Expire()
			return false // BYE Session invalidated - AccessTokenExpired
		}
		return true
	})
	var n int
	var all [][]byte
	for i := range 300 {
		all = append(all, fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 5000)))
	}
	n = fill(t, s, "INBOX", all)
	if status, said := signedIn(t, env, "paste", "m365"); status != exitOK {
		t.Fatalf("status %d\n%s", status, said)
	}
	status, out, errs := mailstow(t, env, "backup", "m365", "-v", "--connections", "1")
	if status != exitOK || people.Renewals() != 1 || fetches.Load() < 2 || len(messageFiles(t, filepath.Join(env["HOME"], "archive", "alice@contoso.example"))) != n {
		t.Errorf("status %d, %d renewals, %d fetches\n%s%s", status, people.Renewals(), fetches.Load(), out, errs)
	}
}

func TestSignInThatHasEndedIsTold(t *testing.T) {
	_, people, env := tokenServer(t, nil)
	if status, said := signedIn(t, env, "paste", "m365"); status != exitOK {
		t.Fatalf("status %d\n%s", status, said)
	}
	people.Expire()
	for _, c := range []struct{ code, text, want string }{
		{"invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.", `mailstow: m365: the sign-in has ended and must be done again in a browser
  server: invalid_grant AADSTS700082: The refresh token has expired due to inactivity.
  why:    nobody has used it for 90 days.
  do:     mailstow auth login m365      (on a machine without a browser: --flow paste)
`},
		{"invalid_client", "AADSTS7000218: The request body must contain client_assertion or client_secret.", `mailstow: m365: the sign-in server does not accept mailstow's application
  server: invalid_client AADSTS7000218: The request body must contain client_assertion or client_secret.
  why:    the application is not allowed to be one without a secret: switch on "Allow public client flows".
  do:     look at client_id, client_secret and tenant in the config file; man mailstow-oauth2 says what they have to be
`},
	} {
		people.Refuse(c.code, c.text)
		if status, out, errs := mailstow(t, env, "backup", "m365"); status != exitLogin || errs != c.want {
			t.Errorf("status %d\n%s%s\nwant\n%s", status, out, errs, c.want)
		}
	}
}

// What a sign-in server repeats of what it was sent is not shown; and the end of a
// sign-in is known afterwards.
func TestEndedSignInIsKnownAndShowsNoSecret(t *testing.T) {
	_, people, env := tokenServer(t, nil)
	if status, said := signedIn(t, env, "paste", "m365"); status != exitOK {
		t.Fatalf("status %d\n%s", status, said)
	}
	kept, err := os.ReadFile(filepath.Join(env["HOME"], ".local/state/mailstow/secrets/m365.oauth2"))
	must(t, err)
	refresh := regexp.MustCompile(`refresh_token\\":\\"([^\\]+)`).FindStringSubmatch(string(kept))
	if refresh == nil {
		t.Fatalf("%s", kept)
	}
	people.Expire()
	people.Refuse("invalid_grant", "you sent {sent} to us")
	log := filepath.Join(t.TempDir(), "log")
	for _, more := range [][]string{nil, {"--json"}, {"--log-file", log}} {
		status, out, errs := mailstow(t, env, append([]string{"backup", "m365"}, more...)...)
		if status != exitLogin || !strings.Contains(out+errs, "refresh_token=***") || strings.Contains(out+errs, refresh[1]) {
			t.Errorf("%q: status %d\n%s%s", more, status, out, errs)
		}
	}
	if b, err := os.ReadFile(log); err != nil || strings.Contains(string(b), refresh[1]) {
		t.Errorf("%s, %v", b, err)
	}
	if status, out, _ := mailstow(t, env, "auth", "status", "m365"); status != exitLogin || !strings.Contains(out, "has ended: mailstow auth login m365") {
		t.Errorf("status %d\n%s", status, out)
	}
	people.Refuse("", "")
	if status, out, errs := mailstow(t, env, "backup", "m365"); status != exitOK {
		t.Errorf("let in again: status %d\n%s%s", status, out, errs)
	}
	if status, out, _ := mailstow(t, env, "auth", "status", "m365"); status != exitOK {
		t.Errorf("status %d\n%s", status, out)
	}
}

// Another program has got the token: a command prints it, or the environment has it.
func TestTokenComesFromElsewhere(t *testing.T) {
	tag := ""
	addr := mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] hi\r\n", func(line string) string {
		first, command, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(command, "AUTHENTICATE"):
			tag = first
			return "+ \r\n"
		case decoded(line) == "user=alice\x01auth=Bearer right\x01\x01":
			return tag + " OK [CAPABILITY IMAP4rev1] in\r\n"
		case command == "":
			return tag + " NO [AUTHENTICATIONFAILED] no\r\n"
		case strings.HasPrefix(command, "LIST"):
			return "* LIST () \"/\" INBOX\r\n" + first + " OK done\r\n"
		case strings.HasPrefix(command, "EXAMINE"):
			return "* 0 EXISTS\r\n* OK [UIDVALIDITY 1] v\r\n* OK [UIDNEXT 1] n\r\n" + first + " OK in\r\n"
		}
		return first + " OK done\r\n"
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	write(t, file, fmt.Sprintf("archive = %q\n[accounts.my-uni]\nserver = \"imap+insecure://alice@%s\"\nauth = \"xoauth2\"\ntoken_command = \"echo wrong\"\n", dir, addr))
	env := map[string]string{"HOME": dir, "MAILSTOW_CONFIG": file}
	if status, out, errs := mailstow(t, env, "backup"); status != exitLogin || !strings.Contains(errs, "check what `echo wrong` gives") {
		t.Errorf("a wrong one: status %d\n%s%s", status, out, errs)
	}
	env["MAILSTOW_TOKEN_MY_UNI"] = "right" // counts before the config file
	if status, out, errs := mailstow(t, env, "backup"); status != exitOK {
		t.Errorf("from the environment: status %d\n%s%s", status, out, errs)
	}
	if _, out, _ := mailstow(t, env, "auth", "status"); !strings.Contains(out, "from MAILSTOW_TOKEN_MY_UNI") || strings.Contains(out, "right") {
		t.Error(out)
	}
	env["MAILSTOW_TOKEN_MY_UNI"] = "wrong"
	if status, out, errs := mailstow(t, env, "backup", "--token-command", "echo right"); status != exitOK { // and an option before that
		t.Errorf("from an option: status %d\n%s%s", status, out, errs)
	}
}

// The password that a person types once is tried, kept where nobody else can read
// it, and used at night.
func TestPasswordIsKept(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly())
	env := map[string]string{"HOME": t.TempDir()}
	config := filepath.Join(env["HOME"], "config.toml")
	env["MAILSTOW_CONFIG"] = config
	write(t, config, fmt.Sprintf("archive = %q\n[accounts.isp]\nserver = %q\n", filepath.Join(env["HOME"], "archive"), address("imap+insecure", s.IMAP)))
	typed := func(password string) (int, string) {
		var said bytes.Buffer
		status := Run(t.Context(), Env{Args: []string{"auth", "login", "isp", "--password-file", "-"}, Stdin: strings.NewReader(password + "\n"), Stdout: &said, Stderr: &said, Getenv: func(name string) string { return env[name] }})
		return status, said.String()
	}
	if status, said := typed("wrong"); status != exitLogin || !strings.Contains(said, "Nothing was kept") || strings.Contains(said, "wrong") {
		t.Errorf("a wrong one: status %d\n%s", status, said)
	}
	if status, out, errs := mailstow(t, env, "backup", "isp"); status != exitConfig || !strings.Contains(errs, "mailstow auth login isp") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	secret := filepath.Join(env["HOME"], ".local/state/mailstow/secrets/isp.password")
	if status, said := typed(s.Password("alice")); status != exitOK || said != "isp: kept in "+secret+"\n" {
		t.Errorf("status %d\n%s", status, said)
	}
	if fi, err := os.Stat(secret); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	if status, out, errs := mailstow(t, env, "backup", "isp"); status != exitOK {
		t.Errorf("at night: status %d\n%s%s", status, out, errs)
	}
	if status, out, errs := mailstow(t, env, "auth", "status", "--json"); status != exitOK || !strings.Contains(out, `"state":"kept in `) {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	url := address("imap+insecure", s.IMAP) // called by it, too, what is kept is forgotten by it
	env["MAILSTOW_PASSWORD"] = "x"
	if status, out, errs := mailstow(t, env, "auth", "status", url); status != exitOK || !strings.Contains(out, "from MAILSTOW_PASSWORD") {
		t.Errorf("from the environment: status %d\n%s%s", status, out, errs)
	}
	delete(env, "MAILSTOW_PASSWORD")
	env["MAILSTOW_PASSWORD_ISP"] = "x"
	if _, out, errs := mailstow(t, env, "config", "show", "isp"); !regexp.MustCompile(`password +\*\*\*, from MAILSTOW_PASSWORD_ISP +MAILSTOW_PASSWORD_ISP\n`).MatchString(out) {
		t.Errorf("%s%s", out, errs)
	}
	if _, out, errs := mailstow(t, env, "config", "show", "isp", "--password-file", secret); !strings.Contains(out, "from --password-file") {
		t.Errorf("%s%s", out, errs)
	}
	delete(env, "MAILSTOW_PASSWORD_ISP")
	for _, args := range [][]string{{url}, {strings.Replace(url, "alice@", "", 1), "--user", "alice"}} {
		if status, out, errs := mailstow(t, env, append([]string{"backup"}, args...)...); status != exitConfig || !strings.Contains(errs, "mailstow auth login "+url+" keeps one") {
			t.Errorf("%q: status %d\n%s%s", args, status, out, errs)
		}
	}
	var printed bytes.Buffer
	if status := Run(t.Context(), Env{Args: []string{"auth", "login", url, "--password-file", "-"}, Stdin: strings.NewReader(s.Password("alice") + "\n"), Stdout: &printed, Stderr: &printed, Getenv: func(name string) string { return env[name] }}); status != exitOK {
		t.Error(status, printed.String())
	}
	if status, out, errs := mailstow(t, env, "auth", "logout", url); status != exitOK || out != "alice@127.0.0.1: forgotten\n" {
		t.Errorf("logout: status %d\n%s%s", status, out, errs)
	}
	kept, err := os.ReadFile(secret)
	must(t, err)
	write(t, secret, strings.Replace(string(kept), s.Password("alice"), "former", 1))
	if status, out, errs := mailstow(t, env, "backup", "isp"); status != exitLogin || !strings.Contains(errs, "if the password has changed: mailstow auth login isp") {
		t.Errorf("changed on the server: status %d\n%s%s", status, out, errs)
	}
	write(t, secret, "half of it")
	if status, out, errs := mailstow(t, env, "backup", "isp"); status != exitLogin || !strings.Contains(errs, "cannot be used") || !strings.Contains(errs, "mailstow auth login isp") || strings.Contains(errs, "half") {
		t.Errorf("damaged: status %d\n%s%s", status, out, errs)
	}
	write(t, secret, string(kept))
	must(t, os.Chmod(secret, 0o644))
	if status, out, errs := mailstow(t, env, "backup", "isp"); status != exitConfig || !strings.Contains(errs, "chmod 600") {
		t.Errorf("others can read it: status %d\n%s%s", status, out, errs)
	}
}

// What is kept for an account goes to the servers that it was given for, and to
// no other that is called the same in this or another config file.
func TestKeptSecretsGoToTheirServersAlone(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly())
	heard := &said{}
	thief := mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] hi\r\n", func(line string) string {
		heard.add(line)
		tag, _, _ := strings.Cut(line, " ")
		return tag + " NO no\r\n"
	})
	dir := t.TempDir()
	env := map[string]string{"HOME": dir, "MAILSTOW_CONFIG": filepath.Join(dir, "config.toml")}
	servers := func(imap string) {
		write(t, env["MAILSTOW_CONFIG"], fmt.Sprintf("archive = %q\n[accounts.isp]\naddress = \"alice@isp.example\"\nuser = \"alice\"\nimap = \"imap+insecure://%s\"\npop3 = \"pop3+insecure://%s\"\n", filepath.Join(dir, "archive"), imap, s.POP3))
	}
	servers(s.IMAP)
	var printed bytes.Buffer
	if status := Run(t.Context(), Env{Args: []string{"auth", "login", "isp", "--password-file", "-"}, Stdin: strings.NewReader(s.Password("alice") + "\n"), Stdout: &printed, Stderr: &printed, Getenv: func(name string) string { return env[name] }}); status != exitOK {
		t.Fatal(status, printed.String())
	}
	for _, via := range []string{"imap", "pop3"} {
		if status, out, errs := mailstow(t, env, "backup", "isp", "--via", via); status != exitOK {
			t.Errorf("%s: status %d\n%s%s", via, status, out, errs)
		}
	}
	servers(thief)
	want := fmt.Sprintf("mailstow: isp: what is kept for this account is for %s, %s, and was not given to %s\n  do:     if that is its server now: mailstow auth login isp\n", s.IMAP, s.POP3, thief)
	if status, out, errs := mailstow(t, env, "backup", "isp"); status != exitLogin || errs != want {
		t.Errorf("status %d\n%s%s\nwant\n%s", status, out, errs, want)
	}
	if status, out, errs := mailstow(t, env, "auth", "status"); status != exitLogin || !strings.Contains(out, "what is kept for this account is for") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if len(heard.all) > 0 {
		t.Errorf("the other server was told %q", heard.all)
	}

	_, people, env := tokenServer(t, nil)
	if status, said := signedIn(t, env, "paste", "m365"); status != exitOK {
		t.Fatal(status, said)
	}
	file := env["MAILSTOW_CONFIG"]
	b, err := os.ReadFile(file)
	must(t, err)
	asked := mailtest.NewSignIn(t)
	for name, c := range map[string]struct{ old, new, want string }{
		"mail server":    {"imap+insecure://", "imap+insecure://" + thief + "#", "was not given to"},
		"sign-in server": {people.URL + "/token", asked.URL + "/token", "with another sign-in server"},
		"application":    {`client_id = "me"`, `client_id = "other"`, "was for another application"},
	} {
		text := strings.Replace(string(b), c.old, c.new, 1)
		if name == "mail server" {
			text = regexp.MustCompile(`#\S+"`).ReplaceAllString(text, `"`)
		}
		write(t, file, text)
		people.Expire() // so that it has to be renewed
		if status, out, errs := mailstow(t, env, "backup", "m365"); status != exitLogin || !strings.Contains(errs, c.want) || !strings.Contains(errs, "mailstow auth login m365") {
			t.Errorf("%s: status %d\n%s%s", name, status, out, errs)
		}
	}
	if len(heard.all) > 0 || asked.Renewals() > 0 || people.Renewals() > 0 {
		t.Errorf("the other server was told %q; %d renewals there, %d at the right one", heard.all, asked.Renewals(), people.Renewals())
	}
}

// A run that renews a token meanwhile neither puts an old sign-in in the place of
// a new one, nor brings back one that was forgotten.
func TestSignInWaitsForARenewal(t *testing.T) {
	_, _, env := tokenServer(t, nil)
	if status, said := signedIn(t, env, "paste", "m365"); status != exitOK {
		t.Fatal(status, said)
	}
	locks := filepath.Join(env["HOME"], ".local/state/mailstow/locks")
	f, err := os.Open(filepath.Join(locks, "m365.oauth2.lock"))
	must(t, err)
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	for name, change := range map[string]func() int{
		"login":  func() int { status, _ := signedIn(t, env, "paste", "m365"); return status },
		"logout": func() int { status, _, _ := mailstow(t, env, "auth", "logout", "m365"); return status },
	} {
		ended := make(chan int, 1)
		go func() { ended <- change() }()
		select {
		case status := <-ended:
			t.Errorf("%s: it did not wait, status %d", name, status)
		case <-time.After(500 * time.Millisecond):
		}
		must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_UN))
		if status := <-ended; status != exitOK {
			t.Errorf("%s: status %d", name, status)
		}
		must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	}
}

// systemd gives a service its passwords as files (LoadCredential).
func TestPasswordComesFromSystemd(t *testing.T) {
	s := mailtest.Dovecot(t)
	env := map[string]string{"HOME": t.TempDir(), "CREDENTIALS_DIRECTORY": t.TempDir()}
	config := filepath.Join(env["HOME"], "config.toml")
	env["MAILSTOW_CONFIG"] = config
	write(t, config, fmt.Sprintf("archive = %q\n[accounts.isp]\nserver = %q\npassword_command = \"echo wrong\"\n", filepath.Join(env["HOME"], "archive"), address("imap+insecure", s.IMAP)))
	must(t, os.WriteFile(filepath.Join(env["CREDENTIALS_DIRECTORY"], "mailstow.isp.password"), []byte(s.Password("alice")+"\n"), 0o440))
	if status, out, errs := mailstow(t, env, "backup", "isp"); status != exitOK {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}
