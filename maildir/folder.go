package maildir

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	gomaildir "github.com/emersion/go-maildir"
	"golang.org/x/sys/unix"

	"mailstow/internal/fingerprint"
)

// folder is one Maildir of the archive.
type folder struct {
	id   int64  // in the index; 0 until it is there
	path string // below the account's directory

	curMtime, newMtime int64 // when the files were last compared with the index

	made     bool // its directories are known to exist
	keywords *keywords
}

func (a *Archive) abs(f *folder) string { return filepath.Join(a.dir, f.path) }

func (a *Archive) maildir(f *folder) gomaildir.Dir { return gomaildir.Dir(a.abs(f)) }

func (a *Archive) loadFolders(ctx context.Context) error {
	return rows(ctx, a.db, func(r *sql.Rows) error {
		f := &folder{}
		if err := r.Scan(&f.id, &f.path, &f.curMtime, &f.newMtime); err != nil {
			return err
		}
		a.folders[f.path] = f
		return nil
	}, "SELECT id, path, cur_mtime, new_mtime FROM folder")
}

// make makes the folder's directories and returns those that have new
// entries, to be synced before anything in them counts.
func (a *Archive) make(ctx context.Context, f *folder) (changed []string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.made {
		return nil, nil
	}
	if _, err := a.root.Lstat(path.Join(f.path, "tmp")); errors.Is(err, fs.ErrNotExist) {
		if err := a.announce(ctx); err != nil {
			return nil, err
		}
	}
	parts := strings.Split(f.path, "/")
	for i := range parts {
		dir := path.Join(parts[:i+1]...)
		made, err := a.mkdir(dir)
		if err != nil {
			return nil, err
		}
		if made {
			changed = append(changed, filepath.Join(a.dir, path.Dir(dir)))
		}
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		made, err := a.mkdir(path.Join(f.path, sub))
		if err != nil {
			return nil, err
		}
		if made && sub == "cur" {
			changed = append(changed, a.abs(f))
		}
	}
	f.keywords, err = loadKeywords(a.abs(f))
	f.made = err == nil
	return changed, err
}

// mkdir makes one directory below the archive's root. What stands there
// already must be a directory and not a symbolic link.
func (a *Archive) mkdir(dir string) (made bool, err error) {
	if err = a.root.Mkdir(dir, 0o700); err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	fi, err := a.root.Lstat(dir)
	if err == nil && !fi.IsDir() {
		err = &os.PathError{Op: "mkdir", Path: filepath.Join(a.dir, dir), Err: unix.ENOTDIR}
	}
	return false, err
}

// onDisk maps the keys of a folder's messages to where they are, such as
// "cur/KEY:2,S": of those that are wanted, or of all if wanted is nil. What is
// no regular file is no message.
func (a *Archive) onDisk(f *folder, wanted func(key string) bool) (map[string]string, error) {
	found := map[string]string{}
	for _, sub := range []string{"new", "cur"} { // files move from new to cur, not back
		d, err := a.root.Open(path.Join(f.path, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = eachEntry(d, func(e fs.DirEntry) {
			if e.Name()[0] == '.' || !e.Type().IsRegular() {
				return
			}
			name := sub + "/" + e.Name()
			if key := keyOf(name[len(sub)+1:]); wanted == nil || wanted(key) {
				found[key] = name
			}
		})
		d.Close()
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// eachEntry calls f for each entry of a directory, however large it is.
func eachEntry(d *os.File, f func(fs.DirEntry)) error {
	for {
		entries, err := d.ReadDir(1000)
		for _, e := range entries {
			f(e)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// keyOf returns what identifies a message in its folder whatever its flags.
func keyOf(filename string) string {
	key, _, _ := strings.Cut(filename, ":")
	return key
}

// lettersOf returns the flag letters of a file name.
func lettersOf(filename string) string {
	_, letters, _ := strings.Cut(filename, ":2,")
	return letters
}

// tidy puts the archive in order before a run: after a killed run (and when
// the index is new) all folders are compared with it, else those in which
// something has changed.
func (a *Archive) tidy(ctx context.Context) error {
	var pid string
	err := a.db.QueryRowContext(ctx, "SELECT value FROM state WHERE name = 'writing'").Scan(&pid)
	killed := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if err := a.discover(); err != nil {
		return err
	}
	if killed {
		for _, f := range a.folders {
			if err := a.sweep(f, pid); err != nil {
				return err
			}
		}
		if err := a.writing(ctx); err != nil {
			return err
		}
	}
	a.found.Rebuilt = pid == "0" && len(a.folders) > 0
	for _, f := range a.folders {
		if err := a.compare(ctx, f, killed || f.id == 0); err != nil {
			return fmt.Errorf("folder %s: %w", f.path, err)
		}
	}
	return nil
}

// discover finds the Maildirs below the account's directory that the index
// does not know.
func (a *Archive) discover() error {
	return fs.WalkDir(a.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() || p == "." {
			return nil
		}
		if p == ownDir {
			return fs.SkipDir
		}
		if base := path.Base(p); base == "cur" || base == "new" || base == "tmp" {
			if base == "cur" && path.Dir(p) != "." && a.folders[path.Dir(p)] == nil {
				a.folders[path.Dir(p)] = &folder{path: path.Dir(p)}
			}
			return fs.SkipDir
		}
		return nil
	})
}

// ownTmp matches the name of a temporary file as go-maildir makes it: time,
// process and counter, ten random octets, host.
var ownTmp = regexp.MustCompile(`^[0-9]+\.([0-9]+)[0-9a-f]{20}\.`)

// sweep removes what the killed process pid left in a folder.
func (a *Archive) sweep(f *folder, pid string) error {
	err := a.remove(path.Join(f.path, "tmp"), func(name string) bool {
		m := ownTmp.FindStringSubmatch(name)
		return m != nil && strings.HasPrefix(m[1], pid)
	})
	return errors.Join(err, a.remove(f.path, func(name string) bool { return strings.HasPrefix(name, newFile) }))
}

// remove removes the files of a directory for which unwanted is true.
func (a *Archive) remove(dir string, unwanted func(name string) bool) error {
	d, err := a.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if unwanted(name) {
			if err := a.root.Remove(path.Join(dir, name)); err != nil {
				return err
			}
			a.found.Swept++
		}
	}
	return nil
}

// drift is how a folder's files differ from what the index knows of them.
type drift struct {
	gone, back []int64 // messages whose file is missing, or there again
	unknown    []*entry
	taken      int // that were unknown, and are in the index now
}

func (d *drift) none() bool { return len(d.gone)+len(d.back)+len(d.unknown) == 0 }

// compare brings the index in step with a folder's files: those that it does
// not know are digested and taken in, those that are gone are noted.
func (a *Archive) compare(ctx context.Context, f *folder, always bool) error {
	curTime, recent1 := a.mtime(f, "cur")
	newTime, recent2 := a.mtime(f, "new")
	if !always && curTime == f.curMtime && newTime == f.newMtime {
		return nil
	}
	d, err := a.drift(ctx, f)
	if err != nil {
		return err
	}
	a.found.Adopted += d.taken + len(d.unknown)
	a.found.Removed += len(d.gone)
	if recent1 || recent2 { // a change may still come in the same instant
		curTime, newTime = 0, 0
	}
	if d.none() && f.id != 0 && curTime == f.curMtime && newTime == f.newMtime {
		return nil
	}
	return inTx(ctx, a.db, func(tx *sql.Tx) error {
		if err := a.saveFolder(ctx, tx, f); err != nil {
			return err
		}
		f.curMtime, f.newMtime = curTime, newTime
		if _, err := tx.ExecContext(ctx, "UPDATE folder SET cur_mtime = ?, new_mtime = ? WHERE id = ?", curTime, newTime, f.id); err != nil {
			return err
		}
		return d.record(ctx, tx)
	})
}

// drift finds out how a folder's files differ from the index.
func (a *Archive) drift(ctx context.Context, f *folder) (*drift, error) {
	found, err := a.onDisk(f, nil)
	if err != nil {
		return nil, err
	}
	d := &drift{}
	missing := map[string]int64{}
	err = rows(ctx, a.db, func(r *sql.Rows) error {
		var id int64
		var key string
		var removed bool
		if err := r.Scan(&id, &key, &removed); err != nil {
			return err
		}
		switch here := found[key] != ""; {
		case here && removed:
			d.back = append(d.back, id)
		case !here && !removed:
			missing[key] = id
		}
		delete(found, key)
		return nil
	}, "SELECT id, key, removed_at IS NOT NULL FROM message WHERE folder = ?", f.id)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 { // read twice before anything is called gone: a file that is being renamed may be missed
		again, err := a.onDisk(f, func(key string) bool { return missing[key] != 0 })
		if err != nil {
			return nil, err
		}
		for key, id := range missing {
			if again[key] == "" {
				d.gone = append(d.gone, id)
			}
		}
	}
	for key, name := range found { // what is left is not in the index
		e, err := a.read(f, key, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // moved meanwhile; the directory's time has changed too
		}
		if err != nil {
			return nil, err
		}
		if d.unknown = append(d.unknown, e); len(d.unknown) == maxMessages {
			if err := a.takeIn(ctx, f, d.unknown); err != nil {
				return nil, err
			}
			d.taken += len(d.unknown)
			d.unknown = nil
		}
	}
	return d, nil
}

// takeIn puts found files into the index, a part of many.
func (a *Archive) takeIn(ctx context.Context, f *folder, part []*entry) error {
	return inTx(ctx, a.db, func(tx *sql.Tx) error {
		if err := a.saveFolder(ctx, tx, f); err != nil {
			return err
		}
		return (&drift{unknown: part}).record(ctx, tx)
	})
}

func (d *drift) record(ctx context.Context, tx *sql.Tx) error {
	insert, err := tx.PrepareContext(ctx, insertMessage)
	if err != nil {
		return err
	}
	defer insert.Close()
	for _, e := range d.unknown {
		if _, err := e.insert(ctx, insert); err != nil {
			return err
		}
	}
	for _, id := range d.gone {
		if _, err := tx.ExecContext(ctx, "UPDATE message SET removed_at = ?, accepted = 0 WHERE id = ?", time.Now().Unix(), id); err != nil {
			return err
		}
	}
	for _, id := range d.back {
		if _, err := tx.ExecContext(ctx, "UPDATE message SET removed_at = NULL, accepted = 0 WHERE id = ?", id); err != nil {
			return err
		}
	}
	return nil
}

// mtime returns when a directory's entries last changed, in ns; recent says
// that this is so short ago that the clock may not tell a later change apart.
func (a *Archive) mtime(f *folder, sub string) (ns int64, recent bool) {
	fi, err := a.root.Stat(path.Join(f.path, sub))
	if err != nil {
		return -1, false
	}
	return fi.ModTime().UnixNano(), time.Since(fi.ModTime()) < 2*time.Second
}

// read digests a file that was found in a folder.
func (a *Archive) read(f *folder, key, name string) (*entry, error) {
	if f.keywords == nil {
		k, err := loadKeywords(a.abs(f))
		if err != nil {
			return nil, err
		}
		f.keywords = k
	}
	file, err := a.root.Open(path.Join(f.path, name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	w := fingerprint.NewForeignWriter()
	if _, err := copyTo(w, file); err != nil {
		return nil, err
	}
	return &entry{
		folder: f, key: key, print: w.Print(), fields: w.Fields(),
		internalDate: fi.ModTime().Truncate(time.Second), dateFrom: "file",
		flags: f.keywords.flagsOf(lettersOf(name)), origin: "found",
	}, nil
}

// saveFolder puts the folder into the index if it is not there.
func (a *Archive) saveFolder(ctx context.Context, tx *sql.Tx, f *folder) error {
	if f.id != 0 {
		return nil
	}
	r, err := tx.ExecContext(ctx, "INSERT INTO folder (path) VALUES (?)", f.path)
	if err != nil {
		return err
	}
	f.id, err = r.LastInsertId()
	return err
}
