package cli

import (
	"maps"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailstow/internal/mailtest"
)

func TestFullDiskIsTold(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly())
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=400k"); err != nil {
		t.Skip("no small file system can be made here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	env, to := home(t, s), filepath.Join(disk, "archive")
	status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to)
	if status != exitDisk || !strings.Contains(errs, "no space") || !strings.Contains(errs, "make room") {
		t.Errorf("status %d, %q %q", status, out, errs)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=40m"); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := mailstow(t, env, "verify", to); status != exitOK {
		t.Errorf("verify: status %d, %s", status, errs)
	}
	if status, _, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to); status != exitOK {
		t.Errorf("next run: status %d, %s", status, errs)
	}
	if got := kept(t, filepath.Join(to, "alice@127.0.0.1", "INBOX")); !maps.Equal(got, served(t, s, "INBOX")) {
		t.Errorf("%d files", total(got))
	}
}
