// Package replace puts a file in the place of another at once, so that whoever
// reads it finds the old or the new one, also after the power has failed.
package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// File writes a file with content and permissions in the place of the one at
// path. Its directory must exist. When File returns nil it is on the disk, as far
// as the file system can tell.
func File(path string, content []byte, perm fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new") // mode 600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) { // it may be written, and not be read
		return nil
	}
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, dir.Close())
}
