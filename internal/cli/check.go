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
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/credential"
	"mailstow/internal/filter"
	"mailstow/internal/quantity"
	"mailstow/internal/report"
	"mailstow/mailbox"
	"mailstow/maildir"
)

func (p *program) checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Category:  everyDay,
		Usage:     "test the login and show what a backup would pull",
		ArgsUsage: "[ACCOUNT|URL]...",
		Description: `  mailstow check                       # every account in the config file
  mailstow check imaps://me@mail.example.org
  mailstow check --pairs users.csv     # before a migration: who is ready, and who is not

It reads, and changes nothing. Whether the archive is whole, mailstow verify tells.`,
		Flags: slices.Concat([]cli.Flag{
			text("to", "archive `DIR`", "t"),
			text("via", "`PROTOCOL` of an account that has both: imap, pop3, or auto (imap)"),
			number("connections", "`N` connections to an account at the same time (default: 4, over POP3 1)", 0),
			yes("folders", "show each folder, and what would happen to it"),
		}, pairsFlags(), wantedFlags(), loginFlags()),
		Action: p.check,
	}
}

func (p *program) check(c *cli.Context) error {
	if c.String("pairs") != "" {
		return p.checkPairs(c)
	}
	accounts, err := p.accounts(c)
	if err != nil {
		return err
	}
	out := p.newOutput(c, "check", accounts)
	defer out.close()
	out.dryRun = true
	all := make([]checkup, len(accounts))
	outcomes := p.pullAll(c, accounts, out)
	for i := range outcomes {
		all[i] = checkup{outcome: &outcomes[i]}
		if outcomes[i].problem == nil {
			all[i].look(c.Context)
			open(c.Context, place{dir: accounts[i].dir}, func(ar *maildir.Archive) (err error) { // there may be none yet
				if all[i].archive, err = standing(c, ar); err == nil {
					all[i].oldest, all[i].newest, err = ar.Span(c.Context)
				}
				return err
			})
			all[i].verified = p.lastVerified(outcomes[i].dir)
		}
	}
	status := statusOf(outcomes)
	p.showCheckups(c, out, all, status)
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

// checkup is what is found out of an account.
type checkup struct {
	*outcome
	session mailbox.Session
	usage   mailbox.Usage
	err     error // of finding that out; nil if all is known
	archive stand

	oldest, newest time.Time // of the mail that is on the server; zero if that is not known
	verified       time.Time // when the archive was; zero if that is not known
}

// look asks the server what it can do, and how full it is.
func (k *checkup) look(ctx context.Context) {
	l := &login{account: k.account}
	defer l.close()
	src, err := l.connect(ctx)
	if err != nil {
		k.err = err
		return
	}
	defer src.Close(true)
	conn := src.(interface {
		Session() mailbox.Session
		measured
	})
	k.session = conn.Session()
	boxes, err := src.Mailboxes(ctx)
	if err == nil {
		k.usage, err = conn.Usage(ctx, slices.DeleteFunc(boxes, func(m mailbox.Mailbox) bool {
			return m.Role == `\All` || m.Role == `\Flagged` || m.Role == `\Important`
		}))
	}
	k.err = err
}

// showCheckups shows what accounts hold, and what a backup would pull.
func (p *program) showCheckups(c *cli.Context, out *output, all []checkup, status int) {
	var outcomes []outcome
	for _, k := range all {
		outcomes = append(outcomes, *k.outcome)
	}
	switch {
	case out.json != nil:
		for _, k := range all {
			k.json(out.json)
		}
		out.json.summary(outcomes, status, time.Since(out.started))
	case out.quiet:
	default:
		wide := 0
		for _, k := range all {
			wide = max(wide, width(k.account.name))
		}
		for _, k := range all {
			k.show(p, wide, out.verbose || c.Bool("folders"))
		}
		showDisks(p.Stdout, wide, all)
		bad := 0
		for _, k := range all {
			if k.problem != nil {
				bad++
			}
		}
		if bad > 0 && len(all) > 1 {
			fmt.Fprintf(p.Stdout, "\n%d of %d accounts cannot be backed up.\n", bad, len(all))
		}
	}
}

// show tells people.
func (k *checkup) show(p *program, wide int, folders bool) {
	a, w := k.account, p.Stdout
	head := fmt.Sprintf("%-*s  %-9s %s", wide, show(a.name), k.word(), show(a.endpoint.Addr))
	if k.session.TLS != "" {
		head += "  " + k.session.TLS
	}
	if from := a.loggedIn(); from != "" && k.problem == nil {
		head += "  " + show(p.short(from))
	}
	fmt.Fprintln(w, head)
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(w, "%*s  %-9s %s\n", wide, "", label, show(text))
		}
	}
	if k.problem != nil {
		line("why", k.problem.what) // it has been told in full
		return
	}
	line("mail", k.mail())
	line("server", strings.Join(k.session.Offers, " "))
	sum := k.result.Sum()
	pull := "nothing is missing"
	if sum.New > 0 {
		pull = fmt.Sprintf("a backup would pull %s, %s", messages(sum.New), octets(sum.Octets))
	}
	line("archive", fmt.Sprintf("%s; %s%s", messages(k.archive.messages), pull, k.verification()))
	line("quota", k.quota())
	line("time", k.time())
	for _, n := range k.notes() {
		line("note", n)
	}
	if folders {
		t := table{head: []string{"folder", "role", ">messages", ">would pull", ">size", ""}}
		for _, m := range k.result.Tallies {
			t.add(show(m.Mailbox.String()), m.Role, count(m.OnServer), count(m.New), octets(m.Octets), show(first(skippedWord(m), m.Reason)))
		}
		for l := range strings.Lines(t.String()) {
			fmt.Fprintf(w, "%*s  %s", wide, "", l)
		}
	}
}

func skippedWord(t report.Tally) string {
	if t.Skipped == "" {
		return ""
	}
	return "skipped: " + t.Skipped
}

// mail says how much there is.
func (k *checkup) mail() string {
	sum := k.result.Sum()
	text := messages(max(sum.OnServer, k.usage.Messages))
	if k.usage.Sizes > 0 {
		text += ", " + octets(k.usage.Sizes)
	}
	if k.account.protocol == mailbox.POP3 {
		return text + " (POP3: the inbox alone, no flags, no folders)"
	}
	return text + " in " + folders(len(k.result.Tallies)) + k.span()
}

// span says from when to when the mail is.
func (k *checkup) span() string {
	oldest, newest := k.oldest, k.newest
	for _, t := range k.result.Tallies {
		if !t.Oldest.IsZero() && (oldest.IsZero() || t.Oldest.Before(oldest)) {
			oldest = t.Oldest
		}
		if t.Newest.After(newest) {
			newest = t.Newest
		}
	}
	if oldest.IsZero() {
		return ""
	}
	until := day(newest)
	if until == day(time.Now()) {
		until = "today"
	}
	return ", " + day(oldest) + " to " + until
}

// verification says when the archive was found whole.
func (k *checkup) verification() string {
	switch {
	case k.archive.messages == 0:
		return ""
	case k.verified.IsZero():
		return "; not verified yet: mailstow verify"
	case time.Since(k.verified) < time.Hour:
		return "; just verified"
	}
	return "; last verified " + ago(time.Since(k.verified)) + " ago"
}

func (k *checkup) quota() string {
	limit, _ := quantity.Size(k.account.trim.Quota)
	switch {
	case k.usage.Quota > 0:
		return of(k.usage.Used, k.usage.Quota) + ", of " + octets(k.usage.Quota)
	case limit > 0 && k.usage.Sizes > 0:
		return fmt.Sprintf("not told by the server; the config file says %s, so %d%% are used", octets(limit), 100*k.usage.Sizes/limit)
	}
	return ""
}

// time says how long a backup takes where the provider bounds it.
func (k *checkup) time() string {
	a, left := k.account, k.result.Sum().Octets
	if a.download == 0 || left <= a.download {
		return ""
	}
	who := "daily_download allows"
	if a.provider != nil && a.provider.Limits.DailyDownload > 0 {
		who = a.provider.Title + " allows"
	}
	return fmt.Sprintf("about %d nights: %s about %s a day", (left+a.download-1)/a.download, who, octets(a.download))
}

// notes are what a person should know.
func (k *checkup) notes() (all []string) {
	a := k.account
	if k.err != nil {
		all = append(all, "not all could be found out: "+k.err.Error())
	}
	if a.provider != nil && a.provider.Hides != "" {
		all = append(all, a.provider.Hides)
	}
	if a.protocol == mailbox.POP3 && a.provider != nil {
		all = append(all, fmt.Sprintf("the server also answers on %s, which would copy folders and flags too", a.provider.IMAP[0]))
	}
	if a.protocol == mailbox.POP3 && k.err == nil && !slices.Contains(k.session.Offers, "UIDL") {
		all = append(all, "the server may not name its messages (no UIDL in CAPA): then each run downloads all headers, and trim is not possible")
	}
	if a.protocol == mailbox.IMAP && k.err == nil && !slices.Contains(k.session.Offers, "UIDPLUS") {
		all = append(all, "the server has no UIDPLUS: trim can only move mail to the trash, if at all")
	}
	return all
}

// loggedIn says how the account has logged in.
func (a *account) loggedIn() string {
	switch {
	case a.signIn != nil:
		return "OAuth2"
	case a.changing && a.from != "":
		return "an access token from " + a.from
	case a.changing:
		return "an access token"
	case a.method == "external":
		return "a client certificate"
	case a.from != "":
		return "password from " + a.from
	}
	return ""
}

// showDisks says whether there is room for what would be pulled.
func showDisks(w io.Writer, wide int, all []checkup) {
	type disk struct {
		dir        string
		free, need int64
	}
	var disks []*disk
	known := map[uint64]*disk{} // by their devices
	for _, k := range all {
		dir := existing(filepath.Dir(k.account.dir))
		fi, err := os.Stat(dir)
		if k.problem != nil || dir == "" || err != nil {
			continue
		}
		device := uint64(fi.Sys().(*syscall.Stat_t).Dev)
		if known[device] == nil {
			known[device] = &disk{dir: dir, free: free(dir)}
			disks = append(disks, known[device])
		}
		known[device].need += k.result.Sum().Octets
	}
	for _, d := range disks {
		word := "ok"
		if d.free < d.need {
			word = "NO ROOM"
		}
		fmt.Fprintf(w, "%-*s  %-9s %s: %s free, %s needed\n", wide, "disk", word, show(d.dir), octets(d.free), octets(d.need))
	}
}

// existing returns the nearest directory above a path that is there.
func existing(dir string) string {
	dir, err := filepath.Abs(dir)
	for err == nil {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// json tells scripts.
func (k *checkup) json(j *jsonLines) {
	sum := k.result.Sum()
	o := object{
		"account": k.account.name, "result": k.word(), "server": k.account.endpoint.Addr, "protocol": k.account.protocol, "tls": k.session.TLS, "offers": k.session.Offers,
		"folders": len(k.result.Tallies), "messages": max(sum.OnServer, k.usage.Messages), "in_archive": k.archive.messages, "new": sum.New, "bytes_new": sum.Octets, "notes": k.notes(),
	}
	if k.usage.Quota > 0 {
		o["quota"], o["usage"] = k.usage.Quota, k.usage.Used
	}
	if k.usage.Sizes > 0 {
		o["bytes"] = k.usage.Sizes
	}
	if k.account.provider != nil {
		o["provider"] = k.account.provider.Name
	}
	if !k.verified.IsZero() {
		o["verified"] = stamp(k.verified)
	}
	j.write("check", o)
}

// readiness is what is known of a pair before it is moved.
type readiness struct {
	pair                *pair
	source, destination string // ok, or what is wrong
	folders, messages   int
	octets              int64
	there               int // messages at the destination
	limits              mailbox.Limits
	tooLarge            int
	verdict             string
	blocked, remarked   bool
}

// checkPairs looks at both sides of each pair of a list.
func (p *program) checkPairs(c *cli.Context) error {
	all, err := p.pairs(c)
	if err != nil {
		return err
	}
	out := p.newOutput(c, "check", nil)
	defer out.close()
	out.dryRun, out.progress = true, nil
	h := newHosts(c)
	found := make([]readiness, len(all))
	jobs := make(chan struct{}, max(c.Int("jobs"), 1))
	var wg sync.WaitGroup
	for i, pr := range all {
		wg.Go(func() {
			jobs <- struct{}{}
			defer func() { <-jobs }()
			found[i] = readiness{pair: pr, verdict: "not looked at", blocked: true}
			if leave, err := h.enter(c.Context, pr); err == nil {
				found[i] = p.ready(c, pr, out)
				leave()
			}
		})
	}
	wg.Wait()
	if c.Context.Err() != nil {
		return context.Cause(c.Context)
	}
	return p.showReadiness(c, out, found)
}

// ready looks at both sides of a pair.
func (p *program) ready(c *cli.Context, pr *pair, out *output) (r readiness) {
	r = readiness{pair: pr, source: "ok", destination: "ok", verdict: "ready"}
	err := p.lookAt(c.Context, pr.destination, &r)
	if err != nil {
		r.destination, r.blocked = sideFailed(err), true
		r.verdict = blockedBy("destination", r.destination)
	} else if r.there > 0 {
		r.destination = "not empty: " + count(r.there)
	}
	if pr.source == nil {
		err = p.measure(c, pr, &r)
	} else {
		if pr.source.filter(time.Now()).MaxSize == 0 && r.limits.Message > 0 { // what is excluded then is too large
			wanted := pr.source.filter
			pr.source.filter = func(now time.Time) filter.Filter {
				f := wanted(now)
				f.MaxSize = r.limits.Message
				return f
			}
		}
		f := pr.source.filter(time.Now())
		byDate := f.ByDate()
		o := p.backupOne(c, pr.source, out, nil)
		sum := o.result.Sum()
		r.octets = sum.Octets
		for _, t := range o.result.Tallies {
			if t.Skipped == "" {
				r.folders, r.messages = r.folders+1, r.messages+t.OnServer-t.Excluded
			}
		}
		if err = problemOf(&o); err == nil && !byDate && r.limits.Message > 0 {
			r.tooLarge = sum.Excluded
		}
		if err == nil && sum.Kept > 0 { // what the archive has is to be stored too
			var held readiness
			err = p.measure(c, pr, &held)
			r.octets += held.octets
		}
	}
	free := r.limits.Quota - r.limits.Used
	switch {
	case err != nil:
		r.source, r.blocked = sideFailed(err), true
		r.verdict = blockedBy("source", r.source)
	case r.blocked:
	case r.limits.Quota > 0 && r.octets > free && r.there == 0:
		r.verdict, r.blocked = fmt.Sprintf("NO ROOM: %s short", octets(r.octets-free)), true
	case r.limits.Quota > 0 && r.octets > free:
		r.verdict, r.remarked = fmt.Sprintf("no room for all of it: %s short, unless some is there", octets(r.octets-free)), true
	case r.tooLarge > 0:
		r.verdict, r.remarked = fmt.Sprintf("%s over %s", messages(r.tooLarge), octets(r.limits.Message)), true
	}
	return r
}

// problemOf is the error of a backup that has failed.
func problemOf(o *outcome) error {
	if o.problem == nil {
		return nil
	}
	return &problemError{problem: *o.problem}
}

// loginRefused is what is wrong with a side most often.
const loginRefused = "login refused"

func blockedBy(side, what string) string {
	if what == loginRefused {
		return side + " password"
	}
	return side
}

// sideFailed says in a few words what is wrong with a server.
func sideFailed(err error) string {
	var pr *problemError
	var refused *credential.RefusedError
	switch {
	case errors.As(err, &refused), errors.As(err, &pr) && pr.code == "auth_failed":
		return loginRefused
	case errors.As(err, &pr):
		return pr.what
	}
	return err.Error()
}

// lookAt asks a destination how much it takes, and what it holds.
func (p *program) lookAt(ctx context.Context, a *account, r *readiness) error {
	s := &server{account: a}
	if err := s.now(ctx); err != nil {
		return err
	}
	defer s.close()
	conn := s.first
	boxes, err := conn.Mailboxes(ctx)
	if err != nil {
		return err
	}
	states, err := conn.States(ctx, boxes)
	if err != nil {
		return err
	}
	for _, st := range states {
		r.there += st.Exists
	}
	r.limits, err = conn.Limits(ctx, nil)
	return err
}

// measure counts what an archive holds.
func (p *program) measure(c *cli.Context, pr *pair, r *readiness) error {
	m, err := moved(c, pr)
	r.messages, r.octets = m.Messages, m.Octets-m.ThereOctets
	return err
}

// showReadiness shows a table, and what to do next.
func (p *program) showReadiness(c *cli.Context, out *output, all []readiness) error {
	t := table{head: []string{">", "account", "source", "destination", ">folders", ">messages", ">size", ">free at dest.", "verdict"}}
	var total, blocked, remarked int
	var size int64
	var fix []string
	for i, r := range all {
		free := "-"
		if r.limits.Quota > 0 {
			free = octets(r.limits.Quota - r.limits.Used)
		}
		total, size = total+r.messages, size+r.octets
		switch {
		case r.blocked:
			blocked++
			fix = append(fix, fmt.Sprint(i+1))
		case r.remarked:
			remarked++
		}
		if out.json != nil {
			out.json.write("plan", object{
				"account": r.pair.destination.name, "source": r.source, "destination": r.destination, "folders": r.folders, "messages": r.messages, "bytes": r.octets,
				"there": r.there, "quota": r.limits.Quota, "usage": r.limits.Used, "append_limit": r.limits.Message, "too_large": r.tooLarge, "verdict": r.verdict, "blocked": r.blocked,
			})
			continue
		}
		t.add(fmt.Sprint(i+1), show(r.pair.destination.name), show(r.source), show(r.destination), count(r.folders), count(r.messages), octets(r.octets), free, r.verdict)
	}
	status := exitOK
	if blocked > 0 {
		status = exitIncomplete
	}
	ready := len(all) - blocked - remarked
	if out.json != nil {
		out.json.write("summary", object{"time": stamp(time.Now()), "run": out.json.run, "exit_code": status, "ready": ready, "remarked": remarked, "blocked": blocked, "result": map[bool]string{true: "ok", false: "incomplete"}[blocked == 0]})
	} else if !out.quiet {
		fmt.Fprint(p.Stdout, t.String())
		fmt.Fprintf(p.Stdout, "\n%d accounts, %s, %s. Ready: %d. With remarks: %d. Blocked: %d.\n", len(all), messages(total), octets(size), ready, remarked, blocked)
		next := "mailstow migrate --pairs " + c.String("pairs")
		if blocked > 0 {
			fmt.Fprintf(p.Stdout, "Fix %s, or go on without: %s\n", strings.Join(fix, ", "), next)
		} else {
			fmt.Fprintln(p.Stdout, "Next: "+next)
		}
	}
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}
