package maildir

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/mailbox"
)

// Outlet is an archive whose messages go to a server. Which message is which
// there it keeps in the same way as an [Intake] does, so that the server can
// be backed up into the archive afterwards.
type Outlet struct {
	in  *Intake
	run int64 // its number, 0 for one that notes nothing

	mu    sync.Mutex
	names map[string]map[string]string // of a folder's files, by their keys
}

// To returns the archive as the server takes from it: a login and a host, as in
// [Archive.From].
func (a *Archive) To(ctx context.Context, server string) (*Outlet, error) {
	in, err := a.From(ctx, server)
	return &Outlet{in: in, names: map[string]map[string]string{}}, err
}

// Count has what is stored from now on counted with a run, also if that is
// killed.
func (o *Outlet) Count(run int64) { o.run = run }

// Folder is a folder to be put on a server.
type Folder struct {
	Path     string
	Name     mailbox.Name
	Role     string // that it has on the server it is from; "" for none
	Messages int
	Octets   int64
	Placed   string // the server's spelling of the mailbox that it came from, or went to to stay; "" for none
}

// Folders returns the archive's folders.
func (o *Outlet) Folders(ctx context.Context) ([]Folder, error) {
	placed := map[string]string{}
	err := rows(ctx, o.in.a.db, func(r *sql.Rows) error {
		var folderPath string
		var wire []byte
		err := r.Scan(&folderPath, &wire)
		placed[folderPath] = string(wire)
		return err
	}, `SELECT path, wire FROM (
			SELECT f.path, b.wire, 0 AS own, b.id FROM mailbox b JOIN folder f ON f.id = b.placed WHERE b.source = ?1
			UNION ALL SELECT f.path, b.wire, 1, b.id FROM mailbox b JOIN folder f ON f.id = b.folder WHERE b.source = ?1 AND b.completed_at IS NOT NULL
		) ORDER BY own, id`, o.in.source)
	if err != nil {
		return nil, err
	}
	infos, err := o.in.a.Folders(ctx)
	var all []Folder
	for _, f := range infos {
		all = append(all, Folder{Path: f.Path, Name: nameOfPath(f.Path), Role: f.Role, Messages: f.Messages, Octets: f.Octets, Placed: placed[f.Path]})
	}
	return all, err
}

// Place says that messages of the folder go into a mailbox. If the mailbox is
// backed up one day, that is its folder, unless it has another already or the
// folder is backed up from another mailbox. stay says that the folder goes there the
// next time too.
func (o *Outlet) Place(m mailbox.Mailbox, folderPath string, stay bool) {
	a := o.in.a
	a.mu.Lock()
	f := a.folders[folderPath]
	taken := false
	for wire, row := range o.in.mailboxes {
		taken = taken || row.pulled && row.folder == f && wire != m.Wire
	}
	if f != nil && !taken && o.in.mailboxes[m.Wire] == nil {
		o.in.mailboxes[m.Wire] = &mailboxRow{folder: f}
	}
	a.mu.Unlock()
	if row := o.in.place(m); stay {
		row.placed = f
	}
}

func (o *Outlet) folder(folderPath string) *folder {
	o.in.a.mu.Lock()
	defer o.in.a.mu.Unlock()
	return o.in.a.folders[folderPath]
}

// Unclaimed returns the messages of the folder, whose files are there, that
// stand for none in the mailbox. live says of an ID that it still does.
func (o *Outlet) Unclaimed(ctx context.Context, folderPath string, m mailbox.Mailbox, live func(mailbox.ID) bool) ([]fingerprint.Candidate, error) {
	f := o.folder(folderPath)
	if f == nil {
		return nil, errors.New("there is no such folder")
	}
	all, err := o.in.unclaimed(ctx, o.in.place(m).id, f.id, func(id mailbox.ID, _ bool) bool { return live(id) })
	here := all[:0]
	for _, c := range all {
		if !c.Removed {
			c.Flags = pushable(c.Flags)
			here = append(here, c)
		}
	}
	return here, err
}

// pushable returns the flags that go to a server with a message. One that is
// marked as deleted would be gone at the next expunge.
func pushable(flags []string) []string {
	own := func(f string) bool { return strings.EqualFold(f, `\Deleted`) || strings.EqualFold(f, `\Recent`) }
	if !slices.ContainsFunc(flags, own) {
		return flags
	}
	return slices.DeleteFunc(slices.Clone(flags), own)
}

// Forms returns other forms in which a server may have messages of the folder.
// Of those that the server itself has changed, SHA256 is zero.
func (o *Outlet) Forms(ctx context.Context, folderPath string) (all []fingerprint.Candidate, err error) {
	f := o.folder(folderPath)
	if f == nil {
		return nil, nil
	}
	return all, rows(ctx, o.in.a.db, func(r *sql.Rows) error {
		var c fingerprint.Candidate
		var sum, header []byte
		if err := r.Scan(&c.Message, &c.Size, &c.Lines, &sum, &header); err != nil {
			return err
		}
		copy(c.SHA256[:], sum)
		copy(c.Header[:], header)
		all = append(all, c)
		return nil
	}, "SELECT x.message, x.size, x.lines_size, x.sha256, x.header_sha256 FROM form x JOIN message m ON m.id = x.message WHERE m.folder = ?", f.id)
}

// Held is a message of the archive that stands for one in a mailbox.
type Held struct {
	ID         mailbox.ID
	Here       bool     // it is in the folder that was asked about
	Recognised bool     // by its header; the octets were not compared
	Told       []string // the flags that the server told of it last, or was given
	fingerprint.Candidate
}

// EachHeld calls fn for every message that stands for one in the mailbox. fn
// must not use the archive.
func (o *Outlet) EachHeld(ctx context.Context, folderPath string, m mailbox.Mailbox, fn func(Held)) error {
	folderRow := int64(0)
	if f := o.folder(folderPath); f != nil {
		folderRow = f.id
	}
	interned := interned{}
	return rows(ctx, o.in.a.db, func(r *sql.Rows) error {
		var h Held
		var id, told, flags string
		var sum, header []byte
		if err := r.Scan(&id, &h.Here, &h.Recognised, &told, &h.Message, &h.Size, &h.Lines, &sum, &header, &h.Rewritten, &h.Removed, &flags, &h.Arrived); err != nil {
			return err
		}
		copy(h.SHA256[:], sum)
		copy(h.Header[:], header)
		h.ID, h.Told, h.Flags = mailbox.ID(id), pushable(interned.fields(told)), pushable(interned.fields(flags))
		fn(h)
		return nil
	}, `SELECT p.id, m.folder = ?, p.how = 'recognised', p.flags, m.id, m.size, m.lines_size, m.sha256, m.header_sha256, m.rewritten, m.removed_at IS NOT NULL, m.flags, m.internal_date
		FROM mapping p JOIN message m ON m.id = p.message WHERE p.mailbox = ?`, folderRow, o.in.place(m).id)
}

// Moved says how far an archive has been put on a server.
type Moved struct {
	Messages, There     int // in the archive; of these, on the server by the last knowledge
	Octets, ThereOctets int64
	Run                 *Run // the last one; nil if there was none
	Pull                *Run // the last backup of all; nil if there was none
}

// Moved returns how far the archive has been put on a server.
func (a *Archive) Moved(ctx context.Context, server string) (m Moved, err error) {
	err = a.db.QueryRowContext(ctx, `SELECT count(*), ifnull(sum(size), 0), ifnull(sum(there), 0), ifnull(sum(size * there), 0) FROM (
		SELECT m.size, EXISTS (SELECT 1 FROM mapping p JOIN mailbox b ON b.id = p.mailbox JOIN source s ON s.id = b.source
			WHERE p.message = m.id AND p.gone_at IS NULL AND s.name = ?) AS there
		FROM message m WHERE m.removed_at IS NULL)`, server).Scan(&m.Messages, &m.Octets, &m.There, &m.ThereOctets)
	if err != nil {
		return m, err
	}
	if m.Run, err = a.run(ctx, "WHERE command NOT IN ('backup', 'trim') AND source = ?", server); err != nil {
		return m, err
	}
	m.Pull, _, err = a.LastRuns(ctx)
	return m, err
}

// Description is what a person needs to find a message.
type Description struct {
	Date                     time.Time
	From, Subject, MessageID string
	File                     string // below the account's directory, "" if it is gone
}

// Describe returns the description of a message.
func (o *Outlet) Describe(ctx context.Context, message int64) (d Description, err error) {
	var date sql.NullInt64
	var key, folderPath string
	err = o.in.a.db.QueryRowContext(ctx, "SELECT m.date, m.sender, m.subject, m.message_id, m.key, f.path FROM message m JOIN folder f ON f.id = m.folder WHERE m.id = ?", message).
		Scan(&date, &d.From, &d.Subject, &d.MessageID, &key, &folderPath)
	if err != nil {
		return d, err
	}
	d.Date = fromUnix(date)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.names[folderPath] == nil {
		if o.names[folderPath], err = o.in.a.onDisk(o.folder(folderPath), nil); err != nil {
			return d, err
		}
	}
	if name := o.names[folderPath][key]; name != "" {
		d.File = folderPath + "/" + name
	}
	return d, nil
}

// ErrDamaged says that a message's file is not what it was when it was
// archived, or is gone.
var ErrDamaged = errors.New("its file is gone, or damaged")

// Open returns a message as it goes to a server: with the octets it came with
// or, if another program put it here, with CRLF line ends. The file has been
// read and found whole; the caller closes the content.
func (o *Outlet) Open(ctx context.Context, message int64) (u mailbox.Upload, content io.Closer, err error) {
	var key, folderPath, origin, flags string
	var sum []byte
	var internal int64
	err = o.in.a.db.QueryRowContext(ctx, "SELECT m.key, f.path, m.sha256, m.origin, m.internal_date, m.flags FROM message m JOIN folder f ON f.id = m.folder WHERE m.id = ?", message).
		Scan(&key, &folderPath, &sum, &origin, &internal, &flags)
	if err != nil {
		return u, nil, err
	}
	file, err := o.in.a.openMessage(o.folder(folderPath), key)
	if err != nil {
		return u, nil, err
	}
	if file == nil {
		return u, nil, ErrDamaged
	}
	u = mailbox.Upload{Flags: pushable(interned{}.fields(flags)), InternalDate: time.Unix(internal, 0)}
	if err := o.read(&u, file, sum, origin != "server"); err != nil {
		file.Close()
		return u, nil, err
	}
	return u, file, nil
}

// read checks a file and makes it the content of u; bare says that line feeds
// without CR are to get one.
func (o *Outlet) read(u *mailbox.Upload, file *os.File, sum []byte, bare bool) error {
	w := fingerprint.NewWriter()
	var held bytes.Buffer // of a small message
	if _, err := copyTo(io.MultiWriter(w, &limitedBuffer{&held, maxHeld}), file); err != nil {
		return err
	}
	p := w.Print()
	if !bytes.Equal(p.SHA256[:], sum) {
		return ErrDamaged
	}
	u.Size, u.Content = p.Size, file
	if p.Size <= maxHeld {
		u.Content = &held
	} else if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if bare && p.BareLF > 0 {
		u.Size += p.BareLF
		u.Content = &crlfReader{r: u.Content}
	}
	return nil
}

// maxHeld is how large a message may be that is read once and kept in memory
// until it is sent.
const maxHeld = 256 << 10

// limitedBuffer keeps what is written to it as long as it is not too much.
type limitedBuffer struct {
	b    *bytes.Buffer
	most int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if l.b.Len() <= l.most {
		l.b.Write(p)
	}
	return len(p), nil
}

// crlfReader puts a CR before each line feed that lacks one.
type crlfReader struct {
	r    io.Reader
	last byte
	buf  []byte
	out  []byte // not yet read
}

func (c *crlfReader) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if c.buf == nil {
			c.buf = make([]byte, 16<<10)
		}
		n, err := c.r.Read(c.buf)
		for _, b := range c.buf[:n] {
			if b == '\n' && c.last != '\r' {
				c.out = append(c.out, '\r')
			}
			c.out = append(c.out, b)
			c.last = b
		}
		if n == 0 && err != nil {
			return 0, err
		}
	}
	n := copy(p, c.out)
	if c.out = c.out[n:]; len(c.out) == 0 {
		c.out = nil
	}
	return n, nil
}

// Begin starts a group of changes.
func (o *Outlet) Begin() *OutBatch { return &OutBatch{Batch: o.in.Begin(), run: o.run} }

// OutBatch is a group of notes of what a server has.
type OutBatch struct {
	*Batch
	run    int64
	pushed int
	octets int64
}

// Pushed notes that a message of the archive has been stored in a mailbox,
// where it is msg.
func (b *OutBatch) Pushed(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, message int64) error {
	if b.pushed == 0 && b.run != 0 {
		b.after = append(b.after, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE run SET new = new + ?, new_octets = new_octets + ? WHERE id = ?", b.pushed, b.octets, b.run)
			return err
		})
	}
	b.pushed, b.octets = b.pushed+1, b.octets+msg.Size
	return b.claim(ctx, m, msg, message, "pushed")
}

// Form notes another form in which the server may have a message; note says
// what was done to it. SHA256 is zero where the octets are not known.
func (b *OutBatch) Form(message int64, p fingerprint.Print, note string) {
	sum := p.SHA256[:]
	if p.SHA256 == (fingerprint.Sum{}) {
		sum = []byte{}
	}
	b.after = append(b.after, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO form (message, size, header_sha256, lines_size, sha256, note) VALUES (?, ?, ?, ?, ?, ?)",
			message, p.Size, p.Header[:], p.Lines, sum, note)
		return err
	})
}

// Told notes which flags the server has of a message from now on.
func (b *OutBatch) Told(ctx context.Context, m mailbox.Mailbox, id mailbox.ID, flags []string) error {
	row, err := b.open(ctx, m)
	b.after = append(b.after, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE mapping SET flags = ? WHERE mailbox = ? AND id = ?", joined(flags), row.id, string(id))
		return err
	})
	return err
}
