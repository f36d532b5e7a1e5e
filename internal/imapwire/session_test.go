package imapwire_test

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/retry"
)

func TestWrongPasswordIsNotTriedAgain(t *testing.T) {
	s := &scripted{answers: map[string]string{"LOGIN": "TAG NO [AUTHENTICATIONFAILED] no\r\n"}}
	_, err := dial(t, s.start(t))
	var refused *credential.RefusedError
	if !errors.As(err, &refused) || !retry.IsPermanent(err) {
		t.Fatalf("error = %v, want a permanent RefusedError", err)
	}
	if refused.Answer != "NO [AUTHENTICATIONFAILED] no" {
		t.Errorf("answer = %q", refused.Answer)
	}
}

func TestServerThatIsBusyMayBeTriedAgain(t *testing.T) {
	s := &scripted{answers: map[string]string{"LOGIN": "TAG NO [UNAVAILABLE] later\r\n"}}
	if _, err := dial(t, s.start(t)); err == nil || retry.IsPermanent(err) {
		t.Errorf("error = %v, want one that may pass", err)
	}
}

// The password must not be sent when TLS was stripped from the connection.
func TestNoPasswordWithoutTheTLSThatWasAskedFor(t *testing.T) {
	for name, s := range map[string]*scripted{
		"STARTTLS refused":       {answers: map[string]string{"STARTTLS": "TAG BAD what\r\n"}},
		"PREAUTH":                {greeting: "* PREAUTH hello\r\n"},
		"plain text behind OK":   {answers: map[string]string{"STARTTLS": "TAG OK go\r\n* CAPABILITY IMAP4rev1\r\n"}},
		"plain text for TLS":     {answers: map[string]string{"STARTTLS": "TAG OK go\r\n"}},
		"answer before question": {greeting: "* OK hi\r\ns1 OK go\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := s.start(t)
			e.Security, e.TLS, e.Timeout = netconn.Upgrade, &tls.Config{ServerName: "localhost"}, time.Second
			if _, err := dial(t, e); err == nil {
				t.Fatal("no error")
			}
			for _, c := range s.said() {
				if strings.HasPrefix(c, "LOGIN") || strings.HasPrefix(c, "AUTH") || strings.Contains(c, "secret") {
					t.Errorf("the client said %q", c)
				}
			}
		})
	}
}

func TestLoginDisabledUsesNoLogin(t *testing.T) {
	s := &scripted{caps: "LOGINDISABLED"}
	if _, err := dial(t, s.start(t)); err == nil {
		t.Error("no error")
	}
	s = &scripted{caps: "LOGINDISABLED AUTH=PLAIN", answers: map[string]string{
		"AUTHENTICATE": "+ \r\n", "AGFsaWNlAHNlY3JldA==": "",
	}}
	e := s.start(t)
	e.Timeout = 300 * time.Millisecond
	dial(t, e) // the script cannot end the exchange
	if said := strings.Join(s.said(), "\n"); strings.Contains(said, "LOGIN") || !strings.Contains(said, "AUTHENTICATE PLAIN") {
		t.Errorf("the client said %q", said)
	}
}

func TestPasswordWithLineEndIsNotSent(t *testing.T) {
	s := &scripted{}
	e := s.start(t)
	defer changePassword(credential.NewSecret("x\r\nA1 DELETE INBOX"))()
	if _, err := dial(t, e); err == nil {
		t.Error("no error")
	}
	for _, c := range s.said() {
		if strings.Contains(c, "DELETE") {
			t.Errorf("the client said %q", c)
		}
	}
}

// changePassword changes alice's password until the returned func is called.
func changePassword(s credential.Secret) (restore func()) {
	old := alice
	alice.Secret = s
	return func() { alice = old }
}

func TestSilentServerIsGivenUp(t *testing.T) {
	for _, silent := range []string{"LOGIN", "CAPABILITY"} {
		s := &scripted{silent: silent}
		e := s.start(t)
		e.Timeout = 100 * time.Millisecond
		if _, err := dial(t, e); !errors.Is(err, netconn.ErrSilent) {
			t.Errorf("silent at %s: %v, want %v", silent, err, netconn.ErrSilent)
		}
	}
}

func TestLastWordsAreShown(t *testing.T) {
	s := &scripted{answers: map[string]string{"LOGIN": "* BYE maintenance till noon\r\n" + mailtest.HangUp}}
	if _, err := dial(t, s.start(t)); err == nil || !strings.Contains(err.Error(), "maintenance till noon") {
		t.Errorf("error = %v", err)
	}
}
