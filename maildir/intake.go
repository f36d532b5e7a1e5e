package maildir

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/mailbox"
)

// Intake is an archive as one server fills it: it knows which of the server's
// messages the archive holds.
type Intake struct {
	a         *Archive
	source    int64
	name      string                 // of the source
	mailboxes map[string]*mailboxRow // by the server's spelling
}

// mailboxRow is a mailbox of the source and the folder it is kept in.
type mailboxRow struct {
	id     int64 // 0 until it is in the index
	folder *folder
	mailbox.Mailbox

	stood    mailbox.State // at the last complete pull
	failures int           // messages that could not be fetched so far
	pulled   bool          // a pull of it has been complete once
	placed   *folder       // that goes into it; nil if there is no news of that
}

// From returns the archive as the source fills it: a server and login such as
// "imap:me@mail.example.org". The archive must be open for writing, unless
// nothing is going to be written.
func (a *Archive) From(ctx context.Context, source string) (*Intake, error) {
	in := &Intake{a: a, name: source, mailboxes: map[string]*mailboxRow{}}
	if a.lock != nil {
		if _, err := a.db.ExecContext(ctx, "INSERT OR IGNORE INTO source (name) VALUES (?)", source); err != nil {
			return nil, err
		}
	}
	err := a.db.QueryRowContext(ctx, "SELECT ifnull(max(id), 0) FROM source WHERE name = ?", source).Scan(&in.source)
	if err != nil {
		return nil, err
	}
	return in, rows(ctx, a.db, func(r *sql.Rows) error {
		var wire []byte
		var path string
		m := &mailboxRow{}
		if err := r.Scan(&m.id, &wire, &path, &m.stood.UIDValidity, &m.stood.UIDNext, &m.stood.HighestModSeq, &m.stood.Exists, &m.failures, &m.pulled); err != nil {
			return err
		}
		m.folder = a.folders[path]
		in.mailboxes[string(wire)] = m
		return nil
	}, `SELECT m.id, m.wire, f.path, m.uidvalidity, m.uidnext, m.highestmodseq, m.on_server,
		(SELECT count(*) FROM failure x WHERE x.mailbox = m.id), m.completed_at IS NOT NULL
		FROM mailbox m JOIN folder f ON f.id = m.folder WHERE m.source = ?`, in.source)
}

// Path returns the directory, below the account's, of a mailbox's folder.
func (in *Intake) Path(mb mailbox.Mailbox) string { return in.place(mb).folder.path }

// place finds the folder for a mailbox: its own if it has one, else the one
// that its name leads to, unless another mailbox of this source is there.
func (in *Intake) place(mb mailbox.Mailbox) *mailboxRow {
	a := in.a
	a.mu.Lock()
	defer a.mu.Unlock()
	row := in.mailboxes[mb.Wire]
	if row == nil {
		row = &mailboxRow{}
		p := in.choose(mb)
		if row.folder = a.folders[p]; row.folder == nil {
			row.folder = &folder{path: p}
			a.folders[p] = row.folder
		}
		in.mailboxes[mb.Wire] = row
	}
	if row.Mailbox != mb {
		row.Mailbox = mb
	}
	return row
}

// choose returns the path for a mailbox that has no folder yet. It is the
// same path when the index is lost, whatever order the server lists in.
func (in *Intake) choose(mb mailbox.Mailbox) string {
	byName, byWire := apart(mb.Name, spelled(mb.Name)), apart(mb.Name, mb.Wire)
	p := PathOf(mb.Name)
	switch {
	case in.a.folders[byWire] != nil, in.holds(p), in.taken(p) && in.holds(byName):
		return byWire // the server spells one name in several ways
	case in.taken(p):
		return byName
	}
	return p
}

// holds reports whether p is another mailbox's directory.
func (in *Intake) holds(p string) bool {
	for _, m := range in.mailboxes {
		if m.folder.path == p {
			return true
		}
	}
	return false
}

// taken reports whether p is another mailbox's directory, or would be the
// same as another directory where case does not count. So is a directory
// whose parent was kept apart.
func (in *Intake) taken(p string) bool {
	for _, m := range in.mailboxes {
		if folded(m.folder.path) == folded(p) {
			return true
		}
	}
	for other := range in.a.folders {
		if other != p && folded(other) == folded(p) {
			return true
		}
		if parent := path.Dir(p); parent != "." && sameButSpelling(other, parent) {
			return true
		}
	}
	return false
}

// sameButSpelling reports whether other, or a directory above it, differs
// from p only in case or normal form.
func sameButSpelling(other, p string) bool {
	n := strings.Count(p, "/") + 1
	parts := strings.Split(other, "/")
	if len(parts) < n {
		return false
	}
	head := strings.Join(parts[:n], "/")
	return head != p && folded(head) == folded(p)
}

// Standing returns how a mailbox stood at the last complete pull, and what
// the archive has of it.
func (in *Intake) Standing(ctx context.Context, mb mailbox.Mailbox) (mailbox.Standing, error) {
	row := in.place(mb)
	s := mailbox.Standing{State: row.stood, Failed: row.failures}
	err := in.a.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM mapping WHERE mailbox = ?1 AND gone_at IS NULL),
		(SELECT count(*) FROM message m JOIN mapping p ON p.message = m.id
		WHERE m.folder = ?2 AND m.removed_at IS NOT NULL AND p.mailbox = ?1 AND p.gone_at IS NULL)`, row.id, row.folder.id).Scan(&s.Live, &s.Removed)
	return s, err
}

const knownQuery = `SELECT p.id, p.message, p.flags, m.removed_at IS NOT NULL, p.gone_at IS NOT NULL
	FROM mapping p JOIN message m ON m.id = p.message WHERE p.mailbox = ?`

// EachKnown calls fn with what the archive remembers of each message that the
// server has, or had, in a mailbox. fn must not use the archive.
func (in *Intake) EachKnown(ctx context.Context, mb mailbox.Mailbox, fn func(mailbox.ID, mailbox.Kept)) error {
	return rows(ctx, in.a.db, eachKnown(fn), knownQuery, in.place(mb).id)
}

// Known returns what the archive remembers of messages that the server has,
// or had, in a mailbox.
func (in *Intake) Known(ctx context.Context, mb mailbox.Mailbox, ids []mailbox.ID) (map[mailbox.ID]mailbox.Kept, error) {
	row, known := in.place(mb), map[mailbox.ID]mailbox.Kept{}
	scan := eachKnown(func(id mailbox.ID, k mailbox.Kept) { known[id] = k })
	return known, rowsIn(ctx, in.a.db, ids, scan, knownQuery+" AND p.id IN (%s)", row.id)
}

// interned holds lists of flags by their text, so that equal ones are one.
type interned map[string][]string

func (i interned) fields(text string) []string {
	list, ok := i[text]
	if !ok {
		list = strings.Fields(text)
		i[text] = list
	}
	return list
}

// eachKnown reads a row of [knownQuery].
func eachKnown(fn func(mailbox.ID, mailbox.Kept)) func(*sql.Rows) error {
	interned := interned{}
	return func(r *sql.Rows) error {
		var id, flags string
		var k mailbox.Kept
		if err := r.Scan(&id, &k.Message, &flags, &k.Removed, &k.Gone); err != nil {
			return err
		}
		k.Flags = interned.fields(flags)
		fn(mailbox.ID(id), k)
		return nil
	}
}

// Unclaimed returns the messages of a mailbox's folder that stand for none of
// the messages for which live is true; gone says that the server did not list
// one of these when it was asked last.
func (in *Intake) Unclaimed(ctx context.Context, mb mailbox.Mailbox, live func(id mailbox.ID, gone bool) bool) ([]fingerprint.Candidate, error) {
	row := in.place(mb)
	return in.unclaimed(ctx, row.id, row.folder.id, live)
}

// unclaimed returns the messages of a folder that stand for none in a mailbox.
func (in *Intake) unclaimed(ctx context.Context, mailboxRow, folderRow int64, live func(id mailbox.ID, gone bool) bool) ([]fingerprint.Candidate, error) {
	claimed := map[int64]bool{}
	err := rows(ctx, in.a.db, func(r *sql.Rows) error {
		var id string
		var message int64
		var gone bool
		if err := r.Scan(&id, &message, &gone); err != nil {
			return err
		}
		if live(mailbox.ID(id), gone) {
			claimed[message] = true
		}
		return nil
	}, "SELECT id, message, gone_at IS NOT NULL FROM mapping WHERE mailbox = ?", mailboxRow)
	if err != nil {
		return nil, err
	}
	var free []fingerprint.Candidate
	interned := interned{}
	return free, rows(ctx, in.a.db, func(r *sql.Rows) error {
		var c fingerprint.Candidate
		var sum, header []byte
		var flags string
		if err := r.Scan(&c.Message, &c.Size, &c.Lines, &sum, &header, &c.Rewritten, &c.Removed, &flags, &c.Arrived); err != nil {
			return err
		}
		c.Flags = interned.fields(flags)
		if !claimed[c.Message] && copy(c.SHA256[:], sum)+copy(c.Header[:], header) == len(c.SHA256)+len(c.Header) {
			free = append(free, c)
		}
		return nil
	}, "SELECT id, size, lines_size, sha256, header_sha256, rewritten, removed_at IS NOT NULL, flags, internal_date FROM message WHERE folder = ?", folderRow)
}

// Holding returns, for those of the server's names of contents that are known,
// a message with that content whose file is there.
func (in *Intake) Holding(ctx context.Context, objects []string) (map[string]int64, error) {
	held := map[string]int64{}
	return held, rowsIn(ctx, in.a.db, objects, func(r *sql.Rows) error {
		var object string
		var message int64
		if err := r.Scan(&object, &message); err != nil {
			return err
		}
		held[object] = message
		return nil
	}, `SELECT p.object, p.message FROM mapping p JOIN mailbox x ON x.id = p.mailbox JOIN message m ON m.id = p.message
		WHERE x.source = ? AND m.removed_at IS NULL AND p.how IN ('downloaded', 'linked') AND p.note = '' AND p.object != '' AND p.object IN (%s)`, in.source)
}

// Copy stages another copy of an archived message, under the ID and flags of
// msg. The file is read and compared with its digest; if it is not what it
// was, or not there, Copy returns nil.
func (in *Intake) Copy(ctx context.Context, mb mailbox.Mailbox, msg mailbox.Message, archived int64) (*Staged, error) {
	file, sum, err := in.a.fileOf(ctx, archived)
	if err != nil || file == nil {
		return nil, err
	}
	defer file.Close()
	content := &readable{r: file}
	s, err := in.Stage(ctx, mb, msg, content)
	if content.err != nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if print := s.Print(); string(print.SHA256[:]) != string(sum) {
		return nil, s.Discard()
	}
	s.e.how = "linked"
	return s, nil
}

// readable remembers that a file cannot be read.
type readable struct {
	r   io.Reader
	err error
}

func (f *readable) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// InArchive returns how many messages a mailbox's folder holds.
func (in *Intake) InArchive(ctx context.Context, mb mailbox.Mailbox) (n int, err error) {
	err = in.a.db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM message WHERE folder = ?1)
		- (SELECT count(*) FROM message WHERE folder = ?1 AND removed_at IS NOT NULL)`, in.place(mb).folder.id).Scan(&n)
	return n, err
}

// save puts a mailbox and its folder into the index.
func (in *Intake) save(ctx context.Context, tx *sql.Tx, m *mailboxRow) error {
	if err := in.a.saveFolder(ctx, tx, m.folder); err != nil {
		return err
	}
	if m.id != 0 {
		return in.savePlaced(ctx, tx, m)
	}
	r, err := tx.ExecContext(ctx, "INSERT INTO mailbox (source, folder, wire, delimiter, role) VALUES (?, ?, ?, ?, ?)",
		in.source, m.folder.id, []byte(m.Wire), m.Delimiter, m.Role)
	if err != nil {
		return fmt.Errorf("mailbox %q: %w", m.Wire, err)
	}
	if m.id, err = r.LastInsertId(); err != nil {
		return err
	}
	return in.savePlaced(ctx, tx, m)
}

func (in *Intake) savePlaced(ctx context.Context, tx *sql.Tx, m *mailboxRow) error {
	if m.placed == nil {
		return nil
	}
	_, err := tx.ExecContext(ctx, "UPDATE mailbox SET placed = ? WHERE id = ?", m.placed.id, m.id)
	return err
}

// Run is what the index keeps of a run.
type Run struct {
	Command, Source   string
	Started, Ended    time.Time // Ended is zero if the run was killed
	Result, Reason    string
	New               int
	NewOctets         int64
	OnServer, Missing int
	Settled           bool // it is known what a server that mail was put on has of each folder
}

// BeginRun notes that a run starts and returns its number.
func (a *Archive) BeginRun(ctx context.Context, r Run) (int64, error) {
	res, err := a.db.ExecContext(ctx, "INSERT INTO run (command, source, started_at) VALUES (?, ?, ?)", r.Command, r.Source, r.Started.Unix())
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// Unsettled is the result of a run that ended while a server had mail whose
// storing it had not confirmed.
const Unsettled = "interrupted"

// Killed reports whether a run that put mail on a server was killed, or ended
// [Unsettled], since the last one that was [Run.Settled]: the server may have
// more than is known, or still be storing it.
func (a *Archive) Killed(ctx context.Context, server string) (killed bool, err error) {
	err = a.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM run WHERE source = ?1 AND command NOT IN ('backup', 'trim') AND (ended_at IS NULL OR result = ?2)
		AND id > (SELECT ifnull(max(id), 0) FROM run WHERE source = ?1 AND command NOT IN ('backup', 'trim') AND settled))`, server, Unsettled).Scan(&killed)
	return killed, err
}

// SentSince returns how many octets runs that ended since a moment, or have not
// ended, have put on a server, and when the first of them ended, or began.
func (a *Archive) SentSince(ctx context.Context, server string, since time.Time) (octets int64, first time.Time, err error) {
	var started sql.NullInt64
	err = a.db.QueryRowContext(ctx, `SELECT coalesce(sum(new_octets), 0), min(coalesce(ended_at, started_at)) FROM run
		WHERE source = ? AND command NOT IN ('backup', 'trim') AND new_octets > 0 AND coalesce(ended_at, started_at) >= ?`, server, since.Unix()).Scan(&octets, &started)
	return octets, fromUnix(started), err
}

// PulledSince returns how many octets of messages have come from a server since a
// time, also by runs that were killed, and when the first of them came; a zero
// time if none did.
func (a *Archive) PulledSince(ctx context.Context, server string, since time.Time) (octets int64, first time.Time, err error) {
	var earliest sql.NullInt64
	err = a.db.QueryRowContext(ctx, `SELECT coalesce(sum(m.size), 0), min(m.archived_at) FROM message m WHERE m.archived_at >= ? AND EXISTS
		(SELECT 1 FROM mapping p JOIN mailbox b ON b.id = p.mailbox JOIN source s ON s.id = b.source WHERE p.message = m.id AND p.how = 'downloaded' AND s.name = ?)`,
		since.Unix(), server).Scan(&octets, &earliest)
	return octets, fromUnix(earliest), err
}

// Span returns when the first and the last of the messages arrived that are on a
// server; zero times if there are none.
func (a *Archive) Span(ctx context.Context) (oldest, newest time.Time, err error) {
	var first, last sql.NullInt64
	err = a.db.QueryRowContext(ctx, "SELECT min(m.internal_date), max(m.internal_date) FROM mapping p JOIN message m ON m.id = p.message WHERE p.gone_at IS NULL").Scan(&first, &last)
	return fromUnix(first), fromUnix(last), err
}

// EndRun notes how a run ended.
func (a *Archive) EndRun(ctx context.Context, number int64, r Run) error {
	_, err := a.db.ExecContext(ctx, "UPDATE run SET ended_at = ?, result = ?, reason = ?, new = ?, new_octets = ?, on_server = ?, missing = ?, settled = ? WHERE id = ?",
		r.Ended.Unix(), r.Result, r.Reason, r.New, r.NewOctets, r.OnServer, r.Missing, r.Settled, number)
	return err
}
