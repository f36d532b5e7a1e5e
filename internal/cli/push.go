package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/maildir"
	"mailstow/migrate"
)

// pushFlags are the options of commands that store mail on a server.
func pushFlags() []cli.Flag {
	return append([]cli.Flag{
		text("to", "archive `DIR`; each account gets a directory in it", "t"),
		yes("dry-run", "show what would be stored, change nothing", "n"),
		yes("update-flags", "also carry over flags that have changed since a message was stored"),
		yes("no-repair", "do not store a message in another form when the server refuses it as it is"),
		yes("skip-too-big", "messages that are larger than the server takes are no failure"),
		yes("ignore-quota", "begin although the server says that it has no room for all"),
		text("report", "write summary.txt, accounts.csv, folders.csv, missing.csv and proof.json into `DIR`"),
		text("bwlimit", "send at most `SIZE` a second"),
		text("max-transfer", "stop after `SIZE` of mail; the next run goes on"),
		duration("max-duration", "stop after `TIME`; the next run goes on", 0),
	}, placeFlags()...)
}

// placeFlags are the options that say which folder is which on a server.
func placeFlags() []cli.Flag {
	return []cli.Flag{
		texts("map", "put a folder into a mailbox of another name: `FOLDER=MAILBOX`"),
		text("under", "put all below the mailbox `NAME`"),
		yes("no-automap", "go by names: do not match roles such as \\Sent"),
		number("connections", "`N` connections to a server at the same time (default: 4)", 0),
	}
}

// pushOptions reads the options of pushFlags and placeFlags.
func pushOptions(c *cli.Context, now time.Time) (o migrate.Options, err error) {
	o = migrate.Options{
		DryRun: c.Bool("dry-run"), NoRepair: c.Bool("no-repair"), SkipTooBig: c.Bool("skip-too-big"), IgnoreQuota: c.Bool("ignore-quota"),
		UpdateFlags: c.Bool("update-flags"), MaxDuration: c.Duration("max-duration"),
	}
	if o.MaxOctets, err = size(c, "max-transfer", 0); err != nil {
		return o, err
	}
	if o.Filter, err = wanted(c, config.Account{}, now); err != nil {
		return o, err
	}
	if c.String("report") != "" && o.DryRun {
		return o, &usageError{text: "--report proves what was done, and --dry-run does nothing", hint: "add --json for a plan that programs can read"}
	}
	o.Mapping, err = mappingOf(c)
	return o, err
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

// pushOptions reads the options for mail that goes to the account.
func (a *account) pushOptions(c *cli.Context, now time.Time) (o migrate.Options, err error) {
	if o, err = pushOptions(c, now); err != nil {
		return o, err
	}
	o.Connections = a.connections
	m := &o.Mapping
	if m.Under == "" {
		m.Under = a.mapping.Under
	}
	m.NoRoles = m.NoRoles || a.mapping.NoRoles
	for from, to := range a.mapping.Renamed {
		if m.Renamed[from] == "" {
			m.Renamed[from] = to
		}
	}
	if a.pair == nil {
		return o, nil
	}
	if a.pair.Under != "" {
		o.Mapping.Under = a.pair.Under
	}
	for from, to := range a.pair.Map {
		o.Mapping.Renamed[from] = to
	}
	o.Filter, err = wanted(c, a.pair.Source, now)
	return o, err
}

// pushTo stores what an archive holds on a server, and tells how that went.
func (p *program) pushTo(c *cli.Context, command, dir string, a *account, out *output) error {
	return p.pushed(c, p.pushOne(c, command, dir, a, out), exitOK, out)
}

// pushOne stores what an archive holds on a server.
func (p *program) pushOne(c *cli.Context, command, dir string, a *account, out *output) *proof {
	result, err := p.push(c, command, dir, &server{account: a}, out)
	return &proof{account: a, dir: dir, command: command, result: result, problem: pushFailed(c.Context, a, result, err), dry: out.dryRun}
}

// pushed tells how it went to store mail on a server, or to compare with one.
// before is the status of the backup, or the check, that came before.
func (p *program) pushed(c *cli.Context, r *proof, before int, out *output) error {
	status := r.status(before)
	if dir := c.String("report"); dir != "" {
		if err := writeReport(dir, r.command, []*proof{r}); err != nil {
			out.warn(r.account, "the report cannot be written: "+err.Error())
			status = max(status, exitDisk)
		}
	}
	out.pushed(r, status)
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

// push opens an archive and lets the engine work.
func (p *program) push(c *cli.Context, command, dir string, s *server, out *output) (result migrate.Result, err error) {
	ar, err := maildir.Open(c.Context, dir, maildir.Options{Write: !out.dryRun, Others: out.sharers - 1})
	if err != nil {
		return result, archiveFailed(err)
	}
	result, err = p.pushFrom(c.Context, c, command, ar, s, out, nil)
	if closeErr := ar.Close(); closeErr != nil && err == nil {
		err = archiveFailed(closeErr)
	}
	return result, err
}

// pushFrom lets the engine work on an archive that is perhaps being filled.
func (p *program) pushFrom(ctx context.Context, c *cli.Context, command string, ar *maildir.Archive, s *server, out *output, filling *migrate.Filling) (result migrate.Result, err error) {
	a, started := s.account, time.Now()
	o, err := a.pushOptions(c, started)
	if err != nil {
		return result, err
	}
	o.Filling, o.Remake = filling, command == "restore"
	outlet, err := ar.To(ctx, a.source())
	if err != nil {
		return result, archiveFailed(err)
	}
	if o.Unsettled, err = ar.Killed(ctx, a.source()); err != nil {
		return result, archiveFailed(err)
	}
	left, spent, err := uploadLeft(ctx, ar, a, started)
	switch {
	case err != nil:
		return result, archiveFailed(err)
	case left == 0 && !o.DryRun:
		return result, &migrate.PausedError{Reason: spent}
	case left > 0 && (o.MaxOctets == 0 || left < o.MaxOctets):
		o.MaxOctets = left
	}
	from := outgoing{Outlet: outlet}
	undo, err := undoneBy(ctx, c, ar)
	if err != nil {
		return result, err
	}
	if undo != nil {
		from.only, o.Only = map[string]bool{}, map[int64]bool{}
		for message, folder := range undo.Folders {
			from.only[folder], o.Only[message] = true, true
		}
	}
	sink := &accountSink{out: out, account: a}
	store := func() (result migrate.Result, err error) {
		result, err = migrate.Run(ctx, s, from, sink, o)
		switch {
		case undo == nil || undo.lost == nil:
		case err == nil:
			err = &problemError{problem: *undo.lost}
		default:
			out.warn(a, undo.lost.what)
		}
		return result, err
	}
	if o.DryRun {
		return store()
	}
	if undo != nil {
		in, err := ar.From(ctx, a.source())
		if err == nil {
			err = undo.unmark(ctx, s, in)
		}
		if err != nil {
			return result, err
		}
	}
	record := maildir.Run{Command: command, Source: a.source(), Started: started, Result: "ok"}
	number, err := ar.BeginRun(ctx, record)
	if err != nil {
		return result, archiveFailed(err)
	}
	outlet.Count(number)
	result, err = store()
	if endErr := ar.EndRun(context.WithoutCancel(ctx), number, stored(record, result, err)); endErr != nil && err == nil {
		err = archiveFailed(endErr)
	}
	return result, err
}

// stored is the record of a run that has just ended.
func stored(record maildir.Run, result migrate.Result, err error) maildir.Run {
	record.Ended, record.Missing, record.Settled = time.Now(), result.Missing(), result.Settled
	for _, t := range result.Tallies {
		record.New, record.NewOctets, record.OnServer = record.New+t.Sent, record.NewOctets+t.SentOctets, record.OnServer+t.OnServer
	}
	if err != nil {
		record.Result, record.Reason = "incomplete", err.Error()
	}
	switch {
	case result.Unsettled:
		record.Result = maildir.Unsettled
	case errors.As(err, new(*migrate.PausedError)):
		record.Result = "paused"
	}
	return record
}

// pushFailed makes a problem of the error of a run that has not stored
// everything.
func pushFailed(ctx context.Context, a *account, result migrate.Result, err error) *problem {
	var collision *migrate.CollisionError
	var paused *migrate.PausedError
	pr := problem{status: exitIncomplete, code: "incomplete"}
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(*migrate.UnknownFolderError)):
		pr.what, pr.do, pr.status, pr.code = "--map: "+err.Error(), "mailstow list shows the folders of an archive", exitConfig, "config"
	case errors.As(err, &collision):
		pr.what, pr.do, pr.status, pr.code = collision.Error(), fmt.Sprintf("--map '%s=ANOTHER NAME'", collision.Folder), exitConfig, "config"
	case errors.As(err, &paused):
		pr.what, pr.why, pr.do = "stopped early", paused.Reason, "nothing; the next run goes on"
		if n := result.Missing(); n > 0 {
			pr.what += fmt.Sprintf("; %s to go", messages(n))
		}
		pr.status, pr.code = exitLater, "paused"
	case !errors.Is(err, migrate.ErrIncomplete):
		if !errors.As(err, new(*problemError)) {
			err = &serverError{err}
		}
		pr = explain(ctx, a.name, err)
	default:
		pr = missing(a, result, err)
	}
	pr.account = a.name
	return &pr
}

// missing says what is not on the server, and why.
func missing(a *account, result migrate.Result, err error) problem {
	pr := problem{status: exitIncomplete, code: "incomplete", do: "nothing now, it is tried again on every run"}
	pr.what = fmt.Sprintf("%s missing on %s", are(result.Missing()), a.host)
	if result.Missing() == 0 {
		pr.what = fmt.Sprintf("not everything could be done on %s; no message is missing", a.host)
	}
	tooLarge, differ := 0, 0
	for _, t := range result.Tallies {
		if t.Reason != "" {
			pr.details = append(pr.details, fmt.Sprintf("folder:  %s: %s", t.Folder, t.Reason))
		}
		for _, m := range t.Missing {
			pr.details = append(pr.details, "message: "+line(t, m))
			if m.TooLarge {
				tooLarge++
			}
		}
		differ += len(t.Differ)
		for _, m := range t.Differ {
			pr.details = append(pr.details, "differs: "+line(t, m))
		}
	}
	pr.details = someOf(pr.details, "--report DIR writes all of them down")
	pr.why = endedEarly(err, migrate.ErrIncomplete)
	var full *migrate.FullError
	var room *migrate.RoomError
	switch {
	case errors.As(err, &full):
		pr.why, pr.server, pr.do, pr.code = "the server has no room for more", full.Answer, "make room there, or ask for more; then run it again", "no_room"
	case errors.As(err, &room):
		need, free := messages(int(room.Need)), count(int(room.Free))
		if room.Of == "octets" {
			need, free = octets(room.Need), octets(room.Free)
		}
		pr.what = fmt.Sprintf("no room on %s: %s to store, %s free; %s stored", a.host, need, free, were(result.Stored))
		pr.why, pr.code, pr.details = "", "no_room", nil
		pr.do = "ask for more room; store less (--exclude, --newer-than, --max-size); or begin all the same with --ignore-quota"
	case differ > 0 && result.Missing() == 0:
		pr.what = fmt.Sprintf("%s not the same on %s as in the archive", are(differ), a.host)
		pr.do, pr.code = "compare them before you trust that server; the archive keeps what came. Many servers change unusual mail when they store it", "differs"
	case tooLarge > 0 && tooLarge == result.Missing():
		pr.what = fmt.Sprintf("%s larger than %s accepts", are(tooLarge), a.host)
		if limit := result.Limits.Message; limit > 0 {
			pr.what = fmt.Sprintf("%s larger than the %s that %s accepts", are(tooLarge), octets(limit), a.host)
		}
		pr.do, pr.code = "they are safe in the archive; --skip-too-big ends with exit 0, --report DIR lists them", "too_big"
	}
	return pr
}

func are(n int) string {
	if n == 1 {
		return "1 message is"
	}
	return count(n) + " messages are"
}

func were(n int) string {
	switch n {
	case 0:
		return "nothing was"
	case 1:
		return "1 message was"
	}
	return count(n) + " messages were"
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

// line shows a message in one line.
func line(t migrate.Tally, m migrate.Remark) string {
	return fmt.Sprintf("%s, %s, %s, %s: %s", t.Folder, day(m.Date), octets(m.Size), quoted(m.Subject), m.Text)
}
