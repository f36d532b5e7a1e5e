package maildir

import (
	"os"
	"path/filepath"
	"testing"

	"mailstow/mailbox"
)

// A run may be killed at any moment while it moves a folder.
func TestFolderThatWasBeingMovedIsFound(t *testing.T) {
	old, sub := mailbox.Mailbox{Name: mailbox.NewName("Old"), Wire: "Old"}, mailbox.Mailbox{Name: mailbox.NewName("Old", "Sub"), Wire: "Old/Sub"}
	for _, renamed := range []bool{false, true} {
		dir := t.TempDir()
		a := open(t, dir)
		in := from(t, a)
		store(t, in, old, 1, text(1), text(2))
		store(t, in, sub, 1, text(3))
		if _, err := a.db.Exec("INSERT INTO state VALUES ('moving', 'Old' || char(0) || 'Fresh')"); err != nil {
			t.Fatal(err)
		}
		where := "Old"
		if renamed {
			where = "Fresh"
			if err := os.Rename(filepath.Join(dir, "Old"), filepath.Join(dir, "Fresh")); err != nil {
				t.Fatal(err)
			}
		}
		a.Abandon()

		again := open(t, dir)
		if f := again.Found(); f.Adopted+f.Removed != 0 {
			t.Errorf("renamed %v: found = %+v", renamed, f)
		}
		if got := from(t, again).Path(old); got != where {
			t.Errorf("renamed %v: the folder is %q, want %q", renamed, got, where)
		}
		if v := verify(t, again); v.Damaged() || v.Messages != 3 || len(v.Findings) != 0 {
			t.Errorf("renamed %v: verify = %+v", renamed, v)
		}
		var left int
		if err := again.db.QueryRow("SELECT count(*) FROM state WHERE name = 'moving'").Scan(&left); err != nil || left != 0 {
			t.Errorf("renamed %v: %d intents left, %v", renamed, left, err)
		}
	}
}

// What is in the way of a folder is never overwritten.
func TestFolderIsNotMovedOverAnother(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	old := mailbox.Mailbox{Name: mailbox.NewName("Old"), Wire: "Old"}
	store(t, in, old, 1, text(1))
	if err := os.MkdirAll(filepath.Join(dir, "Fresh", "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	was, err := in.Adopt(t.Context(), "Old", mailbox.Mailbox{Name: mailbox.NewName("Fresh"), Wire: "Fresh"}, mailbox.Listing{}, func(string) bool { return false })
	if err != nil || was != "" {
		t.Errorf("Adopt = %q, %v; want nothing done", was, err)
	}
	if got := files(t, dir, "Old/cur/*"); len(got) != 1 {
		t.Errorf("the old folder has %d files", len(got))
	}
}

// The index may remember folders that the user has thrown away.
func TestFolderIsNotMovedOntoOneThatTheIndexRemembers(t *testing.T) {
	box := func(elems ...string) mailbox.Mailbox {
		n := mailbox.NewName(elems...)
		return mailbox.Mailbox{Name: n, Wire: n.String()}
	}
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	store(t, in, box("Old"), 1, text(1))
	store(t, in, box("Old", "Sub"), 1, text(2))
	store(t, in, box("Fresh", "Sub"), 1, text(3))
	a.Close()
	if err := os.RemoveAll(filepath.Join(dir, "Fresh")); err != nil {
		t.Fatal(err)
	}
	a = open(t, dir)
	was, err := from(t, a).Adopt(t.Context(), "Old", box("Fresh"), mailbox.Listing{}, func(string) bool { return false })
	if err != nil || was != "" {
		t.Errorf("Adopt = %q, %v; want nothing done", was, err)
	}
	a.Close()
	if got := files(t, open(t, dir).Dir(), "Old/*/cur/*"); len(got) != 1 {
		t.Errorf("files below Old = %q", got)
	}
}

// A reader may come while a killed run's move has not been completed.
func TestReaderFindsAFolderThatWasBeingMoved(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	store(t, from(t, a), mailbox.Mailbox{Name: mailbox.NewName("Old"), Wire: "Old"}, 1, text(1), text(2))
	if _, err := a.db.Exec("INSERT INTO state VALUES ('moving', 'Old' || char(0) || 'Fresh')"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "Old"), filepath.Join(dir, "Fresh")); err != nil {
		t.Fatal(err)
	}
	a.Abandon()
	r, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if v := verify(t, r); v.Damaged() || len(v.Findings) > 0 || v.Messages != 2 {
		t.Errorf("verify = %+v", v)
	}
}

// A run may be killed after a folder was moved and before its mailbox has the
// new name.
func TestFolderThatWasMovedKeepsItsPlace(t *testing.T) {
	dir := t.TempDir()
	fresh := mailbox.Mailbox{Name: mailbox.NewName("Fresh"), Wire: "Fresh"}
	gone := func(string) bool { return false }
	a := open(t, dir)
	in := from(t, a)
	store(t, in, mailbox.Mailbox{Name: mailbox.NewName("Old"), Wire: "Old"}, 1, text(1))
	in.Path(fresh)
	if was, err := in.Adopt(t.Context(), "Old", fresh, mailbox.Listing{}, gone); err != nil || was != "Old" {
		t.Fatal(was, err)
	}
	if _, err := a.db.Exec("UPDATE mailbox SET wire = ?", []byte("Old")); err != nil {
		t.Fatal(err)
	}
	a.Abandon()
	in = from(t, open(t, dir))
	in.Path(fresh)
	if _, err := in.Adopt(t.Context(), "Old", fresh, mailbox.Listing{}, gone); err != nil {
		t.Fatal(err)
	}
	if got := in.Path(fresh); got != "Fresh" {
		t.Errorf("the folder is %q, want Fresh", got)
	}
}
