package cli

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/mailtest"
)

// said are the commands that a fake server has heard.
type said struct {
	mu  sync.Mutex
	all []string
}

func (s *said) add(command string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, command)
}

func (s *said) has(part string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(strings.ToUpper(strings.Join(s.all, "\n")), part)
}

// quirky is an IMAP server with one message, whose answers a provider's habits
// decide; "" for the usual one.
func quirky(t *testing.T, caps string, habit func(command string) string) (addr string, heard *said) {
	heard = &said{}
	return mailtest.Script(t, "* OK [CAPABILITY "+caps+"] hi\r\n", func(line string) string {
		tag, command, _ := strings.Cut(line, " ")
		heard.add(command)
		answer := habit(command)
		switch {
		case answer != "":
		case strings.HasPrefix(command, "LOGIN"):
			answer = "TAG OK [CAPABILITY " + caps + "] in\r\n"
		case strings.HasPrefix(command, "LIST"):
			answer = "* LIST (\\HasNoChildren) \"/\" INBOX\r\n* LIST (\\HasNoChildren) \"/\" \"&g0l6P3ux-\"\r\nTAG OK done\r\n"
		case strings.HasPrefix(command, "EXAMINE INBOX"):
			answer = "* 1 EXISTS\r\n* OK [UIDVALIDITY 1699] v\r\n* OK [UIDNEXT 2] n\r\nTAG OK [READ-ONLY] in\r\n"
		case strings.HasPrefix(command, "EXAMINE"):
			answer = "* 0 EXISTS\r\n* OK [UIDVALIDITY 1] v\r\n* OK [UIDNEXT 1] n\r\nTAG OK [READ-ONLY] in\r\n"
		case strings.Contains(command, "BODY.PEEK[]"):
			answer = "* 1 FETCH (UID 1 BODY[] {17}\r\nSubject: x\r\n\r\nx\r\n)\r\nTAG OK done\r\n"
		case strings.Contains(command, "FETCH"):
			answer = "* 1 FETCH (UID 1 FLAGS (\\Seen) INTERNALDATE \"01-Jan-2020 00:00:00 +0000\" RFC822.SIZE 17)\r\nTAG OK done\r\n"
		default:
			answer = "TAG OK done\r\n"
		}
		return strings.ReplaceAll(answer, "TAG", tag)
	}), heard
}

// Servers of providers that behave as theirs are reported to: each is backed up.
func TestProvidersHabitsAreBorne(t *testing.T) {
	throttled := false
	for _, c := range []struct {
		provider, caps string
		habit          func(command string) string
		never          []string // said
	}{
		// It announces SASL-IR and answers BAD to it, and serves who tells its name.
		{"163", "IMAP4rev1 AUTH=PLAIN SASL-IR ID UIDPLUS", func() func(string) string {
			named := false
			return func(command string) string {
				switch {
				case strings.HasPrefix(command, "AUTHENTICATE"):
					return "TAG BAD Parse command error\r\n"
				case strings.HasPrefix(command, "ID "):
					named = true
				case strings.HasPrefix(command, "EXAMINE") && !named:
					return "TAG NO SELECT Unsafe Login. Please contact kefu@188.com for help\r\n"
				}
				return ""
			}
		}(), []string{"AUTHENTICATE"}},
		// It announces IMAP4rev2, and whoever uses it is shown nothing; it wants pauses.
		{"microsoft365", "IMAP4rev1 IMAP4rev2 ENABLE ID UIDPLUS MOVE", func(command string) string {
			if strings.Contains(command, "BODY.PEEK[]") && !throttled {
				throttled = true
				return "TAG NO Request is throttled. Suggested Backoff Time: 50 milliseconds\r\n"
			}
			return ""
		}, []string{"IMAP4REV2", "SEARCH RETURN", "RETURN (", "UTF8"}},
		// It accepts IMAP4rev2 and then lists nothing.
		{"strato", "IMAP4rev1 IMAP4rev2 ENABLE ESEARCH", func(command string) string {
			if strings.Contains(command, "SEARCH") {
				return "* ESEARCH (TAG \"TAG\") UID\r\nTAG OK done\r\n"
			}
			return ""
		}, []string{"IMAP4REV2", "SEARCH"}},
		// The answer of one command is refused with a rate limit now and then.
		{"yahoo", "IMAP4rev1 ID UIDPLUS MESSAGELIMIT=1000 UIDONLY PARTIAL", func() func(string) string {
			n := 0
			return func(command string) string {
				if strings.Contains(command, "BODY.PEEK[]") {
					if n++; n == 1 {
						return "TAG NO [LIMIT] Rate limit hit.\r\n"
					}
				}
				return ""
			}
		}(), []string{"UIDONLY", "PARTIAL"}},
	} {
		t.Run(c.provider, func(t *testing.T) {
			addr, heard := quirky(t, c.caps, c.habit)
			dir := t.TempDir()
			file := filepath.Join(dir, "config.toml")
			write(t, file, fmt.Sprintf("archive = %q\n[accounts.mine]\nserver = \"imap+insecure://alice@%s\"\nprovider = %q\n", dir, addr, c.provider))
			status, out, errs := mailstow(t, map[string]string{"HOME": dir, "MAILSTOW_CONFIG": file, "MAILSTOW_PASSWORD_MINE": "x"}, "backup", "mine")
			if status != exitOK || len(messageFiles(t, filepath.Join(dir, "mine"))) != 1 {
				t.Errorf("status %d\n%s%s", status, out, errs)
			}
			if _, err := os.Stat(filepath.Join(dir, "mine", "草稿箱", "cur")); err != nil { // as people read it
				t.Error(err)
			}
			for _, part := range c.never {
				if heard.has(part) {
					t.Errorf("it is told %s: %q", part, heard.all)
				}
			}
			if strings.Contains(c.caps, " ID ") && !heard.has(`ID ("NAME" "MAILSTOW")`) {
				t.Errorf("it is not told who asks: %q", heard.all)
			}
		})
	}
}

// Yahoo shows all mail at one host, which is read-only: that is backed up, and
// what is removed or stored goes to the other.
func TestYahooIsReadAtOneHostAndChangedAtAnother(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	write(t, file, "[accounts.y]\naddress = \"me@yahoo.com\"\n")
	env := map[string]string{"HOME": dir, "MAILSTOW_CONFIG": file}
	if _, out, _ := mailstow(t, env, "config", "show", "y"); !strings.Contains(out, "export.imap.mail.yahoo.com:993") {
		t.Errorf("it is backed up from\n%s", out)
	}
	cfg, err := config.Read(file, dir)
	must(t, err)
	for _, p := range []*program{{changing: true}, {storing: true}} {
		p.Env = Env{Getenv: func(name string) string { return env[name] }}
		p.still = true
		set := cfg.Accounts[0]
		if _, err := p.find(cli.NewContext(nil, nil, nil), &set); err != nil || set.IMAP != "imaps://imap.mail.yahoo.com" {
			t.Errorf("it is changed at %s, %v", set.IMAP, err)
		}
	}
}

// Without a person: an application that may read all mail, and a service account.
func TestAccountsThatNeedNoPerson(t *testing.T) {
	_, people, env := tokenServer(t, nil)
	s := mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 AUTH=OAUTHBEARER] hi\r\n", func() func(string) string {
		tag := ""
		return func(line string) string {
			first, command, _ := strings.Cut(line, " ")
			if command == "AUTHENTICATE OAUTHBEARER" {
				tag = first
				return "+ \r\n"
			}
			if command == "" { // the response
				b := decoded(line)
				_, token, _ := strings.Cut(b, "auth=Bearer ")
				token, _, _ = strings.Cut(token, "\x01")
				if whose := people.Whose(token); whose == "" || !strings.Contains(b, "a="+whose+"@") && whose != "alice" {
					return tag + " NO [AUTHENTICATIONFAILED] no\r\n"
				}
				return tag + " OK [CAPABILITY IMAP4rev1] in\r\n"
			}
			switch {
			case strings.HasPrefix(command, "LIST"):
				return "* LIST () \"/\" INBOX\r\n" + first + " OK done\r\n"
			case strings.HasPrefix(command, "EXAMINE"):
				return "* 0 EXISTS\r\n* OK [UIDVALIDITY 1] v\r\n* OK [UIDNEXT 1] n\r\n" + first + " OK in\r\n"
			}
			return first + " OK done\r\n"
		}
	}())
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	b, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "robot@example.org", "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": people.URL + "/token"})
	must(t, err)
	dir := t.TempDir()
	keyFile := filepath.Join(dir, "key.json")
	must(t, os.WriteFile(keyFile, b, 0o600))
	file := env["MAILSTOW_CONFIG"]
	text, err := os.ReadFile(file)
	must(t, err)
	write(t, file, string(text)+fmt.Sprintf("[oauth2.google]\nkey_file = %q\n[accounts.bob]\naddress = \"bob@example.org\"\nprovider = \"gmail\"\nauth = \"google-service-account\"\nserver = \"imap+insecure://%s\"\n[accounts.app]\naddress = \"alice@contoso.example\"\nprovider = \"microsoft365\"\nauth = \"oauth2-app\"\nserver = \"imap+insecure://%s\"\n[accounts.app.oauth2]\nclient_id = \"app\"\nclient_secret_command = \"echo app secret\"\n", keyFile, s, s))
	for _, account := range []string{"bob", "app"} {
		if status, out, errs := mailstow(t, env, "backup", account); status != exitOK {
			t.Errorf("%s: status %d\n%s%s", account, status, out, errs)
		}
	}
	must(t, os.Chmod(keyFile, 0o644))
	if status, out, errs := mailstow(t, env, "backup", "bob"); status != exitConfig || !strings.Contains(errs, "chmod 600") {
		t.Errorf("a key that others can read: status %d\n%s%s", status, out, errs)
	}
}

func decoded(text string) string {
	b, _ := base64.StdEncoding.DecodeString(text)
	return string(b)
}
