package maildir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMaildirPlusPlusIsImported(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "me")
	put := func(dir, name string) {
		t.Helper()
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(from, dir, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(from, dir, name), []byte("Subject: x\n\n"+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("", "new/1.host")
	put("", "cur/2.host,S=10:2,S")
	put(".Work.2024", "cur/3.host:2,")
	put(".Entw&APw-rfe", "cur/4.host:2,D")
	put(".a&-b", "cur/5.host:2,")
	put(".broken&zz", "cur/6.host:2,")
	put("Nested", "cur/8.host:2,")
	put("Nested/.2024", "cur/9.host:2,")
	if err := os.WriteFile(filepath.Join(from, "dovecot.index"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for round, want := range []int{8, 0, 1} {
		switch round {
		case 1: // read, and put into cur
			if err := os.Rename(filepath.Join(from, "new/1.host"), filepath.Join(from, "cur/1.host:2,S")); err != nil {
				t.Fatal(err)
			}
		case 2:
			put("", "new/7.host")
			if err := os.Remove(filepath.Join(from, "cur/2.host,S=10:2,S")); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := Import(from, to); n != want || err != nil {
			t.Errorf("round %d: %d messages, %v; want %d", round, n, err, want)
		}
	}
	var got []string
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "imported-from" {
			rel, _ := filepath.Rel(to, path)
			got = append(got, rel)
		}
		return err
	})
	want := []string{
		"Entwürfe/cur/4.host:2,D", "INBOX/cur/1.host:2,S", "INBOX/cur/2.host,S=10:2,S", "INBOX/new/7.host",
		"Nested/2024/cur/9.host:2,", "Nested/cur/8.host:2,", "Work/2024/cur/3.host:2,", "a&b/cur/5.host:2,", "broken&zz/cur/6.host:2,",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	other := t.TempDir()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(other, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Import(other, to); !errors.Is(err, ErrNotImported) {
		t.Errorf("another's mail: %v", err)
	}
	if _, err := Import(other, t.TempDir()); !errors.Is(err, ErrNotImported) {
		t.Errorf("into a directory that is there: %v", err)
	}
	archive, err := Open(t.Context(), to, Options{Write: true, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if found := archive.Found().Adopted; found != 9 {
		t.Errorf("%d messages are known, want 9", found)
	}
}
