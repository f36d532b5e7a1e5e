package signin_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"mailstow/internal/credential"
	"mailstow/internal/mailtest"
	"mailstow/internal/signin"
)

// A refresh token that is good once must not be spent where the next one cannot
// be written.
func TestNothingIsRenewedThatCannotBeKept(t *testing.T) {
	s := mailtest.NewSignIn(t)
	a, _ := kept(t, s)
	g, err := a.Grant()
	if err != nil {
		t.Fatal(err)
	}
	used := credential.NewSecret(g.Access)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("no small file system can be made here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	a.Store.Dir = disk
	if _, err := a.Keep(t.Context(), g, []string{"imap.example.org"}, credential.InFile); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	var lost *signin.KeepError
	if _, err := a.Token(t.Context(), used); !errors.As(err, &lost) || s.Renewals() != 0 {
		t.Errorf("%d renewals, %v", s.Renewals(), err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Token(t.Context(), used); err != nil || s.Renewals() != 1 {
		t.Errorf("%d renewals, %v", s.Renewals(), err)
	}
}
