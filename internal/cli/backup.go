package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"mailstow/backup"
	"mailstow/internal/filter"
	"mailstow/internal/fingerprint"
	"mailstow/internal/quantity"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
	"mailstow/maildir"
)

func (p *program) backupCommand() *cli.Command {
	return &cli.Command{
		Name:      "backup",
		Category:  everyDay,
		Usage:     "copy mail from a server into the archive",
		ArgsUsage: "[ACCOUNT|URL]...",
		Description: `  mailstow backup imaps://me@mail.example.org --to ~/mail-archive
  mailstow backup pop3s://me@mail.example.org   # an inbox over POP3
  mailstow backup                               # every account in the config file

Run it again at any time: it goes on where it stopped and copies only what is
missing. Nothing is ever deleted, neither on the server nor in the archive.`,
		Flags: slices.Concat([]cli.Flag{
			text("to", "archive `DIR`; each account gets a directory in it", "t"),
			yes("dry-run", "show what would be copied, change nothing", "n"),
			yes("new-archive", "begin a new archive where an earlier one has vanished"),
			text("via", "`PROTOCOL` of an account that has both: imap, pop3, or auto (imap)"),
			yes("refetch", "get again what you removed from the archive"),
			yes("watch", "stay, and copy new mail when the server tells of it (IDLE)"),
			duration("every", "stay, and look at everything again after `TIME`", 0),
			number("jobs", "`N` accounts at the same time", 4),
			number("connections", "`N` connections to an account at the same time (default: 4, over POP3 1)", 0),
			text("bwlimit", "read at most `SIZE` a second from an account"),
			text("max-transfer", "stop after `SIZE` of mail; the next run goes on"),
			duration("max-duration", "stop after `TIME`; the next run goes on", 0),
		}, wantedFlags(), loginFlags()),
		Action: p.backup,
	}
}

// archive gives the engine its interface.
type archive struct{ *maildir.Intake }

func (a archive) Begin() backup.Batch { return batch{a.Intake.Begin()} }

func (a archive) Stage(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, content io.Reader) (backup.Staged, error) {
	return a.Intake.Stage(ctx, m, msg, content)
}

func (a archive) Copy(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64) (backup.Staged, error) {
	s, err := a.Intake.Copy(ctx, m, msg, archived)
	if s == nil {
		return nil, err
	}
	return s, err
}

type batch struct{ *maildir.Batch }

func (b batch) Add(s backup.Staged, note string) { b.Batch.Add(s.(*maildir.Staged), note) }

// nothing is the archive of a dry run where there is none yet. It has no
// method that writes.
type nothing struct{ backup.Archive }

func (nothing) Path(m mailbox.Mailbox) string { return maildir.PathOf(m.Name) }

func (nothing) Standing(context.Context, mailbox.Mailbox) (mailbox.Standing, error) {
	return mailbox.Standing{}, nil
}

func (nothing) Known(context.Context, mailbox.Mailbox, []mailbox.ID) (map[mailbox.ID]mailbox.Kept, error) {
	return nil, nil
}

func (nothing) EachKnown(context.Context, mailbox.Mailbox, func(mailbox.ID, mailbox.Kept)) error {
	return nil
}

func (nothing) Unclaimed(context.Context, mailbox.Mailbox, func(mailbox.ID, bool) bool) ([]fingerprint.Candidate, error) {
	return nil, nil
}

func (nothing) Holding(context.Context, []string) (map[string]int64, error) { return nil, nil }

func (nothing) Former(func(string) bool) []string { return nil }

func (nothing) InArchive(context.Context, mailbox.Mailbox) (int, error) { return 0, nil }

func (p *program) backup(c *cli.Context) error {
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	if c.Bool("watch") || c.IsSet("every") {
		return p.stay(c, accounts)
	}
	status := p.backupAll(c, accounts)
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

// backupAll backs accounts up once, tells how that went, and returns the exit
// status.
func (p *program) backupAll(c *cli.Context, accounts []*account) (status int) {
	out := p.newOutput(c, "backup", accounts)
	defer out.close()
	night := p.nightWatch(c, out)
	out.watched(night)
	outcomes := p.pullAll(c, accounts, out)
	status = statusOf(outcomes)
	out.finish(outcomes, status)
	night.end(outcomes, status)
	return status
}

// pullAll works on accounts, some at the same time, and tells how each went.
func (p *program) pullAll(c *cli.Context, accounts []*account, out *output) []outcome {
	outcomes := make([]outcome, len(accounts))
	var g errgroup.Group
	g.SetLimit(max(c.Int("jobs"), 1))
	for i, a := range accounts {
		g.Go(func() error {
			check := p.checkOf(c, a, out)
			outcomes[i] = p.backupOne(c, a, out, nil)
			out.accountDone(&outcomes[i])
			check.end(outcomes[i:i+1], outcomes[i].status())
			return nil
		})
	}
	g.Wait()
	return outcomes
}

// outcome is how one account's run ended.
type outcome struct {
	account *account
	dir     string // absolute
	begun   bool   // those who keep watch have been told so
	ended   time.Time
	result  report.Result
	found   maildir.Found
	problem *problem // nil if all is well

	refetched bool // what was removed was to come again

	beside *beside // what goes on beside it, nil for nothing

	used, quota int64 // octets, where a trim has asked; 0 if they are not known
}

func (o *outcome) status() int {
	if o.problem == nil {
		return exitOK
	}
	return o.problem.status
}

// word is the outcome in one word, as people and scripts read it.
func (o *outcome) word() string {
	switch s := o.status(); {
	case s == exitOK:
		return "ok"
	case s == exitIncomplete:
		return "incomplete"
	case o.problem.code == "locked", o.problem.code == stuck:
		return "skipped"
	case s == exitLater:
		return "paused"
	case s >= 128:
		return "interrupted"
	}
	return "failed"
}

// statusOf makes one exit status of several: theirs if all failed in the same
// way, else 'incomplete'.
func statusOf(outcomes []outcome) int {
	var statuses []int
	for i := range outcomes {
		statuses = append(statuses, outcomes[i].status())
	}
	return together(statuses)
}

// together is the status of a command whose accounts ended with these.
func together(statuses []int) int {
	status := statuses[0]
	for _, s := range statuses {
		if s >= 128 {
			return s
		}
		if s != status {
			status = exitIncomplete
		}
	}
	return status
}

// backupOne backs up one account. with is what goes on beside that, nil for
// nothing.
func (p *program) backupOne(c *cli.Context, a *account, out *output, with *beside) (o outcome) {
	ctx := c.Context
	o.account, o.beside = a, with
	err := p.pull(ctx, c, a, out, &o)
	o.ended = time.Now()
	for _, text := range a.alerts.untold() {
		out.warn(a, "the server says: "+text)
	}
	if err != nil {
		pr := explain(ctx, a.name, err)
		if pr.code == diskFull {
			pr.noRoom(o.dir, err)
		}
		if pr.code == "not_reachable" && a.perhaps != "" && !errors.As(err, new(*problemError)) {
			pr.do = fmt.Sprintf("if %s is your mail address: mailstow %s %s   (its server is looked up)", a.perhaps, c.Command.Name, a.perhaps)
		}
		o.problem = &pr
	}
	return o
}

// pull opens the archive and lets the engine fill it.
func (p *program) pull(ctx context.Context, c *cli.Context, a *account, out *output, o *outcome) error {
	if a.broken != nil {
		return a.broken
	}
	var err error
	if o.dir, err = filepath.Abs(a.dir); err != nil {
		return err
	}
	memory, dry := p.memory(), out.dryRun
	if memory.vanished(o.dir) && !c.Bool("new-archive") {
		return vanished(o.dir)
	}
	login := &login{account: a}
	defer login.close()
	if a.insecure {
		out.warn(a, "password and mail go over the network in plain text")
	}
	if a.protocol == mailbox.POP3 && (a.host == "pop.gmail.com" || a.host == "pop.googlemail.com") {
		out.warn(a, "over POP3 Gmail shows a part of the mail, and other parts another time; imaps://imap.gmail.com has all of it")
	}
	if !maildir.Exists(o.dir) {
		if err := login.now(ctx); err != nil { // nothing is made for a name that was mistyped
			return err
		}
		if dry {
			return p.runEngine(c, a, login, nothing{}, -1, out, o)
		}
	}
	ar, err := maildir.Open(ctx, o.dir, maildir.Options{Write: !dry, Create: true, Others: out.sharers - 1})
	if err != nil {
		return archiveFailed(err)
	}
	defer ar.Close()
	o.begun = true
	out.working(a)
	o.found, o.refetched = ar.Found(), c.Bool("refetch")
	in, err := ar.From(ctx, a.source())
	if err != nil {
		return archiveFailed(err)
	}
	if dry {
		return p.runEngine(c, a, login, archive{in}, -1, out, o)
	}
	left, spent, err := downloadLeft(ctx, ar, a, time.Now())
	switch {
	case err != nil:
		return archiveFailed(err)
	case left == 0:
		if err := login.now(ctx); err != nil { // what is wrong must not wait for another day
			return err
		}
		return &problemError{problem: problem{what: "what may be read in a day has been read", why: spent, do: "nothing; a later run goes on", status: exitLater, code: "daily_limit"}}
	}
	if err := memory.remember(o.dir, ar.ID()); err != nil {
		out.warn(a, "the archive cannot be remembered, so its disappearance would not be noticed: "+err.Error())
	}
	if p.notify.MetricsFile != "" {
		if err := login.measure(ctx, o); err != nil {
			return err
		}
	}
	o.beside.start(ar)
	err = recorded(ctx, ar, a, o, func() error { return p.runEngine(c, a, login, archive{in}, left, out, o) })
	o.beside.wait(err)
	if errors.As(err, new(*backup.ArchiveError)) {
		ar.Abandon() // the next run looks for what this one left
		return err
	}
	if closeErr := ar.Close(); closeErr != nil && err == nil {
		err = archiveFailed(closeErr)
	}
	return err
}

// recorded notes in the archive how a run went.
func recorded(ctx context.Context, ar *maildir.Archive, a *account, o *outcome, run func() error) error {
	record := maildir.Run{Command: "backup", Source: a.source(), Started: time.Now(), Result: "ok"}
	number, err := ar.BeginRun(ctx, record)
	if err != nil {
		return archiveFailed(err)
	}
	runErr := run()
	sum := o.result.Sum()
	record.Ended, record.New, record.NewOctets, record.OnServer, record.Missing = time.Now(), sum.New, sum.Octets, sum.OnServer, o.result.Missing()
	switch {
	case runErr == nil:
	case errors.As(runErr, new(*backup.ArchiveError)):
		return runErr
	case errors.As(runErr, new(*backup.PausedError)) && !errors.Is(runErr, backup.ErrIncomplete):
		record.Result, record.Reason = "paused", runErr.Error()
	case errors.Is(runErr, backup.ErrIncomplete):
		record.Result, record.Reason = "incomplete", runErr.Error()
	case ctx.Err() != nil:
		record.Result, record.Reason = "interrupted", runErr.Error()
	default:
		record.Result, record.Reason = "failed", runErr.Error()
	}
	if err := ar.EndRun(context.WithoutCancel(ctx), number, record); err != nil && runErr == nil {
		return archiveFailed(err)
	}
	return runErr
}

// login makes connections to an account's server.
type login struct {
	account *account

	mu    sync.Mutex
	open  func(context.Context) (backup.Source, error) // nil until the password is known
	first backup.Source                                // made before it was needed; nil once it is used
}

// firstLogins is how often a login is tried before there is an archive.
const firstLogins = 3

// now logs in, for the first connection that is asked for.
func (l *login) now(ctx context.Context) (err error) {
	for try := 1; ; try++ {
		if l.first, err = l.connect(ctx); err == nil {
			return nil
		}
		if try == firstLogins || retry.IsPermanent(err) || ctx.Err() != nil {
			return &serverError{err}
		}
		if err := retry.Pause(ctx, time.Second, try); err != nil {
			return err
		}
	}
}

// measured is a source that can tell how full the account is.
type measured interface {
	Usage(context.Context, []mailbox.Mailbox) (mailbox.Usage, error)
}

// measure asks how full the account is, over the first connection. Without an
// answer that is not known: the run tries again to connect.
func (l *login) measure(ctx context.Context, o *outcome) error {
	limit, _ := quantity.Size(l.account.trim.Quota)
	if l.account.protocol == mailbox.POP3 && limit == 0 {
		return nil
	}
	src, err := l.connect(ctx)
	if retry.IsPermanent(err) {
		return &serverError{err}
	} else if err != nil {
		return nil
	}
	u, err := src.(measured).Usage(ctx, nil)
	if err != nil {
		src.Close(false)
		return nil
	}
	l.mu.Lock()
	l.first = src
	l.mu.Unlock()
	switch {
	case u.Quota > 0:
		o.used, o.quota = u.Used, u.Quota
	case limit > 0:
		o.used, o.quota = u.Sizes, limit
	}
	return nil
}

// connect returns a connection. It may be called from several goroutines.
func (l *login) connect(ctx context.Context) (backup.Source, error) {
	open, src, err := l.prepare(ctx)
	if src != nil || err != nil {
		return src, err
	}
	return open(ctx)
}

// prepare finds out how to connect, or returns a connection that was made
// already.
func (l *login) prepare(ctx context.Context) (open func(context.Context) (backup.Source, error), made backup.Source, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if made = l.first; made != nil {
		l.first = nil
		return nil, made, nil
	}
	if l.open == nil || l.account.changing {
		secret, err := l.account.secret(ctx)
		if err != nil {
			return nil, nil, err
		}
		l.open = l.account.open(secret)
	}
	return l.open, nil, nil
}

// forget has the account asked again for its password at the next login.
func (l *login) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = nil
}

func (l *login) close() {
	if l.first != nil {
		l.first.Close(false)
	}
}

// archiveFailed marks an error of the disk, unless it says what it is.
func archiveFailed(err error) error {
	if errors.As(err, new(*maildir.LockedError)) || errors.Is(err, maildir.ErrNewer) || errors.Is(err, maildir.ErrNone) {
		return err
	}
	return &backup.ArchiveError{Err: err}
}

// runEngine lets the engine work. left is how many octets may come, -1 for any
// number.
func (p *program) runEngine(c *cli.Context, a *account, l *login, ar backup.Archive, left int64, out *output, o *outcome) (err error) {
	most, budget := a.transfer, left > 0 && (a.transfer == 0 || left < a.transfer)
	if budget {
		most = left
	}
	sink := &accountSink{out: out, account: a, beside: o.beside}
	o.result, err = backup.Run(c.Context, l.connect, ar, sink, backup.Options{
		DryRun:       out.dryRun,
		Connections:  a.connections,
		Filter:       a.filter(time.Now()),
		Refetch:      c.Bool("refetch"),
		FoldersFirst: o.beside != nil,
		MaxOctets:    most,
		Room:         free(o.dir),
		MaxDuration:  c.Duration("max-duration"),
		Patience:     min(10*a.endpoint.Timeout, 5*time.Minute),
	})
	out.hidden(a, o.result)
	var paused *backup.PausedError
	switch {
	case err == nil:
		return a.unknownFolders(o.result)
	case errors.As(err, new(*backup.RoomError)):
		return err
	case errors.Is(err, backup.ErrIncomplete):
		return &problemError{incomplete(o.result, sink, err), err}
	case errors.As(err, &paused):
		return &problemError{stoppedEarly(a, o.result, paused, budget && paused.Most, time.Now()), err}
	}
	return &serverError{err}
}

// unknownFolders tells of folders that are wanted and that the server does not have:
// a mistyped name must not mean that nothing is backed up. Over POP3, which has an
// inbox alone, names may be meant for IMAP.
func (a *account) unknownFolders(result report.Result) error {
	f := a.filter(time.Now())
	wanted := slices.ContainsFunc(result.Tallies, func(t report.Tally) bool { return t.Skipped == "" })
	pr := problem{status: exitIncomplete, code: "no_folder", do: "mailstow check --folders shows which there are"}
	for _, name := range f.Folders {
		only := filter.Filter{Folders: []string{name}}
		if !slices.ContainsFunc(result.Tallies, func(t report.Tally) bool { return only.Skips(mailbox.Mailbox{Name: t.Mailbox}) == "" }) && a.protocol == mailbox.IMAP {
			pr.what = fmt.Sprintf("the server has no folder called %q", name)
		}
	}
	if pr.what == "" && !wanted && len(f.Folders)+len(f.Include) > 0 {
		pr.what = "no folder of the server is wanted, so that nothing is backed up"
	}
	if pr.what == "" {
		return nil
	}
	return &problemError{pr, backup.ErrIncomplete}
}

// accountSink passes one account's events on, and keeps what failed for the
// end.
type accountSink struct {
	out     *output
	account *account
	beside  *beside

	mu     sync.Mutex
	failed []report.MessageFailed
}

func (s *accountSink) Report(e report.Event) {
	s.beside.hear(e)
	if slow, ok := e.(report.Slowed); ok && strings.Contains(strings.ToLower(slow.Err.Error()), "authenticated but not connected") {
		s.account.onlyIPv4.Store(true)
	}
	if f, ok := e.(report.MessageFailed); ok {
		s.mu.Lock()
		s.failed = append(s.failed, f)
		s.mu.Unlock()
	}
	s.out.event(s.account, e)
}

// shownFailures is how many messages and mailboxes an error names.
const shownFailures = 5

// incomplete says what is missing.
func incomplete(result report.Result, sink *accountSink, cause error) problem {
	sum := result.Sum()
	p := problem{status: exitIncomplete, code: "incomplete", do: "nothing now, it is tried again on every run"}
	var wrong []string
	for _, t := range result.Tallies {
		switch {
		case t.Reason != "":
			wrong = append(wrong, fmt.Sprintf("folder:  %s cannot be read: %s", t.Mailbox, t.Reason))
		case t.OnServer != t.Listed:
			wrong = append(wrong, fmt.Sprintf("folder:  %s has %s but the server listed %s; it does not count as done", t.Mailbox, messages(t.OnServer), count(t.Listed)))
		}
	}
	for _, f := range sink.failed {
		size := ""
		if f.Size >= 0 {
			size = ", " + octets(f.Size)
		}
		wrong = append(wrong, fmt.Sprintf("message: %s %s%s: %s", f.Mailbox, idName(f.ID), size, f.Reason))
	}
	is := "are"
	if result.Missing() == 1 {
		is = "is"
	}
	p.what = fmt.Sprintf("%s of %s %s missing from the archive", count(result.Missing()), messages(sum.OnServer), is)
	if result.Missing() == 0 {
		p.what = "some folders could not be checked in full"
	}
	p.details = someOf(wrong, "mailstow status --failed")
	p.why = endedEarly(cause, backup.ErrIncomplete)
	return p
}

// someOf shortens a list of what is wrong, and says where all of it is told.
func someOf(wrong []string, where string) []string {
	if len(wrong) <= shownFailures {
		return wrong
	}
	return append(wrong[:shownFailures:shownFailures], fmt.Sprintf("...      and %s more: %s", count(len(wrong)-shownFailures), where))
}

// endedEarly says what ended a run, if its error joins that to incomplete.
func endedEarly(err, incomplete error) (why string) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if !errors.Is(e, incomplete) {
				why = "the run ended early: " + e.Error()
			}
		}
	}
	return why
}

// idName shows a message's ID as people know it: a UID, or a POP3 unique-id.
func idName(id mailbox.ID) string {
	if uid, ok := uidOf(id); ok {
		return fmt.Sprintf("uid %d", uid)
	}
	return string(id)
}

// uidOf returns the UID in an ID that came over IMAP.
func uidOf(id mailbox.ID) (uint64, bool) {
	validity, rest, ok := strings.Cut(string(id), ":")
	if _, err := strconv.ParseUint(validity, 10, 32); !ok || err != nil {
		return 0, false
	}
	uid, err := strconv.ParseUint(rest, 10, 32)
	return uid, err == nil
}
