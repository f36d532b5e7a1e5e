package maildir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailstow/mailbox"
)

// copies returns what the index has of a mailbox's messages.
func copies(t *testing.T, in *Intake, mb mailbox.Mailbox) map[mailbox.ID]Copy {
	t.Helper()
	all := map[mailbox.ID]Copy{}
	if err := in.EachCopy(t.Context(), mb, func(id mailbox.ID, c Copy) { all[id] = c }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestReadBackFindsWhatIsNotRight(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	store(t, in, inbox, 1, text(1), text(2), text(3), text(4))
	all := copies(t, in, inbox)
	var numbers []int64
	for _, c := range all {
		if !c.Exact || c.Foreign || c.Removed {
			t.Errorf("%+v", c)
		}
		numbers = append(numbers, c.Message)
	}
	var read atomic.Int64
	doubts, err := in.ReadBack(t.Context(), numbers, func(int64) { read.Add(1) })
	if err != nil || len(doubts) > 0 || read.Load() != 4 {
		t.Errorf("%d read, doubts %v, %v", read.Load(), doubts, err)
	}
	file := func(id mailbox.ID) string {
		found, err := filepath.Glob(filepath.Join(dir, all[id].Folder, "cur", all[id].Key+"*"))
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		return found[0]
	}
	write := func(name, content string) {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ids := []mailbox.ID{msg(1).ID, msg(2).ID, msg(3).ID, msg(4).ID}
	write(file(ids[0]), strings.Replace(text(1), "body", "bodx", 1))
	write(file(ids[1]), text(2)+"x")
	if err := os.Remove(file(ids[2])); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file(ids[3]), file(ids[3])+"F"); err != nil { // a mail program gives it a flag
		t.Fatal(err)
	}
	doubts, err = in.ReadBack(t.Context(), append(numbers, 999), func(int64) {})
	if err != nil || len(doubts) != 4 {
		t.Fatalf("doubts %v, %v", doubts, err)
	}
	for i, want := range []string{"hash differs", "another size", "not there"} {
		if d := doubts[all[ids[i]].Message]; !strings.Contains(d.Text, want) || !strings.Contains(d.File, all[ids[i]].Key) {
			t.Errorf("%d: %+v, want %s", i+1, d, want)
		}
	}
	if doubts[999].Text == "" {
		t.Error("a message that the index does not know is right")
	}
}

func TestUndoListSurvivesAndIsRead(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	store(t, in, inbox, 1, text(1), text(2), text(3))
	all := copies(t, in, inbox)
	at := time.Date(2026, 11, 23, 3, 0, 7, 0, time.Local)
	u := in.Undo(at)
	if err := u.Close(); err != nil || u.Name() != "" {
		t.Errorf("an empty list: %q, %v", u.Name(), err)
	}
	u = in.Undo(at)
	var doomed []Doomed
	for _, id := range []mailbox.ID{msg(1).ID, msg(2).ID} {
		doomed = append(doomed, Doomed{Message: mailbox.Message{ID: id}, Copy: all[id]})
	}
	if err := u.Add(inbox, doomed); err != nil {
		t.Fatal(err)
	}
	if u.Name() != "2026-11-23T03:00:07" || !strings.HasPrefix(u.Path(), dir) {
		t.Errorf("%q at %s", u.Name(), u.Path())
	}
	// A run that is killed now has not noted anything, and may have left a part of a line.
	f, err := os.OpenFile(u.Path(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"type":"message","id":"`)
	f.Close()
	begunIn := func(in *Intake) (map[mailbox.ID]bool, error) {
		all, err := in.Begun()
		return all[inbox.Wire], err
	}
	begun, err := begunIn(in)
	if err != nil || len(begun) != 2 || !begun[msg(1).ID] || !begun[msg(2).ID] {
		t.Errorf("begun %v, %v", begun, err)
	}

	second := in.Undo(at) // in the same second
	if err := second.Add(inbox, doomed[:1]); err != nil || second.Name() != "2026-11-23T03:00:07-2" {
		t.Errorf("%q, %v", second.Name(), err)
	}
	if err := second.Note(inbox, []mailbox.ID{msg(1).ID}, map[mailbox.ID]string{msg(1).ID: "it stays"}, true); err != nil {
		t.Fatal(err)
	}
	if err := second.Note(inbox, []mailbox.ID{msg(2).ID}, map[mailbox.ID]string{msg(2).ID: "and is marked"}, false); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if begun, err = begunIn(in); err != nil || begun[msg(1).ID] || !begun[msg(2).ID] {
		t.Errorf("the mark was taken back: %v, %v", begun, err)
	}
	other, err := a.From(t.Context(), "imap:somebody@else")
	if err != nil {
		t.Fatal(err)
	}
	if begun, err = begunIn(other); err != nil || len(begun) > 0 {
		t.Errorf("of another server: %v, %v", begun, err)
	}

	listed, err := a.Trimmed(t.Context(), "2026-11-23T03:00:07") // which is the beginning of the other's name, too
	if err != nil || len(listed.Folders) != 1 || len(listed.Lost) > 0 || listed.Folders[all[msg(2).ID].Message] != "INBOX" || len(listed.Begun["INBOX"]) != 1 {
		t.Errorf("listed %v, %v", listed, err)
	}
	for _, name := range []string{"2026-11-23", "2027"} {
		_, err := a.Trimmed(t.Context(), name)
		if unknown, ok := err.(*UnknownRunError); !ok || len(unknown.Among) != 2 {
			t.Errorf("%q: %v", name, err)
		}
	}
	if listed, err = a.Trimmed(t.Context(), "2026-11-23T03:00:07-"); err != nil || len(listed.Folders) != 0 || len(listed.Lost) != 0 {
		t.Errorf("what the server kept in the end: %v, %v", listed, err)
	}
	if err := second.Note(inbox, []mailbox.ID{msg(1).ID}, nil, false); err == nil {
		t.Error("a list that is closed takes a note")
	}
	if listed, err = a.Trimmed(t.Context(), u.Name()); err != nil || len(listed.Folders) != 1 {
		t.Errorf("the first run, of which one was taken up again: %v, %v", listed, err)
	}
	third := in.Undo(at)
	if err := errors.Join(third.Add(inbox, doomed), third.Note(inbox, []mailbox.ID{msg(1).ID}, map[mailbox.ID]string{msg(1).ID: "it stays"}, true), third.Note(inbox, []mailbox.ID{msg(1).ID}, nil, false), third.Close()); err != nil {
		t.Fatal(err)
	}
	if listed, err = a.Trimmed(t.Context(), "2026-11-23T03:00:07-3"); err != nil || len(listed.Folders) != 2 {
		t.Errorf("kept, and gone after that: %v, %v", listed, err)
	}
	for _, lost := range []string{"UPDATE message SET removed_at = 1 WHERE id = ?", "UPDATE message SET removed_at = NULL, sha256 = zeroblob(32) WHERE id = ?"} {
		if _, err := a.db.Exec(lost, all[msg(2).ID].Message); err != nil {
			t.Fatal(err)
		}
		listed, err = a.Trimmed(t.Context(), third.Name())
		if err != nil || len(listed.Folders) != 1 || !slices.Equal(listed.Lost, []string{"INBOX/" + all[msg(2).ID].Key}) {
			t.Errorf("%s: %v, %v", lost, listed, err)
		}
	}
}

func TestRemovedIsNotLiveAnyMore(t *testing.T) {
	a := open(t, t.TempDir())
	in := from(t, a)
	store(t, in, inbox, 1, text(1), text(2), text(3))
	if err := in.Removed(t.Context(), inbox, []mailbox.ID{msg(2).ID}); err != nil {
		t.Fatal(err)
	}
	all := copies(t, in, inbox)
	if _, still := all[msg(2).ID]; still || len(all) != 2 {
		t.Errorf("live: %v", all)
	}
	kept, err := known(t, in, inbox)
	if err != nil || !kept[msg(2).ID].Gone {
		t.Errorf("%v, %v", kept, err)
	}
	if n, err := in.InArchive(t.Context(), inbox); err != nil || n != 3 {
		t.Errorf("%d in the archive, %v", n, err)
	}
}
