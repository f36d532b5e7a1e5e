package lock_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"mailstow/internal/lock"
)

// A program that is started meanwhile has the file for a moment too.
func TestReleasedThoughAChildStillHasTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := lock.Take(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Take(path); !errors.Is(err, lock.ErrHeld) {
		t.Errorf("twice: %v", err)
	}
	child, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	if err := lock.Release(f); err != nil {
		t.Error(err)
	}
	again, err := lock.Take(path)
	if err != nil {
		t.Fatal(err)
	}
	lock.Release(again)
}
