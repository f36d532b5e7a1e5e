package maildir

import (
	"bufio"
	"bytes"
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
}

// Undo begins a list for a run that began at a time.
func (in *Intake) Undo(started time.Time) *Undo { return &Undo{in: in, started: started} }

// Name returns what the run is called, "" if nothing is on the list.
func (u *Undo) Name() string { return u.name }

// Path returns where the list is.
func (u *Undo) Path() string { return u.in.a.own(path.Join(undoDir, u.name+undoSuffix)) }

// Add puts messages on the list. They are durable when it returns nil.
func (u *Undo) Add(m mailbox.Mailbox, doomed []Doomed) error {
	if u.file == nil {
		if err := u.create(); err != nil {
			return err
		}
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
	return u.file.Sync()
}

// create makes the list, and makes its name durable.
func (u *Undo) create() error {
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
	if u.file == nil {
		return nil
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

// Begun returns the messages of a mailbox that earlier runs were about to
// remove, so that it is mailstow that marked them if they are marked as
// deleted.
func (in *Intake) Begun(mb mailbox.Mailbox) (map[mailbox.ID]bool, error) {
	begun := map[mailbox.ID]bool{}
	names, err := in.a.undoNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		from := ""
		err := in.a.eachUndo(name, func(l undoLine) {
			switch {
			case l.Kind == "run":
				from = l.Source
			case from != in.name || string(l.Wire) != mb.Wire:
			case l.Kind == "message":
				begun[l.ID] = true
			case l.Kind == "kept": // the mark was taken back
				delete(begun, l.ID)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return begun, nil
}

// undoNames returns the names of the archive's undo lists, in order.
func (a *Archive) undoNames() (names []string, err error) {
	d, err := a.root.Open(path.Join(ownDir, undoDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	err = eachEntry(d, func(e fs.DirEntry) {
		if name, ok := strings.CutSuffix(e.Name(), undoSuffix); ok {
			names = append(names, name)
		}
	})
	slices.Sort(names)
	return names, err
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

// Trimmed is what a trim run was going to remove from a server, and did not keep
// there in the end.
type Trimmed struct {
	Folders map[int64]string // by the archive's numbers
	Lost    []string         // files, as they were called then, of which the archive has no message any more
}

// Trimmed returns what a run has removed. The name may be the beginning of the
// run's.
func (a *Archive) Trimmed(ctx context.Context, run string) (t Trimmed, err error) {
	names, err := a.undoNames()
	if err != nil {
		return t, err
	}
	fits := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, run) })
	if slices.Contains(fits, run) {
		fits = []string{run}
	}
	if len(fits) != 1 {
		if len(fits) > 1 {
			names = fits
		}
		return t, &UnknownRunError{run, names}
	}
	type place struct {
		wire string
		id   mailbox.ID
	}
	removed, stays := map[place]undoLine{}, map[place]bool{}
	if err := a.eachUndo(fits[0], func(l undoLine) {
		at := place{string(l.Wire), l.ID}
		switch l.Kind {
		case "message":
			removed[at] = l
		case "gone", "there", "kept":
			stays[at] = l.Kind == "kept" // the last word counts
		}
	}); err != nil {
		return t, err
	}
	listed := map[string]undoLine{} // by keys: a folder may have got another name since
	for at, l := range removed {
		if !stays[at] {
			listed[l.Key] = l
		}
	}
	t.Folders = map[int64]string{}
	err = rowsIn(ctx, a.db, slices.Collect(maps.Keys(listed)), func(r *sql.Rows) error {
		var id int64
		var key, folderPath string
		var sum []byte
		if err := r.Scan(&id, &key, &sum, &folderPath); err != nil {
			return err
		}
		if fmt.Sprintf("%x", sum) == listed[key].SHA256 {
			t.Folders[id] = folderPath
			delete(listed, key)
		}
		return nil
	}, "SELECT m.id, m.key, m.sha256, f.path FROM message m JOIN folder f ON f.id = m.folder WHERE m.removed_at IS NULL AND m.key IN (%s)")
	for _, l := range listed {
		t.Lost = append(t.Lost, path.Join(l.Folder, l.Key))
	}
	slices.Sort(t.Lost)
	return t, err
}
