package maildir

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"mailstow/mailbox"
)

// Former returns the mailboxes, by the server's spelling, that the archive
// knows and the server does not list any more.
func (in *Intake) Former(listed func(wire string) bool) (former []string) {
	for wire, m := range in.mailboxes {
		if m.id != 0 && !listed(wire) {
			former = append(former, wire)
		}
	}
	slices.Sort(former)
	return former
}

// trait is what a message keeps when its mailbox is renamed.
type trait struct{ size, date int64 }

// traits returns those of the messages that a mailbox has, by ID, and the IDs
// of those that it has had.
func (in *Intake) traits(ctx context.Context, m *mailboxRow) (byID map[mailbox.ID]trait, gone map[mailbox.ID]bool, err error) {
	byID, gone = map[mailbox.ID]trait{}, map[mailbox.ID]bool{}
	return byID, gone, rows(ctx, in.a.db, func(r *sql.Rows) error {
		var id string
		var t trait
		var left bool
		if err := r.Scan(&id, &t.size, &t.date, &left); err != nil {
			return err
		}
		if left {
			gone[mailbox.ID(id)] = true
		} else {
			byID[mailbox.ID(id)] = t
		}
		return nil
	}, "SELECT p.id, m.size, m.internal_date, p.gone_at IS NOT NULL FROM mapping p JOIN message m ON m.id = p.message WHERE p.mailbox = ?", m.id)
}

// Resembles reports whether a listing, with sizes and dates, may be that of a
// former mailbox under another name: most of each is in the other.
func (in *Intake) Resembles(ctx context.Context, former string, l mailbox.Listing) (bool, error) {
	byID, _, err := in.traits(ctx, in.mailboxes[former])
	if err != nil {
		return false, err
	}
	have := map[trait]int{}
	for _, t := range byID {
		have[t]++
	}
	alike := 0
	for _, m := range l.Messages {
		if t := (trait{m.Size, m.InternalDate.Unix()}); have[t] > 0 {
			have[t]--
			alike++
		}
	}
	return alike > 0 && 2*alike > max(len(byID), len(l.Messages)), nil
}

// Adopt makes the folder of a former mailbox that of a listed one, in whose
// name it is from now on. Where the server still uses the former's IDs, and
// all that they name is as it was, they stand for the same messages; else
// what the folder holds is to be recognised. It returns the folder's path
// before; "" if the folder cannot be moved, and nothing was done.
func (in *Intake) Adopt(ctx context.Context, former string, mb mailbox.Mailbox, l mailbox.Listing, listed func(wire string) bool) (was string, err error) {
	a, row, own := in.a, in.mailboxes[former], in.mailboxes[mb.Wire]
	if own != nil && own.id != 0 {
		return "", nil
	}
	byID, gone, err := in.traits(ctx, row)
	if err != nil {
		return "", err
	}
	common, lasting := 0, true
	for _, m := range l.Messages {
		if t, ok := byID[m.ID]; ok {
			common++
			lasting = lasting && t == trait{m.Size, m.InternalDate.Unix()}
		}
		lasting = lasting && !gone[m.ID]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	was = row.folder.path
	for wire, other := range in.mailboxes {
		if _, inside := below(other.folder.path, was); inside && other != row && other.id != 0 && listed(wire) {
			return "", nil // it stays where it is
		}
	}
	delete(in.mailboxes, former)
	delete(in.mailboxes, mb.Wire)
	if own != nil && own.folder.id == 0 && !own.folder.made {
		delete(a.folders, own.folder.path)
	}
	to := in.choose(mb)
	if a.lock != nil && to != was {
		if moved, err := a.move(ctx, was, to); err != nil || !moved {
			in.mailboxes[former] = row
			return "", err
		}
	}
	row.Mailbox = mb
	row.stood, row.failures = mailbox.State{}, 0
	in.mailboxes[mb.Wire] = row
	if a.lock == nil {
		return was, nil
	}
	return was, inTx(ctx, a.db, func(tx *sql.Tx) error {
		_, err1 := tx.ExecContext(ctx, "UPDATE mailbox SET wire = ?, delimiter = ?, role = ?, uidvalidity = 0, uidnext = 0, highestmodseq = 0, on_server = 0 WHERE id = ?",
			[]byte(mb.Wire), mb.Delimiter, mb.Role, row.id)
		_, err2 := tx.ExecContext(ctx, "DELETE FROM failure WHERE mailbox = ?", row.id)
		if common == 0 || !lasting {
			_, err := tx.ExecContext(ctx, "DELETE FROM mapping WHERE mailbox = ?", row.id)
			err2 = errors.Join(err2, err)
		}
		return errors.Join(err1, err2)
	})
}

// move gives a folder, with what lies below it, another path. It does nothing
// if something is there already. What it is about to do is in the index
// before, so that a run that is killed meanwhile can be completed. The caller
// holds mu.
func (a *Archive) move(ctx context.Context, from, to string) (moved bool, err error) {
	if strings.HasPrefix(to+"/", from+"/") {
		return false, nil
	}
	if _, err := a.root.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	for p, f := range a.folders { // the index may remember what is not there any more
		if _, inside := below(p, to); inside && f.id != 0 {
			return false, nil
		}
	}
	parts := strings.Split(to, "/")
	for i := 1; i < len(parts); i++ {
		dir := path.Join(parts[:i]...)
		made, err := a.mkdir(dir)
		if err == nil && made {
			err = syncDir(filepath.Join(a.dir, path.Dir(dir)))
		}
		if err != nil {
			return false, fmt.Errorf("folder %s: %w", to, err)
		}
	}
	if _, err := a.db.ExecContext(ctx, "INSERT OR REPLACE INTO state VALUES ('moving', ?)", from+"\x00"+to); err != nil {
		return false, err
	}
	if err := a.root.Rename(from, to); err != nil {
		return false, err
	}
	if err := syncDirs([]string{filepath.Join(a.dir, path.Dir(from)), filepath.Join(a.dir, path.Dir(to))}); err != nil {
		return false, err
	}
	a.rehang(from, to)
	return true, a.repath(ctx, from, to)
}

// rehang gives folders in memory their new paths.
func (a *Archive) rehang(from, to string) {
	for p, f := range maps.Clone(a.folders) {
		if rest, ok := below(p, from); ok {
			delete(a.folders, p)
			f.path, f.made = to+rest, false
			a.folders[f.path] = f
		}
	}
}

// below returns what of p comes behind dir, if p is dir or below it.
func below(p, dir string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(p, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// repath notes in the index that a folder, with what lies below it, has been
// moved.
func (a *Archive) repath(ctx context.Context, from, to string) error {
	return inTx(ctx, a.db, func(tx *sql.Tx) error {
		_, err1 := tx.ExecContext(ctx, "UPDATE folder SET path = ?2 || substr(path, length(?1) + 1) WHERE path = ?1 OR substr(path, 1, length(?1) + 1) = ?1 || '/'", from, to)
		_, err2 := tx.ExecContext(ctx, "DELETE FROM state WHERE name = 'moving'")
		return errors.Join(err1, err2)
	})
}

// pendingMove returns what a run that was killed was about to move, "" for
// nothing.
func (a *Archive) pendingMove(ctx context.Context) (from, to string, err error) {
	var both string
	err = a.db.QueryRowContext(ctx, "SELECT value FROM state WHERE name = 'moving'").Scan(&both)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	from, to, _ = strings.Cut(both, "\x00")
	return from, to, err
}

// completeMove completes what a run that was killed had begun to move; for a
// reader in memory alone.
func (a *Archive) completeMove(ctx context.Context) error {
	from, to, err := a.pendingMove(ctx)
	if err != nil || from == "" {
		return err
	}
	_, err = a.root.Lstat(from)
	switch moved := errors.Is(err, fs.ErrNotExist); {
	case moved && a.folders[to] == nil:
		a.rehang(from, to)
		if a.lock == nil {
			return nil
		}
		return a.repath(ctx, from, to)
	case a.lock == nil:
		return nil
	}
	_, err = a.db.ExecContext(ctx, "DELETE FROM state WHERE name = 'moving'")
	return err
}
