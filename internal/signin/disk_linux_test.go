package signin_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/mailtest"
	"mailstow/internal/signin"
)

// A refresh token that is good once must not be spent where the next one cannot
// be written.
func TestNothingIsRenewedThatCannotBeKept(t *testing.T) {
	s := mailtest.NewSignIn(t)
	s.Lifetime = time.Minute
	a, _ := kept(t, s)
	g, err := a.Grant()
	if err != nil {
		t.Fatal(err)
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("no small file system can be made here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	a.Store.Dir = disk
	if err := a.Keep(g); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	var lost *signin.KeepError
	if _, err := a.Token(t.Context(), credential.Secret{}); !errors.As(err, &lost) || s.Renewals() != 0 {
		t.Errorf("%d renewals, %v", s.Renewals(), err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Token(t.Context(), credential.Secret{}); err != nil || s.Renewals() != 1 {
		t.Errorf("%d renewals, %v", s.Renewals(), err)
	}
}
