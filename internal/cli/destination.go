package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/imapconn"
	"mailstow/internal/netconn"
	"mailstow/internal/sasl"
	"mailstow/mailbox"
	"mailstow/maildir"
	"mailstow/migrate"
)

// server opens connections to a destination.
type server struct {
	account *account

	mu    sync.Mutex
	first *imapconn.Conn // made before it was needed; nil once it is used
}

// now logs in, for the first connection that is asked for.
func (s *server) now(ctx context.Context) (err error) {
	s.first, err = dialled(ctx, s.account, imapconn.Dial)
	return err
}

func (s *server) close() {
	if s.first != nil {
		s.first.Close(true)
	}
}

func (s *server) Look(ctx context.Context) (migrate.Destination, error) {
	s.mu.Lock()
	first := s.first
	s.first = nil
	s.mu.Unlock()
	if first != nil {
		return first, nil
	}
	conn, err := dialled(ctx, s.account, imapconn.Dial)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func (s *server) Upload(ctx context.Context) (migrate.Uploader, error) {
	conn, err := dialled(ctx, s.account, imapconn.DialUploader)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// dialled is a connection to an account's server that has logged in.
func dialled[C any](ctx context.Context, a *account, dial func(context.Context, netconn.Endpoint, sasl.Login) (C, error)) (conn C, err error) {
	secret, err := a.secret(ctx)
	if err != nil {
		return conn, err
	}
	l := a.login(secret)
	err = a.loggingIn(ctx, &l, func() (err error) { conn, err = dial(ctx, a.reached(), l); return err })
	return conn, err
}

// undone is what a trim run has removed, for a restore of just that.
type undone struct {
	maildir.Trimmed
	lost *problem // what the archive has lost of it, nil if it has it all
}

// undoneBy returns what the run of --trim-run has removed; nil if there is no such
// option.
func undoneBy(ctx context.Context, c *cli.Context, ar *maildir.Archive) (*undone, error) {
	run := c.String("trim-run")
	if !c.IsSet("trim-run") {
		return nil, nil
	}
	if run == "" {
		return nil, configFailed("--trim-run names no run", "each is a file in .mailstow/trim of the account's directory")
	}
	removed, err := ar.Trimmed(ctx, run)
	var unknown *maildir.UnknownRunError
	if errors.As(err, &unknown) {
		return nil, configFailed("--trim-run: "+err.Error(), "there is "+strings.Join(unknown.Among, ", "))
	}
	if err != nil {
		return nil, archiveFailed(err)
	}
	u := &undone{Trimmed: removed}
	if len(removed.Lost) == 0 {
		return u, nil
	}
	u.lost = &problem{
		what: fmt.Sprintf("%s not put back, of %s that the run removed: the archive has not got them any more", were(len(removed.Lost)), count(len(removed.Lost)+len(removed.Folders))),
		why:  "their files were removed from the archive, or have changed, since", do: "look for these files in the backups of the archive", status: exitDamaged, code: "not_in_archive",
	}
	for _, file := range removed.Lost {
		u.lost.details = append(u.lost.details, "file:    "+file)
	}
	u.lost.details = someOf(u.lost.details, "the list of the run names all of them")
	return u, nil
}

// unmark takes the marks as deleted from what the run may have marked before it
// was killed; else it would be taken to be there, and go.
func (u *undone) unmark(ctx context.Context, s *server, in *maildir.Intake) error {
	if len(u.Begun) == 0 || u.Source != s.account.source() {
		return nil
	}
	if s.first == nil {
		if err := s.now(ctx); err != nil {
			return err
		}
	}
	boxes, err := s.first.Mailboxes(ctx)
	if err != nil {
		return err
	}
	notes := in.Undo(time.Now())
	for _, m := range boxes {
		ids := u.Begun[m.Wire]
		if len(ids) == 0 {
			continue
		}
		held, err := s.first.Hold(ctx, m, ids)
		if errors.Is(err, mailbox.ErrRebuilt) {
			continue // none of them is there any more
		}
		var there []mailbox.ID
		why := map[mailbox.ID]string{}
		for _, msg := range held {
			if slices.ContainsFunc(msg.Flags, func(f string) bool { return strings.EqualFold(f, `\Deleted`) }) {
				there = append(there, msg.ID)
				why[msg.ID] = "it is put back"
			}
		}
		if err == nil && len(there) > 0 {
			if err = s.first.Unmark(ctx, m, there); err == nil {
				err = notes.Note(m, there, why, true)
			}
		}
		if err != nil {
			return err
		}
	}
	return notes.Close()
}

// outgoing gives the engine its interface.
type outgoing struct {
	*maildir.Outlet
	only map[string]bool // folders; nil for all
}

func (o outgoing) Folders(ctx context.Context) ([]migrate.Folder, error) {
	all, err := o.Outlet.Folders(ctx)
	var folders []migrate.Folder
	for _, f := range all {
		if o.only == nil || o.only[f.Path] {
			folders = append(folders, migrate.Folder(f))
		}
	}
	return folders, err
}

func (o outgoing) Open(ctx context.Context, message int64) (migrate.Content, error) {
	u, file, err := o.Outlet.Open(ctx, message)
	if err != nil {
		return migrate.Content{}, err
	}
	return migrate.Content{Upload: u, Close: file.Close}, nil
}

func (o outgoing) Describe(ctx context.Context, message int64) (migrate.Description, error) {
	d, err := o.Outlet.Describe(ctx, message)
	return migrate.Description(d), err
}

func (o outgoing) EachHeld(ctx context.Context, folder string, m mailbox.Mailbox, fn func(migrate.Held)) error {
	return o.Outlet.EachHeld(ctx, folder, m, func(h maildir.Held) { fn(migrate.Held(h)) })
}

func (o outgoing) Begin() migrate.Batch { return o.Outlet.Begin() }
