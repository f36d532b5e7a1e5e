package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/maildir"
	"mailstow/migrate"
)

func (p *program) verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Category:  everyDay,
		Usage:     "prove that the archive is whole",
		ArgsUsage: "[ACCOUNT|DIR]...",
		Description: `  mailstow verify                    # every message is read and hashed again
  mailstow verify ~/mail-archive     # an archive, without config or network
  mailstow verify --subset 1/7       # a seventh of it
  mailstow verify work --against imaps://me@new.example   # and that a server has all of it

Exit status 65 says that something is damaged or missing. Files that another
program has put there are told as foreign and are no damage.`,
		Flags: slices.Concat([]cli.Flag{
			text("to", "archive `DIR`", "t"),
			yes("quick", "compare sizes, read no file"),
			text("subset", "check a `PART`: 10% (chosen by the day) or 3/7"),
			yes("accept-removed", "messages that you have removed from the archive are to stay so"),
			text("against", "also compare with the server `DESTINATION`: an account or a URL"),
			yes("full", "with --against, download each message and compare its octets"),
			yes("skip-too-big", "messages that are larger than that server takes are no failure"),
			text("report", "write summary.txt, accounts.csv, folders.csv, missing.csv and proof.json into `DIR`"),
		}, placeFlags(), pairsFlags(), wantedFlags(), loginFlags()),
		Action: p.verify,
	}
}

// parts reads a subset: "3/7" is the third of seven parts, "10%" one of ten,
// another each day.
func parts(subset string, now time.Time) (o maildir.VerifyOptions, err error) {
	bad := &usageError{text: fmt.Sprintf("--subset %s is no part", subset), hint: "write it like 10% or 3/7"}
	if percent, ok := strings.CutSuffix(subset, "%"); ok {
		n, err := strconv.ParseFloat(percent, 64)
		if err != nil || !(n > 0 && n <= 100) {
			return o, bad
		}
		o.Parts = int(100/n + 0.5)
		o.Part = int(now.Unix() / (24 * 60 * 60) % int64(o.Parts))
		return o, nil
	}
	part, of, ok := strings.Cut(subset, "/")
	n, err1 := strconv.Atoi(part)
	m, err2 := strconv.Atoi(of)
	if !ok || err1 != nil || err2 != nil || n < 1 || m < n {
		return o, bad
	}
	return maildir.VerifyOptions{Part: n, Parts: m}, nil
}

func (p *program) verify(c *cli.Context) error {
	var o maildir.VerifyOptions
	if s := c.String("subset"); s != "" {
		var err error
		if o, err = parts(s, time.Now()); err != nil {
			return err
		}
	}
	o.Quick = c.Bool("quick")
	if c.String("pairs") != "" {
		return p.verifyPairs(c, o)
	}
	at, err := p.places(c, c.Args().Slice())
	if err != nil {
		return err
	}
	if c.String("against") != "" {
		return p.verifyAgainst(c, at, o)
	}
	out := p.newVerifyOutput(c, o)
	var statuses []int
	for _, pl := range at {
		statuses = append(statuses, p.verifyOne(c, pl, o, out))
	}
	status := together(statuses)
	if slices.Contains(statuses, exitDamaged) {
		status = exitDamaged
	}
	out.finish(status)
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

func (p *program) verifyOne(c *cli.Context, pl place, o maildir.VerifyOptions, out *verifyOutput) int {
	ctx := c.Context
	if c.Bool("accept-removed") {
		if err := acceptRemoved(ctx, pl); err != nil {
			return out.failed(ctx, pl, err)
		}
	}
	ar, err := maildir.Open(ctx, pl.dir, maildir.Options{})
	if err != nil {
		return out.failed(ctx, pl, err)
	}
	defer ar.Close()
	v, err := ar.Verify(ctx, o, func(n int) { out.progress(pl, n) })
	if err != nil {
		return out.failed(ctx, pl, err)
	}
	out.verified(pl, v)
	if v.Damaged() {
		return exitDamaged
	}
	if dir, err := filepath.Abs(pl.dir); err == nil && o == (maildir.VerifyOptions{}) {
		p.noteVerified(dir, time.Now())
	}
	return exitOK
}

// verifyAgainst proves that an archive is whole, and that a server has all of
// it.
func (p *program) verifyAgainst(c *cli.Context, at []place, o maildir.VerifyOptions) error {
	if len(at) != 1 {
		return &usageError{text: "--against compares one archive with one server", hint: "name the account or its directory"}
	}
	cfg, err := p.readConfig(c)
	if err != nil {
		return err
	}
	a, err := p.destination(c, cfg, p.archiveRoot(c, cfg), c.String("against"), false)
	if err != nil {
		return err
	}
	shown := p.newOutput(c, "verify", []*account{a})
	defer shown.close()
	out := &verifyOutput{p: p, quiet: c.Bool("quiet"), o: o, started: shown.started, json: shown.json, bar: shown.progress}
	local := p.verifyOne(c, at[0], o, out)
	if local != exitOK && local != exitDamaged {
		out.finish(local)
		return &saidError{local}
	}
	r, err := p.prove(c, at[0].dir, a, shown)
	if err != nil {
		return err
	}
	if local == exitDamaged {
		r.damaged(at[0].dir)
	}
	r.unknown(out.foreign)
	return p.pushed(c, r, local, shown)
}

// prove compares an archive with a server.
func (p *program) prove(c *cli.Context, dir string, a *account, out *output) (*proof, error) {
	o, err := a.pushOptions(c, time.Now())
	if err != nil {
		return nil, err
	}
	ar, err := maildir.Open(c.Context, dir, maildir.Options{})
	if err != nil {
		return nil, archiveFailed(err)
	}
	defer ar.Close()
	outlet, err := ar.To(c.Context, a.source())
	if err != nil {
		return nil, archiveFailed(err)
	}
	result, err := migrate.Prove(c.Context, &server{account: a}, outgoing{Outlet: outlet}, &accountSink{out: out, account: a}, o, c.Bool("full"))
	return &proof{account: a, dir: dir, command: "verify", result: result, problem: pushFailed(c.Context, a, result, err)}, nil
}

func acceptRemoved(ctx context.Context, pl place) error {
	ar, err := maildir.Open(ctx, pl.dir, maildir.Options{Write: true})
	if err != nil {
		return err
	}
	_, err = ar.AcceptRemoved(ctx)
	return errors.Join(err, ar.Close())
}

// verifyOutput shows what verify finds.
type verifyOutput struct {
	p       *program
	json    *jsonLines
	quiet   bool
	o       maildir.VerifyOptions
	bar     *progress
	started time.Time
	foreign int // files that other programs have put there
}

func (p *program) newVerifyOutput(c *cli.Context, o maildir.VerifyOptions) *verifyOutput {
	out := &verifyOutput{p: p, quiet: c.Bool("quiet"), o: o, started: time.Now()}
	if c.Bool("json") {
		out.json = newJSONLines(p.Stdout)
		out.json.start(runID(out.started), "verify", nil, false, out.started)
	} else if p.terminal(p.Stderr) && !out.quiet {
		out.bar = &progress{w: p.Stderr}
	}
	return out
}

func (v *verifyOutput) progress(pl place, checked int) {
	if v.bar == nil || time.Since(v.bar.last) < 100*time.Millisecond {
		return
	}
	v.bar.last = time.Now()
	line := fmt.Sprintf("[%s]  %s  %s checked", clock(time.Since(v.started)), show(pl.name), messages(checked))
	fmt.Fprint(v.bar.w, "\r"+line)
	v.bar.drawn = width(line)
}

func (v *verifyOutput) failed(ctx context.Context, pl place, err error) int {
	pr := explain(ctx, pl.name, err)
	if v.json != nil {
		v.json.problem(object{"account": pl.name}, pr)
		return pr.status
	}
	if v.bar != nil {
		v.bar.clear()
	}
	pr.print(v.p.Stderr)
	return pr.status
}

// verified shows one archive's outcome. What is damaged goes to stdout too:
// it is what verify is asked for.
func (v *verifyOutput) verified(pl place, sum *maildir.Verified) {
	damaged := sum.Damaged()
	v.foreign = foreignIn(sum)
	if v.json != nil {
		v.verifiedJSON(pl, sum)
		return
	}
	if v.bar != nil {
		v.bar.clear()
	}
	if v.quiet && !damaged {
		return
	}
	word, proof := "ok", "all hashes match"
	if v.o.Quick {
		proof = "all sizes match (nothing was read)"
	}
	if sum.Checked < sum.Messages {
		proof = fmt.Sprintf("%s of them checked, %s", count(sum.Checked), proof)
	}
	found := map[maildir.Damage]int{}
	for _, f := range sum.Findings {
		found[f.Damage]++
	}
	if damaged {
		word = "DAMAGED"
		proof = counted(found, maildir.Changed, maildir.Missing, maildir.Unreadable)
	}
	if found[maildir.Foreign] > 0 {
		proof += "; " + counted(found, maildir.Foreign)
	}
	fmt.Fprintf(v.p.Stdout, "%s   %s   %s, %s, %s\n", show(pl.name), word, messages(sum.Messages), octets(sum.Octets), proof)
	for _, f := range sum.Findings {
		remark := ""
		if f.Err != nil {
			remark = "   " + f.Err.Error()
		}
		if f.Damage == maildir.Foreign {
			remark = "   (another program's; left alone, no damage)"
		}
		fmt.Fprintf(v.p.Stdout, "    %-10s  %s%s\n", f.Damage, show(f.File), show(remark))
	}
	if damaged {
		fmt.Fprintln(v.p.Stdout, "  do: restore these files from a copy of the archive; or move away what has changed, and get it all from the server again: mailstow backup --refetch")
		if found[maildir.Missing] > 0 {
			fmt.Fprintf(v.p.Stdout, "      if you have removed what is missing: mailstow verify --accept-removed %s\n", show(pl.dir))
		}
	}
}

// foreignIn counts files that other programs have put into an archive.
func foreignIn(sum *maildir.Verified) (n int) {
	for _, f := range sum.Findings {
		if f.Damage == maildir.Foreign {
			n++
		}
	}
	return n
}

func counted(found map[maildir.Damage]int, kinds ...maildir.Damage) string {
	var words []string
	for _, k := range kinds {
		if found[k] > 0 {
			words = append(words, fmt.Sprintf("%s %s", count(found[k]), k))
		}
	}
	return strings.Join(words, ", ")
}

func (v *verifyOutput) verifiedJSON(pl place, sum *maildir.Verified) {
	for _, f := range sum.Findings {
		v.json.write("finding", object{"account": pl.name, "finding": string(f.Damage), "folder": f.Folder, "path": f.File})
	}
	result := "ok"
	if sum.Damaged() {
		result = "damaged"
	}
	v.json.write("account_end", object{"account": pl.name, "result": result, "messages": sum.Messages, "checked": sum.Checked, "bytes": sum.Octets})
}

func (v *verifyOutput) finish(status int) {
	if v.json != nil {
		result := "ok"
		if status != exitOK {
			result = "failed"
		}
		v.json.write("summary", object{"time": stamp(time.Now()), "run": v.json.run, "exit_code": status, "result": result, "seconds": seconds(time.Since(v.started))})
	}
}
