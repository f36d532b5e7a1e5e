package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/quantity"
	"mailstow/mailbox"
	"mailstow/maildir"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Category:  everyDay,
		Usage:     "when was the last good run, and what is in the archive",
		ArgsUsage: "[ACCOUNT|DIR]...",
		Description: `  mailstow status
  mailstow status --max-age 26h    # exit 3 if any account is older: for monitoring
  mailstow status --failed work    # messages that could not be fetched, and why
  mailstow status --pairs users.csv   # how far each has been moved`,
		Flags: []cli.Flag{
			text("to", "archive `DIR`", "t"),
			text("max-age", "fail if the last good run is older than `AGE` (36h, 7d)"),
			yes("failed", "list the messages that could not be fetched"),
			text("pairs", "show how far each line of `FILE` has been moved"),
			text("pairs-format", "`FORMAT` of that file: csv, toml, imapsync (default: by its name)"),
		},
		Action: p.status,
	}
}

func (p *program) status(c *cli.Context) error {
	var maxAge time.Duration
	if s := c.String("max-age"); s != "" {
		var err error
		if maxAge, err = quantity.Duration(s); err != nil {
			return &usageError{text: "--max-age: " + err.Error()}
		}
	}
	if c.String("pairs") != "" {
		return p.statusPairs(c)
	}
	at, err := p.places(c, c.Args().Slice())
	if err != nil {
		return err
	}
	var lines *jsonLines
	if c.Bool("json") {
		lines = newJSONLines(p.Stdout)
	}
	t := table{head: []string{"account", "last good run", ">age", ">in archive", ">size", ">missing", ">failed", "last run"}}
	old, gone := false, []place(nil)
	for _, pl := range at {
		var s stand
		err := open(c.Context, pl, func(ar *maildir.Archive) (err error) {
			s, err = standing(c, ar)
			return err
		})
		if err != nil && !errors.Is(err, maildir.ErrNone) { // without an archive it stands at nothing
			return fmt.Errorf("%s: %w", pl.name, err)
		}
		if dir, _ := filepath.Abs(pl.dir); err != nil && p.memory().holds(dir) {
			s.vanished = true
			gone = append(gone, pl)
		}
		s.old = maxAge > 0 && (s.good == nil || time.Since(s.good.Ended) > maxAge)
		old = old || s.old
		switch {
		case lines != nil:
			lines.write("status", s.json(pl))
			if c.Bool("failed") {
				s.failed(lines, pl)
			}
		case c.Bool("failed") && s.vanished:
		case c.Bool("failed"):
			p.showFailures(pl, s.failures)
		default:
			t.add(s.cells(pl)...)
		}
	}
	if lines == nil && !c.Bool("failed") && !c.Bool("quiet") {
		fmt.Fprint(p.Stdout, t.String())
	}
	for _, pl := range gone {
		pr := explain(c.Context, pl.name, vanished(pl.dir))
		if lines == nil {
			pr.print(p.Stderr)
		}
	}
	switch {
	case len(gone) > 0:
		return &saidError{exitConfig}
	case old:
		return &saidError{exitIncomplete}
	}
	return nil
}

// stand is how an archive stands.
type stand struct {
	last, good *maildir.Run
	failures   []maildir.Failure
	messages   int
	octets     int64
	vanished   bool // there was one
	old        bool // the last good run is longer ago than it may be
}

func standing(c *cli.Context, ar *maildir.Archive) (s stand, err error) {
	if s.last, s.good, err = ar.LastRuns(c.Context); err != nil {
		return s, err
	}
	if s.failures, err = ar.Failures(c.Context); err != nil {
		return s, err
	}
	infos, err := ar.Folders(c.Context)
	for _, f := range infos {
		s.messages, s.octets = s.messages+f.Messages, s.octets+f.Octets
	}
	return s, err
}

// word says how the last run ended.
func (s stand) word() string {
	switch {
	case s.vanished:
		return "vanished"
	case s.last == nil:
		return "never"
	case s.last.Ended.IsZero():
		return "running or killed"
	}
	return s.last.Result
}

func (s stand) cells(pl place) []string {
	ran, since, missing := "never", "-", "-"
	if s.good != nil {
		ran, since = local(s.good.Ended), ago(time.Since(s.good.Ended))
	}
	if s.old {
		since += ", too old"
	}
	if s.last != nil && !s.last.Ended.IsZero() {
		missing = count(s.last.Missing)
	}
	return []string{show(pl.name), ran, since, count(s.messages), octets(s.octets), missing, count(len(s.failures)), s.word()}
}

func (s stand) json(pl place) object {
	o := object{"account": pl.name, "messages": s.messages, "bytes": s.octets, "failed": len(s.failures), "last_result": s.word()}
	if s.old {
		o["old"] = true
	}
	if s.good != nil {
		o["last_success"] = stamp(s.good.Ended)
	}
	if s.last != nil {
		o["last_run"], o["missing"], o["on_server"] = stamp(s.last.Started), s.last.Missing, s.last.OnServer
	}
	return o
}

// failed writes what could not be fetched.
func (s stand) failed(lines *jsonLines, pl place) {
	for _, f := range s.failures {
		lines.write("message", withID(object{"account": pl.name, "folder": f.Folder, "action": "failed", "reason": f.Reason, "since": stamp(f.Since), "tries": f.Tries}, mailbox.ID(f.ID)))
	}
}

// ago shows an age in its largest unit.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

func (p *program) showFailures(pl place, failures []maildir.Failure) {
	if len(failures) == 0 {
		fmt.Fprintf(p.Stdout, "%s: no message failed at the last run\n", show(pl.name))
	}
	for _, f := range failures {
		fmt.Fprintf(p.Stdout, "%s: %s %s: %s (since %s, tried %d times)\n", show(pl.name), show(f.Folder), show(idName(mailbox.ID(f.ID))), show(f.Reason), local(f.Since), f.Tries)
	}
}
