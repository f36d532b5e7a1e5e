package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"mailstow/internal/fingerprint"
	"mailstow/internal/imapconn"
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
func (s *server) now(ctx context.Context) error {
	l, err := s.login(ctx)
	if err != nil {
		return err
	}
	s.first, err = imapconn.Dial(ctx, s.account.endpoint, l)
	return s.account.understood(err)
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
	l, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := imapconn.Dial(ctx, s.account.endpoint, l)
	if err != nil {
		return nil, s.account.understood(err)
	}
	return conn, nil
}

func (s *server) Upload(ctx context.Context) (migrate.Uploader, error) {
	l, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := imapconn.DialUploader(ctx, s.account.endpoint, l)
	if err != nil {
		return nil, s.account.understood(err)
	}
	return conn, nil
}

func (s *server) login(ctx context.Context) (sasl.Login, error) {
	secret, err := s.account.secret(ctx)
	return s.account.login(secret), err
}

// outgoingOf returns what goes to a server: all that the archive holds or, with
// --trim-run, what that run removed. The problem is what the archive has lost of
// that, nil if it has it all.
func outgoingOf(ctx context.Context, c *cli.Context, ar *maildir.Archive, outlet *maildir.Outlet) (migrate.Archive, *problem, error) {
	run := c.String("trim-run")
	if !c.IsSet("trim-run") {
		return outgoing{outlet}, nil, nil
	}
	if run == "" {
		return nil, nil, configFailed("--trim-run names no run", "each is a file in .mailstow/trim of the account's directory")
	}
	removed, err := ar.Trimmed(ctx, run)
	var unknown *maildir.UnknownRunError
	if errors.As(err, &unknown) {
		return nil, nil, configFailed("--trim-run: "+err.Error(), "there is "+strings.Join(unknown.Among, ", "))
	}
	if err != nil {
		return nil, nil, archiveFailed(err)
	}
	if len(removed.Lost) == 0 {
		return trimmed{outgoing{outlet}, removed.Folders}, nil, nil
	}
	lost := &problem{
		what: fmt.Sprintf("%s not put back, of %s that the run removed: the archive has not got them any more", were(len(removed.Lost)), count(len(removed.Lost)+len(removed.Folders))),
		why:  "their files were removed from the archive, or have changed, since", do: "look for these files in the backups of the archive", status: exitDamaged, code: "not_in_archive",
	}
	for _, file := range removed.Lost {
		lost.details = append(lost.details, "file:    "+file)
	}
	lost.details = someOf(lost.details, "the list of the run names all of them")
	return trimmed{outgoing{outlet}, removed.Folders}, lost, nil
}

// trimmed is an archive of which just what a trim run removed goes to a server.
type trimmed struct {
	outgoing
	messages map[int64]string // the folders of those, by the archive's numbers
}

func (t trimmed) Folders(ctx context.Context) ([]migrate.Folder, error) {
	all, err := t.outgoing.Folders(ctx)
	wanted := map[string]bool{}
	for _, folder := range t.messages {
		wanted[folder] = true
	}
	return slices.DeleteFunc(all, func(f migrate.Folder) bool { return !wanted[f.Path] }), err
}

func (t trimmed) Unclaimed(ctx context.Context, folder string, m mailbox.Mailbox, live func(mailbox.ID) bool) ([]fingerprint.Candidate, error) {
	all, err := t.outgoing.Unclaimed(ctx, folder, m, live)
	return slices.DeleteFunc(all, func(c fingerprint.Candidate) bool {
		_, removed := t.messages[c.Message]
		return !removed
	}), err
}

// outgoing gives the engine its interface.
type outgoing struct{ *maildir.Outlet }

func (o outgoing) Folders(ctx context.Context) ([]migrate.Folder, error) {
	all, err := o.Outlet.Folders(ctx)
	var folders []migrate.Folder
	for _, f := range all {
		folders = append(folders, migrate.Folder(f))
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
