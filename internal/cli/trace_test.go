package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailstow/internal/mailtest"
)

// A trace shows commands and answers, and neither logins nor mail.
func TestTraceShowsNeitherLoginsNorMail(t *testing.T) {
	s := mailtest.Dovecot(t, "auth_mechanisms = plain login scram-sha-256")
	fill(t, s, "INBOX", [][]byte{[]byte("Subject: sekrit subject\r\n\r\nsekrit body {3}\r\nmore\r\n"), []byte("Subject: sekrit two\r\n\r\n")})
	for scheme, addr := range map[string]string{"imap+insecure": s.IMAP, "pop3+insecure": s.POP3} {
		for _, method := range []string{"password", "plain", "login"} {
			if scheme == "pop3+insecure" && method == "login" {
				method = "user"
			}
			args := []string{"backup", address(scheme, addr), "--to", t.TempDir(), "-vv", "--auth", method}
			status, out, errs := mailstow(t, home(t, s), args...)
			want := []string{"alice@127.0.0.1: C: ID (\"name\" \"mailstow\")", "alice@127.0.0.1: S: * 2 EXISTS", "(not shown)"}
			if scheme == "pop3+insecure" {
				want = []string{"alice@127.0.0.1: C: RETR 1", "alice@127.0.0.1: S: +OK", "(not shown)", "C: QUIT"}
			}
			for _, w := range want {
				if !strings.Contains(strings.ReplaceAll(errs, "s0", ""), w) && !strings.Contains(errs, strings.TrimPrefix(w, "alice@127.0.0.1: C: ")) {
					t.Errorf("%s, %s: %q is not shown:\n%s", scheme, method, w, errs)
				}
			}
			if status != exitOK || strings.Contains(errs, "sekrit") || strings.Contains(errs, s.Password("alice")) || strings.Contains(errs, "AUTHENTICATE") || strings.Contains(errs, "AUTH PLAIN") || strings.Contains(errs, "PASS ") {
				t.Errorf("%s, %s: status %d\n%s%s", scheme, method, status, out, errs)
			}
		}
	}
	log := filepath.Join(t.TempDir(), "log")
	status, _, errs := mailstow(t, home(t, s), "backup", address("imap+insecure", s.IMAP), "--to", t.TempDir(), "-vv", "--log-file", log)
	b, err := os.ReadFile(log)
	if must(t, err); status != exitOK || strings.Contains(errs, "EXISTS") || len(objects(t, string(b), "wire")) < 10 || strings.Contains(string(b), "sekrit") {
		t.Errorf("status %d\n%s%s", status, errs, b)
	}
}
