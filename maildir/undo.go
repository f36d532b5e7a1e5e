package maildir

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"mailstow/mailbox"
)

// undoDir holds the undo lists, below ownDir.
const undoDir = "trim"

const undoSuffix = ".jsonl"

// Doomed is a message that is about to be removed from a server.
type Doomed struct {
	Message mailbox.Message
	Copy    Copy
}

// undoLine is a line of an undo list: a message that was going to be removed,
// or what is known of it afterwards.
type undoLine struct {
	Kind    string     `json:"type"` // run, message, gone, there or kept
	Version int        `json:"v,omitempty"`
	Source  string     `json:"server,omitempty"`
	Started string     `json:"started,omitempty"`
	Mailbox string     `json:"mailbox,omitempty"` // its name, for people
	Wire    []byte     `json:"wire,omitempty"`    // the server's spelling
	ID      mailbox.ID `json:"id,omitempty"`
	Folder  string     `json:"folder,omitempty"`
	Key     string     `json:"key,omitempty"`
	Size    int64      `json:"bytes,omitempty"`
	SHA256  string     `json:"sha256,omitempty"`
	Date    string     `json:"date,omitempty"`
	Flags   []string   `json:"flags,omitempty"`
	Why     string     `json:"why,omitempty"`
}

// Undo is the list of what a run removes from a server. It is made when the
// first message is put on it.
type Undo struct {
	in      *Intake
	started time.Time
	file    *os.File // nil until there is something on it
	name    string
	doomed  bool // a message is on it
}

// Undo begins a list for a run that began at a time.
func (in *Intake) Undo(started time.Time) *Undo { return &Undo{in: in, started: started} }

// Name returns what the run is called, "" if no message is on the list.
func (u *Undo) Name() string {
	if !u.doomed {
		return ""
	}
	return u.name
}

// Path returns where the list is.
func (u *Undo) Path() string { return u.in.a.own(path.Join(undoDir, u.name+undoSuffix)) }

// Add puts messages on the list. They are durable when it returns nil.
func (u *Undo) Add(m mailbox.Mailbox, doomed []Doomed) error {
	if err := u.in.a.here(); err != nil {
		return err
	}
	if err := u.create(); err != nil {
		return err
	}
	var lines []undoLine
	for _, d := range doomed {
		l := undoLine{
			Kind: "message", Mailbox: m.Name.String(), Wire: []byte(m.Wire), ID: d.Message.ID, Flags: d.Copy.Flags,
			Folder: d.Copy.Folder, Key: d.Copy.Key, Size: d.Copy.Size, SHA256: fmt.Sprintf("%x", d.Copy.SHA256),
			Date: time.Unix(d.Copy.Arrived, 0).UTC().Format(time.RFC3339),
		}
		lines = append(lines, l)
	}
	if err := u.write(lines); err != nil {
		return err
	}
	u.doomed = true
	return u.file.Sync()
}

// create makes the list, if there is none yet, and makes its name durable.
func (u *Undo) create() error {
	if u.file != nil {
		return nil
	}
	root := u.in.a.root
	dir := path.Join(ownDir, undoDir)
	if err := root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := u.in.a.syncDir(ownDir); err != nil {
		return err
	}
	base := u.started.Format("2006-01-02T15:04:05")
	for n := 1; ; n++ {
		name := base
		if n > 1 {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		file, err := root.OpenFile(path.Join(dir, name+undoSuffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) && n < 1000 {
			continue
		}
		if err != nil {
			return err
		}
		u.file, u.name = file, name
		break
	}
	if err := u.write([]undoLine{{Kind: "run", Version: 1, Source: u.in.name, Started: u.started.UTC().Format(time.RFC3339)}}); err != nil {
		return err
	}
	return u.in.a.syncDir(dir)
}

func (u *Undo) write(lines []undoLine) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	_, err := u.file.Write(b.Bytes())
	return err
}

// Note puts on the list what has become of messages: they are gone from the
// server or, with why, still there; unmarked says that those are not marked as
// deleted any more.
func (u *Undo) Note(m mailbox.Mailbox, ids []mailbox.ID, why map[mailbox.ID]string, unmarked bool) error {
	if len(ids) == 0 {
		return nil
	}
	if err := u.create(); err != nil { // about what an earlier run has doomed
		return err
	}
	var lines []undoLine
	for _, id := range ids {
		l := undoLine{Kind: "gone", Wire: []byte(m.Wire), ID: id}
		if text, kept := why[id]; kept {
			l.Kind, l.Why = "there", text
			if unmarked {
				l.Kind = "kept"
			}
		}
		lines = append(lines, l)
	}
	return u.write(lines)
}

// Close makes the list durable as it is.
func (u *Undo) Close() error {
	if u.file == nil {
		return nil
	}
	return errors.Join(u.file.Sync(), u.file.Close())
}

// Begun returns the messages that earlier runs were about to remove, so that it
// is mailstow that marked them if they are marked as deleted, by the server's
// spelling of their mailboxes.
func (in *Intake) Begun() (map[string]map[mailbox.ID]bool, error) {
	begun := map[string]map[mailbox.ID]bool{}
	lists, err := in.a.undoLists()
	for _, l := range lists {
		for _, line := range l.lines {
			wire := string(line.Wire)
			switch {
			case l.source != in.name:
			case line.Kind == "message", line.Kind == "there":
				if begun[wire] == nil {
					begun[wire] = map[mailbox.ID]bool{}
				}
				begun[wire][line.ID] = true
			case line.Kind == "kept", line.Kind == "gone": // the mark was taken back, or went with it
				if delete(begun[wire], line.ID); len(begun[wire]) == 0 {
					delete(begun, wire)
				}
			}
		}
	}
	return begun, err
}

// undoList is an undo list as it stands.
type undoList struct {
	name, source string
	started      time.Time
	lines        []undoLine
}

// undoLists returns the archive's undo lists, the oldest first.
func (a *Archive) undoLists() (all []undoList, err error) {
	d, err := a.root.Open(path.Join(ownDir, undoDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var names []string
	err = eachEntry(d, func(e fs.DirEntry) {
		if name, ok := strings.CutSuffix(e.Name(), undoSuffix); ok {
			names = append(names, name)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		l := undoList{name: name}
		err := a.eachUndo(name, func(line undoLine) {
			if line.Kind == "run" {
				l.source = line.Source
				l.started, _ = time.Parse(time.RFC3339, line.Started)
				return
			}
			l.lines = append(l.lines, line)
		})
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	// Names are in local time, which may be set back.
	slices.SortFunc(all, func(a, b undoList) int {
		return cmp.Or(a.started.Compare(b.started), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	return all, nil
}

// eachUndo reads an undo list. What a killed run has left of a last line is no
// line: nothing was removed for its sake.
func (a *Archive) eachUndo(name string, fn func(undoLine)) error {
	file, err := a.root.Open(path.Join(ownDir, undoDir, name+undoSuffix))
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReader(file)
	for {
		text, err := r.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var l undoLine
		if json.Unmarshal(text, &l) == nil {
			fn(l)
		}
	}
}

// UnknownRunError says that no undo list has the name, or that several do.
type UnknownRunError struct {
	Name  string
	Among []string // the lists that there are or, of several that are meant, those
}

func (e *UnknownRunError) Error() string {
	return fmt.Sprintf("there is no trim run %q", e.Name)
}

// Trimmed is what a trim run has removed from a server, or was going to when it
// was killed.
type Trimmed struct {
	Folders map[int64]string // by the archive's numbers
	Lost    []string         // files, as they were called then, of which the archive has no message any more

	// Begun are messages, by the server's spelling of their mailboxes, of which
	// nobody has noted what became of them: they may still be there, marked as
	// deleted. Source is the server.
	Begun  map[string][]mailbox.ID
	Source string
}

// Trimmed returns what a run has removed. The name may be the beginning of the
// run's.
func (a *Archive) Trimmed(ctx context.Context, run string) (t Trimmed, err error) {
	lists, err := a.undoLists()
	if err != nil {
		return t, err
	}
	var names, fits []string
	for _, l := range lists {
		names = append(names, l.name)
		if strings.HasPrefix(l.name, run) {
			fits = append(fits, l.name)
		}
	}
	if slices.Contains(fits, run) {
		fits = []string{run}
	}
	if len(fits) != 1 {
		if len(fits) > 1 {
			names = fits
		}
		return t, &UnknownRunError{run, names}
	}
	at := slices.IndexFunc(lists, func(l undoList) bool { return l.name == fits[0] })
	t.Folders, t.Begun, t.Source = map[int64]string{}, map[string][]mailbox.ID{}, lists[at].source
	listed := map[string][]undoLine{} // by keys
	for _, f := range fateOf(lists[at:]) {
		switch f.became {
		case "kept":
			continue
		case "", "there":
			t.Begun[string(f.Wire)] = append(t.Begun[string(f.Wire)], f.ID)
		}
		listed[f.Key] = append(listed[f.Key], f.undoLine)
	}
	type row struct {
		id          int64
		key, folder string
		sum         []byte
	}
	var found []row
	err = rowsIn(ctx, a.db, slices.Collect(maps.Keys(listed)), func(r *sql.Rows) error {
		var x row
		err := r.Scan(&x.id, &x.key, &x.sum, &x.folder)
		found = append(found, x)
		return err
	}, "SELECT m.id, m.key, m.sha256, f.path FROM message m JOIN folder f ON f.id = m.folder WHERE m.removed_at IS NULL AND m.key IN (%s)")
	if err != nil {
		return t, err
	}
	for _, inPlace := range []bool{true, false} { // a folder may have got another name, or a copy with the same file names
		for _, x := range found {
			i := slices.IndexFunc(listed[x.key], func(l undoLine) bool {
				return fmt.Sprintf("%x", x.sum) == l.SHA256 && (l.Folder == x.folder || !inPlace)
			})
			if _, taken := t.Folders[x.id]; i >= 0 && !taken {
				t.Folders[x.id] = x.folder
				listed[x.key] = slices.Delete(listed[x.key], i, i+1)
			}
		}
	}
	for _, lines := range listed {
		for _, l := range lines {
			t.Lost = append(t.Lost, path.Join(l.Folder, l.Key))
		}
	}
	slices.Sort(t.Lost)
	return t, nil
}

// fate is a message on an undo list, and the last that is known of it.
type fate struct {
	undoLine
	became string // gone, there, kept; "" for nothing
}

// fateOf returns what became of the messages of the first list, by its own word
// and that of later ones, until one of these takes a message up again.
func fateOf(lists []undoList) (all []*fate) {
	type place struct {
		wire string
		id   mailbox.ID
	}
	open := map[place]*fate{}
	for i, l := range lists {
		for _, line := range l.lines {
			at := place{string(line.Wire), line.ID}
			f := open[at]
			switch {
			case l.source != lists[0].source:
			case line.Kind == "message" && i == 0 && f == nil:
				f = &fate{undoLine: line}
				open[at] = f
				all = append(all, f)
			case line.Kind == "message" && i > 0:
				if f != nil && f.became != "gone" {
					f.became = "kept" // by the first run; the later list knows the rest
				}
				delete(open, at)
			case f != nil && line.Kind != "message":
				f.became = line.Kind
			}
		}
	}
	return all
}
