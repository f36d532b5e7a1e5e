package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/mailbox"
	"mailstow/maildir"
	"mailstow/migrate"
)

func (p *program) migrateCommand() *cli.Command {
	return &cli.Command{
		Name:      "migrate",
		Category:  move,
		Usage:     "copy everything to another server, and prove it",
		ArgsUsage: "SOURCE DESTINATION | --pairs FILE",
		Description: `  mailstow migrate old new                              # two accounts of the config file
  mailstow migrate imaps://me@old.example imaps://me@new.example
  mailstow migrate ~/mail-archive/me@old.example new    # from the archive alone
  mailstow migrate ~/Maildir imaps://me@new.example     # Maildirs of another program
  mailstow migrate --pairs users.csv --report proof     # many accounts

A source that is a server is pulled into the archive and pushed from there at the
same time; the archive stays. Run it again at any time: what is there already is
not stored twice. Nothing is ever deleted. At the end the server's own listing
must show each message.

The list has a first line, and a line for each account:
  source,source_password,destination,destination_password,options
  imaps://me@old.example,file:old,imaps://me@new.example,cmd:pass new,exclude=Lists/**`,
		Flags: slices.Concat(pushFlags(), []cli.Flag{
			yes("new-archive", "begin a new archive where an earlier one has vanished"),
			text("via", "`PROTOCOL` of a source that has both: imap, pop3, or auto (imap)"),
		}, pairsFlags(), wantedFlags(), loginFlags()),
		Action: p.migrate,
	}
}

func (p *program) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Category:  move,
		Usage:     "put archived mail back on its server",
		ArgsUsage: "ACCOUNT|URL",
		Description: `  mailstow restore work                                 # what the server lacks
  mailstow restore work --under Restored
  mailstow restore work --trim-run 2026-11-23T03:00:07  # what that run of trim removed

What is there already is not stored twice. Nothing is ever deleted.`,
		Flags: slices.Concat(pushFlags(), []cli.Flag{
			text("trim-run", "only what the trim run `RUN` removed"),
		}, wantedFlags(), loginFlags()),
		Action: p.restore,
	}
}

func (p *program) migrate(c *cli.Context) error {
	if c.String("pairs") != "" {
		return p.migratePairs(c)
	}
	if c.NArg() != 2 {
		return &usageError{text: "migrate needs a source and a destination", hint: "mailstow migrate SOURCE DESTINATION"}
	}
	cfg, err := p.readConfig(c)
	if err != nil {
		return err
	}
	if _, err := pushOptions(c, time.Now()); err != nil {
		return err
	}
	root := p.archiveRoot(c, cfg)
	destination, err := p.destination(c, cfg, root, c.Args().Get(1), namesServer(cfg, c.Args().Get(0)))
	if err != nil {
		return err
	}
	out := p.newOutput(c, "migrate", []*account{destination})
	defer out.close()
	dir, source, err := p.sourceOf(c, cfg, root, c.Args().Get(0))
	if err != nil {
		return err
	}
	if source == nil {
		return p.pushTo(c, "migrate", dir, destination, out)
	}
	r := p.move(c, source, destination, out)
	return p.pushed(c, r, r.before(), out)
}

// move pulls from one server and pushes to another at the same time, through
// the archive.
func (p *program) move(c *cli.Context, source, destination *account, out *output) *proof {
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	r := &proof{account: destination, dir: source.dir, command: "migrate", dry: out.dryRun}
	if strings.EqualFold(source.user, destination.user) && slices.Contains(destination.servers, source.server()) {
		r.problem = &problem{
			what: fmt.Sprintf("source and destination are one account: %s on %s", source.user, source.host),
			do:   "name another destination; what was lost there: mailstow restore " + source.arg, status: exitConfig, code: "config",
		}
		return r
	}
	to := &server{account: destination}
	if err := to.now(ctx); err != nil { // before anything moves
		r.problem = pushFailed(ctx, destination, r.result, err)
		return r
	}
	defer to.close()
	if out.dryRun {
		return p.rehearse(c, r, source, to, out)
	}
	with := &beside{stop: cancel}
	with.work = func(ar *maildir.Archive, filling *migrate.Filling) {
		var err error
		r.result, err = p.pushFrom(ctx, c, "migrate", ar, to, out, filling)
		r.problem = pushFailed(ctx, destination, r.result, err)
	}
	o := p.backupOne(c, source, out, with)
	if !with.began {
		r.problem = o.problem
		return r
	}
	out.accountDone(&o)
	r.pulled = &o
	return r
}

// rehearse shows what a move would do: the source is listed, and what is not in
// the archive yet is taken as new at the destination too.
func (p *program) rehearse(c *cli.Context, r *proof, source *account, to *server, out *output) *proof {
	ctx := c.Context
	o := p.backupOne(c, source, out, nil)
	if r.problem = o.problem; r.problem != nil {
		return r
	}
	options, err := to.account.pushOptions(c, time.Now())
	var base migrate.Archive
	if err == nil && maildir.Exists(source.dir) {
		var ar *maildir.Archive
		var outlet *maildir.Outlet
		if ar, err = maildir.Open(ctx, source.dir, maildir.Options{}); err == nil {
			defer ar.Close()
			if outlet, err = ar.To(ctx, to.account.source()); err == nil {
				base = outgoing{Outlet: outlet}
			}
		}
	}
	if err == nil {
		r.result, err = migrate.Run(ctx, to, expecting(base, o.result.Tallies), &accountSink{out: out, account: to.account}, options)
	}
	for _, t := range r.result.Tallies {
		r.rough = r.rough || t.OnServer > t.Before+t.Recognised && o.result.Sum().New > 0
	}
	r.problem = pushFailed(ctx, to.account, r.result, err)
	return r
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
	out := p.newOutput(c, "restore", []*account{a})
	defer out.close()
	return p.pushTo(c, "restore", a.dir, a, out)
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
	if err := takesMail(a); err != nil {
		return nil, err
	}
	const variable = "MAILSTOW_DESTINATION_PASSWORD"
	switch {
	case a.changing || a.method == "external":
	case p.Getenv(variable) != "":
		a.password = func(context.Context) (credential.Secret, error) { return credential.NewSecret(p.Getenv(variable)), nil }
	case beside && !a.named:
		a.password = func(ctx context.Context) (credential.Secret, error) { return p.ask(ctx, c, a) }
	}
	return a, nil
}

// namesServer reports whether an argument names a server by itself: it is a URL,
// or an address that is not in the config file.
func namesServer(cfg *config.File, arg string) bool {
	if strings.Contains(arg, "://") {
		return true
	}
	if fi, err := os.Stat(arg); err == nil && fi.IsDir() {
		return false
	}
	_, configured := cfg.Account(arg)
	return strings.Contains(arg, "@") && !configured
}

// takesMail makes sure that mail can be stored on an account's server.
func takesMail(a *account) error {
	if a.protocol != mailbox.IMAP {
		return configFailed("mail cannot be stored over POP3", "name an IMAP server")
	}
	a.takes = true
	return nil
}

// sourceOf returns the archive that a source is, or is backed up into; source
// is nil if there is no server behind it.
func (p *program) sourceOf(c *cli.Context, cfg *config.File, root, arg string) (dir string, source *account, err error) {
	_, configured := cfg.Account(arg)
	if fi, err := os.Stat(arg); err == nil && fi.IsDir() && !configured && !strings.Contains(arg, "://") {
		if maildir.Exists(arg) {
			return arg, nil, nil
		}
		dir, err = p.adopt(c, root, arg)
		return dir, nil, err
	}
	if source, err = p.account(c, cfg, root, arg); err != nil {
		return "", nil, err
	}
	return source.dir, source, nil
}

// adopt makes an archive of mail that another program has filled: of a
// directory of Maildirs by putting mailstow's index beside them, of a Maildir++
// by linking its files into an archive of its own. It returns the archive's
// directory.
func (p *program) adopt(c *cli.Context, root, dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", configFailed(err.Error(), "")
	}
	switch {
	case maildir.IsMaildir(dir):
		return p.importPlus(c, root, dir)
	case !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.IsDir() && maildir.IsMaildir(filepath.Join(dir, e.Name())) }):
		return "", configFailed(dir+" is neither an archive of an account nor a directory of Maildirs", "mailstow backup makes an archive; name the account's directory in it")
	case c.Bool("dry-run"):
		return "", configFailed(dir+" is no archive yet", "without --dry-run mailstow makes one of it: an index in "+filepath.Join(dir, ".mailstow"))
	}
	return dir, begin(c, dir)
}

// begin makes an archive of a directory.
func begin(c *cli.Context, dir string) error {
	ar, err := maildir.Open(c.Context, dir, maildir.Options{Write: true, Create: true})
	if err != nil {
		return archiveFailed(err)
	}
	return ar.Close()
}

// importPlus brings an archive in step with a Maildir++.
func (p *program) importPlus(c *cli.Context, root, dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	name := strings.ReplaceAll(strings.Trim(abs, string(filepath.Separator)), string(filepath.Separator), "_")
	to := filepath.Join(root, maildir.PathOf(mailbox.NewName(name))) // home_me_Maildir
	if c.Bool("dry-run") {
		if !maildir.Exists(to) {
			return "", configFailed(dir+" is no archive yet", "without --dry-run mailstow links its files into one: "+to)
		}
		return to, nil
	}
	if inside(abs, to) {
		return "", configFailed("the archive would lie inside "+dir, "choose another place for it: --to DIR")
	}
	if _, err := maildir.Import(abs, to); errors.Is(err, maildir.ErrNotImported) {
		return "", configFailed(err.Error(), "choose another place for the archive: --to DIR")
	} else if err != nil {
		return "", archiveFailed(err)
	}
	return to, begin(c, to)
}

// inside reports whether a path lies in a directory, or is it.
func inside(dir, path string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		return true
	}
	rel, err := filepath.Rel(dir, abs)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
