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
	was, err := in.Adopt(t.Context(), "Old", mailbox.Mailbox{Name: mailbox.NewName("Fresh"), Wire: "Fresh"}, mailbox.Listing{})
	if err != nil || was != "" {
		t.Errorf("Adopt = %q, %v; want nothing done", was, err)
	}
	if got := files(t, dir, "Old/cur/*"); len(got) != 1 {
		t.Errorf("the old folder has %d files", len(got))
	}
}
