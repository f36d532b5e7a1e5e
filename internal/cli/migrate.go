package cli

import (
	"context"
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
		}, wantedFlags(), loginFlags()),
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
		Flags:  slices.Concat(pushFlags(), wantedFlags(), loginFlags()),
		Action: p.restore,
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
	if _, err := pushOptions(c, time.Now()); err != nil {
		return err
	}
	root := p.archiveRoot(c, cfg)
	destination, err := p.destination(c, cfg, root, c.Args().Get(1), strings.Contains(c.Args().Get(0), "://"))
	if err != nil {
		return err
	}
	out := p.newOutput(c, "migrate", []*account{destination})
	f, err := p.fillFrom(c, cfg, root, c.Args().Get(0), out)
	if err != nil {
		return err
	}
	return p.pushTo(c, "migrate", f, destination, out)
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
	return p.pushTo(c, "restore", filled{dir: a.dir}, a, p.newOutput(c, "restore", []*account{a}))
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

// filled is an archive that is ready to be pushed.
type filled struct {
	dir    string
	pulled *outcome // how the backup before went; nil if there was none
}

// status is that of the backup.
func (f filled) status() int {
	if f.pulled == nil {
		return exitOK
	}
	return f.pulled.status()
}

// fillFrom brings the archive in step with a source, if that is a server.
func (p *program) fillFrom(c *cli.Context, cfg *config.File, root, arg string, out *output) (f filled, err error) {
	configured := cfg != nil && slices.ContainsFunc(cfg.Accounts, func(set config.Account) bool { return set.Name == arg || set.Address == arg })
	if fi, err := os.Stat(arg); err == nil && fi.IsDir() && !configured && !strings.Contains(arg, "://") {
		if maildir.Exists(arg) {
			return filled{dir: arg}, nil
		}
		return filled{dir: arg}, p.adopt(c, arg)
	}
	a, err := p.account(c, cfg, root, arg)
	if err != nil {
		return f, err
	}
	if c.Bool("dry-run") {
		if maildir.Exists(a.dir) {
			return filled{dir: a.dir}, nil // what would be stored is what is in the archive now
		}
		return f, &saidError{p.backupAll(c, []*account{a})} // there is nothing yet that could be looked for on the other server
	}
	o := p.backupOne(c, a, out)
	out.accountDone(&o)
	switch o.status() {
	case exitOK, exitIncomplete, exitLater:
		return filled{a.dir, &o}, nil
	}
	out.finish([]outcome{o}, o.status())
	return f, &saidError{o.status()}
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
