package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"mailstow/maildir"
)

func (p *program) listCommand() *cli.Command {
	return &cli.Command{
		Name:      "list",
		Category:  lookInside,
		Usage:     "accounts, folders or messages of the archive",
		ArgsUsage: "[ACCOUNT|DIR [FOLDER]]",
		Description: `  mailstow list                      # the accounts
  mailstow list work                 # the folders of one
  mailstow list work INBOX           # the messages of a folder, newest first
  mailstow list work INBOX --paths   # their files`,
		Flags: []cli.Flag{
			text("to", "archive `DIR`", "t"),
			yes("paths", "print file names"),
			yes("null", "end names with NUL instead of a line end", "0"),
		},
		Action: p.list,
	}
}

func (p *program) list(c *cli.Context) error {
	if c.NArg() > 2 {
		return &usageError{text: "`mailstow list` takes an account and a folder"}
	}
	at, err := p.places(c, c.Args().Slice()[:min(c.NArg(), 1)])
	if err != nil {
		return err
	}
	l := &lister{p: p, end: "\n", paths: c.Bool("paths")}
	if c.Bool("null") {
		l.end = "\x00"
	}
	if c.Bool("json") {
		l.json = newJSONLines(p.Stdout)
	}
	ctx := c.Context
	switch {
	case c.NArg() == 2:
		if len(at) > 1 {
			return &usageError{text: fmt.Sprintf("%s holds several accounts", c.Args().First()), hint: "name one of them"}
		}
		return l.messages(ctx, at[0], c.Args().Get(1))
	case c.NArg() == 1 && len(at) == 1:
		return l.folders(ctx, at[0])
	}
	return l.accounts(ctx, at)
}

type lister struct {
	p     *program
	json  *jsonLines
	paths bool
	end   string // behind each file name
}

func open(ctx context.Context, pl place, f func(*maildir.Archive) error) error {
	ar, err := maildir.Open(ctx, pl.dir, maildir.Options{})
	if err != nil {
		return err
	}
	defer ar.Close()
	return f(ar)
}

func (l *lister) accounts(ctx context.Context, at []place) error {
	t := table{head: []string{"account", ">folders", ">messages", ">size", "archive"}}
	for _, pl := range at {
		err := open(ctx, pl, func(ar *maildir.Archive) error {
			infos, err := ar.Folders(ctx)
			n, size := 0, int64(0)
			for _, f := range infos {
				n, size = n+f.Messages, size+f.Octets
			}
			if l.json != nil {
				l.json.write("account", object{"account": pl.name, "path": ar.Dir(), "folders": len(infos), "messages": n, "bytes": size})
			}
			t.add(show(pl.name), count(len(infos)), count(n), octets(size), show(ar.Dir()))
			return err
		})
		if errors.Is(err, maildir.ErrNone) {
			t.add(show(pl.name), "-", "-", "-", "no backup yet")
			continue
		}
		if err != nil {
			return err
		}
	}
	l.print(t)
	return nil
}

func (l *lister) folders(ctx context.Context, pl place) error {
	t := table{head: []string{"folder", "role", ">messages", ">size", ">on server", "directory"}}
	err := open(ctx, pl, func(ar *maildir.Archive) error {
		infos, err := ar.Folders(ctx)
		for _, f := range infos {
			if l.json != nil {
				l.json.write("folder", object{"account": pl.name, "folder": f.Name, "role": f.Role, "path": f.Path, "messages": f.Messages, "bytes": f.Octets, "on_server": f.OnServer})
			}
			if l.paths && l.json == nil {
				fmt.Fprint(l.p.Stdout, filepath.Join(ar.Dir(), f.Path)+l.end)
			}
			t.add(show(f.Name), f.Role, count(f.Messages), octets(f.Octets), count(f.OnServer), show(f.Path))
		}
		return err
	})
	if err == nil && !l.paths {
		l.print(t)
	}
	return err
}

func (l *lister) messages(ctx context.Context, pl place, name string) error {
	return open(ctx, pl, func(ar *maildir.Archive) error {
		path, err := folderNamed(ctx, ar, name)
		if err != nil {
			return err
		}
		return ar.Messages(ctx, path, func(m maildir.MessageInfo) error {
			switch {
			case l.json != nil:
				l.json.write("message", object{
					"account": pl.name, "folder": name, "path": m.File, "bytes": m.Size, "sha256": fmt.Sprintf("%x", m.SHA256), "internal_date": stamp(m.InternalDate),
					"from": m.From, "subject": m.Subject, "message_id": m.MessageID, "flags": m.Flags,
				})
			case l.paths:
				fmt.Fprint(l.p.Stdout, filepath.Join(ar.Dir(), m.File)+l.end)
			default:
				fmt.Fprintf(l.p.Stdout, "%s  %9s  %-30s  %s\n", m.InternalDate.Local().Format("2006-01-02 15:04"), octets(m.Size), cut(show(m.From), 30), show(m.Subject))
			}
			return ctx.Err()
		})
	})
}

// folderNamed returns the path of the folder that the user means: by its
// name, whatever its case where that is plain, or by its directory.
func folderNamed(ctx context.Context, ar *maildir.Archive, name string) (string, error) {
	infos, err := ar.Folders(ctx)
	if err != nil {
		return "", err
	}
	like := ""
	for _, f := range infos {
		if f.Name == name || f.Path == name {
			return f.Path, nil
		}
		if strings.EqualFold(f.Name, name) {
			like = f.Path
		}
	}
	if like == "" {
		return "", configFailed(fmt.Sprintf("there is no folder %q in %s", name, ar.Dir()), "mailstow list "+ar.Dir())
	}
	return like, nil
}

func (l *lister) print(t table) {
	if l.json == nil {
		fmt.Fprint(l.p.Stdout, t.String())
	}
}

// cut shortens a text to so many columns.
func cut(s string, columns int) string {
	if width(s) <= columns {
		return s
	}
	n := 0
	for i, r := range s {
		if n += width(string(r)); n >= columns {
			return s[:i] + "…"
		}
	}
	return s
}
