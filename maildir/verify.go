package maildir

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mailstow/internal/fingerprint"
)

// Damage is what Verify finds wrong with one file, or worth telling.
type Damage string

// The findings. Foreign is no damage: another program's file that the next
// run takes in.
const (
	Changed    Damage = "changed"
	Missing    Damage = "missing"
	Unreadable Damage = "unreadable"
	Foreign    Damage = "foreign"
)

// Finding is one file that Verify tells of.
type Finding struct {
	Damage Damage
	Folder string
	File   string // below the account's directory; the key for one that is missing
	Err    error  // for Unreadable
}

// VerifyOptions say how much to check. The zero value reads every file.
type VerifyOptions struct {
	Quick bool // compare sizes, read nothing

	// Part of Parts: only the messages of one of so many equal parts.
	// Parts 0 means all.
	Part, Parts int
}

// Verified sums up what Verify did.
type Verified struct {
	Messages int // in the index
	Checked  int
	Octets   int64
	Findings []Finding
}

// Damaged reports whether anything found is damage.
func (v *Verified) Damaged() bool {
	return slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Damage != Foreign })
}

// Verify compares every archived message with the index. It calls progress
// after each; calls do not overlap.
func (a *Archive) Verify(ctx context.Context, o VerifyOptions, progress func(checked int)) (*Verified, error) {
	v := &verifier{a: a, o: o, progress: progress}
	for _, f := range a.sortedFolders() {
		if err := v.folder(ctx, f); err != nil {
			return nil, err
		}
	}
	return &v.sum, nil
}

func (a *Archive) sortedFolders() []*folder {
	var all []*folder
	for _, f := range a.folders {
		if f.id != 0 {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(x, y *folder) int {
		switch {
		case x.path < y.path:
			return -1
		case x.path > y.path:
			return 1
		}
		return 0
	})
	return all
}

type verifier struct {
	a        *Archive
	o        VerifyOptions
	progress func(int)

	mu  sync.Mutex
	sum Verified
}

// stored is what the index knows of one file.
type stored struct {
	id       int64
	key      string
	size     int64
	sum      []byte
	accepted bool
}

func (v *verifier) folder(ctx context.Context, f *folder) error {
	var all []stored
	err := rows(ctx, v.a.db, func(r *sql.Rows) error {
		var s stored
		if err := r.Scan(&s.id, &s.key, &s.size, &s.sum, &s.accepted); err != nil {
			return err
		}
		all = append(all, s)
		return nil
	}, "SELECT id, key, size, sha256, accepted FROM message WHERE folder = ? ORDER BY id", f.id)
	if err != nil {
		return err
	}
	names, err := v.a.onDisk(f, nil)
	if err != nil {
		return err
	}
	how := entirely
	if v.o.Quick {
		how = quickly
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, s := range all {
		name, here := names[s.key]
		delete(names, s.key)
		if here || !s.accepted {
			v.sum.Messages++
		}
		if v.o.Parts > 0 && s.id%int64(v.o.Parts) != int64(v.o.Part)%int64(v.o.Parts) || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			if here || !s.accepted {
				v.note(f, s, name, v.a.check(f, s, name, how))
			}
			return nil
		})
	}
	g.Wait()
	for _, name := range names {
		v.sum.Findings = append(v.sum.Findings, Finding{Damage: Foreign, Folder: f.path, File: path.Join(f.path, name)})
	}
	return ctx.Err()
}

// changedError says how a file differs from what was archived.
type changedError struct {
	size, wantSize int64
	sum, want      []byte // nil if the size differs
}

func (e *changedError) Error() string {
	if e.sum == nil {
		return fmt.Sprintf("it has another size (expected %d octets, found %d)", e.wantSize, e.size)
	}
	return fmt.Sprintf("hash differs (expected %.4x..., found %.4x...)", e.want, e.sum)
}

// How a file is checked.
type checking int

const (
	quickly  checking = iota // its size
	entirely                 // its octets
	durably                  // its octets, read from the disk after it was synced
)

// check compares one file with what the index says of it.
func (a *Archive) check(f *folder, s stored, name string, how checking) error {
	if name == "" {
		return fs.ErrNotExist
	}
	p := path.Join(f.path, name)
	file, err := a.root.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) { // renamed since the directory was read
		if names, _ := a.onDisk(f, func(key string) bool { return key == s.key }); names[s.key] != "" && names[s.key] != name {
			return a.check(f, s, names[s.key], how)
		}
	}
	if err != nil {
		return err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != s.size {
		return &changedError{size: fi.Size(), wantSize: s.size}
	}
	if how == quickly {
		return nil
	}
	if how == durably {
		if err := file.Sync(); err != nil {
			return err
		}
		dropCached(file)
	}
	w := fingerprint.NewWriter()
	if _, err := copyTo(w, file); err != nil {
		return err
	}
	if sum := w.Print().SHA256; !slices.Equal(sum[:], s.sum) {
		return &changedError{sum: sum[:], want: s.sum}
	}
	return nil
}

func (v *verifier) note(f *folder, s stored, name string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sum.Checked++
	v.sum.Octets += s.size
	if err != nil {
		found := Finding{Damage: Unreadable, Folder: f.path, File: path.Join(f.path, name), Err: err}
		switch {
		case errors.As(err, new(*changedError)):
			found.Damage = Changed
		case errors.Is(err, fs.ErrNotExist):
			found.Damage, found.File = Missing, path.Join(f.path, "cur", s.key)
		}
		v.sum.Findings = append(v.sum.Findings, found)
	}
	v.progress(v.sum.Checked)
}
