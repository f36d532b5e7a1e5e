package credential_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/zalando/go-keyring"

	"mailstow/internal/credential"
)

func TestSecretIsKept(t *testing.T) {
	keyring.MockInit()
	for _, s := range []credential.Store{{Dir: filepath.Join(t.TempDir(), "secrets")}, {Dir: filepath.Join(t.TempDir(), "secrets"), Keyring: true}, {Keyring: true}} {
		if _, _, err := s.Load("work"); !errors.Is(err, credential.ErrNotKept) {
			t.Errorf("%+v: %v", s, err)
		}
		where, err := s.Save("work", credential.NewSecret("one\ntwo"), false)
		if err != nil || (where == "the keyring") != s.Keyring {
			t.Errorf("%+v: kept in %s, %v", s, where, err)
		}
		if secret, from, err := s.Load("work"); err != nil || secret.Reveal() != "one\ntwo" || from != where {
			t.Errorf("%+v: %q from %s, %v", s, secret.Reveal(), from, err)
		}
		if err := s.Remove("work"); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
		if err := s.Remove("work"); !errors.Is(err, credential.ErrNotKept) {
			t.Errorf("%+v: removed twice: %v", s, err)
		}
	}
}

// A file of the store that others can read is refused, and one that is made cannot
// be read by them.
func TestStoreIsPrivate(t *testing.T) {
	s := credential.Store{Dir: filepath.Join(t.TempDir(), "secrets")}
	path, err := s.Save("a/../b@example.org", credential.NewSecret("x"), true)
	if err != nil || filepath.Dir(path) != s.Dir {
		t.Fatal(path, err)
	}
	for _, p := range []string{path, s.Dir} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", p, fi.Mode(), err)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Load("a/../b@example.org"); !errors.Is(err, credential.ErrNotPrivate) {
		t.Error(err)
	}
}

// A secret that moves to the keyring is not left behind in a file, which would be
// found first.
func TestKeyringTakesTheFilesPlace(t *testing.T) {
	keyring.MockInit()
	s := credential.Store{Dir: t.TempDir(), Keyring: true}
	for _, inFile := range []bool{true, false, true} {
		text := map[bool]string{true: "in a file", false: "in the keyring"}[inFile]
		if _, err := s.Save("work", credential.NewSecret(text), inFile); err != nil {
			t.Fatal(err)
		}
		if secret, from, err := s.Load("work"); err != nil || secret.Reveal() != text {
			t.Errorf("%q from %s, %v", secret.Reveal(), from, err)
		}
	}
}
