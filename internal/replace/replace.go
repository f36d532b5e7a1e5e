// Package replace puts a file in the place of another at once, so that whoever
// reads it finds the old or the new one, also after the power has failed.
package replace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// File writes a file with content and permissions in the place of the one at
// path. Its directory must exist. When File returns nil it is on the disk.
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
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
