package maildir

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/mailbox"
)

// Outlet is an archive whose messages go to a server. Which message is which
// there it keeps in the same way as an [Intake] does, so that the server can
// be backed up into the archive afterwards.
type Outlet struct{ in *Intake }

// To returns the archive as the server takes from it: a login and a host, as in
// [Archive.From].
func (a *Archive) To(ctx context.Context, server string) (*Outlet, error) {
	in, err := a.From(ctx, server)
	return &Outlet{in}, err
}

// Folder is a folder to be put on a server.
type Folder struct {
	Path     string
	Name     mailbox.Name
	Role     string // that it has on the server it is from; "" for none
	Messages int
	Octets   int64
}

// Folders returns the archive's folders.
func (o *Outlet) Folders(ctx context.Context) ([]Folder, error) {
	infos, err := o.in.a.Folders(ctx)
	var all []Folder
	for _, f := range infos {
		all = append(all, Folder{Path: f.Path, Name: nameOfPath(f.Path), Role: f.Role, Messages: f.Messages, Octets: f.Octets})
	}
	return all, err
}

// Place says that messages of the folder go into a mailbox. If the mailbox is
// backed up one day, that is its folder, unless it has another already.
func (o *Outlet) Place(m mailbox.Mailbox, folderPath string) {
	a := o.in.a
	a.mu.Lock()
	if f := a.folders[folderPath]; f != nil && o.in.mailboxes[m.Wire] == nil {
		o.in.mailboxes[m.Wire] = &mailboxRow{folder: f}
	}
	a.mu.Unlock()
	o.in.place(m)
}

func (o *Outlet) folder(folderPath string) *folder {
	o.in.a.mu.Lock()
	defer o.in.a.mu.Unlock()
	return o.in.a.folders[folderPath]
}

// EachKnown calls fn for every message of the mailbox that is known.
func (o *Outlet) EachKnown(ctx context.Context, m mailbox.Mailbox, fn func(mailbox.ID, mailbox.Kept)) error {
	return o.in.EachKnown(ctx, m, fn)
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
			here = append(here, c)
		}
	}
	return here, err
}

// Description is what a person needs to find a message.
type Description struct {
	Date                     time.Time
	From, Subject, MessageID string
}

// Describe returns the description of a message.
func (o *Outlet) Describe(ctx context.Context, message int64) (d Description, err error) {
	var date sql.NullInt64
	err = o.in.a.db.QueryRowContext(ctx, "SELECT date, sender, subject, message_id FROM message WHERE id = ?", message).Scan(&date, &d.From, &d.Subject, &d.MessageID)
	d.Date = fromUnix(date)
	return d, err
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
	u = mailbox.Upload{Flags: interned{}.fields(flags), InternalDate: time.Unix(internal, 0)}
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
func (o *Outlet) Begin() *Batch { return o.in.Begin() }

// Pushed notes that a message of the archive has been stored in a mailbox,
// where it is msg.
func (b *Batch) Pushed(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, message int64) error {
	return b.claim(ctx, m, msg, message, "pushed")
}
