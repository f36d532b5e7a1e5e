// Package mailtest starts real mail servers on loopback for tests: Dovecot, Cyrus and Courier.
//
// install.sh gets them. A server needs root on Linux, as it runs in namespaces of its own, and ends with the test, or
// with the test process however that ends. A test is skipped, with the reason, where its server cannot run; it fails
// instead when MAILSTOW_TEST_SERVERS_REQUIRED=1. MAILSTOW_TEST_SERVERS is the folder that install.sh filled, when it is
// not ~/.cache/mailstow-test-servers.
package mailtest

import (
	"strings"
	"testing"
)

// Server is a mail server running on loopback for the length of a test. Its users are alice, bob and carol, who have
// an empty INBOX.
type Server struct {
	Name string // "dovecot", "cyrus" or "courier"

	// Where it listens, as host:port; the host is 127.0.0.1. The plain ports take passwords without TLS, and STARTTLS
	// or STLS too.
	IMAP, IMAPS, POP3, POP3S string

	CA  string // PEM file to trust; the certificate is valid for localhost and 127.0.0.1
	Dir string // its files, as root sees them: in memory, gone when the test ends; mail is in home, or spool for Cyrus

	process *process
}

// Dovecot starts Dovecot with Maildir folders. The settings are lines of dovecot.conf that overrule the ones it has;
// `namespace inbox {` opens the only namespace.
func Dovecot(t testing.TB, settings ...string) *Server {
	t.Helper()
	return start(t, "dovecot", "SETTINGS="+strings.Join(settings, "\n"))
}

// Cyrus starts Cyrus.
func Cyrus(t testing.TB) *Server {
	t.Helper()
	return start(t, "cyrus")
}

// Courier starts Courier. A login with a wrong password takes 5 s there, which cannot be changed.
func Courier(t testing.TB) *Server {
	t.Helper()
	return start(t, "courier")
}

// Each runs f as a subtest against a new server of each kind; those that cannot run here are skipped with the reason.
func Each(t *testing.T, f func(t *testing.T, s *Server)) {
	t.Helper()
	t.Run("dovecot", func(t *testing.T) { f(t, Dovecot(t)) })
	t.Run("cyrus", func(t *testing.T) { f(t, Cyrus(t)) })
	t.Run("courier", func(t *testing.T) { f(t, Courier(t)) })
}

// Password is what the user logs in with.
func (s *Server) Password(user string) string { return user + "-secret" }

// Prefix is what the name of every folder but INBOX must begin with. Folders within folders have "." between them.
func (s *Server) Prefix() string {
	if s.Name == "dovecot" {
		return ""
	}
	return "INBOX."
}
