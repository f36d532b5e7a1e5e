package credential

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	"github.com/zalando/go-keyring"
)

// Store keeps secrets between runs: in the keyring of the system, or in files
// that only their owner can read.
type Store struct {
	Dir     string // of the files; "" for none
	Keyring bool   // there is one that can be asked
}

// ErrNotKept is returned by [Store.Load] if there is no secret of that name.
var ErrNotKept = errors.New("nothing is kept")

// service is the name under which the keyring has mailstow's secrets.
const service = "mailstow"

// HasKeyring reports whether there is a keyring that can be asked without a
// person having to start anything.
func HasKeyring(getenv func(string) string) bool {
	return runtime.GOOS == "darwin" || getenv("DBUS_SESSION_BUS_ADDRESS") != ""
}

// Load returns a secret, and where it was for people to read.
func (s Store) Load(name string) (Secret, string, error) {
	if s.Dir != "" {
		path := s.file(name)
		f, err := os.Open(path)
		if err == nil {
			defer f.Close()
			if err := Private(f); err != nil {
				return Secret{}, path, err
			}
			secret, err := whole(f, path)
			return secret, path, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Secret{}, path, err
		}
	}
	if s.Keyring {
		text, err := keyring.Get(service, name)
		if err == nil {
			return NewSecret(text), keyringName, nil
		}
		if !errors.Is(err, keyring.ErrNotFound) {
			return Secret{}, keyringName, fmt.Errorf("the keyring cannot be asked: %w", err)
		}
	}
	return Secret{}, "", ErrNotKept
}

const keyringName = "the keyring"

// Save keeps a secret in the keyring or, if there is none or it is to be so, in a
// file. It returns where it is.
func (s Store) Save(name string, secret Secret, inFile bool) (where string, err error) {
	if s.Keyring && !inFile {
		if err = keyring.Set(service, name, secret.Reveal()); err == nil {
			if s.Dir != "" { // which would be found first
				os.Remove(s.file(name))
			}
			return keyringName, nil
		}
	}
	if s.Dir == "" {
		return "", errors.Join(err, errors.New("there is no place for files of this user (HOME is not set)"))
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", err
	}
	return s.file(name), replace(s.file(name), secret)
}

// Remove forgets a secret. It returns [ErrNotKept] if there was none.
func (s Store) Remove(name string) error {
	found := false
	if s.Dir != "" {
		err := os.Remove(s.file(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		found = err == nil
	}
	if s.Keyring {
		err := keyring.Delete(service, name)
		if err != nil && !errors.Is(err, keyring.ErrNotFound) {
			return fmt.Errorf("the keyring cannot be asked: %w", err)
		}
		found = found || err == nil
	}
	if !found {
		return ErrNotKept
	}
	return nil
}

func (s Store) file(name string) string { return filepath.Join(s.Dir, url.PathEscape(name)) }

// replace puts a file with a secret in the place of another, at once and durably:
// an access that cannot be had again must not be lost with the power.
func replace(path string, secret Secret) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new") // mode 600
	if err != nil {
		return err
	}
	_, err = f.WriteString(secret.Reveal())
	err = errors.Join(err, f.Sync(), f.Close())
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
