package cli

import (
	"context"
	"errors"
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
	l, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := imapconn.Dial(ctx, s.account.endpoint, l)
	if err != nil {
		return nil, err
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
		return nil, err
	}
	return conn, nil
}

func (s *server) login(ctx context.Context) (sasl.Login, error) {
	secret, err := s.account.secret(ctx)
	return s.account.login(secret), err
}

// outgoingOf returns what goes to a server: all that the archive holds or, with
// --trim-run, what that run removed.
func outgoingOf(ctx context.Context, c *cli.Context, ar *maildir.Archive, outlet *maildir.Outlet) (migrate.Archive, error) {
	run := c.String("trim-run")
	if !c.IsSet("trim-run") {
		return outgoing{outlet}, nil
	}
	if run == "" {
		return nil, configFailed("--trim-run names no run", "each is a file in .mailstow/trim of the account's directory")
	}
	messages, err := ar.Trimmed(ctx, run)
	var unknown *maildir.UnknownRunError
	if errors.As(err, &unknown) {
		return nil, configFailed("--trim-run: "+err.Error(), "there is "+strings.Join(unknown.Among, ", "))
	}
	if err != nil {
		return nil, archiveFailed(err)
	}
	return trimmed{outgoing{outlet}, messages}, nil
}

// trimmed is an archive of which just what a trim run removed goes to a server.
type trimmed struct {
	outgoing
	messages map[int64]string // the folders of those, by the archive's numbers
}

func (t trimmed) Folders(ctx context.Context) ([]migrate.Folder, error) {
	all, err := t.outgoing.Folders(ctx)
	return slices.DeleteFunc(all, func(f migrate.Folder) bool {
		for _, folder := range t.messages {
			if folder == f.Path {
				return false
			}
		}
		return true
	}), err
}

func (t trimmed) Unclaimed(ctx context.Context, folder string, m mailbox.Mailbox, live func(mailbox.ID) bool) ([]fingerprint.Candidate, error) {
	all, err := t.outgoing.Unclaimed(ctx, folder, m, live)
	return slices.DeleteFunc(all, func(c fingerprint.Candidate) bool { return t.messages[c.Message] == "" }), err
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
