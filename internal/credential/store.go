package credential

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/zalando/go-keyring"

	"mailstow/internal/replace"
)

// Store keeps secrets between runs: in the keyring of the system, or in files
// that only their owner can read. Each is for some servers, and is given for no
// other.
type Store struct {
	Dir     string // of the files; "" for none
	Keyring bool   // there is one that can be asked
}

// Where a secret is kept.
const (
	Anywhere  = "" // the keyring or, if there is none, a file
	InKeyring = "keyring"
	InFile    = "file"
)

// record is a secret as it is kept.
type record struct {
	Servers []string `json:"servers"`
	Secret  string   `json:"secret"`
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

// ElsewhereError says that what is kept is for other servers.
type ElsewhereError struct{ Servers []string }

func (e *ElsewhereError) Error() string {
	return "what is kept is for " + strings.Join(e.Servers, ", ")
}

// Load returns the secret of a name for a server, and where it was for people to
// read.
func (s Store) Load(name, server string) (Secret, string, error) {
	r, where, err := s.load(name)
	if err == nil && !slices.Contains(r.Servers, server) {
		err = &ElsewhereError{r.Servers}
	}
	if err != nil {
		return Secret{}, where, err
	}
	return NewSecret(r.Secret), where, nil
}

func (s Store) load(name string) (r record, where string, err error) {
	if s.Dir != "" {
		path := s.file(name)
		f, err := os.Open(path)
		if err == nil {
			defer f.Close()
			if err := Private(f); err != nil {
				return r, path, err
			}
			b, err := io.ReadAll(io.LimitReader(f, maxSecret))
			if err != nil {
				return r, path, err
			}
			return r, path, r.read(b, path)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return r, path, err
		}
	}
	if s.Keyring {
		text, err := keyring.Get(service, name)
		if err == nil {
			return r, keyringName, r.read([]byte(text), keyringName)
		}
		if !errors.Is(err, keyring.ErrNotFound) {
			return r, keyringName, fmt.Errorf("the keyring cannot be asked: %w", err)
		}
	}
	return r, "", ErrNotKept
}

func (r *record) read(b []byte, where string) error {
	if json.Unmarshal(b, r) != nil || r.Secret == "" {
		return fmt.Errorf("%s holds no secret of mailstow's", where) // the error of JSON shows parts of it
	}
	return nil
}

const keyringName = "the keyring"

// Save keeps a secret for servers at a place. It returns where it is.
func (s Store) Save(name string, secret Secret, servers []string, place string) (where string, err error) {
	b, err := json.Marshal(record{servers, secret.Reveal()})
	if err != nil {
		return "", err
	}
	if s.Keyring && place != InFile {
		if err = keyring.Set(service, name, string(b)); err == nil {
			if s.Dir != "" { // which would be found first
				os.Remove(s.file(name))
			}
			return keyringName, nil
		}
	}
	switch {
	case place == InKeyring:
		return "", errors.Join(errors.New("the keyring does not keep it"), err)
	case s.Dir == "":
		return "", errors.Join(err, errors.New("there is no place for files of this user (HOME is not set)"))
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", err
	}
	return s.file(name), replace.File(s.file(name), b, 0o600) // what cannot be had again must not be lost with the power
}

// Replace keeps another secret where there was one, for the same servers.
func (s Store) Replace(name string, secret Secret) error {
	r, where, err := s.load(name)
	if err != nil {
		return err
	}
	place := InKeyring
	if where != keyringName {
		place = InFile
	}
	_, err = s.Save(name, secret, r.Servers, place)
	return err
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
