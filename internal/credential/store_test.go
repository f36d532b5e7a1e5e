package credential_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zalando/go-keyring"

	"mailstow/internal/credential"
)

func TestSecretIsKept(t *testing.T) {
	keyring.MockInit()
	for _, s := range []credential.Store{{Dir: filepath.Join(t.TempDir(), "secrets")}, {Dir: filepath.Join(t.TempDir(), "secrets"), Keyring: true}, {Keyring: true}} {
		if _, _, err := s.Load("work", "b.example"); !errors.Is(err, credential.ErrNotKept) {
			t.Errorf("%+v: %v", s, err)
		}
		where, err := s.Save("work", credential.NewSecret("one\ntwo"), []string{"a.example", "b.example"}, credential.Anywhere)
		if err != nil || (where == "the keyring") != s.Keyring {
			t.Errorf("%+v: kept in %s, %v", s, where, err)
		}
		if secret, from, err := s.Load("work", "b.example"); err != nil || secret.Reveal() != "one\ntwo" || from != where {
			t.Errorf("%+v: %q from %s, %v", s, secret.Reveal(), from, err)
		}
		var elsewhere *credential.ElsewhereError
		if secret, _, err := s.Load("work", "c.example"); !errors.As(err, &elsewhere) || len(elsewhere.Servers) != 2 || !secret.IsEmpty() {
			t.Errorf("%+v: for another server %q, %v", s, secret.Reveal(), err)
		}
		if err := s.Replace("work", credential.NewSecret("three")); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
		if secret, from, err := s.Load("work", "b.example"); err != nil || secret.Reveal() != "three" || from != where {
			t.Errorf("%+v: replaced by %q in %s, %v", s, secret.Reveal(), from, err)
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
	path, err := s.Save("a/../b@example.org", credential.NewSecret("x"), []string{"b.example"}, credential.InFile)
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
	if _, _, err := s.Load("a/../b@example.org", "b.example"); !errors.Is(err, credential.ErrNotPrivate) {
		t.Error(err)
	}
}

// A secret that moves to the keyring is not left behind in a file, which would be
// found first.
func TestKeyringTakesTheFilesPlace(t *testing.T) {
	keyring.MockInit()
	s := credential.Store{Dir: t.TempDir(), Keyring: true}
	for _, place := range []string{credential.InFile, credential.InKeyring, credential.InFile, credential.Anywhere} {
		text := "in " + place
		if _, err := s.Save("work", credential.NewSecret(text), []string{"b.example"}, place); err != nil {
			t.Fatal(err)
		}
		if secret, from, err := s.Load("work", "b.example"); err != nil || secret.Reveal() != text {
			t.Errorf("%q from %s, %v", secret.Reveal(), from, err)
		}
	}
}

// What is to be kept in the keyring is not put into a file when the keyring cannot
// do it.
func TestKeyringAloneMeansThat(t *testing.T) {
	keyring.MockInitWithError(errors.New("it is locked"))
	t.Cleanup(keyring.MockInit)
	s := credential.Store{Dir: t.TempDir(), Keyring: true}
	if where, err := s.Save("work", credential.NewSecret("x"), []string{"b.example"}, credential.InKeyring); err == nil || where != "" {
		t.Errorf("it is kept in %s", where)
	}
	if left, _ := os.ReadDir(s.Dir); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if where, err := s.Save("work", credential.NewSecret("x"), []string{"b.example"}, credential.Anywhere); err != nil || filepath.Dir(where) != s.Dir {
		t.Errorf("it is kept in %q, %v", where, err)
	}
}

// A file that something else has written, or half of one, is no secret, and is
// not shown.
func TestWhatIsNoRecordIsNoSecret(t *testing.T) {
	s := credential.Store{Dir: t.TempDir()}
	for _, text := range []string{"pa55word", `{"servers":["b.example"],"secret":"pa55word`, `{"servers":["b.example"]}`, ""} {
		if err := os.WriteFile(filepath.Join(s.Dir, "work"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if secret, _, err := s.Load("work", "b.example"); err == nil || strings.Contains(err.Error(), "pa55") || !secret.IsEmpty() {
			t.Errorf("%s: %q, %v", text, secret.Reveal(), err)
		}
	}
}
