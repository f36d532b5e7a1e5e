package imapwire_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/imapwire"
	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
)

func plain(addr string) netconn.Endpoint {
	return netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 10 * time.Second}
}

func login(t *testing.T, addr string, l sasl.Login) (*imapwire.Conn, error) {
	t.Helper()
	return loginCompressed(t, addr, l, imapwire.Auto)
}

func loginCompressed(t *testing.T, addr string, l sasl.Login, z imapwire.Compression) (*imapwire.Conn, error) {
	t.Helper()
	c, err := imapwire.Dial(t.Context(), plain(addr), l, z)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func secret(s string) credential.Secret { return credential.NewSecret(s) }

func TestSCRAMWhereItIsOffered(t *testing.T) {
	s := mailtest.Dovecot(t, "auth_mechanisms = plain login scram-sha-256")
	relay := mailtest.NewRelay(t, s.IMAP, mailtest.Line{})
	if _, err := login(t, relay.Addr, sasl.Login{User: "alice", Secret: secret(s.Password("alice"))}); err != nil {
		t.Fatal(err)
	}
	said := strings.Join(relay.Said(), "\n")
	if !strings.Contains(said, "AUTHENTICATE SCRAM-SHA-256") || strings.Contains(said, s.Password("alice")) {
		t.Errorf("the client said %q", said)
	}
	_, err := login(t, s.IMAP, sasl.Login{User: "alice", Secret: secret("wrong")})
	if !errors.As(err, new(*credential.RefusedError)) || !retry.IsPermanent(err) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := login(t, s.IMAP, sasl.Login{User: "alice", Secret: secret(s.Password("alice")), Method: "login"}); err != nil {
		t.Errorf("LOGIN, as it was asked for: %v", err)
	}
}

// An administrator may read the mail of another user.
func TestLoginForSomebodyElse(t *testing.T) {
	s := mailtest.Dovecot(t, "passdb {\n driver = static\n master = yes\n args = password=boss-secret\n result_success = continue\n}")
	if err := s.Append("bob", "INBOX", []byte("Subject: bob's\r\n\r\nx\r\n"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	c, err := login(t, s.IMAP, sasl.Login{User: "boss", Secret: secret("boss-secret"), As: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("a1 STATUS INBOX (MESSAGES)\r\n")); err != nil {
		t.Fatal(err)
	}
	var heard strings.Builder
	for b := make([]byte, 1000); !strings.Contains(heard.String(), "a1 "); {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		heard.Write(b[:n])
	}
	if !strings.Contains(heard.String(), "MESSAGES 1") {
		t.Errorf("bob's INBOX: %q", heard.String())
	}
}

// conversation is a server that challenges, as often as there are challenges.
func conversation(t *testing.T, caps string, challenges ...string) (addr string, said func() []string) {
	var mu sync.Mutex
	var lines []string
	var tag string
	left := challenges
	addr = mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 "+caps+"] hi\r\n", func(line string) string {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
		if before, command, ok := strings.Cut(line, " "); ok {
			tag = before
			if !strings.HasPrefix(command, "AUTHENTICATE") {
				return tag + " OK done\r\n"
			}
		}
		if len(left) == 0 {
			return tag + " OK in\r\n"
		}
		next := left[0]
		left = left[1:]
		if strings.HasPrefix(next, "NO") {
			return tag + " " + next + "\r\n"
		}
		return "+ " + next + "\r\n"
	})
	return addr, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return lines
	}
}

func TestWhatIsSaidWithATokenOrACertificate(t *testing.T) {
	for _, c := range []struct {
		method, caps, want string
		challenges         []string
	}{
		{"xoauth2", "SASL-IR AUTH=XOAUTH2", "user=alice\x01auth=Bearer tok\x01\x01", []string{""}},
		{"oauthbearer", "AUTH=OAUTHBEARER", "n,a=alice,\x01host=127.0.0.1\x01port=", []string{""}},
		{"external", "AUTH=EXTERNAL", "", []string{""}},
		{"plain", "SASL-IR AUTH=PLAIN", "\x00alice\x00tok", []string{""}},
	} {
		addr, said := conversation(t, c.caps, c.challenges...)
		if _, err := login(t, addr, sasl.Login{User: "alice", Secret: secret("tok"), Method: c.method}); err != nil {
			t.Errorf("%s: %v", c.method, err)
			continue
		}
		lines := said()
		got, err := base64.StdEncoding.DecodeString(lines[1])
		if err != nil || !strings.HasPrefix(string(got), c.want) || !strings.HasSuffix(lines[0], "AUTHENTICATE "+strings.ToUpper(c.method)) {
			t.Errorf("%s: the client said %q", c.method, lines)
		}
	}
}

// A refused token is told by a challenge with the reason, to be answered with
// an empty line; then the server says no.
func TestRefusedToken(t *testing.T) {
	addr, said := conversation(t, "AUTH=XOAUTH2", "", base64.StdEncoding.EncodeToString([]byte(`{"status":"400"}`)), "NO [AUTHENTICATIONFAILED] no")
	_, err := login(t, addr, sasl.Login{User: "alice", Secret: secret("old"), Method: "xoauth2"})
	if !errors.As(err, new(*credential.RefusedError)) {
		t.Errorf("error = %v", err)
	}
	if lines := said(); len(lines) != 3 || lines[2] != "" {
		t.Errorf("the client said %q", lines)
	}
}

func TestMethodThatIsNotOfferedSendsNothing(t *testing.T) {
	addr, said := conversation(t, "AUTH=PLAIN")
	_, err := login(t, addr, sasl.Login{User: "alice", Secret: secret("tok"), Method: "xoauth2"})
	if err == nil || !retry.IsPermanent(err) || len(said()) != 0 {
		t.Errorf("%v, the client said %q", err, said())
	}
}

// A server may ask for any amount of work before it lets anybody in.
func TestSCRAMWithoutEndIsRefused(t *testing.T) {
	addr, _ := conversation(t, "AUTH=SCRAM-SHA-256", "", base64.StdEncoding.EncodeToString([]byte("r=x,s=QSXCR+Q6sek8bf92,i=2000000000")))
	begun := time.Now()
	_, err := login(t, addr, sasl.Login{User: "alice", Secret: secret("tok")})
	if err == nil || time.Since(begun) > time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

// A server that does not know the password must not pass for one that does.
func TestSCRAMServerMustProveItself(t *testing.T) {
	addr, _ := conversation(t, "AUTH=SCRAM-SHA-256", "")
	if _, err := login(t, addr, sasl.Login{User: "alice", Secret: secret("tok")}); err == nil {
		t.Error("the server said OK without a proof, and is believed")
	}
}

func TestCompressedSession(t *testing.T) {
	for name, s := range map[string]*mailtest.Server{
		"dovecot": mailtest.Dovecot(t, "protocol imap {\n mail_plugins = zlib imap_zlib\n}"),
		"cyrus":   mailtest.Cyrus(t),
	} {
		body := "Subject: x\r\n\r\n" + strings.Repeat("the same line again\r\n", 20000)
		if err := s.Append("alice", "INBOX", []byte(body), time.Time{}); err != nil {
			t.Fatal(err)
		}
		c, err := loginCompressed(t, s.IMAP, sasl.Login{User: "alice", Secret: secret(s.Password("alice"))}, imapwire.Always)
		if err != nil {
			t.Fatal(name, err)
		}
		if !c.Compressed() {
			t.Errorf("%s: the connection is not compressed", name)
		}
		c.Write([]byte("a1 EXAMINE INBOX\r\na2 UID FETCH 1:* (UID BODY.PEEK[])\r\n"))
		var heard strings.Builder
		for b := make([]byte, 1<<16); !strings.Contains(heard.String(), "\na2 OK"); {
			n, err := c.Read(b)
			if err != nil {
				t.Fatal(name, err)
			}
			heard.Write(b[:n])
		}
		if !strings.Contains(heard.String(), body) {
			t.Errorf("%s: the body did not come back", name)
		}
	}
}

// On this machine compression costs more than it saves.
func TestNothingIsCompressedOnLoopback(t *testing.T) {
	s := mailtest.Cyrus(t)
	c, err := login(t, s.IMAP, sasl.Login{User: "alice", Secret: secret(s.Password("alice"))})
	if err != nil || c.Compressed() {
		t.Errorf("compressed: %v, %v", c.Compressed(), err)
	}
}

// Whose mail it is must never be lost on the way: else one person's mail lies
// in another's archive.
func TestOtherUserIsNamedOrNobodyLogsIn(t *testing.T) {
	for method, want := range map[string]string{
		"login":       "",
		"xoauth2":     "user=bob\x01auth=Bearer tok\x01\x01",
		"oauthbearer": "n,a=bob,\x01host=127.0.0.1\x01port=",
		"plain":       "bob\x00admin\x00tok",
		"external":    "bob",
	} {
		addr, said := conversation(t, "AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER AUTH=EXTERNAL", "")
		_, err := login(t, addr, sasl.Login{User: "admin", As: "bob", Secret: secret("tok"), Method: method})
		if want == "" {
			if err == nil || len(said()) != 0 {
				t.Errorf("%s: %v, the client said %q", method, err, said())
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		if got, _ := base64.StdEncoding.DecodeString(said()[1]); !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: the client said %q", method, got)
		}
	}
}

// Servers repeat what they were told, in errors too.
func TestSecretIsNotShownThoughTheServerRepeatsIt(t *testing.T) {
	const password = `hunter"2`
	for name, answer := range map[string]string{
		"refused":     "TAG NO [AUTHENTICATIONFAILED] no: LINE\r\n",
		"out of turn": "xLINE\r\n",
		"busy":        "TAG NO [UNAVAILABLE] LINE\r\n",
		"last words":  "* BYE LINE\r\n" + mailtest.HangUp,
	} {
		for _, method := range []string{"login", "plain"} {
			tag := ""
			addr := mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n", func(line string) string {
				if strings.HasSuffix(line, "AUTHENTICATE PLAIN") {
					tag, _, _ = strings.Cut(line, " ")
					return "+ \r\n"
				}
				if method == "login" {
					tag, _, _ = strings.Cut(line, " ")
				}
				return strings.NewReplacer("TAG", tag, "LINE", line).Replace(answer)
			})
			_, err := login(t, addr, sasl.Login{User: "alice", Secret: secret(password), Method: method})
			if err == nil {
				t.Fatalf("%s: no error", name)
			}
			text := err.Error()
			if refused := new(credential.RefusedError); errors.As(err, &refused) {
				text += refused.Answer
			}
			for _, s := range []string{password, `hunter\"2`, base64.StdEncoding.EncodeToString([]byte("\x00alice\x00" + password))} {
				if strings.Contains(text, s) {
					t.Errorf("%s, %s: %q", name, method, text)
				}
			}
		}
	}
}

func TestNoLOGINWhereItIsForbidden(t *testing.T) {
	addr, said := conversation(t, "LOGINDISABLED AUTH=PLAIN")
	if _, err := login(t, addr, sasl.Login{User: "alice", Secret: secret("x"), Method: "login"}); err == nil || len(said()) != 0 {
		t.Errorf("%v, the client said %q", err, said())
	}
}

// Answers with literals, and in another order than the questions, are answers.
func TestSessionBeginsWhateverTheOrderOfTheAnswers(t *testing.T) {
	var held string
	addr := mailtest.Script(t, "* OK [CAPABILITY IMAP4rev1 ID ENABLE QRESYNC] hi\r\n", func(line string) string {
		tag, command, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(command, "ID"):
			held = "* ID (\"name\" {5}\r\na b c)\r\n" + tag + " OK id\r\n"
			return ""
		case strings.HasPrefix(command, "ENABLE"):
			return "* ENABLED QRESYNC\r\n" + tag + " OK enabled\r\n" + held
		}
		return "* CAPABILITY IMAP4rev1 ID ENABLE QRESYNC\r\n" + tag + " OK done\r\n"
	})
	if _, err := login(t, addr, sasl.Login{User: "alice", Secret: secret("x")}); err != nil {
		t.Error(err)
	}
}
