package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/internal/imapconn"
	"mailstow/internal/report"
	"mailstow/internal/sasl"
	"mailstow/mailbox"
	"mailstow/maildir"
	"mailstow/migrate"
)

func (p *program) migrateCommand() *cli.Command {
	return &cli.Command{
		Name:      "migrate",
		Category:  everyDay,
		Usage:     "copy everything to another server, and prove it",
		ArgsUsage: "SOURCE DESTINATION",
		Description: `  mailstow migrate old new                              # two accounts of the config file
  mailstow migrate imaps://me@old.example imaps://me@new.example
  mailstow migrate ~/mail-archive/me@old.example new    # from the archive alone
  mailstow migrate ~/Mail imaps://me@new.example        # Maildirs of another program

A source that is a server is backed up first; its archive stays. Run it again at
any time: what is there already is not stored twice. Nothing is ever deleted. At
the end the server's own listing must show each message.`,
		Flags: slices.Concat(pushFlags(), []cli.Flag{
			yes("new-archive", "begin a new archive where an earlier one has vanished"),
			text("via", "`PROTOCOL` of a source that has both: imap, pop3, or auto (imap)"),
		}, folderFlags(), loginFlags()),
		Action: p.migrate,
	}
}

func (p *program) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Category:  everyDay,
		Usage:     "put archived mail back on its server",
		ArgsUsage: "ACCOUNT|URL",
		Description: `  mailstow restore work                                 # what the server lacks
  mailstow restore work --under Restored

What is there already is not stored twice. Nothing is ever deleted.`,
		Flags:  slices.Concat(pushFlags(), folderFlags(), loginFlags()),
		Action: p.restore,
	}
}

// pushFlags are the options of commands that store mail on a server.
func pushFlags() []cli.Flag {
	return []cli.Flag{
		text("to", "archive `DIR`; each account gets a directory in it", "t"),
		yes("dry-run", "show what would be stored, change nothing", "n"),
		texts("map", "put `FOLDER=MAILBOX`: this folder into that mailbox"),
		text("under", "put all below the mailbox `NAME`"),
		yes("no-automap", "go by names: do not match roles such as \\Sent"),
		&cli.IntFlag{Name: "connections", Usage: "`N` connections to a server at the same time", Value: defaultConnections},
	}
}

func (p *program) migrate(c *cli.Context) error {
	if c.NArg() != 2 {
		return &usageError{text: "migrate needs a source and a destination", hint: "mailstow migrate SOURCE DESTINATION"}
	}
	cfg, err := p.readConfig(c)
	if err != nil {
		return err
	}
	root := p.archiveRoot(c, cfg)
	destination, err := p.destination(c, cfg, root, c.Args().Get(1), strings.Contains(c.Args().Get(0), "://"))
	if err != nil {
		return err
	}
	dir, pulled, err := p.fillFrom(c, cfg, root, c.Args().Get(0))
	if err != nil {
		return err
	}
	return p.pushTo(c, "migrate", dir, destination, pulled)
}

func (p *program) restore(c *cli.Context) error {
	if c.NArg() != 1 {
		return &usageError{text: "restore needs one account", hint: "mailstow restore ACCOUNT"}
	}
	cfg, err := p.readConfig(c)
	if err != nil {
		return err
	}
	a, err := p.destination(c, cfg, p.archiveRoot(c, cfg), c.Args().First(), false)
	if err != nil {
		return err
	}
	return p.pushTo(c, "restore", a.dir, a, exitOK)
}

// destination returns the account that mail goes to. beside says that another
// server is named on the command line, whose password is no business of this
// one.
func (p *program) destination(c *cli.Context, cfg *config.File, root, arg string, beside bool) (*account, error) {
	p.storing, p.beside = true, beside
	a, err := p.account(c, cfg, root, arg)
	p.storing, p.beside = false, false
	if err != nil {
		return nil, err
	}
	if a.protocol != mailbox.IMAP {
		return nil, configFailed("mail cannot be stored over POP3", "name an IMAP server")
	}
	const variable = "MAILSTOW_DESTINATION_PASSWORD"
	switch {
	case a.changing || a.method == "external":
	case p.Getenv(variable) != "":
		a.password = func(context.Context) (credential.Secret, error) { return credential.NewSecret(p.Getenv(variable)), nil }
	case beside && strings.Contains(arg, "://"):
		a.password = func(context.Context) (credential.Secret, error) { return p.ask(c, a) }
	}
	return a, nil
}

// fillFrom brings the archive in step with a source, if that is a server, and
// returns the archive's directory and how that went.
func (p *program) fillFrom(c *cli.Context, cfg *config.File, root, arg string) (dir string, status int, err error) {
	configured := cfg != nil && slices.ContainsFunc(cfg.Accounts, func(set config.Account) bool { return set.Name == arg || set.Address == arg })
	if !configured && !strings.Contains(arg, "://") && maildir.Exists(arg) {
		return arg, exitOK, nil
	}
	if fi, err := os.Stat(arg); err == nil && fi.IsDir() && !configured && !strings.Contains(arg, "://") {
		return arg, exitOK, p.adopt(c, arg)
	}
	a, err := p.account(c, cfg, root, arg)
	if err != nil {
		return "", 0, err
	}
	if c.Bool("dry-run") && maildir.Exists(a.dir) {
		return a.dir, exitOK, nil // what would be stored is what is in the archive now
	}
	status = p.backupAll(c, []*account{a})
	if c.Bool("dry-run") { // nothing is in an archive yet that could be looked for on the other server
		return "", 0, &saidError{status}
	}
	if status != exitOK && status != exitIncomplete && status != exitLater {
		return "", 0, &saidError{status}
	}
	return a.dir, status, nil
}

// adopt makes an archive of a directory of Maildirs that another program has
// filled: mailstow's index is put beside them.
func (p *program) adopt(c *cli.Context, dir string) error {
	isMaildir := func(d string) bool {
		for _, sub := range []string{"cur", "new", "tmp"} {
			if fi, err := os.Stat(filepath.Join(d, sub)); err != nil || !fi.IsDir() {
				return false
			}
		}
		return true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return configFailed(err.Error(), "")
	}
	found := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.IsDir() && isMaildir(filepath.Join(dir, e.Name())) })
	switch {
	case isMaildir(dir):
		return configFailed(dir+" is a Maildir itself (Maildir++), and no directory of Maildirs", "move it to DIR/INBOX, and name DIR")
	case !found:
		return configFailed(dir+" is neither an archive of an account nor a directory of Maildirs", "mailstow backup makes an archive; name the account's directory in it")
	case c.Bool("dry-run"):
		return configFailed(dir+" is no archive yet", "without --dry-run mailstow makes one of it: an index in "+filepath.Join(dir, ".mailstow"))
	}
	ar, err := maildir.Open(c.Context, dir, maildir.Options{Write: true, Create: true})
	if err != nil {
		return archiveFailed(err)
	}
	return ar.Close()
}

// pushTo stores what the archive in dir holds on a server, and tells how that
// went. pulled is the status of the backup before it.
func (p *program) pushTo(c *cli.Context, command, dir string, a *account, pulled int) error {
	ctx, dry := c.Context, c.Bool("dry-run")
	mapping, err := mappingOf(c)
	if err != nil {
		return err
	}
	ar, err := maildir.Open(ctx, dir, maildir.Options{Write: !dry})
	if err != nil {
		return archiveFailed(err)
	}
	defer ar.Close()
	outlet, err := ar.To(ctx, a.source())
	if err != nil {
		return archiveFailed(err)
	}
	wanted, err := wanted(c, config.Account{}, time.Now())
	if err != nil {
		return err
	}
	killed, err := ar.Killed(ctx, a.source())
	if err != nil {
		return archiveFailed(err)
	}
	record, number := maildir.Run{Command: command, Source: a.source(), Started: time.Now()}, int64(0)
	if !dry {
		if number, err = ar.BeginRun(ctx, record); err != nil {
			return archiveFailed(err)
		}
	}
	result, runErr := migrate.Run(ctx, &server{account: a}, outgoing{outlet}, &pushSink{p: p, c: c, account: a}, migrate.Options{
		DryRun: dry, Connections: max(c.Int("connections"), 1), Filter: wanted, Mapping: mapping, Unsettled: killed,
	})
	if !dry {
		record.Ended, record.Missing, record.Result = time.Now(), result.Missing(), "ok"
		if runErr != nil {
			record.Result, record.Reason = "incomplete", runErr.Error()
		}
		if err := ar.EndRun(context.WithoutCancel(ctx), number, record); err != nil && runErr == nil {
			runErr = archiveFailed(err)
		}
	}
	if err := ar.Close(); err != nil && runErr == nil {
		runErr = archiveFailed(err)
	}
	if c.Bool("json") {
		showPushedJSON(newJSONLines(p.Stdout), command, a, result, runErr)
	} else if len(result.Tallies) > 0 && !c.Bool("quiet") {
		showPushed(p.Stdout, a, result, dry, c.Bool("verbose"))
	}
	return pushFailed(ctx, a, result, runErr, pulled)
}

// pushFailed makes the error of a run that has not stored everything.
func pushFailed(ctx context.Context, a *account, result migrate.Result, err error, pulled int) error {
	var collision *migrate.CollisionError
	switch {
	case err == nil && pulled == exitOK:
		return nil
	case err == nil:
		return &saidError{pulled}
	case errors.As(err, new(*migrate.UnknownFolderError)):
		return configFailed("--map: "+err.Error(), "mailstow list shows the folders of an archive")
	case errors.As(err, &collision):
		return configFailed(collision.Error(), fmt.Sprintf("--map '%s=ANOTHER NAME'", collision.Folder))
	case !errors.Is(err, migrate.ErrIncomplete):
		return &problemError{explain(ctx, a.name, &serverError{err}), err}
	}
	pr := problem{account: a.name, status: exitIncomplete, code: "incomplete", do: "nothing now, it is tried again on every run"}
	pr.what = fmt.Sprintf("%s missing on %s", are(result.Missing()), a.host)
	for _, t := range result.Tallies {
		if t.Reason != "" {
			pr.details = append(pr.details, fmt.Sprintf("folder:  %s: %s", t.Folder, t.Reason))
		}
		for _, m := range t.Missing {
			pr.details = append(pr.details, fmt.Sprintf("message: %s, %s, %s, %s: %s", t.Folder, day(m.Date), octets(m.Size), quoted(m.Subject), m.Reason))
		}
	}
	pr.details = someOf(pr.details, "add --json to see all")
	pr.why = endedEarly(err, migrate.ErrIncomplete)
	if full := (*migrate.FullError)(nil); errors.As(err, &full) {
		pr.why, pr.server, pr.do = "the server has no room for more", full.Answer, "make room there, or ask for more; then run it again"
	}
	return &problemError{pr, err}
}

func are(n int) string {
	if n == 1 {
		return "1 message is"
	}
	return count(n) + " messages are"
}

func day(t time.Time) string {
	if t.IsZero() {
		return "no date"
	}
	return t.Local().Format(time.DateOnly)
}

func quoted(subject string) string {
	if subject == "" {
		return "no subject"
	}
	return fmt.Sprintf("%q", subject)
}

// mappingOf reads --map, --under and --no-automap.
func mappingOf(c *cli.Context) (m migrate.Mapping, err error) {
	m = migrate.Mapping{Renamed: map[string]string{}, Under: c.String("under"), NoRoles: c.Bool("no-automap")}
	for _, pair := range c.StringSlice("map") {
		from, to, ok := strings.Cut(pair, "=")
		if !ok || from == "" || to == "" {
			return m, &usageError{text: fmt.Sprintf("--map %q is no pair", pair), hint: "write it like --map 'Sent Items=Sent'"}
		}
		m.Renamed[from] = to
	}
	return m, nil
}

func showPushed(w io.Writer, a *account, result migrate.Result, dry, verbose bool) {
	var archived, before, recognised, sent int
	var size int64
	for _, t := range result.Tallies {
		if t.Skipped == "" {
			archived, before, recognised, sent, size = archived+t.Archived, before+t.Before, recognised+t.Recognised, sent+t.Sent, size+t.SentOctets
		}
	}
	switch {
	case dry:
		fmt.Fprintf(w, "%s   would store %s; %s of %s there already\n", show(a.name), messages(sent), count(before+recognised), count(archived))
	default:
		fmt.Fprintf(w, "%s   %s of %s on the server: %s stored now, %s in %s; %s there before, of which %s recognised\n",
			show(a.name), count(before+recognised+sent), messages(archived), count(sent), octets(size), clock(result.Duration), count(before+recognised), count(recognised))
	}
	for _, t := range result.Tallies {
		to := ""
		if t.Skipped == "" && t.Mailbox != t.Folder {
			to = " -> " + show(t.Mailbox.String())
		}
		switch {
		case t.Skipped != "":
			if verbose {
				fmt.Fprintf(w, "  %s   left out: %s\n", show(t.Folder.String()), t.Skipped)
			}
		case t.Changed:
			fmt.Fprintf(w, "  %s%s   the server cannot have that name; --map chooses another\n", show(t.Folder.String()), to)
		case verbose || dry || to != "" || t.There() != t.Archived:
			fmt.Fprintf(w, "  %s%s   %s of %s\n", show(t.Folder.String()), to, count(t.There()), count(t.Archived))
		}
	}
}

func showPushedJSON(j *jsonLines, command string, a *account, result migrate.Result, err error) {
	total := object{"account": a.name, "command": command, "result": "ok", "missing": result.Missing(), "seconds": seconds(result.Duration)}
	if err != nil {
		total["result"] = "incomplete"
	}
	for _, t := range result.Tallies {
		o := folderFields(object{"account": a.name}, t.Folder)
		o["mailbox"], o["archived"], o["there_before"], o["recognised"], o["stored"], o["on_server"] = t.Mailbox.String(), t.Archived, t.Before, t.Recognised, t.Sent, t.OnServer
		o["skipped"], o["created"], o["renamed"], o["reason"], o["missing"] = t.Skipped != "", t.Created, t.Changed, t.Reason, len(t.Missing)
		j.write("folder", o)
		for _, m := range t.Missing {
			o := folderFields(object{"account": a.name, "action": "failed", "from": m.From, "subject": m.Subject, "message_id": m.MessageID, "bytes": m.Size, "reason": m.Reason}, t.Folder)
			if !m.Date.IsZero() {
				o["date"] = stamp(m.Date)
			}
			j.write("message", o)
		}
	}
	j.write("summary", total)
}

// pushSink shows what happens on the way.
type pushSink struct {
	p       *program
	c       *cli.Context
	account *account
}

func (s *pushSink) Report(e report.Event) {
	if e, ok := e.(report.Reconnecting); ok && !s.c.Bool("quiet") && !s.c.Bool("json") {
		fmt.Fprintf(s.p.Stderr, "mailstow: %s: connection lost (%s); login %d\n", show(s.account.name), show(e.Err.Error()), e.Try)
	}
}

// server opens connections to a destination.
type server struct{ account *account }

func (s *server) Look(ctx context.Context) (migrate.Destination, error) {
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

func (o outgoing) Begin() migrate.Batch { return o.Outlet.Begin() }
