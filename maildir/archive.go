// Package maildir keeps one account's mail on disk.
//
// An Archive is a directory that holds one Maildir per mailbox, and beside
// them, in .mailstow, an index of what came from where. The messages are the
// truth; the index can be lost and is made again from them.
package maildir

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"mailstow/internal/lock"
)

// Errors that tell why an archive cannot be opened.
var (
	// ErrNone is returned where there is no archive and none may be made.
	ErrNone = errors.New("there is no archive")
)

// Names of what stands in an account's directory beside its folders.
const (
	ownDir    = ".mailstow"
	indexFile = "index.db"
	aboutFile = "archive.toml"
	lockFile  = "lock"
)

// formatVersion is the version of the layout on disk, as docs/archive-format.md
// describes it.
const formatVersion = 1

// Options say how to open an archive. The zero value opens one that exists,
// for reading.
type Options struct {
	Write  bool // take the lock; tidy up after a run that was killed
	Create bool // with Write: make the archive if there is none

	// Others is how many other archives this process writes at the same
	// time: they share its file descriptors.
	Others int
}

// Archive is one account's archive. Its methods may be called from several
// goroutines.
type Archive struct {
	dir   string // absolute
	id    string
	root  *os.Root
	db    *sql.DB
	lock  *os.File // nil when opened for reading
	whole *os.File // for syncAll; nil where that is of no use

	mu      sync.Mutex
	folders map[string]*folder // by path
	dirty   bool               // a run's first write has been announced in the index
	found   Found

	batchLimit int // messages in a batch
}

// Found counts what opening an archive found changed by others.
type Found struct {
	Adopted int // files that the index did not know
	Removed int // files that are gone
	Swept   int // leftovers of a run that was killed
	Rebuilt bool
}

// about is the content of archive.toml.
type about struct {
	Format int    `toml:"format"`
	ID     string `toml:"id"`
}

// Exists reports whether dir is an account's archive.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, ownDir, aboutFile))
	return err == nil
}

// Open opens the archive in dir. With Write it holds the archive's lock until
// Close, and what a killed run left is put in order: complete messages that
// the index does not know are taken in, others are removed.
func Open(ctx context.Context, dir string, o Options) (_ *Archive, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if !Exists(dir) {
		if !o.Write || !o.Create {
			return nil, fmt.Errorf("%w in %s", ErrNone, dir)
		}
		if err := makeDirs(filepath.Join(dir, ownDir)); err != nil {
			return nil, err
		}
	}
	a := &Archive{dir: dir, folders: map[string]*folder{}, batchLimit: batchLimit(o.Others + 1)}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.root, err = os.OpenRoot(dir); err != nil {
		return nil, err
	}
	if o.Write {
		if a.lock, err = takeLock(a.own(lockFile)); err != nil {
			var locked *LockedError
			if errors.As(err, &locked) {
				locked.Idle = a.idle()
			}
			return nil, err
		}
		now := time.Now()
		os.Chtimes(a.lock.Name(), now, now) // a sign of life; without it the run looks idle
	}
	if err = a.readAbout(o); err != nil {
		return nil, err
	}
	if err = a.openIndex(ctx, o); err != nil {
		return nil, err
	}
	if err = a.loadFolders(ctx); err != nil {
		return nil, err
	}
	if err = a.completeMove(ctx); err != nil || !o.Write {
		return a, err
	}
	if canSyncAll(dir) {
		if a.whole, err = os.Open(dir); err != nil {
			return nil, err
		}
	}
	return a, a.tidy(ctx)
}

// makeDirs makes a directory and those above it that are missing, each known
// to its parent durably.
func makeDirs(dir string) error {
	if fi, err := os.Stat(dir); err == nil {
		if !fi.IsDir() {
			return &os.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
		}
		return nil
	}
	if err := makeDirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// LockedError is returned when another run is writing to the archive.
type LockedError struct {
	Idle time.Duration // since it has written something last
}

func (*LockedError) Error() string { return "another run is writing to this archive" }

// idle is how long no run has written anything to the index.
func (a *Archive) idle() time.Duration {
	var last time.Time
	for _, name := range []string{lockFile, indexFile, indexFile + "-journal"} {
		if fi, err := os.Stat(a.own(name)); err == nil && fi.ModTime().After(last) {
			last = fi.ModTime()
		}
	}
	return time.Since(last)
}

func takeLock(path string) (*os.File, error) {
	f, err := lock.Take(path)
	if errors.Is(err, lock.ErrHeld) {
		err = &LockedError{}
	}
	return f, err
}

func (a *Archive) readAbout(o Options) error {
	b, err := os.ReadFile(a.own(aboutFile))
	if errors.Is(err, os.ErrNotExist) && o.Create {
		var random [16]byte
		rand.Read(random[:])
		a.id = hex.EncodeToString(random[:])
		text := fmt.Sprintf("# This directory is a mailstow archive; see docs/archive-format.md.\nformat = %d\nid = %q\n", formatVersion, a.id)
		return writeFile(a.own(aboutFile), []byte(text))
	}
	if err != nil {
		return err
	}
	var known about
	if err := toml.Unmarshal(b, &known); err != nil {
		return fmt.Errorf("%s: %w", a.own(aboutFile), err)
	}
	if known.Format > formatVersion {
		return fmt.Errorf("%w: it has format %d, this program knows %d", ErrNewer, known.Format, formatVersion)
	}
	a.id = known.ID
	return nil
}

// openIndex opens the index. A damaged one is put aside, and a new one begun.
func (a *Archive) openIndex(ctx context.Context, o Options) (err error) {
	path := a.own(indexFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && !o.Write {
		return fmt.Errorf("%w: its index is missing; the next backup makes it again", ErrNone)
	}
	a.db, err = openIndex(ctx, path, !o.Write)
	if !o.Write && err != nil && strings.Contains(err.Error(), "readonly database") {
		if err = a.rollBack(ctx, path); err == nil {
			a.db, err = openIndex(ctx, path, true)
		}
	}
	if o.Write && isDamaged(err) {
		for _, name := range []string{indexFile, indexFile + "-journal"} {
			aside := a.own(fmt.Sprintf("%s.damaged-%d", name, time.Now().Unix()))
			if err := os.Rename(a.own(name), aside); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		a.db, err = openIndex(ctx, path, false)
	}
	if err == nil && o.Write {
		err = syncDir(filepath.Dir(path)) // it may be new
	}
	return err
}

// rollBack ends the transaction of a run that was killed, which a reader
// cannot, unless another run is at work: then that one has done it.
func (a *Archive) rollBack(ctx context.Context, path string) error {
	held, err := takeLock(a.own(lockFile))
	if errors.As(err, new(*LockedError)) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release(held)
	db, err := openIndex(ctx, path, false)
	if err != nil {
		return err
	}
	return db.Close()
}

func isDamaged(err error) bool {
	return errors.Is(err, errDamagedIndex) || err != nil &&
		(strings.Contains(err.Error(), "SQLITE_CORRUPT") || strings.Contains(err.Error(), "malformed") || strings.Contains(err.Error(), "SQLITE_NOTADB"))
}

// Dir returns the account's directory, absolute.
func (a *Archive) Dir() string { return a.dir }

// ID returns the archive's random identity.
func (a *Archive) ID() string { return a.id }

// Found returns what opening the archive found changed by others.
func (a *Archive) Found() Found { return a.found }

func (a *Archive) own(name string) string { return filepath.Join(a.dir, ownDir, name) }

// announce says in the index, durably, that this run is about to write files.
// A run that finds the announcement knows that this one was killed. The
// caller holds mu.
func (a *Archive) announce(ctx context.Context) error {
	if a.dirty {
		return nil
	}
	_, err := a.db.ExecContext(ctx, "INSERT OR REPLACE INTO state VALUES ('writing', ?)", fmt.Sprint(os.Getpid()))
	a.dirty = err == nil
	return err
}

// writing announces that files are about to be written.
func (a *Archive) writing(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.announce(ctx)
}

// Close ends the use of the archive. All that was committed is durable.
func (a *Archive) Close() error {
	var err error
	if a.dirty && a.db != nil {
		_, err = a.db.Exec("DELETE FROM state WHERE name = 'writing'")
	}
	return errors.Join(err, a.close())
}

// Abandon ends the use of the archive after an error on its disk: the next
// run looks for what this one may have left. A later Close does nothing.
func (a *Archive) Abandon() { a.close() }

func (a *Archive) close() error {
	var errs []error
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	if a.root != nil {
		errs = append(errs, a.root.Close())
	}
	if a.whole != nil {
		errs = append(errs, a.whole.Close())
	}
	if a.lock != nil {
		errs = append(errs, lock.Release(a.lock))
	}
	a.db, a.root, a.whole, a.lock = nil, nil, nil, nil
	return errors.Join(errs...)
}
