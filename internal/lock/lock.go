// Package lock lets one program at a time do something, by a lock on a file.
package lock

import (
	"errors"
	"os"
	"syscall"
)

// ErrHeld is returned while somebody else has the lock.
var ErrHeld = errors.New("the lock is held")

// Take takes the lock on the file at path, which it makes if need be. It does not
// wait. The caller ends it with [Release].
func Take(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return nil, ErrHeld
	}
	return nil, &os.PathError{Op: "lock", Path: path, Err: err}
}

// Release ends a lock. Another goroutine may be starting a program: until that
// runs, it holds the file too, and closing it alone would not end the lock.
func Release(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}
