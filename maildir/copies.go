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
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"mailstow/internal/fingerprint"
	"mailstow/mailbox"
)

// Copy is what the index knows of the archived copy of a message that a server
// has.
type Copy struct {
	fingerprint.Candidate
	Folder, Key string // where its file is: the directory, and the name before the colon

	Exact   bool   // its octets are those that came from this mailbox, and nothing was odd about them
	Foreign bool   // another program has put its file here
	Synced  bool   // another program seems to keep the file in step with a server, and would remove it with the message
	Object  string // the server's name for the content; "" for none
	Dated   bool   // Arrived is the server's INTERNALDATE
	Read    bool   // an IMAP server has told its flags, so that it is known whether it was read
	Fetched bool   // it came over POP3, which a server may have taken for reading it
	Guessed bool   // Arrived is what the sender says
	Since   int64  // when the archive got it, Unix seconds

	FormSizes []int64 // octets of other forms that a server may have
}

// EachCopy calls fn for every message of a mailbox that the server had at the
// last look and that the archive holds, or held. fn must not use the archive.
func (in *Intake) EachCopy(ctx context.Context, mb mailbox.Mailbox, fn func(mailbox.ID, Copy)) error {
	interned := interned{}
	synced := map[string]bool{} // folders
	return rows(ctx, in.a.db, func(r *sql.Rows) error {
		var c Copy
		var id, how, note, flags, from, origin string
		var sum, header []byte
		var sizes sql.NullString
		err := r.Scan(&id, &how, &note, &c.Object, &c.Message, &c.Size, &c.Lines, &sum, &header, &c.Rewritten, &c.Removed, &flags, &c.Arrived, &from, &origin, &c.Folder, &c.Key, &c.Read, &c.Fetched, &c.Since, &sizes)
		if err != nil {
			return err
		}
		if copy(c.SHA256[:], sum)+copy(c.Header[:], header) != len(c.SHA256)+len(c.Header) {
			return nil // no digest is like it
		}
		c.Exact, c.Foreign, c.Dated = how == "downloaded" && note == "", origin != "server", from == "internaldate"
		c.Flags, c.Guessed = interned.fields(flags), from == "date"
		if _, known := synced[c.Folder]; !known {
			synced[c.Folder] = in.a.isSynced(c.Folder)
		}
		c.Synced = synced[c.Folder] || strings.Contains(c.Key, ",U=") // mbsync and offlineimap put the UID there
		for _, size := range strings.FieldsFunc(sizes.String, func(r rune) bool { return r == ',' }) {
			if n, err := strconv.ParseInt(size, 10, 64); err == nil {
				c.FormSizes = append(c.FormSizes, n)
			}
		}
		fn(mailbox.ID(id), c)
		return nil
	}, `SELECT p.id, p.how, p.note, p.object, m.id, m.size, m.lines_size, m.sha256, m.header_sha256, m.rewritten, m.removed_at IS NOT NULL, m.flags, m.internal_date, m.date_from, m.origin, f.path, m.key,
		EXISTS (SELECT 1 FROM mapping o JOIN mailbox b ON b.id = o.mailbox JOIN source s ON s.id = b.source WHERE o.message = m.id AND s.name LIKE 'imap:%'),
		EXISTS (SELECT 1 FROM mapping o JOIN mailbox b ON b.id = o.mailbox JOIN source s ON s.id = b.source WHERE o.message = m.id AND o.how = 'downloaded' AND s.name LIKE 'pop3:%'),
		m.archived_at, (SELECT group_concat(x.size) FROM form x WHERE x.message = m.id)
		FROM mapping p JOIN message m ON m.id = p.message JOIN folder f ON f.id = m.folder WHERE p.mailbox = ? AND p.gone_at IS NULL`, in.place(mb).id)
}

// stateFiles are those of programs that keep a Maildir in step with a server
// (mbsync), or that are one (Dovecot, Courier).
var stateFiles = []string{".mbsyncstate", ".mbsyncstate.journal", ".uidvalidity", ".isyncuidmap.db", "dovecot-uidlist", "dovecot.index", "dovecot.index.log", "courierimapuiddb"}

// isSynced reports whether a folder has the files of a program that removes mail
// from it.
func (a *Archive) isSynced(folderPath string) bool {
	return slices.ContainsFunc(stateFiles, func(name string) bool {
		_, err := a.root.Lstat(path.Join(folderPath, name))
		return err == nil
	})
}

// here returns an error if what stands at the archive's path is not what was
// opened.
func (a *Archive) here() error {
	at, err := os.Stat(a.dir)
	if err != nil {
		return err
	}
	opened, err := a.root.Stat(".")
	if err == nil && !os.SameFile(at, opened) {
		err = fmt.Errorf("%s is another directory than it was", a.dir)
	}
	return err
}

// Forms returns the digests of other forms in which a server was sent messages,
// by the archive's numbers of these.
func (in *Intake) Forms(ctx context.Context, messages []int64) (map[int64][]fingerprint.Sum, error) {
	forms := map[int64][]fingerprint.Sum{}
	err := rowsIn(ctx, in.a.db, messages, func(r *sql.Rows) error {
		var message int64
		var sum []byte
		if err := r.Scan(&message, &sum); err != nil || len(sum) != len(fingerprint.Sum{}) {
			return err
		}
		forms[message] = append(forms[message], fingerprint.Sum(sum))
		return nil
	}, "SELECT message, sha256 FROM form WHERE message IN (%s)")
	return forms, err
}

// Doubt is why a message's file does not prove that the archive has it.
type Doubt struct {
	File string // below the account's directory
	Text string
}

// ReadBack opens the files of messages by their paths, reads each from the disk
// and compares it with its size and digest in the index. Those that are right
// are durable when it returns: the files, and all directories above them.
// Those that are not it returns by the archive's numbers. It calls progress for
// each message; calls may overlap.
func (in *Intake) ReadBack(ctx context.Context, messages []int64, progress func(octets int64)) (map[int64]Doubt, error) {
	byFolder := map[string][]stored{}
	err := rowsIn(ctx, in.a.db, messages, func(r *sql.Rows) error {
		var s stored
		var folderPath string
		err := r.Scan(&s.id, &s.key, &s.size, &s.sum, &folderPath)
		byFolder[folderPath] = append(byFolder[folderPath], s)
		return err
	}, "SELECT m.id, m.key, m.size, m.sha256, f.path FROM message m JOIN folder f ON f.id = m.folder WHERE m.id IN (%s)")
	if err != nil {
		return nil, err
	}
	if err := in.a.here(); err != nil {
		return nil, err
	}
	doubts := map[int64]Doubt{}
	for _, n := range messages {
		doubts[n] = Doubt{Text: "the index does not know it"}
	}
	for folderPath, all := range byFolder {
		if err := in.a.readBack(ctx, folderPath, all, doubts, progress); err != nil {
			return nil, err
		}
	}
	return doubts, nil
}

func (a *Archive) readBack(ctx context.Context, folderPath string, all []stored, doubts map[int64]Doubt, progress func(int64)) error {
	f := &folder{path: folderPath}
	keys := map[string]bool{}
	for _, s := range all {
		keys[s.key] = true
	}
	names, err := a.onDisk(f, func(key string) bool { return keys[key] })
	if err != nil {
		names = nil // as if no file were there
	}
	found := make([]error, len(all))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range all {
		g.Go(func() error {
			if found[i] = ctx.Err(); found[i] == nil {
				found[i] = a.check(f, s, names[s.key], durably)
			}
			progress(s.size)
			return nil
		})
	}
	g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, s := range all {
		d := Doubt{File: path.Join(folderPath, "cur", s.key), Text: "its file is not there"}
		if name := names[s.key]; name != "" {
			d.File = path.Join(folderPath, name)
		}
		var changed *changedError
		switch err := found[i]; {
		case err == nil:
			delete(doubts, s.id)
			continue
		case errors.As(err, &changed):
			d.Text = changed.Error()
		case !errors.Is(err, fs.ErrNotExist):
			d.Text = "it cannot be read: " + err.Error()
		}
		doubts[s.id] = d
	}
	for _, sub := range []string{"cur", "new"} {
		if err := a.syncDir(path.Join(folderPath, sub)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for dir := folderPath; ; dir = path.Dir(dir) {
		if err := a.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if dir == "." {
			return nil
		}
	}
}

// syncDir makes the entries of a directory of the archive durable.
func (a *Archive) syncDir(dir string) error {
	d, err := a.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Content opens the file of a message. The caller closes it.
func (in *Intake) Content(ctx context.Context, message int64) (io.ReadCloser, error) {
	file, _, err := in.a.fileOf(ctx, message)
	if err != nil {
		return nil, err
	}
	if file == nil {
		return nil, ErrDamaged
	}
	return file, nil
}

// Removed notes that messages were removed from the server.
func (in *Intake) Removed(ctx context.Context, mb mailbox.Mailbox, ids []mailbox.ID) error {
	b := in.Begin()
	if err := b.Gone(ctx, mb, ids, true); err != nil {
		return err
	}
	return b.Commit(ctx)
}
