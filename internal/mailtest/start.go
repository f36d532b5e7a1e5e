package mailtest

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

const files = "/run/mailtest" // where a server has its files, in its namespace

const startTimeout = 30 * time.Second // it takes under one second on a machine that is not busy

var (
	//go:embed servers/namespace.sh
	namespace string
	//go:embed servers/dovecot.sh
	dovecot string
	//go:embed servers/cyrus.sh
	cyrus string
	//go:embed servers/courier.sh
	courier string

	programs = map[string]string{"dovecot": dovecot, "cyrus": cyrus, "courier": courier}
)

// start starts the named server with the environment given to its script, and stops it when the test ends.
func start(t testing.TB, name string, env ...string) *Server {
	t.Helper()
	if reason := cannotRun(name); reason != "" {
		unable(t, name, reason)
	}
	var err error
	for range 3 { // another process may have taken a port that was free a moment ago
		s := &Server{Name: name}
		if err = s.launch(t.TempDir(), env); err == nil {
			t.Cleanup(s.process.kill)
			return s
		}
		if errors.Is(err, os.ErrPermission) {
			unable(t, name, "root may not make namespaces here")
		}
	}
	t.Fatalf("%s does not start: %v", name, err)
	return nil
}

// cannotRun gives the reason why the server cannot run here; it is empty when it can.
func cannotRun(name string) string {
	switch {
	case runtime.GOOS != "linux":
		return "it is started on Linux only"
	case os.Geteuid() != 0:
		return "only root can start it"
	case name == "dovecot" && !(exists("/usr/lib/dovecot/imap") && exists("/usr/lib/dovecot/pop3")):
		return "dovecot-imapd or dovecot-pop3d is not installed: run internal/mailtest/install.sh"
	case name != "dovecot" && !exists(root(name)):
		return root(name) + " is missing: run internal/mailtest/install.sh"
	}
	return ""
}

// unable ends a test whose server cannot run here.
func unable(t testing.TB, name, reason string) {
	t.Helper()
	if os.Getenv("MAILSTOW_TEST_SERVERS_REQUIRED") == "1" {
		t.Fatalf("%s: %s", name, reason)
	}
	t.Skipf("%s: %s", name, reason)
}

// root is the folder in which install.sh unpacked the packages of a server.
func root(name string) string {
	servers := os.Getenv("MAILSTOW_TEST_SERVERS")
	if servers == "" {
		home, _ := os.UserHomeDir()
		servers = filepath.Join(home, ".cache", "mailstow-test-servers")
	}
	return filepath.Join(servers, name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// launch starts a server from a folder, and waits until it listens. It does not run when there is an error.
func (s *Server) launch(dir string, env []string) (err error) {
	if s.CA, err = writeCertificate(filepath.Join(dir, "tls")); err != nil {
		return err
	}
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	s.IMAP, s.IMAPS, s.POP3, s.POP3S = address(ports[0]), address(ports[1]), address(ports[2]), address(ports[3])
	env = append(env, "DIR="+files, "ROOT="+root(s.Name))
	for i, n := range []string{"IMAP", "IMAPS", "POP3", "POP3S"} {
		env = append(env, fmt.Sprintf("%s=%d", n, ports[i]))
	}
	if s.process, err = run(dir, namespace+programs[s.Name], env); err != nil {
		return err
	}
	s.Dir = fmt.Sprintf("/proc/%d/root%s", s.process.pid, files) // only its namespace has it
	if err := s.process.waitListening(ports, startTimeout); err != nil {
		s.process.kill()
		return err
	}
	return nil
}

// freePorts finds ports of 127.0.0.1 that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // not before all are found, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
