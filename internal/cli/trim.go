package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/backup"
	"mailstow/internal/filter"
	"mailstow/internal/imapconn"
	"mailstow/internal/pop3conn"
	"mailstow/internal/quantity"
	"mailstow/mailbox"
	"mailstow/maildir"
	"mailstow/trim"
)

// The connections have the methods that a trim wants, too.
var (
	_ trim.Session = (*imapconn.Conn)(nil)
	_ trim.Session = (*pop3conn.Conn)(nil)
)

func (p *program) trimCommand() *cli.Command {
	return &cli.Command{
		Name:      "trim",
		Aliases:   []string{"free"},
		Category:  makeRoom,
		Usage:     "remove from a server what the archive provably holds",
		ArgsUsage: "ACCOUNT|URL...",
		Description: `  mailstow trim isp --until 80%                         # the oldest mail, down to 80% of the quota
  mailstow trim isp --older-than 1y --dry-run           # show the plan, change nothing
  mailstow trim isp --older-than 30d --yes              # for cron; also over POP3

Brings the archive up to date first. A message is removed only if its archived
copy was read back in this run, and the server's still has its size, date and
header (--paranoid: its every octet). Then the archive is its only copy: back
the archive up. Over IMAP it can be put back:
  mailstow restore isp --trim-run RUN`,
		Flags: slices.Concat([]cli.Flag{
			text("to", "archive `DIR`; each account gets a directory in it", "t"),
			text("older-than", "only mail older than `AGE`: 36h 90d 12w 6mo 1y, or a day: 2024-01-31"),
			text("until", "the oldest first, until no more than `SIZE|PERCENT` is used"),
			text("quota", "`SIZE` of the mailbox, where the server does not tell"),
			text("larger-than", "only messages over `SIZE`"),
			yes("dry-run", "show the plan, change nothing", "n"),
			yes("yes", "do not ask; needed without a terminal", "y"),
			text("max-delete", "refuse to remove more than `N|PERCENT` of the messages (with --yes: 25%)"),
			text("keep-newer-than", "never remove mail newer than `AGE` (default: 30d)"),
			yes("include-flagged", "remove flagged mail too"),
			yes("include-unread", "remove unread mail too; drafts are always kept"),
			yes("include-synced", "remove mail too whose files mbsync or a server keeps in step; first stop that, or it removes them"),
			yes("trash", "move to the trash instead"),
			yes("paranoid", "download every message again and compare it"),
			text("via", "`PROTOCOL` of an account that has both: imap, pop3, or auto (imap)"),
			number("connections", "`N` connections for the backup (default: 4, over POP3 1)", 0),
			text("bwlimit", "read at most `SIZE` a second from an account"),
		}, folderFlags(), loginFlags()),
		Action: p.trim,
	}
}

// trimming is how one account is trimmed, and how that went.
type trimming struct {
	account *account
	options trim.Options
	most    int     // messages that may be removed; -1 for any number
	percent float64 // or this part of them; 0 for any
	before  []string

	dir      string
	result   trim.Result
	undo     string // the list of what was removed; "" if nothing was
	run      string // its name
	problems []*problem
	shown    bool // the plan
	begun    bool // see outcome
}

func (p *program) trim(c *cli.Context) error {
	if c.NArg() == 0 {
		return &usageError{text: "trim needs an account", hint: "mailstow trim ACCOUNT --older-than 1y"}
	}
	if !c.Bool("yes") && !c.Bool("dry-run") && !p.mayAsk(c) {
		return &usageError{text: "trim asks before it removes anything, and there is nobody to ask", hint: "add --yes, or --dry-run to see the plan"}
	}
	p.changing = true
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	var all []*trimming
	for _, a := range accounts {
		t := &trimming{account: a, dir: a.dir}
		if a.broken == nil {
			if t, err = trimOptions(c, a, time.Now()); err != nil {
				return err
			}
		}
		all = append(all, t)
	}
	out := p.newOutput(c, "trim", accounts)
	defer out.close()
	night := p.nightWatch(c, out)
	out.watched(night)
	var statuses []int
	var outcomes []outcome
	for _, t := range all {
		check := p.checkOf(c, t.account, out)
		p.trimOne(c, t, out)
		out.trimmed(t)
		statuses, outcomes = append(statuses, t.status()), append(outcomes, t.outcome())
		check.end(outcomes[len(outcomes)-1:], t.status())
		if c.Context.Err() != nil {
			break
		}
	}
	status := together(statuses)
	out.trimsDone(all, status)
	night.end(outcomes, status)
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

// trimOptions reads what is to be removed from an account.
func trimOptions(c *cli.Context, a *account, now time.Time) (t *trimming, err error) {
	set := a.trim
	t = &trimming{account: a, dir: a.dir, most: -1, before: set.Before}
	o := &t.options
	o.DryRun, o.Paranoid = c.Bool("dry-run"), c.Bool("paranoid")
	o.Flagged, o.Unread, o.Trash = c.Bool("include-flagged") || set.IncludeFlagged, c.Bool("include-unread") || set.IncludeUnread, c.Bool("trash") || set.Trash
	o.Synced = c.Bool("include-synced") || set.IncludeSynced
	inner := a.filter
	a.filter = func(now time.Time) filter.Filter { // the backup is of all mail, old or not
		f := inner(now)
		f.Before, f.NotBefore = time.Time{}, time.Time{}
		return f
	}
	o.Filter = a.filter(now)
	for _, age := range []struct {
		option, usual string
		moment        *time.Time
	}{{"older-than", set.OlderThan, &o.OlderThan}, {"keep-newer-than", first(a.keepNewer, "30d"), &o.KeepSince}} {
		if s := first(c.String(age.option), age.usual); s != "" {
			if *age.moment, err = quantity.Before(now, s); err != nil {
				return nil, &usageError{text: "--" + age.option + ": " + err.Error()}
			}
		}
	}
	if c.String("until") == "" && (c.String("older-than") != "" || c.String("larger-than") != "") {
		set.Until = "" // the command line says what is to go
	} else if c.String("until") != "" && c.String("older-than") == "" {
		o.OlderThan = time.Time{}
	}
	if s := first(c.String("until"), set.Until); s != "" {
		if o.Until.Octets, o.Until.Percent, err = quantity.SizeOrPercent(s); err != nil {
			return nil, &usageError{text: "--until: " + err.Error()}
		}
	}
	if s := first(c.String("quota"), set.Quota); s != "" {
		if o.Quota, err = quantity.Size(s); err != nil {
			return nil, &usageError{text: "--quota: " + err.Error()}
		}
	}
	if o.LargerThan, err = size(c, "larger-than", 0); err != nil {
		return nil, err
	}
	most := first(c.String("max-delete"), set.MaxDelete)
	if most == "" && c.Bool("yes") {
		most = "25%"
	}
	if most != "" {
		if t.most, t.percent, err = quantity.CountOrPercent(most); err != nil {
			return nil, &usageError{text: "--max-delete: " + err.Error()}
		}
	}
	if o.OlderThan.IsZero() && o.LargerThan == 0 && o.Until == (trim.Goal{}) {
		return nil, &usageError{text: a.name + ": nothing says what is to be removed", hint: "--older-than 1y, or --until 80%, or [accounts.NAME.trim] in the config file"}
	}
	return t, nil
}

// status is the exit status for the account: of several problems, that of
// what is not safe.
func (t *trimming) status() int {
	status := exitOK
	for _, pr := range t.problems {
		switch {
		case pr.status >= 128 || pr.status == exitDamaged && status < 128:
			status = pr.status
		case status == exitOK:
			status = pr.status
		}
	}
	return status
}

// word is the outcome in one word.
func (t *trimming) word() string {
	o := outcome{problem: t.worst()}
	return o.word()
}

// outcome is how it went, with the backup that came before.
func (t *trimming) outcome() outcome {
	r := &t.result
	o := outcome{account: t.account, dir: t.dir, result: t.options.Backup, problem: t.worst(), begun: t.begun, ended: time.Now(), quota: r.Quota}
	if o.used = r.Used; r.Measured {
		o.used = r.UsedNow
	}
	return o
}

// worst is the problem that decides the exit status, nil if there is none.
func (t *trimming) worst() *problem {
	for _, pr := range t.problems {
		if pr.status == t.status() {
			return pr
		}
	}
	return nil
}

// trimOne backs an account up and makes room on its server.
func (p *program) trimOne(c *cli.Context, t *trimming, out *output) {
	a := t.account
	o := p.backupOne(c, a, out, nil)
	t.begun = o.begun
	if o.dir != "" {
		t.dir = o.dir
	}
	if o.problem != nil && o.problem.status != exitIncomplete {
		t.problems = append(t.problems, o.problem)
		return
	}
	out.broughtUp(&o)
	if o.problem != nil {
		t.problems = append(t.problems, o.problem)
	}
	t.options.Backup = o.result
	err := p.removeFrom(c, t, out)
	t.problems = append(t.problems, trimFailed(c.Context, t, err)...)
}

// removeFrom opens the archive and lets the engine work.
func (p *program) removeFrom(c *cli.Context, t *trimming, out *output) error {
	ctx, a := c.Context, t.account
	ar, err := maildir.Open(ctx, t.dir, maildir.Options{Write: !out.dryRun})
	if err != nil {
		if out.dryRun && errors.Is(err, maildir.ErrNone) {
			return configFailed("there is no archive yet, so nothing can be removed", "mailstow backup "+a.arg)
		}
		return archiveFailed(err)
	}
	defer ar.Close()
	in, err := ar.From(ctx, a.source())
	if err != nil {
		return archiveFailed(err)
	}
	started := time.Now()
	list := &removals{Intake: in, undo: in.Undo(started)}
	o := t.options
	o.Confirm = func(ctx context.Context, plan *trim.Plan) error { return p.confirm(ctx, c, t, plan, out) }
	login := &login{account: a}
	defer login.close()
	open := func(ctx context.Context) (trim.Session, error) {
		conn, err := login.connect(ctx)
		if err != nil {
			return nil, err
		}
		return conn.(trim.Session), nil
	}
	run := func() (err error) {
		t.result, err = trim.Run(ctx, open, list, &accountSink{out: out, account: a}, o)
		return err
	}
	if out.dryRun {
		err := run()
		return errors.Join(err, t.tooMany(&t.result.Plan))
	}
	record := maildir.Run{Command: "trim", Source: a.source(), Started: started, Result: "ok"}
	number, err := ar.BeginRun(ctx, record)
	if err != nil {
		return archiveFailed(err)
	}
	runErr := run()
	if t.run = list.undo.Name(); t.run != "" {
		t.undo = list.undo.Path()
	}
	closeErr := list.undo.Close()
	record.Ended, record.OnServer = time.Now(), t.result.Messages-t.result.Removed
	if runErr != nil {
		record.Result, record.Reason = "incomplete", runErr.Error()
	}
	if errors.As(runErr, new(*trim.ArchiveError)) {
		ar.Abandon()
		return runErr
	}
	if err := errors.Join(closeErr, ar.EndRun(context.WithoutCancel(ctx), number, record), ar.Close()); err != nil && runErr == nil {
		return archiveFailed(err)
	}
	return runErr
}

// removals gives the engine its interface.
type removals struct {
	*maildir.Intake
	undo *maildir.Undo
}

func (r *removals) EachCopy(ctx context.Context, m mailbox.Mailbox, fn func(mailbox.ID, trim.Copy)) error {
	return r.Intake.EachCopy(ctx, m, func(id mailbox.ID, c maildir.Copy) { fn(id, trim.Copy(c)) })
}

func (r *removals) ReadBack(ctx context.Context, messages []int64, progress func(int64)) (map[int64]trim.Doubt, error) {
	found, err := r.Intake.ReadBack(ctx, messages, progress)
	doubts := map[int64]trim.Doubt{}
	for n, d := range found {
		doubts[n] = trim.Doubt(d)
	}
	return doubts, err
}

func (r *removals) Doom(m mailbox.Mailbox, doomed []trim.Doomed) error {
	var all []maildir.Doomed
	for _, d := range doomed {
		all = append(all, maildir.Doomed{Message: d.Message, Copy: maildir.Copy(d.Copy)})
	}
	return r.undo.Add(m, all)
}

func (r *removals) Became(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID, why map[mailbox.ID]string, unmarked bool) error {
	var gone []mailbox.ID
	for _, id := range ids {
		if _, left := why[id]; !left {
			gone = append(gone, id)
		}
	}
	return errors.Join(r.undo.Note(m, ids, why, unmarked), r.Intake.Removed(ctx, m, gone))
}

// confirm shows the plan and asks; then it runs what has to succeed before
// anything is removed.
func (p *program) confirm(ctx context.Context, c *cli.Context, t *trimming, plan *trim.Plan, out *output) error {
	out.plan(t, plan)
	if err := t.tooMany(plan); err != nil {
		return err
	}
	if !c.Bool("yes") {
		if err := p.askName(c, t, plan); err != nil {
			return err
		}
	}
	if len(t.before) == 0 {
		return nil
	}
	out.say(fmt.Sprintf("%s: running the command that has to succeed first...", show(t.account.name)))
	cmd := exec.CommandContext(ctx, t.before[0], t.before[1:]...)
	cmd.Stdout, cmd.Stderr = p.Stderr, p.Stderr
	cmd.Env = append(os.Environ(), "MAILSTOW_ARCHIVE_DIR="+t.dir)
	if err := cmd.Run(); err != nil {
		return &problemError{problem: problem{
			what: "nothing was deleted: the command `before` failed: " + err.Error(),
			do:   "see what it says; it is in [accounts." + t.account.name + ".trim] of the config file", status: exitFailure, code: "before_failed",
		}}
	}
	return nil
}

// tooMany returns an error if a plan removes more than --max-delete allows.
func (t *trimming) tooMany(plan *trim.Plan) error {
	if t.most < 0 && t.percent == 0 {
		return nil
	}
	listed := 0
	for _, f := range plan.Folders {
		listed += f.OnServer
	}
	total, most := max(plan.Messages, listed), t.most
	if t.percent > 0 {
		most = int(t.percent / 100 * float64(total))
	}
	if plan.Delete <= most {
		return nil
	}
	return &problemError{problem: problem{
		what: fmt.Sprintf("nothing was deleted: the plan deletes %s of %s, more than --max-delete allows (%s)", count(plan.Delete), messages(total), count(most)),
		do:   "look at the plan with --dry-run; if it is right, raise --max-delete", status: exitIncomplete, code: "max_delete",
	}}
}

// askName has the person at the terminal type the account's name.
func (p *program) askName(c *cli.Context, t *trimming, plan *trim.Plan) error {
	p.asking.Lock()
	defer p.asking.Unlock()
	tty, err := p.person(c)
	if err != nil {
		return configFailed("nothing was deleted: there is nobody to ask", "add --yes")
	}
	defer tty.Close()
	from := "from"
	if plan.ToTrash {
		from = "to the trash of"
	}
	name, err := tty.line(c.Context, fmt.Sprintf("\nType the account name to %s %s %s %s: ", planWord(plan), messages(plan.Delete), from, show(t.account.host)))
	switch {
	case c.Context.Err() != nil:
		return err
	case name != t.account.name:
		return &problemError{problem: problem{what: "nothing was deleted: the name was not typed", status: exitFailure, code: "not_confirmed"}}
	}
	return nil
}

// trimFailed makes problems of how a run ended.
func trimFailed(ctx context.Context, t *trimming, err error) (all []*problem) {
	a := t.account
	for _, f := range t.result.Folders {
		for _, pr := range folderProblems(a, f) {
			pr.account = a.name
			all = append(all, &pr)
		}
	}
	if ctx.Err() != nil {
		pr := explain(ctx, a.name, err)
		return append(all, &pr)
	}
	for _, err := range joined(err) {
		if errors.Is(err, trim.ErrUnsafe) || errors.Is(err, trim.ErrNotRemoved) {
			continue // it has been told above
		}
		pr := explainTrim(ctx, t, err)
		pr.account = a.name
		all = append(all, &pr)
	}
	return all
}

// joined returns the errors of which one was made.
func joined(err error) (all []error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range several.Unwrap() {
			all = append(all, joined(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// folderProblems says what was not removed from a mailbox, and why.
func folderProblems(a *account, f *trim.Folder) (all []problem) {
	name := f.Mailbox.String()
	nothing := "nothing was deleted"
	if f.Removed > 0 {
		nothing = fmt.Sprintf("stopped after %s", messages(f.Removed))
	}
	if f.Why != "" {
		all = append(all, problem{what: fmt.Sprintf("%s: %s: %s", name, nothing, f.Why), do: "nothing now; the next run looks again", status: exitDamaged, code: "not_in_archive"})
	}
	if n := len(f.Unsafe); n > 0 {
		pr := problem{what: fmt.Sprintf("%s: %s: %s of %s not safe in the archive", name, nothing, count(n), are(f.Chosen)), status: exitDamaged, code: "not_in_archive"}
		for _, r := range f.Unsafe {
			where := idName(r.ID)
			if r.File != "" {
				where, pr.code = r.File, "damaged"
			}
			pr.details = append(pr.details, fmt.Sprintf("message: %s  %s", where, r.Text))
		}
		pr.details = someOf(pr.details, "mailstow verify "+a.arg)
		pr.why = "the server has another message than the archive"
		pr.do = "compare the two; nothing is deleted from this folder before they are the same"
		if pr.code == "damaged" {
			pr.why = "the file changed or the disk is failing"
			pr.do = "move the file away, then: mailstow backup " + a.arg + " --refetch   (the server still has the message)"
		}
		if slices.ContainsFunc(f.Unsafe, func(r trim.Remark) bool { return r.Gone }) {
			pr.why = "it was whole until it was removed from the server: another program keeps the archive in step with the server, or the server serves the archive"
			pr.do = "take it from a backup of the archive, and keep that program from the archive"
		}
		all = append(all, pr)
	}
	if n := f.StillMarked; n > 0 {
		all = append(all, problem{what: fmt.Sprintf("%s: %s may still be marked as deleted, so that another program could remove them", name, messages(n)), do: "run it again: that takes the marks back, or finishes", status: exitIncomplete, code: "marked"})
	}
	if f.Refused != "" {
		all = append(all, problem{what: fmt.Sprintf("%s: %s: the server does not allow it", name, nothing), server: f.Refused, do: "nothing now, it is tried again on every run", status: exitIncomplete, code: "not_removed"})
	}
	if n := len(f.Left); n > 0 {
		pr := problem{what: fmt.Sprintf("%s: %s still on the server, although it was told to remove them", name, are(n)), server: f.Left[0].Text, do: "nothing now, it is tried again on every run", status: exitIncomplete, code: "not_removed"}
		for _, r := range f.Left {
			pr.details = append(pr.details, fmt.Sprintf("message: %s, %s", idName(r.ID), octets(r.Size)))
		}
		pr.details = someOf(pr.details, "mailstow list")
		all = append(all, pr)
	}
	if lost := f.Others - f.OthersArchived; lost > 0 {
		all = append(all, problem{
			what:   fmt.Sprintf("%s: %s gone that nobody asked to remove; %s of them not in the archive", name, are(f.Others), count(lost)),
			why:    "the server removed more than it was told to, or another program did at the same time",
			do:     "ask whoever runs the server before you trim again",
			status: exitDamaged, code: "count_mismatch",
		})
	}
	return all
}

// explainTrim makes a problem of what ended a run.
func explainTrim(ctx context.Context, t *trimming, err error) problem {
	a := t.account
	var short *trim.ShortError
	var way *trim.NoWayError
	var disk *trim.ArchiveError
	switch {
	case errors.As(err, &short):
		return shortOf(t, short)
	case errors.As(err, &way):
		pr := problem{what: "nothing was deleted: " + err.Error(), why: "it would also remove what other programs have marked as deleted", do: "trim is not possible on this server; make room with a mail program", status: exitConfig, code: "config"}
		if way.Move {
			pr.do = "--trash moves the messages to the trash instead"
		}
		return pr
	case errors.Is(err, trim.ErrNoTrash):
		return problem{what: "nothing was deleted: " + err.Error(), why: "it names no folder as its trash (\\Trash), or cannot move messages (MOVE)", do: "leave --trash out, or make room with a mail program", status: exitConfig, code: "config"}
	case errors.Is(err, trim.ErrNoQuota):
		return problem{what: "nothing was deleted: " + err.Error() + " altogether", do: "--quota SIZE, or --until SIZE in place of a percentage", status: exitConfig, code: "config"}
	case errors.As(err, &disk):
		pr := explain(ctx, a.name, &backup.ArchiveError{Err: disk.Err})
		pr.do = "see that the disk is there and can be written; what has not been proven was not removed"
		return pr
	case errors.As(err, new(*problemError)) || errors.As(err, new(*backup.ArchiveError)):
		return explain(ctx, a.name, err)
	}
	return explain(ctx, a.name, &serverError{err})
}

// shortOf says why there is not as much room as there was to be.
func shortOf(t *trimming, short *trim.ShortError) problem {
	r := &t.result
	used := r.After()
	if r.Measured && !t.options.DryRun {
		used = r.UsedNow
	}
	pr := problem{
		what:   fmt.Sprintf("the target is not reached: %s used, %s wanted", octets(used), octets(r.Goal)),
		status: exitIncomplete, code: "target_not_reached",
	}
	kept := r.Kept()
	pr.why = fmt.Sprintf("only %s may be deleted", octets(short.Old))
	if kept[trim.Recent]+kept[trim.TooYoung] > 0 {
		pr.why = fmt.Sprintf("only %s are old enough", octets(short.Old))
	}
	if text := keptBecause(kept); text != "" {
		pr.why += "; kept: " + text
	}
	pr.do = "nothing, if that is right; else --keep-newer-than, --older-than, --include-flagged or --include-unread"
	return pr
}
