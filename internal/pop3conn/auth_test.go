package pop3conn

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
	"mailstow/mailbox"
)

func logIn(t *testing.T, addr string, l sasl.Login) (*Conn, error) {
	t.Helper()
	s := &Server{Endpoint: netconn.Endpoint{Addr: addr, Security: netconn.Plain, Timeout: 10 * time.Second}, Login: l}
	c, err := s.Dial(t.Context())
	if c != nil {
		t.Cleanup(func() { c.Close(true) })
	}
	return c, err
}

func secret(s string) credential.Secret { return credential.NewSecret(s) }

func TestEveryWayToLogIn(t *testing.T) {
	s := mailtest.Dovecot(t, "auth_mechanisms = plain login apop scram-sha-256", "passdb {\n driver = static\n master = yes\n args = password=boss-secret\n result_success = continue\n}")
	for method, sends := range map[string]string{"": "AUTH SCRAM-SHA-256", "scram-sha-256": "AUTH SCRAM-SHA-256", "user": "PASS", "apop": "APOP", "plain": "AUTH PLAIN"} {
		relay := mailtest.NewRelay(t, s.POP3, mailtest.Line{})
		if _, err := logIn(t, relay.Addr, sasl.Login{User: "alice", Secret: secret(s.Password("alice")), Method: method}); err != nil {
			t.Errorf("%q: %v", method, err)
		}
		said := strings.Join(relay.Said(), "\n")
		if method != "user" && method != "plain" && strings.Contains(said, s.Password("alice")) {
			t.Errorf("%q: the client said %q", method, said)
		}
		_, err := logIn(t, s.POP3, sasl.Login{User: "alice", Secret: secret("wrong-horse"), Method: method})
		if !errors.As(err, new(*credential.RefusedError)) || !retry.IsPermanent(err) || strings.Contains(err.Error(), "wrong-horse") {
			t.Errorf("%q with a wrong password: %v; it sends %s", method, err, sends)
		}
	}
	if err := s.Append("bob", "INBOX", []byte("Subject: bob's\r\n\r\nx\r\n"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	c, err := logIn(t, s.POP3, sasl.Login{User: "boss", Secret: secret("boss-secret"), As: "bob", Method: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := c.List(t.Context(), inbox, mailbox.State{}, true); err != nil || len(l.Messages) != 1 {
		t.Errorf("of another user: %+v, %v", l, err)
	}
}

// The servers that take tokens are not to be had here; what must be said to
// them is in RFC 7628, and in Google's and Microsoft's pages.
func TestTokensAreSaidAsTheServersWantThem(t *testing.T) {
	for method, want := range map[string]string{
		"xoauth2":     "user=alice\x01auth=Bearer tok\x01\x01",
		"oauthbearer": "n,a=alice,\x01host=127.0.0.1\x01port=PORT\x01auth=Bearer tok\x01\x01",
	} {
		for _, good := range []bool{true, false} {
			var mu sync.Mutex
			var said []string
			addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
				mu.Lock()
				defer mu.Unlock()
				said = append(said, command)
				switch {
				case command == "CAPA":
					return "+OK\r\nUSER\r\nSASL PLAIN XOAUTH2 OAUTHBEARER\r\n.\r\n"
				case strings.HasPrefix(command, "AUTH"):
					return "+ \r\n"
				case len(said) == 3 && !good:
					return "+ " + base64.StdEncoding.EncodeToString([]byte(`{"status":"400"}`)) + "\r\n"
				case len(said) == 4 && !good:
					return "-ERR [AUTH] tok is not good\r\n"
				}
				return "+OK\r\n"
			})
			_, err := logIn(t, addr, sasl.Login{User: "alice", Secret: secret("tok"), Method: method})
			if good != (err == nil) || !good && (!errors.As(err, new(*credential.RefusedError)) || strings.Contains(err.Error(), "tok is")) {
				t.Errorf("%s, good %v: %v", method, good, err)
			}
			_, port, _ := strings.Cut(addr, ":")
			mu.Lock()
			if b, _ := base64.StdEncoding.DecodeString(said[2]); string(b) != strings.Replace(want, "PORT", port, 1) {
				t.Errorf("%s: said %q", method, b)
			}
			mu.Unlock()
		}
	}
}

func TestLoginIsNotTriedInAWayThatIsNotOffered(t *testing.T) {
	for _, l := range []sasl.Login{
		{User: "alice", Secret: secret("x"), Method: "plain"}, {User: "alice", Secret: secret("x"), Method: "apop"}, {User: "boss", As: "alice", Secret: secret("x")},
		{User: "boss", As: "alice", Secret: secret("x"), Method: "user"}, {User: "alice\r\nDELE 1", Secret: secret("x")}, {User: "alice", Secret: secret("x\r\nDELE 1")},
	} {
		var said []string
		addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
			said = append(said, command)
			return "+OK\r\nUSER\r\n.\r\n"
		})
		if _, err := logIn(t, addr, l); !retry.IsPermanent(err) || len(said) > 1 {
			t.Errorf("%+v: %v, and the client said %q", l, err, said)
		}
	}
}

// A server that says SASL PLAIN and not USER means it.
func TestPlainWhereThereIsNoUser(t *testing.T) {
	var said []string
	addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
		said = append(said, command)
		switch {
		case command == "CAPA":
			return "+OK\r\nSASL PLAIN\r\n.\r\n"
		case command == "AUTH PLAIN":
			return "+\r\n"
		}
		return "+OK\r\n"
	})
	if _, err := logIn(t, addr, sasl.Login{User: "alice", Secret: secret("x")}); err != nil || len(said) < 2 || said[1] != "AUTH PLAIN" {
		t.Errorf("%v, and the client said %q", err, said)
	}
}

// A busy server says nothing of the password, whatever the way to log in.
func TestBusyServerIsNoRefusedLogin(t *testing.T) {
	for _, answer := range []string{"-ERR [IN-USE] locked\r\n", "-ERR [SYS/TEMP] later\r\n", "-ERR [LOGIN-DELAY] later\r\n"} {
		for _, method := range []string{"user", "plain"} {
			addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
				switch word, _, _ := strings.Cut(command, " "); word {
				case "CAPA":
					return "+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n"
				case "AUTH":
					return "+ \r\n"
				case "USER":
					return "+OK\r\n"
				}
				return answer
			})
			_, err := logIn(t, addr, sasl.Login{User: "alice", Secret: secret("x"), Method: method})
			if _, busy := retry.IsBusy(err); !busy || retry.IsPermanent(err) {
				t.Errorf("%s, %q: %v", method, answer, err)
			}
		}
	}
}

func TestLoginDelayIsWaitedFor(t *testing.T) {
	addr := mailtest.Script(t, "+OK hi\r\n", func(command string) string {
		switch {
		case command == "CAPA":
			return "+OK\r\nLOGIN-DELAY 40\r\nUSER\r\n.\r\n"
		case strings.HasPrefix(command, "PASS"):
			return "-ERR [LOGIN-DELAY] minimum time between mail checks violation\r\n"
		}
		return "+OK\r\n"
	})
	_, err := logIn(t, addr, sasl.Login{User: "alice", Secret: secret("x")})
	if wait, busy := retry.IsBusy(err); !busy || wait != 40*time.Second || retry.IsPermanent(err) {
		t.Errorf("%v: wait %v, busy %v", err, wait, busy)
	}
}

// What is wrong with a mailbox for good is not the password's fault.
func TestBrokenMailboxIsNoRefusedLogin(t *testing.T) {
	_, err := connect(t, map[string]string{"PASS secret": "-ERR [SYS/PERM] mailbox corrupt\r\n"})
	if !retry.IsPermanent(err) || errors.As(err, new(*credential.RefusedError)) {
		t.Errorf("error = %v", err)
	}
}
