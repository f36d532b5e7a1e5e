package maildir

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/mailbox"
)

var (
	inbox = mailbox.Mailbox{Name: mailbox.NewName("INBOX"), Wire: "INBOX", Delimiter: "/"}
	work  = mailbox.Mailbox{Name: mailbox.NewName("Work", "2024"), Wire: "Work/2024", Delimiter: "/"}
	date  = time.Date(2023, 3, 14, 9, 26, 53, 0, time.UTC)
)

func open(t *testing.T, dir string) *Archive {
	t.Helper()
	a, err := Open(t.Context(), dir, Options{Write: true, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func from(t *testing.T, a *Archive) *Intake {
	t.Helper()
	in, err := a.From(t.Context(), "imap:alice@mail.example.org")
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func msg(uid int, flags ...string) mailbox.Message {
	return mailbox.Message{ID: mailbox.ID(fmt.Sprintf("1:%d", uid)), Size: -1, InternalDate: date, Flags: flags}
}

func text(n int) string { return fmt.Sprintf("Subject: %d\r\n\r\nbody of %d\r\n", n, n) }

// add stages a message and adds it to a batch.
func add(t *testing.T, b *Batch, mb mailbox.Mailbox, m mailbox.Message, content io.Reader) error {
	t.Helper()
	s, err := b.in.Stage(t.Context(), mb, m, content)
	if err == nil {
		b.Add(s, "")
	}
	return err
}

// known returns what the archive remembers of a mailbox.
func known(t *testing.T, in *Intake, mb mailbox.Mailbox) (map[mailbox.ID]mailbox.Kept, error) {
	t.Helper()
	all := map[mailbox.ID]mailbox.Kept{}
	return all, in.EachKnown(t.Context(), mb, func(id mailbox.ID, k mailbox.Kept) { all[id] = k })
}

// store commits messages into a mailbox, with UIDs from first.
func store(t *testing.T, in *Intake, mb mailbox.Mailbox, first int, texts ...string) {
	t.Helper()
	b := in.Begin()
	for i, s := range texts {
		if err := add(t, b, mb, msg(first+i), strings.NewReader(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// files returns the content of every file in a directory of the archive.
func files(t *testing.T, pattern ...string) (contents []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(pattern...))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, string(b))
	}
	slices.Sort(contents)
	return contents
}

func verify(t *testing.T, a *Archive) *Verified {
	t.Helper()
	v, err := a.Verify(t.Context(), VerifyOptions{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCommittedMessageIsAPlainFile(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	b := in.Begin()
	m := msg(7, `\Seen`, `\Flagged`, `\Deleted`, "$Forwarded", "work")
	if err := add(t, b, work, m, strings.NewReader(text(1))); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir, "Work/2024/cur/*"); len(got) != 0 {
		t.Errorf("before the commit cur has %q", got)
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	paths, _ := filepath.Glob(filepath.Join(dir, "Work/2024/cur/*"))
	if len(paths) != 1 || !strings.HasSuffix(paths[0], ":2,FPSa") {
		t.Fatalf("files = %q, want one ending in :2,FPSa", paths)
	}
	fi, err := os.Stat(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if !fi.ModTime().Equal(date) || fi.Mode() != 0o600 {
		t.Errorf("mtime %v mode %v, want %v and 0600", fi.ModTime(), fi.Mode(), date)
	}
	if got := files(t, dir, "Work/2024/dovecot-keywords"); !slices.Equal(got, []string{"0 work\n"}) {
		t.Errorf("dovecot-keywords = %q", got)
	}
	known, err := known(t, in, work)
	if err != nil || !slices.Equal(known["1:7"].Flags, m.Flags) {
		t.Errorf("known = %+v, %v", known, err)
	}
	for _, sub := range []string{"", "Work", "Work/2024", "Work/2024/tmp", ".mailstow"} {
		if fi, err := os.Stat(filepath.Join(dir, sub)); sub != "" && (err != nil || fi.Mode().Perm() != 0o700) {
			t.Errorf("%s: %v, %v; want mode 0700", sub, fi.Mode(), err)
		}
	}
}

// A message that could not be written whole must not be in the archive: not
// visible to a mail program, not known to the next run.
func TestFailedAddLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	in := from(t, open(t, dir))
	b := in.Begin()
	broken := io.MultiReader(strings.NewReader("Subject: half\r\n"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if err := add(t, b, inbox, msg(1), broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error = %v", err)
	}
	if err := add(t, b, inbox, msg(2), strings.NewReader(text(2))); err != nil {
		t.Fatal(err)
	}
	if s, err := in.Stage(t.Context(), inbox, msg(3), strings.NewReader(text(3))); err != nil {
		t.Fatal(err)
	} else if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir, "INBOX/*/*"); !slices.Equal(got, []string{text(2)}) {
		t.Errorf("files = %q, want the second message alone", got)
	}
	if known, _ := known(t, in, inbox); len(known) != 1 {
		t.Errorf("known = %v", known)
	}
}

// A run may be killed between moving files into cur and committing the index.
func TestFilesThatAKilledRunLeftAreTakenIn(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	store(t, in, inbox, 1, text(1))
	b := in.Begin()
	for i, mb := range []mailbox.Mailbox{inbox, work} { // work is a folder that the index does not know
		if err := add(t, b, mb, msg(2+i), strings.NewReader(text(2+i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.commitFiles(t.Context()); err != nil {
		t.Fatal(err)
	}
	unfinished := in.Begin()
	if err := add(t, unfinished, inbox, msg(9), strings.NewReader(text(9))); err != nil {
		t.Fatal(err)
	}
	a.Abandon() // as far as the disk can tell, the process was killed here

	again := open(t, dir)
	if f := again.Found(); f.Adopted != 2 || f.Swept != 1 {
		t.Errorf("found = %+v, want 2 adopted, 1 swept", f)
	}
	if got := files(t, dir, "*/tmp/*"); len(got) != 0 {
		t.Errorf("tmp has %q", got)
	}
	free, err := from(t, again).Unclaimed(t.Context(), inbox, func(id mailbox.ID, _ bool) bool { return id == "1:1" })
	if err != nil || len(free) != 1 {
		t.Errorf("unclaimed = %v, %v; want the one that was not indexed", free, err)
	}
	if v := verify(t, again); v.Damaged() || len(v.Findings) != 0 || v.Messages != 3 {
		t.Errorf("verify = %+v", v)
	}
	again.Close()
	if f := open(t, dir).Found(); f != (Found{}) {
		t.Errorf("after a clean run found = %+v", f)
	}
}

func TestLostIndexIsMadeAgain(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"deleted":     os.Remove,
		"overwritten": func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("garbage "), 2000), 0o600) },
		"truncated":   func(p string) error { return os.Truncate(p, 30) },
		"torn":        tear,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a := open(t, dir)
			store(t, from(t, a), inbox, 1, text(1), text(2))
			store(t, from(t, a), work, 1, text(3))
			a.Close()
			if err := lose(filepath.Join(dir, ownDir, indexFile)); err != nil {
				t.Fatal(err)
			}
			again := open(t, dir)
			if f := again.Found(); f.Adopted != 3 || !f.Rebuilt {
				t.Errorf("found = %+v, want 3 adopted and rebuilt", f)
			}
			if v := verify(t, again); v.Damaged() || v.Messages != 3 {
				t.Errorf("verify = %+v", v)
			}
		})
	}
}

// tear overwrites all pages but the first.
func tear(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat([]byte{0xff}, int(fi.Size())-4096), 4096)
	return err
}

func TestIndexOfANewerVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	path := filepath.Join(dir, ownDir, indexFile)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	before, _ := os.ReadFile(path)
	for _, o := range []Options{{}, {Write: true, Create: true}} {
		if _, err := Open(t.Context(), dir, o); !errors.Is(err, ErrNewer) {
			t.Errorf("%+v: %v, want %v", o, err, ErrNewer)
		}
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the index was changed")
	}
}

// A run may be killed while SQLite writes the schema: the header names the new
// version, and the journal beside it takes all of that back.
func TestHotJournalTakesTheSchemaBack(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	path := filepath.Join(dir, ownDir, indexFile)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, q := range []string{
		"PRAGMA journal_mode = delete", "PRAGMA application_id = 1", "PRAGMA cache_size = 1", "PRAGMA cache_spill = 1",
		"BEGIN", migrations[0], "PRAGMA user_version = 1",
		"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 5000) INSERT INTO state SELECT x, hex(randomblob(200)) FROM c",
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	journal, err := os.ReadFile(path + "-journal")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	killed := filepath.Join(t.TempDir(), "a") // what the disk holds before the journal is deleted
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed, ownDir, indexFile+"-journal"), journal, 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := schemaVersion(filepath.Join(killed, ownDir, indexFile)); v != 1 || err != nil {
		t.Fatalf("the header names version %d, %v: the test shows nothing", v, err)
	}
	if reader, err := Open(t.Context(), killed, Options{}); err != nil {
		t.Errorf("reader: %v", err)
	} else {
		reader.Close()
	}
	store(t, from(t, open(t, killed)), inbox, 1, text(1))
}

func TestIndexIsBroughtForward(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	store(t, from(t, a), inbox, 1, text(1))
	a.Close()
	defer func(old []string) { migrations = old }(migrations)
	migrations = append(slices.Clone(migrations), "ALTER TABLE message ADD COLUMN later TEXT NOT NULL DEFAULT 'x'")
	again := open(t, dir)
	var later string
	if err := again.db.QueryRow("SELECT later FROM message").Scan(&later); err != nil || later != "x" {
		t.Errorf("later = %q, %v", later, err)
	}
}

func TestOneRunAtATime(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	if _, err := Open(t.Context(), dir, Options{Write: true}); !errors.As(err, new(*LockedError)) {
		t.Errorf("second: %v, want it locked", err)
	}
	reader, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Errorf("a reader meanwhile: %v", err)
	} else {
		reader.Close()
	}
	a.Close()
	open(t, dir)
}

// A program that is started meanwhile has the lock's file for a moment too.
func TestLockEndsThoughAChildStillHasItsFile(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	child, err := syscall.Dup(int(a.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(child)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	open(t, dir)
}

// A run may be killed as soon as the index exists, before it knows anything.
func TestNewIndexThatKnowsNothingIsFilledByTheNextRun(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	store(t, from(t, a), mailbox.Mailbox{Name: mailbox.NewName("a[b"), Wire: "a[b"}, 1, text(1), text(2))
	a.Close()
	path := filepath.Join(dir, ownDir, indexFile)
	for name, lose := range map[string]func() error{
		"index just made": func() error {
			if err := os.Remove(path); err != nil {
				return err
			}
			db, err := openIndex(t.Context(), path, false)
			if err != nil {
				return err
			}
			return db.Close()
		},
		"no octet of it written": func() error { return os.WriteFile(path, nil, 0o600) },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		again := open(t, dir)
		if f := again.Found(); f.Adopted != 2 || !f.Rebuilt {
			t.Errorf("%s: found = %+v, want 2 adopted", name, f)
		}
		again.Close()
	}
}

// A user may copy Maildirs of another program into an archive, and their
// names may differ in case alone.
func TestMaildirPutIntoTheArchiveIsTakenIn(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	for i, name := range []string{"Old", "old"} {
		if err := os.MkdirAll(filepath.Join(dir, name, "cur"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "cur", "1.2.host:2,S"), []byte(text(i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f := open(t, dir).Found(); f.Adopted != 2 {
		t.Errorf("found = %+v, want 2 adopted", f)
	}
}

// Gmail shows a message in several mailboxes; three labels must not cost
// three times the space.
func TestSameOctetsAndDateAreOneFile(t *testing.T) {
	dir := t.TempDir()
	in := from(t, open(t, dir))
	store(t, in, inbox, 1, text(1), text(2))
	store(t, in, work, 1, text(1))
	later := in.Begin()
	m := msg(2)
	m.InternalDate = date.Add(time.Hour)
	if err := add(t, later, work, m, strings.NewReader(text(2))); err != nil {
		t.Fatal(err)
	}
	if err := later.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := links(t, filepath.Join(dir, "INBOX/cur"), text(1)); n != 2 {
		t.Errorf("same octets and date: %d links, want 2", n)
	}
	if n := links(t, filepath.Join(dir, "INBOX/cur"), text(2)); n != 1 {
		t.Errorf("other date: %d links, want 1", n)
	}
	if got := files(t, dir, "Work/2024/cur/*"); !slices.Equal(got, []string{text(1), text(2)}) {
		t.Errorf("Work has %q", got)
	}
}

func links(t *testing.T, dir, content string) uint64 {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		if b, _ := os.ReadFile(p); string(b) == content {
			fi, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			return uint64(fi.Sys().(*syscall.Stat_t).Nlink)
		}
	}
	t.Fatalf("no file in %s has %q", dir, content)
	return 0
}

// A link to a file that has gone bad would throw the good copy away that has
// just been downloaded.
func TestDamagedFileIsNotLinkedTo(t *testing.T) {
	dir := t.TempDir()
	in := from(t, open(t, dir))
	store(t, in, inbox, 1, text(1))
	paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
	bad := strings.Replace(text(1), "body", "bodY", 1)
	if err := os.WriteFile(paths[0], []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(paths[0], date, date); err != nil {
		t.Fatal(err)
	}
	store(t, in, work, 1, text(1))
	if got := files(t, dir, "Work/2024/cur/*"); !slices.Equal(got, []string{text(1)}) {
		t.Errorf("Work has %q, want the good copy", got)
	}
}

func TestForeignFilesAreTakenInAndLeftAsTheyAre(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	store(t, from(t, a), inbox, 1, text(1))
	a.Close()
	names := []string{"new/1700000000.M1P2.host", "cur/1700000001.M1P2.host,S=23,W=24:2,RS", "cur/1700000002.5_1.host,U=17:2,F", "cur/1700000003.plain"}
	for i, name := range names {
		if err := os.WriteFile(filepath.Join(dir, "INBOX", name), []byte(fmt.Sprintf("Subject: f%d\n\nLF\n", i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "INBOX/cur/1700000009.fifo:2,"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if f := again.Found(); f.Adopted != len(names) {
		t.Errorf("found = %+v, want %d adopted", f, len(names))
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, "INBOX", name)); err != nil {
			t.Errorf("%s was moved: %v", name, err)
		}
	}
	if v := verify(t, again); v.Damaged() || v.Messages != 5 {
		t.Errorf("verify = %+v", v)
	}
}

// Mail programs change flags and move files while mailstow is not looking.
func TestMessagesAreFoundByTheirKey(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	store(t, in, inbox, 1, text(1))
	paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
	renamed := strings.TrimSuffix(paths[0], ":2,") + ":2,FRS"
	if err := os.Rename(paths[0], renamed); err != nil {
		t.Fatal(err)
	}
	if v := verify(t, a); v.Damaged() {
		t.Errorf("verify = %+v", v)
	}
	b := in.Begin()
	known, _ := known(t, in, inbox)
	if err := b.SetFlags(t.Context(), inbox, msg(1, `\Seen`, "later"), known["1:1"].Message); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if paths, _ = filepath.Glob(filepath.Join(dir, "INBOX/cur/*")); len(paths) != 1 || !strings.HasSuffix(paths[0], ":2,FRSa") {
		t.Errorf("files = %q, want one ending in :2,FRSa", paths)
	}
	a.Close()
	if f := open(t, dir).Found(); f.Adopted != 0 || f.Removed != 0 {
		t.Errorf("found = %+v", f)
	}
}

// A flag that a mail program changed in the archive is kept until the server
// changes it.
func TestLocalFlagStaysUntilTheServerChangesIt(t *testing.T) {
	for _, c := range []struct{ told, server, local, want string }{
		{"", "", "S", "S"},   // set here
		{"S", "S", "", ""},   // taken away here
		{"S", "FS", "", "F"}, // taken away here, another set there
		{"", "S", "F", "FS"}, // both
		{"S", "", "FS", "F"}, // taken away there
		{"FS", "S", "F", ""}, // the server wins where both have changed
		{"", "S", "T", "ST"}, // what only other programs understand
		{"Fa", "a", "F", ""}, // keywords too
		{"a", "aS", "a", "Sa"},
	} {
		flags := func(letters string) (out []string) {
			for _, l := range letters {
				out = append(out, map[rune]string{'S': `\Seen`, 'F': `\Flagged`, 'a': "work", 'T': `\Deleted`}[l])
			}
			return out
		}
		dir := t.TempDir()
		in := from(t, open(t, dir))
		b := in.Begin()
		if err := add(t, b, inbox, msg(1, append(flags(c.told), "work")...), strings.NewReader(text(1))); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		known, _ := known(t, in, inbox)
		set := func(letters string) {
			if err := b.SetFlags(t.Context(), inbox, msg(1, flags(letters)...), known["1:1"].Message); err != nil {
				t.Fatal(err)
			}
			if err := b.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		set(c.told)
		paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
		base, _, _ := strings.Cut(paths[0], ":2,")
		if err := os.Rename(paths[0], base+":2,"+c.local); err != nil {
			t.Fatal(err)
		}
		set(c.server)
		if paths, _ = filepath.Glob(filepath.Join(dir, "INBOX/cur/*")); len(paths) != 1 || !strings.HasSuffix(paths[0], ":2,"+c.want) {
			t.Errorf("told %q, then %q there and %q here: %q, want %q", c.told, c.server, c.local, paths, c.want)
		}
	}
}

func TestRemovedFileIsNoticedAndNotForgotten(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	store(t, from(t, a), inbox, 1, text(1), text(2))
	a.Close()
	paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if f := again.Found(); f.Removed != 1 {
		t.Errorf("found = %+v, want 1 removed", f)
	}
	known, err := known(t, from(t, again), inbox)
	removed := 0
	for _, k := range known {
		if k.Removed {
			removed++
		}
	}
	if err != nil || len(known) != 2 || removed != 1 {
		t.Errorf("known = %+v, %v", known, err)
	}
	if v := verify(t, again); !v.Damaged() || v.Findings[0].Damage != Missing {
		t.Errorf("verify = %+v, want one missing", v)
	}
	if n, err := again.AcceptRemoved(t.Context()); n != 1 || err != nil {
		t.Errorf("accepted %d, %v", n, err)
	}
	if v := verify(t, again); v.Damaged() {
		t.Errorf("verify = %+v after it was accepted", v)
	}
	again.Close()
	for _, step := range []func() error{ // what was accepted once is not for ever
		func() error { return os.WriteFile(paths[0], []byte(text(1)), 0o600) },
		func() error { return os.Remove(paths[0]) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		again = open(t, dir)
		if v := verify(t, again); v.Damaged() != (len(files(t, dir, "INBOX/cur/*")) == 1) {
			t.Errorf("verify = %+v", v)
		}
		again.Close()
	}
}

func TestVerifyFindsEachFlippedOctet(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	store(t, from(t, a), inbox, 1, text(1))
	paths, _ := filepath.Glob(filepath.Join(dir, "INBOX/cur/*"))
	for i := range text(1) {
		b := []byte(text(1))
		b[i] ^= 1
		if err := os.WriteFile(paths[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		if v := verify(t, a); len(v.Findings) != 1 || v.Findings[0].Damage != Changed {
			t.Fatalf("octet %d flipped: %+v", i, v)
		}
	}
	if err := os.Truncate(paths[0], 5); err != nil {
		t.Fatal(err)
	}
	v, err := a.Verify(t.Context(), VerifyOptions{Quick: true}, func(int) {})
	if err != nil || !v.Damaged() {
		t.Errorf("quick, truncated: %+v, %v", v, err)
	}
}

func TestVerifyPartsCoverAll(t *testing.T) {
	a := open(t, t.TempDir())
	var all []string
	for i := range 20 {
		all = append(all, text(i))
	}
	store(t, from(t, a), inbox, 1, all...)
	checked := 0
	for part := 1; part <= 7; part++ {
		v, err := a.Verify(t.Context(), VerifyOptions{Part: part, Parts: 7}, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		checked += v.Checked
	}
	if checked != 20 {
		t.Errorf("seven sevenths are %d messages, want 20", checked)
	}
}

func TestMailboxesThatMeetAreKeptApart(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	boxes := []mailbox.Mailbox{}
	for _, wire := range []string{"Work", "work", "WORK", "Caf\u00e9", "Cafe\u0301", "work/sub", "Work/sub", "a%2Fb", "a/b"} {
		boxes = append(boxes, mailbox.Mailbox{Name: mailbox.NewName(strings.Split(wire, "/")...), Wire: wire, Delimiter: "/"})
	}
	boxes = append(boxes, mailbox.Mailbox{Name: mailbox.NewName("a/b"), Wire: "a/b.", Delimiter: "."})
	for _, wire := range []string{"inbox/x", "Inbox/x", "INBOX/x"} { // one name in three spellings
		boxes = append(boxes, mailbox.Mailbox{Name: mailbox.NewName("INBOX", "x"), Wire: wire, Delimiter: "/"})
	}
	where := map[string]string{}
	seen := map[string]string{}
	for i, mb := range boxes {
		store(t, in, mb, 1, text(i))
		p := in.Path(mb)
		where[mb.Wire] = p
		if other, ok := seen[folded(p)]; ok {
			t.Errorf("%q and %q are both in %q", mb.Wire, other, p)
		}
		seen[folded(p)] = mb.Wire
	}
	a.Close()
	if err := os.Remove(filepath.Join(dir, ownDir, indexFile)); err != nil {
		t.Fatal(err)
	}
	again := from(t, open(t, dir))
	slices.Reverse(boxes) // the server's order is no promise
	for _, mb := range boxes {
		if p := again.Path(mb); p != where[mb.Wire] {
			t.Errorf("without index %q is in %q, was in %q", mb.Wire, p, where[mb.Wire])
		}
	}
}

// A symbolic link in the archive must not lead what a server sends elsewhere.
func TestSymbolicLinksAreNotFollowed(t *testing.T) {
	dir, victim := t.TempDir(), t.TempDir()
	if err := os.Symlink(victim, filepath.Join(dir, "INBOX")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "Work")); err != nil {
		t.Fatal(err)
	}
	in := from(t, open(t, dir))
	for _, mb := range []mailbox.Mailbox{inbox, work} {
		if err := add(t, in.Begin(), mb, msg(1), strings.NewReader(text(1))); err == nil {
			t.Errorf("%s: no error", mb.Name)
		}
	}
	if entries, _ := os.ReadDir(victim); len(entries) != 0 {
		t.Errorf("the link's target has %v", entries)
	}
}

func TestBatchBoundsItself(t *testing.T) {
	in := from(t, open(t, t.TempDir()))
	b := in.Begin()
	b.limit = 3
	for i := range 3 {
		if b.Full() {
			t.Fatalf("full after %d messages", i)
		}
		if err := add(t, b, inbox, msg(i), strings.NewReader(text(i))); err != nil {
			t.Fatal(err)
		}
	}
	if !b.Full() {
		t.Error("not full at its limit")
	}
	if err := b.Discard(); err != nil {
		t.Error(err)
	}
}

func TestDateOfAMessage(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const received, header = "Received: by x; Tue, 14 Mar 2023 09:26:53 +0000\r\n", "Date: Mon, 13 Mar 2023 01:00:00 +0000\r\n"
	for _, tt := range []struct {
		name, header, from string
		m                  mailbox.Message
		want               time.Time
	}{
		{"INTERNALDATE", received + header, "internaldate", mailbox.Message{InternalDate: date.Add(time.Hour)}, date.Add(time.Hour)},
		{"Received", received + header, "received", mailbox.Message{}, date},
		{"Date", header, "date", mailbox.Message{}, time.Date(2023, 3, 13, 1, 0, 0, 0, time.UTC)},
		{"Date in the future", "Date: Mon, 13 Mar 2090 01:00:00 +0000\r\n", "now", mailbox.Message{}, now},
		{"none", "Subject: x\r\n", "now", mailbox.Message{}, now},
	} {
		w := fingerprint.NewWriter()
		w.Write([]byte(tt.header + "\r\n"))
		got, from := dateOf(tt.m, w.Fields(), now)
		if !got.Equal(tt.want) || from != tt.from {
			t.Errorf("%s: %v from %s, want %v from %s", tt.name, got, from, tt.want, tt.from)
		}
	}
}

func TestEveryCommitSurvivesTheCrashThatFollows(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	in := from(t, a)
	for i := range 5 {
		store(t, in, inbox, i+1, text(i))
	}
	a.Abandon()
	again := open(t, dir)
	if known, _ := known(t, from(t, again), inbox); len(known) != 5 {
		t.Errorf("%d messages known, want 5", len(known))
	}
	if err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(p, "-journal") || strings.HasSuffix(p, "-wal") {
			t.Errorf("%s lies beside the index at rest", p)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
