package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailstow/internal/mailtest"
)

// An archive begun by another program is taken over: what it holds is not
// downloaded again, and nothing is there twice. The other programs are run.
func TestArchiveOfAnotherProgramIsAdopted(t *testing.T) {
	s := mailtest.Dovecot(t)
	n := fill(t, s, "INBOX", append(ugly(), numbered(0, 50)...))
	for name, fetch := range map[string]func(t *testing.T, s *mailtest.Server, dir string) *exec.Cmd{
		"mbsync":      fetchWithMbsync,
		"offlineimap": fetchWithOfflineIMAP,
		"getmail":     fetchWithGetmail,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(name); err != nil {
				t.Skip(name + " is not installed")
			}
			env, to := home(t, s), openDir(t)
			cmd := fetch(t, s, to)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			before := messageFiles(t, to)
			if len(before) != n {
				t.Fatalf("%s fetched %d of %d messages", name, len(before), n)
			}
			status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", filepath.Dir(to), "-v")
			after := messageFiles(t, to)
			t.Logf("%d files before, %d after\n%s%s", len(before), len(after), out, errs)
			// One message has no blank line after its header; these programs add one.
			if status != 0 || len(after) > n+1 {
				t.Errorf("status %d, %d files, want %d", status, len(after), n)
			}
			if status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", filepath.Dir(to)); status != 0 || out+errs != "" || len(messageFiles(t, to)) != len(after) {
				t.Errorf("second run: status %d, %s%s", status, out, errs)
			}
		})
	}
}

// openDir returns the directory of alice's account in a new archive that any
// user may write to: getmail does not run as root.
func openDir(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "adopt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	dir := filepath.Join(root, "alice@127.0.0.1")
	for _, d := range []string{filepath.Join(root, "etc"), dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func messageFiles(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	for _, sub := range []string{"cur", "new"} {
		found, err := filepath.Glob(filepath.Join(dir, "INBOX", sub, "*"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	return files
}

func fetchWithMbsync(t *testing.T, s *mailtest.Server, dir string) *exec.Cmd {
	cmd := mbsync(t, s, s.IMAP, dir)
	if err := os.Rename(filepath.Join(dir, "rc"), filepath.Join(dir, "..", "etc", "rc")); err != nil {
		t.Fatal(err)
	}
	cmd.Args[3] = filepath.Join(dir, "..", "etc", "rc")
	return cmd
}

func fetchWithOfflineIMAP(t *testing.T, s *mailtest.Server, dir string) *exec.Cmd {
	etc := filepath.Join(dir, "..", "etc")
	host, port, _ := strings.Cut(s.IMAP, ":")
	rc := filepath.Join(etc, "rc")
	write(t, rc, fmt.Sprintf(`[general]
accounts = a
metadata = %s/md
ui = quiet
[Account a]
localrepository = l
remoterepository = r
[Repository l]
type = Maildir
localfolders = %s
sep = /
[Repository r]
type = IMAP
remotehost = %s
remoteport = %s
remoteuser = alice
remotepass = %s
ssl = no
starttls = no
`, etc, dir, host, port, s.Password("alice")))
	return exec.Command("offlineimap", "-o", "-c", rc)
}

func fetchWithGetmail(t *testing.T, s *mailtest.Server, dir string) *exec.Cmd {
	etc := filepath.Join(dir, "..", "etc")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "INBOX", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	host, port, _ := strings.Cut(s.IMAP, ":")
	write(t, filepath.Join(etc, "getmailrc"), fmt.Sprintf(`[retriever]
type = SimpleIMAPRetriever
server = %s
port = %s
username = alice
password = %s
mailboxes = ("INBOX",)
[destination]
type = Maildir
path = %s/INBOX/
[options]
read_all = true
delete = false
`, host, port, s.Password("alice"), dir))
	cmd := exec.Command("getmail", "-q", "--getmaildir", etc)
	if os.Getuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		outputOf(t, nil, "chown", "-R", fmt.Sprintf("%d:%d", nobody, nobody), filepath.Dir(dir))
	}
	return cmd
}
