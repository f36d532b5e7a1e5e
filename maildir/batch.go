package maildir

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	gomaildir "github.com/emersion/go-maildir"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mailstow/internal/fingerprint"
	"mailstow/mailbox"
)

// Bounds of a batch. Each message of it holds a file open until it is synced.
const (
	maxMessages = 1000
	maxOctets   = 64 << 20
	maxAge      = 10 * time.Second
	maxChanges  = 5000 // of what is known of messages that are there
)

// Batch is a group of changes that become durable together. It is used by one
// goroutine at a time.
type Batch struct {
	in      *Intake
	begun   time.Time
	limit   int // messages
	octets  int64
	staged  []*entry
	changed map[string]bool // directories with new entries
	seen    map[*mailboxRow]bool
	flagged []*flagChange
	after   []func(context.Context, *sql.Tx) error // what else the index is told
}

// entry is a message on its way into the index. What comes from a server has
// a file that is still in tmp.
type entry struct {
	mailbox *mailboxRow // nil for a file that was found
	id      mailbox.ID  // "" for a file that was found, or an ID that does not last
	object  string
	how     string // it came: downloaded, or linked
	note    string

	folder       *folder
	key          string
	print        fingerprint.Print
	fields       fingerprint.Fields
	internalDate time.Time
	dateFrom     string
	flags        []string
	origin       string

	file  tmpFile
	final string // path of the file once it is delivered
}

// tmpFile is what go-maildir's Create returns: a file in tmp that Close moves
// into cur.
type tmpFile interface {
	io.WriteCloser
	Name() string
	Sync() error
	Stat() (os.FileInfo, error)
	Chmod(os.FileMode) error
}

// Begin starts a batch.
func (in *Intake) Begin() *Batch {
	return &Batch{in: in, limit: in.a.batchLimit, changed: map[string]bool{}, seen: map[*mailboxRow]bool{}}
}

// batchLimit leaves descriptors for two batches, the index and the network of
// each archive that is being written.
func batchLimit(archives int) int {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 16
	}
	each := int64(min(r.Cur, 1<<20)) / int64(archives)
	return int(min(max((each-40)/2, 1), maxMessages))
}

// Full reports whether the batch should be committed before more is added.
func (b *Batch) Full() bool {
	return len(b.staged) >= b.limit || len(b.after)+len(b.flagged) >= maxChanges || b.octets >= maxOctets || len(b.staged) > 0 && time.Since(b.begun) > maxAge
}

// Touch makes a mailbox's folder, so that an empty one is kept too.
func (b *Batch) Touch(ctx context.Context, mb mailbox.Mailbox) error {
	_, err := b.open(ctx, mb)
	return err
}

func (b *Batch) open(ctx context.Context, mb mailbox.Mailbox) (*mailboxRow, error) {
	row := b.in.place(mb)
	changed, err := b.in.a.make(ctx, row.folder)
	if err != nil {
		return nil, folderFailed(row, err)
	}
	b.note(row, changed)
	return row, nil
}

func folderFailed(row *mailboxRow, err error) error {
	return fmt.Errorf("folder %s: %w", row.folder.path, err)
}

// note remembers what the index must know, and what must be synced, before
// the batch is done.
func (b *Batch) note(row *mailboxRow, changed []string) {
	for _, dir := range changed {
		b.changed[dir] = true
	}
	b.seen[row] = true
}

// Staged is a message whose file is still in tmp. It is either added to a
// batch or discarded.
type Staged struct {
	mailbox *mailboxRow
	e       *entry
	changed []string // directories that were made for it
}

// Print returns the digests of the message.
func (s *Staged) Print() fingerprint.Print { return s.e.print }

// Discard leaves nothing of the message.
func (s *Staged) Discard() error { return s.e.discard() }

// Stage writes a message into its folder's tmp. If it returns an error,
// nothing of the message is left. Several may be staged at the same time.
func (in *Intake) Stage(ctx context.Context, mb mailbox.Mailbox, m mailbox.Message, content io.Reader) (*Staged, error) {
	row := in.place(mb)
	changed, err := in.a.make(ctx, row.folder)
	if err != nil {
		return nil, folderFailed(row, err)
	}
	if err := in.a.writing(ctx); err != nil {
		return nil, err
	}
	letters, err := in.a.letters(row.folder, m.Flags)
	if err != nil {
		return nil, err
	}
	msg, w, err := in.a.maildir(row.folder).Create(letters)
	if err != nil {
		return nil, err
	}
	e := &entry{
		mailbox: row, id: m.ID, object: m.Object, how: "downloaded", folder: row.folder, key: msg.Key(), flags: m.Flags, origin: "server",
		file: w.(tmpFile), final: msg.Filename(),
	}
	if m.Transient {
		e.id = ""
	}
	if err := e.fill(m, content); err != nil {
		return nil, errors.Join(err, e.discard())
	}
	return &Staged{row, e, changed}, nil
}

// Add makes a staged message part of the batch. note says what is odd about
// the message, "" for nothing.
func (b *Batch) Add(s *Staged, note string) {
	s.e.note = note
	b.note(s.mailbox, s.changed)
	if len(b.staged) == 0 {
		b.begun = time.Now()
	}
	b.staged = append(b.staged, s.e)
	b.octets += s.e.print.Size
}

var printers = sync.Pool{New: func() any { return fingerprint.NewWriter() }}

// fill writes the content and dates the file.
func (e *entry) fill(m mailbox.Message, content io.Reader) error {
	if fi, err := e.file.Stat(); err != nil {
		return err
	} else if fi.Mode().Perm() != 0o600 { // the process's umask is not ours to rely on
		if err := e.file.Chmod(0o600); err != nil {
			return err
		}
	}
	w := printers.Get().(*fingerprint.Writer)
	defer printers.Put(w)
	w.Reset()
	if _, err := copyTo(io.MultiWriter(e.file, w), content); err != nil {
		return err
	}
	e.print, e.fields = w.Print(), w.Fields()
	e.internalDate, e.dateFrom = dateOf(m, e.fields, time.Now())
	// The time is set before the file is synced. Mail programs that clean tmp
	// look at ctime or wait for 36 hours, which no batch lasts.
	return os.Chtimes(e.file.Name(), e.internalDate, e.internalDate)
}

// dateOf returns the time that a message gets, and where it is from:
// INTERNALDATE, else what the header tells, else now.
func dateOf(m mailbox.Message, f fingerprint.Fields, now time.Time) (time.Time, string) {
	if !m.InternalDate.IsZero() {
		return m.InternalDate, "internaldate"
	}
	if t, from := f.Arrived(now); from != "" {
		return t, from
	}
	return now.Truncate(time.Second), "now"
}

// discard leaves nothing of the message. go-maildir's Close would deliver the
// file, so its name is taken away first; then Close fails, and only closes.
func (e *entry) discard() error {
	err := os.Remove(e.file.Name())
	e.file.Close()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Claim notes that a message on the server is one that the archive holds.
// proven says that their octets were compared.
func (b *Batch) Claim(ctx context.Context, mb mailbox.Mailbox, m mailbox.Message, message int64, proven bool) error {
	how := "recognised"
	if proven {
		how = "downloaded"
	}
	return b.claim(ctx, mb, m, message, how)
}

func (b *Batch) claim(ctx context.Context, mb mailbox.Mailbox, m mailbox.Message, message int64, how string) error {
	row, err := b.open(ctx, mb)
	if err != nil || m.Transient {
		return err
	}
	b.after = append(b.after, func(ctx context.Context, tx *sql.Tx) error {
		if !m.InternalDate.IsZero() { // a better date than POP3 had
			if err := b.redate(ctx, tx, message, m.InternalDate); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, insertMapping, row.id, string(m.ID), message, how, "", joined(m.Flags), m.Object)
		return err
	})
	return nil
}

// redate gives a message whose date was read from its header the server's.
func (b *Batch) redate(ctx context.Context, tx *sql.Tx, message int64, date time.Time) error {
	var key, folderPath, from string
	err := tx.QueryRowContext(ctx, "SELECT m.key, f.path, m.date_from FROM message m JOIN folder f ON f.id = m.folder WHERE m.id = ?", message).Scan(&key, &folderPath, &from)
	if err != nil || from == "internaldate" || from == "file" {
		return err
	}
	name, err := b.in.a.find(b.in.a.folders[folderPath], key)
	if err != nil {
		return nil // removed meanwhile
	}
	if fi, err := os.Stat(name); err != nil || fi.Sys().(*syscall.Stat_t).Nlink > 1 {
		return nil // links share one time, and the others have theirs
	}
	if err := os.Chtimes(name, date, date); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE message SET internal_date = ?, date_from = 'internaldate' WHERE id = ?", date.Unix(), message)
	return err
}

// flagChange is a message whose flags have changed on the server.
type flagChange struct {
	mailbox *mailboxRow
	id      mailbox.ID
	message int64
	server  []string // its flags there now

	key          string
	told, merged []string // the server's flags before; the flags from now on
}

// SetFlags brings an archived message in step with the flags that the server
// tells of m. What has not changed there since it told them last stays as it
// is in the archive, where a mail program may have changed it.
func (b *Batch) SetFlags(ctx context.Context, mb mailbox.Mailbox, m mailbox.Message, message int64) error {
	row, err := b.open(ctx, mb)
	b.flagged = append(b.flagged, &flagChange{mailbox: row, id: m.ID, message: message, server: m.Flags})
	return err
}

// load reads what the index knows of the message.
func (c *flagChange) load(ctx context.Context, a *Archive) error {
	var kept, told string
	err := a.db.QueryRowContext(ctx, `SELECT m.key, m.flags, ifnull((SELECT p.flags FROM mapping p
		WHERE p.message = m.id AND p.mailbox = ?1 ORDER BY p.id = ?2 DESC LIMIT 1), '')
		FROM message m WHERE m.id = ?3`, c.mailbox.id, string(c.id), c.message).Scan(&c.key, &kept, &told)
	c.merged, c.told = strings.Fields(kept), strings.Fields(told)
	return err
}

// apply merges the flags and gives the file their letters; name is where it
// is. One that is gone, "", or that lies in new, where names have no letters,
// keeps its name.
func (c *flagChange) apply(a *Archive, name string) (renamed bool, err error) {
	f, local := c.mailbox.folder, c.merged
	old, inCur := strings.CutPrefix(name, "cur/")
	if inCur {
		local = a.flagsOnDisk(f, lettersOf(old), local)
	}
	c.merged = merge(c.told, c.server, local)
	if !inCur {
		return false, nil
	}
	letters, err := a.letters(f, c.merged)
	if err != nil {
		return false, err
	}
	for _, l := range lettersOf(old) { // what other programs mean by other letters is theirs
		if a.flagsOnDisk(f, string(l), nil) == nil {
			letters = append(letters, gomaildir.Flag(l))
		}
	}
	slices.Sort(letters)
	to := c.key + ":2," + string(slices.Compact(letters))
	if to == old || len(letters) == 0 && !strings.Contains(old, ":2,") {
		return false, nil
	}
	dir := path.Join(f.path, "cur")
	err = a.root.Rename(path.Join(dir, old), path.Join(dir, to))
	return err == nil, err
}

// renameAll gives files the letters of their new flags, and notes the
// directories that have changed.
func (b *Batch) renameAll(ctx context.Context) error {
	a := b.in.a
	byFolder := map[*folder][]*flagChange{}
	for _, c := range b.flagged {
		if err := c.load(ctx, a); err != nil {
			return err
		}
		byFolder[c.mailbox.folder] = append(byFolder[c.mailbox.folder], c)
	}
	for f, changes := range byFolder {
		if err := b.renameIn(f, changes); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) renameIn(f *folder, changes []*flagChange) error {
	a := b.in.a
	wanted := map[string]bool{}
	for _, c := range changes {
		wanted[c.key] = true
	}
	var names map[string]string
	for _, c := range changes {
		for try := range 2 { // a mail program may rename the file in the same moment
			if names == nil || try > 0 {
				var err error
				if names, err = a.onDisk(f, func(key string) bool { return wanted[key] }); err != nil {
					return err
				}
			}
			renamed, err := c.apply(a, names[c.key])
			if renamed {
				b.changed[filepath.Join(a.abs(f), "cur")] = true
			}
			if !errors.Is(err, os.ErrNotExist) {
				if err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

func (c *flagChange) record(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, "UPDATE message SET flags = ? WHERE id = ?", joined(c.merged), c.message); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "UPDATE mapping SET flags = ? WHERE mailbox = ? AND id = ?", joined(c.server), c.mailbox.id, string(c.id))
	return err
}

// Gone notes that the server no longer lists messages, or (gone false) that
// it lists them again.
func (b *Batch) Gone(ctx context.Context, mb mailbox.Mailbox, ids []mailbox.ID, gone bool) error {
	row, err := b.open(ctx, mb)
	if err != nil || len(ids) == 0 {
		return err
	}
	var at any
	if gone {
		at = time.Now().Unix()
	}
	b.after = append(b.after, func(ctx context.Context, tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, "UPDATE mapping SET gone_at = ? WHERE mailbox = ? AND id = ?", at, row.id, string(id)); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

// Failures notes which messages of a mailbox could not be fetched, and why;
// what was noted before of others is forgotten.
func (b *Batch) Failures(ctx context.Context, mb mailbox.Mailbox, reasons map[mailbox.ID]string) error {
	row, err := b.open(ctx, mb)
	if err != nil || row.failures == 0 && len(reasons) == 0 {
		return err
	}
	row.failures = len(reasons)
	b.after = append(b.after, func(ctx context.Context, tx *sql.Tx) error {
		var old []string
		err := rows(ctx, tx, func(r *sql.Rows) error {
			var id string
			err := r.Scan(&id)
			old = append(old, id)
			return err
		}, "SELECT id FROM failure WHERE mailbox = ?", row.id)
		if err != nil {
			return err
		}
		for _, id := range old {
			if _, still := reasons[mailbox.ID(id)]; still {
				continue
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM failure WHERE mailbox = ? AND id = ?", row.id, id); err != nil {
				return err
			}
		}
		for id, reason := range reasons {
			if _, err := tx.ExecContext(ctx, `INSERT INTO failure (mailbox, id, reason, since) VALUES (?1, ?2, ?3, ?4)
				ON CONFLICT DO UPDATE SET reason = ?3, tries = tries + 1`, row.id, string(id), reason, time.Now().Unix()); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

// Done notes how a mailbox stood on the server when everything in it was in
// the archive.
func (b *Batch) Done(ctx context.Context, mb mailbox.Mailbox, s mailbox.State) error {
	row, err := b.open(ctx, mb)
	if err != nil {
		return err
	}
	if row.stood == s {
		return nil
	}
	row.stood = s
	b.after = append(b.after, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE mailbox SET delimiter = ?, role = ?, uidvalidity = ?, uidnext = ?, highestmodseq = ?, on_server = ?, completed_at = ? WHERE id = ?",
			mb.Delimiter, mb.Role, s.UIDValidity, s.UIDNext, int64(s.HighestModSeq), s.Exists, time.Now().Unix(), row.id)
		return err
	})
	return nil
}

// Commit makes the batch durable and returns when it is.
//
// When Commit returns nil everything in the batch survives a power cut:
// files, directories and index are synced, in that order. When it returns an
// error the archive is as it was before, but that files which were complete
// may be found and taken in by the next run.
func (b *Batch) Commit(ctx context.Context) error {
	if len(b.staged)+len(b.after)+len(b.flagged)+len(b.changed) == 0 {
		return nil
	}
	if err := b.commitFiles(ctx); err != nil {
		return errors.Join(err, b.Discard())
	}
	err := inTx(ctx, b.in.a.db, func(tx *sql.Tx) error {
		for row := range b.seen {
			if err := b.in.save(ctx, tx, row); err != nil {
				return err
			}
		}
		if err := b.record(ctx, tx); err != nil {
			return err
		}
		for _, f := range b.after {
			if err := f(ctx, tx); err != nil {
				return err
			}
		}
		for _, c := range b.flagged {
			if err := c.record(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	b.clear()
	return err
}

// commitFiles makes the staged files durable and moves them into cur.
func (b *Batch) commitFiles(ctx context.Context) error {
	if err := b.link(ctx); err != nil {
		return err
	}
	if err := b.sync(); err != nil {
		return err
	}
	for i, e := range b.staged {
		if err := e.file.Close(); err != nil { // closes, and renames
			for _, delivered := range b.staged[:i] {
				os.Remove(delivered.final)
			}
			return err
		}
		b.changed[filepath.Dir(e.final)] = true
	}
	if err := b.renameAll(ctx); err != nil {
		return err
	}
	if err := syncDirs(slices.Collect(maps.Keys(b.changed))); err != nil {
		for _, e := range b.staged {
			os.Remove(e.final)
		}
		return err
	}
	return nil
}

// sync makes the staged files durable. A sync that failed is not tried again:
// the kernel may have dropped what it could not write.
func (b *Batch) sync() error {
	if b.in.a.whole != nil && len(b.staged) >= worthSyncAll {
		return syncAll(b.in.a.whole)
	}
	var g errgroup.Group
	g.SetLimit(syncers)
	for _, e := range b.staged {
		g.Go(e.file.Sync)
	}
	return g.Wait()
}

// Discard drops what was added since the batch began.
func (b *Batch) Discard() error {
	var errs []error
	for _, e := range b.staged {
		errs = append(errs, e.discard())
	}
	b.clear()
	return errors.Join(errs...)
}

func (b *Batch) clear() { b.staged, b.after, b.flagged = nil, nil, nil }

// link puts a hard link in place of each staged file whose octets and date an
// archived message has. What is linked to has been read again just now. Where
// that is not possible the copy stays.
func (b *Batch) link(ctx context.Context) error {
	type same struct {
		sum  fingerprint.Sum
		date int64
	}
	// A time that is not the server's may get a better one, and links have but one.
	dated := slices.DeleteFunc(slices.Clone(b.staged), func(e *entry) bool { return e.dateFrom != "internaldate" })
	if len(dated) == 0 {
		return nil
	}
	archived, err := b.archived(ctx, dated)
	if err != nil {
		return err
	}
	first := map[same]string{}
	for _, e := range dated {
		s := same{e.print.SHA256, e.internalDate.Unix()}
		other, ok := first[s]
		if !ok && archived[e.print.SHA256] {
			var err error
			if other, err = b.in.a.fileWith(ctx, e.print.SHA256, s.date); err != nil {
				return err
			}
		}
		first[s] = e.file.Name()
		if other == "" {
			continue
		}
		beside := e.file.Name() + ".link"
		if os.Link(other, beside) == nil {
			if err := os.Rename(beside, e.file.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// archived tells which of the staged messages' octets the archive has already.
func (b *Batch) archived(ctx context.Context, staged []*entry) (map[fingerprint.Sum]bool, error) {
	found := map[fingerprint.Sum]bool{}
	sums := make([][]byte, len(staged))
	for i, e := range staged {
		sums[i] = e.print.SHA256[:]
	}
	return found, rowsIn(ctx, b.in.a.db, sums, func(r *sql.Rows) error {
		var sum []byte
		if err := r.Scan(&sum); err != nil || len(sum) != len(fingerprint.Sum{}) {
			return err
		}
		found[fingerprint.Sum(sum)] = true
		return nil
	}, "SELECT sha256 FROM message WHERE sha256 IN (%s)")
}

// fileWith returns the path of an archived file with this digest and date
// that is whole, "" if there is none.
func (a *Archive) fileWith(ctx context.Context, sum fingerprint.Sum, date int64) (string, error) {
	var key, folderPath string
	err := a.db.QueryRowContext(ctx, `SELECT m.key, f.path FROM message m JOIN folder f ON f.id = m.folder
		WHERE m.sha256 = ? AND m.internal_date = ? AND m.date_from = 'internaldate' AND m.removed_at IS NULL AND m.origin = 'server' LIMIT 1`, sum[:], date).Scan(&key, &folderPath)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	file, err := a.openMessage(&folder{path: folderPath}, key)
	if err != nil || file == nil {
		return "", err
	}
	defer file.Close()
	w := fingerprint.NewWriter()
	if fi, err := file.Stat(); err != nil || fi.ModTime().Unix() != date {
		return "", nil
	}
	if _, err := copyTo(w, file); err != nil || w.Print().SHA256 != sum {
		return "", nil
	}
	return file.Name(), nil
}

// fileOf opens the file of a message, nil if it is not there or is no regular
// file, and returns its digest in the index.
func (a *Archive) fileOf(ctx context.Context, message int64) (file *os.File, sum []byte, err error) {
	var key, folderPath string
	err = a.db.QueryRowContext(ctx, "SELECT m.key, f.path, m.sha256 FROM message m JOIN folder f ON f.id = m.folder WHERE m.id = ?", message).Scan(&key, &folderPath, &sum)
	if err != nil {
		return nil, nil, err
	}
	file, err = a.openMessage(&folder{path: folderPath}, key)
	return file, sum, err
}

// openMessage opens the file of a message, nil if it is not there or is no
// regular file.
func (a *Archive) openMessage(f *folder, key string) (*os.File, error) {
	name, err := a.find(f, key)
	if err != nil {
		return nil, nil
	}
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil
	}
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, file.Close()
	}
	return file, nil
}

// find returns the path of the message with this key.
func (a *Archive) find(f *folder, key string) (string, error) {
	msg, err := a.maildir(f).MessageByKey(key)
	if err == nil {
		return msg.Filename(), nil
	}
	name := path.Join(f.path, "new", key)
	if _, statErr := a.root.Lstat(name); statErr != nil {
		return "", err
	}
	return filepath.Join(a.dir, name), nil
}

// record puts the staged messages and what they stand for into the index.
func (b *Batch) record(ctx context.Context, tx *sql.Tx) error {
	insert, err := tx.PrepareContext(ctx, insertMessage)
	if err != nil {
		return err
	}
	defer insert.Close()
	mapping, err := tx.PrepareContext(ctx, insertMapping)
	if err != nil {
		return err
	}
	defer mapping.Close()
	again, err := tx.PrepareContext(ctx, comeAgain)
	if err != nil {
		return err
	}
	defer again.Close()
	for _, e := range b.staged {
		if _, err := again.ExecContext(ctx, e.print.SHA256[:], e.folder.id); err != nil {
			return err
		}
		message, err := e.insert(ctx, insert)
		if err != nil {
			return err
		}
		if e.id == "" {
			continue
		}
		if _, err := mapping.ExecContext(ctx, e.mailbox.id, string(e.id), message, e.how, e.note, joined(e.flags), e.object); err != nil {
			return err
		}
	}
	return nil
}

const insertMessage = `INSERT INTO message (folder, key, size, sha256, lines_size, header_sha256, rewritten, message_id, date, sender, subject,
	internal_date, date_from, flags, origin, archived_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

func (e *entry) insert(ctx context.Context, prepared *sql.Stmt) (int64, error) {
	r, err := prepared.ExecContext(ctx,
		e.folder.id, e.key, e.print.Size, e.print.SHA256[:], e.print.Lines, e.print.Header[:], e.print.Rewritten, e.fields.MessageID, seconds(e.fields.Date), e.fields.From, e.fields.Subject,
		e.internalDate.Unix(), e.dateFrom, joined(e.flags), e.origin, time.Now().Unix())
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

const insertMapping = "INSERT OR REPLACE INTO mapping (mailbox, id, message, how, note, flags, object) VALUES (?, ?, ?, ?, ?, ?, ?)"

// comeAgain lets one file be missing whose octets are there again.
const comeAgain = "UPDATE message SET accepted = 1 WHERE id = (SELECT id FROM message WHERE sha256 = ? AND folder = ? AND removed_at IS NOT NULL AND accepted = 0 LIMIT 1)"

// joined is how the index writes flags.
func joined(flags []string) string { return strings.Join(flags, " ") }
