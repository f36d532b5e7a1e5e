package cli

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/monitor"
	"mailstow/internal/report"
)

// output shows a run: as text, as JSON lines, or not at all. It may be used
// by several goroutines.
type output struct {
	p        *program
	command  string
	dryRun   bool
	quiet    bool
	verbose  bool
	terminal bool // stdout is one
	told     bool // each run is told of in a line: it goes to the journal
	sharers  int  // accounts at the same time
	started  time.Time

	mu       sync.Mutex
	json     *jsonLines // nil for text
	log      *jsonLines // nil for none
	systemd  monitor.Systemd
	shown    time.Time          // when systemd was told last
	progress *progress          // nil where none is drawn
	every    time.Duration      // after which a line says how far it has come, 0 for never
	asked    chan os.Signal     // SIGUSR1: somebody wants to know how far it has come
	watches  []*check           // that are told when the work begins
	state    map[*account]*tick // of the accounts that run
}

// tick is how far an account's run has come.
type tick struct {
	started    time.Time
	total      report.Planned
	mailbox    string
	done       int
	doneOctets int64
	failed     int
	told       time.Time // when a line said so last
}

func (p *program) newOutput(c *cli.Context, command string, accounts []*account) *output {
	o := &output{
		p: p, command: command, dryRun: c.Bool("dry-run"),
		quiet: c.Bool("quiet"), verbose: c.Bool("verbose"), terminal: p.terminal(p.Stdout),
		sharers: max(min(c.Int("jobs"), len(accounts)), 1),
		started: time.Now(), state: map[*account]*tick{},
	}
	o.told, o.systemd = p.inJournal(p.Stdout), monitor.Systemd(p.Getenv("NOTIFY_SOCKET"))
	o.systemd.Ready()
	o.log = p.logFile(c)
	p.traced.Lock()
	p.log = o.log
	p.traced.Unlock()
	run := runID(o.started)
	if o.log != nil {
		o.log.start(run, command, accounts, o.dryRun, o.started)
	}
	if c.Bool("json") {
		o.json = newJSONLines(p.Stdout)
		o.json.start(run, command, accounts, o.dryRun, o.started)
	} else if p.terminal(p.Stderr) && !o.quiet && p.Getenv("MAILSTOW_PROGRESS") != "off" {
		o.progress = &progress{w: p.Stderr}
	} else if every, err := time.ParseDuration(p.Getenv("MAILSTOW_PROGRESS")); err == nil {
		o.every = max(every, 0)
	} else if set := p.Getenv("MAILSTOW_PROGRESS"); !slices.Contains([]string{"", "auto", "off"}, set) {
		p.warned.Do(func() {
			fmt.Fprintf(p.Stderr, "mailstow: warning: MAILSTOW_PROGRESS=%s: there is auto, off, or a time such as 60s\n", show(set))
		})
	}
	o.asked = make(chan os.Signal, 1)
	signal.Notify(o.asked, syscall.SIGUSR1)
	go func() {
		for range o.asked {
			o.tellAll()
		}
	}()
	return o
}

// tellAll says how far all accounts have come.
func (o *output) tellAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	var lines []string
	for a, t := range o.state {
		if t.total.New > 0 {
			lines = append(lines, t.line(a.name))
		}
	}
	slices.Sort(lines)
	if len(lines) == 0 {
		lines = []string{fmt.Sprintf("[%s]  nothing is being copied", clock(time.Since(o.started)))}
	}
	o.line(o.p.Stderr, strings.Join(lines, "\n"))
}

// watched has a check told when the work begins.
func (o *output) watched(w *check) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watches = append(o.watches, w)
}

// working tells that the work on an account begins: no other run is at it.
func (o *output) working(a *account) {
	o.mu.Lock()
	watches := slices.Clone(o.watches)
	o.mu.Unlock()
	for _, w := range watches {
		if w.account == nil || w.account == a {
			w.begin()
		}
	}
}

// toDo says what is done with new messages of an account.
func (o *output) toDo(a *account, e report.Planned) string {
	switch {
	case e.Back:
		return "to read back"
	case o.command == "verify":
		return "to compare"
	case a.takes:
		return "to store"
	}
	return "to fetch"
}

// event shows what an engine reports.
func (o *output) event(a *account, e report.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.state[a]
	if t == nil {
		t = &tick{started: time.Now()}
		o.state[a] = t
	}
	switch e := e.(type) {
	case report.Planned:
		t.total, t.started, t.told = e, time.Now(), time.Now()
		if o.progress != nil && e.New > 0 {
			o.line(o.p.Stderr, fmt.Sprintf("%s: %s, %s; %s: %s, %s", show(a.name), folders(e.Mailboxes), messages(e.Messages), o.toDo(a, e), count(e.New), octets(e.NewOctets)))
		}
	case report.MailboxStarted:
		t.mailbox = e.Mailbox.String()
	case report.MessageArrived:
		t.done++
		t.doneOctets += e.Size
	case report.MessageFailed:
		t.failed++
	case report.Reconnecting:
		if o.json == nil && (o.verbose || o.progress != nil) {
			o.line(o.p.Stderr, fmt.Sprintf("mailstow: %s: connection lost (%s); login %d", show(a.name), show(e.Err.Error()), e.Try))
		}
	case report.Slowed:
		if o.json == nil && (o.verbose || o.progress != nil) {
			o.line(o.p.Stderr, fmt.Sprintf("mailstow: %s: the server is busy (%s); waiting for %v", show(a.name), show(e.Err.Error()), e.Wait.Round(time.Millisecond)))
		}
	case report.Blocked:
		if o.json == nil && !o.quiet {
			o.line(o.p.Stderr, fmt.Sprintf("mailstow: %s: %s of %s cannot be stored: %s", show(a.name), messages(e.Messages), show(e.Mailbox.String()), show(e.Reason)))
		}
	case report.FewerConnections:
		if o.json == nil && o.verbose {
			o.line(o.p.Stderr, fmt.Sprintf("mailstow: %s: the server bears no more connections (%s); going on with fewer", show(a.name), show(e.Err.Error())))
		}
	case report.Short:
		if o.json == nil {
			o.line(o.p.Stderr, fmt.Sprintf("mailstow: %s: warning: %s of %s came twice in the same octets, fewer than the server announces; kept as they are", show(a.name), messages(e.Messages), show(e.Mailbox.String())))
		}
	case report.Renamed:
		if o.json == nil && !o.quiet {
			moved := "its folder was moved along"
			if o.dryRun {
				moved = "its folder would be moved along"
			}
			o.line(o.p.Stderr, fmt.Sprintf("mailstow: %s: %s is now %s on the server; %s", show(a.name), show(e.Was), show(e.Mailbox.String()), moved))
		}
	case report.Rebuilt:
		if o.json == nil && !o.quiet {
			o.tell(wasRebuilt(a, e))
		}
	case report.Nameless:
		if o.json == nil && (o.verbose || o.terminal) && !o.quiet { // it is so every night
			o.tell(nameless(a, e))
		}
	}
	if o.log != nil {
		o.log.event(a, e, t, true, false)
	}
	if o.systemd != "" && t.total.New > 0 && time.Since(o.shown) >= time.Second {
		o.shown = time.Now()
		o.systemd.Status(t.line(a.name))
	}
	if o.json != nil {
		o.json.event(a, e, t, o.verbose, o.quiet)
	} else if o.progress != nil {
		o.progress.draw(a.name, t)
	} else if o.every > 0 && t.total.New > 0 && time.Since(t.told) >= o.every {
		t.told = time.Now()
		fmt.Fprintln(o.p.Stderr, t.line(a.name))
	}
}

// line writes a line above the progress.
func (o *output) line(w io.Writer, text string) {
	if o.progress != nil {
		o.progress.clear()
	}
	fmt.Fprintln(w, text)
}

// warn tells of something that does not end the run.
func (o *output) warn(a *account, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log != nil {
		o.log.warning(a, text)
	}
	if o.json != nil {
		o.json.warning(a, text)
		return
	}
	o.line(o.p.Stderr, fmt.Sprintf("mailstow: %s: warning: %s", show(a.name), show(text)))
}

// accountDone shows how an account's run ended.
func (o *output) accountDone(r *outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.state, r.account)
	if o.log != nil {
		o.log.accountEnd(r)
	}
	if o.json != nil {
		o.json.accountEnd(r)
		return
	}
	if o.progress != nil {
		o.progress.clear()
	}
	if r.problem != nil {
		if r.problem.passes() && !o.terminal && !o.verbose { // cron
			if o.told && !o.quiet {
				fmt.Fprintf(o.p.Stdout, "%s: %s: %s\n", show(r.account.name), show(r.problem.what), show(first(r.problem.why, r.problem.do)))
			}
			return
		}
		r.problem.print(o.p.Stderr)
	}
}

// pushed shows how putting mail on a server ended, and the backup before it if
// there was one.
func (o *output) pushed(r *proof, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.state, r.account)
	if o.progress != nil {
		o.progress.clear()
	}
	if o.json != nil {
		r.json(o.json)
		all := r.object()
		delete(all, "account")
		all["time"], all["run"], all["exit_code"] = stamp(time.Now()), o.json.run, status
		if status != exitOK && r.problem == nil {
			all["result"] = "failed"
			if r.pulled != nil {
				all["result"] = r.pulled.word()
			}
		}
		o.json.write("summary", all)
		return
	}
	if r.pulled != nil && (o.terminal || o.verbose) && !o.quiet {
		showOne(o.p.Stdout, r.pulled)
	}
	o.tellRenamed(r)
	if !o.quiet && (r.news() || o.terminal || o.verbose || o.dryRun) {
		r.show(o.p.Stdout, o.verbose)
	}
	if r.problem != nil && (!r.problem.passes() || o.terminal || o.verbose) {
		r.problem.print(o.p.Stderr)
	}
}

// remark prints a problem that does not end the run.
func (o *output) remark(pr problem) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.json != nil {
		o.json.problem(object{}, pr)
		return
	}
	o.tell(pr)
}

// tell prints a problem above the progress.
func (o *output) tell(pr problem) {
	if o.progress != nil {
		o.progress.clear()
	}
	pr.print(o.p.Stderr)
}

// tellRenamed tells of new mailboxes that could not be called as their folders.
func (o *output) tellRenamed(r *proof) {
	if o.quiet {
		return
	}
	for _, pr := range r.renamed() {
		o.tell(pr)
	}
}

// wasRebuilt says that a server has numbered its messages anew.
func wasRebuilt(a *account, e report.Rebuilt) problem {
	pr := problem{
		account: a.name, code: "uidvalidity_changed", what: e.Mailbox.String() + " was rebuilt by the server",
		why: fmt.Sprintf("message numbers have changed; %s of %s were recognised by content; %s new.", count(e.Recognised), messages(e.Recognised+e.Download), count(e.Download)),
		do:  "nothing; no mail is downloaded twice",
	}
	if e.Was != e.Is {
		pr.what += fmt.Sprintf(" (UIDVALIDITY %d became %d)", e.Was, e.Is)
	}
	return pr
}

// nameless says that messages cannot be known again by what the server says.
func nameless(a *account, e report.Nameless) problem {
	pr := problem{
		account: a.name, code: "no_uidl", what: "this POP3 server cannot name its messages (no UIDL)",
		why: "mailstow must download all headers on every run to see what is new.",
		do:  "use IMAP if the provider has it; trim is not possible on this server",
	}
	if e.Messages < e.Of {
		pr.what = fmt.Sprintf("%s of %s have no unique-id (UIDL)", count(e.Messages), messages(e.Of))
		pr.why, pr.do = "mailstow must download their headers on every run to see what is new.", "use IMAP if the provider has it; trim leaves these messages"
	}
	return pr
}

// pairDone shows how it went with one pair of a list.
func (o *output) pairDone(r *proof) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.state, r.account)
	if o.json != nil {
		r.json(o.json)
		return
	}
	if o.progress != nil {
		o.progress.clear()
	}
	o.tellRenamed(r)
	if o.verbose {
		r.show(o.p.Stdout, true)
	}
	if r.problem != nil && (!r.problem.passes() || o.terminal || o.verbose) {
		r.problem.print(o.p.Stderr)
	}
}

// pairsDone shows how it went with all pairs of a list.
func (o *output) pairsDone(all []*proof, status int, report string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	words, news, missing := map[string]int{}, false, 0
	t := table{head: []string{"account", "result", ">archived", ">there", ">stored", ">size", ">missing", "proof"}}
	for _, r := range all {
		words[r.word()]++
		news, missing = news || r.news(), missing+r.result.Missing()
		sum, proved := r.sum(), "-"
		if len(r.result.Tallies) > 0 {
			proved = level(sum)
		}
		t.add(show(r.account.name), r.word(), count(sum.Archived), count(sum.There()), count(sum.Sent), octets(sum.SentOctets), count(r.result.Missing()), proved)
	}
	if o.json != nil {
		s := object{"time": stamp(time.Now()), "run": o.json.run, "exit_code": status, "result": "ok", "missing": missing, "seconds": seconds(time.Since(o.started))}
		switch {
		case status == exitIncomplete:
			s["result"] = "incomplete"
		case status == exitLater:
			s["result"] = "paused"
		case status != exitOK:
			s["result"] = "failed"
		}
		for _, w := range outcomeWords {
			s[w] = words[w]
		}
		o.json.write("summary", s)
		return
	}
	if o.quiet || !news && !o.terminal && !o.verbose {
		return
	}
	fmt.Fprint(o.p.Stdout, t.String())
	var parts []string
	for _, w := range outcomeWords {
		if words[w] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", words[w], w))
		}
	}
	fmt.Fprintf(o.p.Stdout, "\n%s. Took %s.\n", strings.Join(parts, ", "), clock(time.Since(o.started)))
	if report != "" {
		fmt.Fprintf(o.p.Stdout, "%s holds summary.txt, accounts.csv, folders.csv, missing.csv and proof.json\n", show(report))
	}
}

// finish shows the sum of all accounts.
func (o *output) finish(outcomes []outcome, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log != nil {
		o.log.summary(outcomes, status, time.Since(o.started))
	}
	if o.json != nil {
		o.json.summary(outcomes, status, time.Since(o.started))
		return
	}
	if o.dryRun {
		for i := range outcomes {
			if !o.quiet {
				showPlan(o.p.Stdout, &outcomes[i])
			}
		}
		return
	}
	if !o.quiet && (o.terminal || o.verbose || o.told) {
		if len(outcomes) == 1 {
			showOne(o.p.Stdout, &outcomes[0])
			if a := outcomes[0].account; o.terminal && !a.named && outcomes[0].result.Sum().New > 0 {
				fmt.Fprintf(o.p.Stdout, "\nTo do this every night:   mailstow init %s\nTo read the archive:      mutt -R -f %s\n", show(first(a.address, "ADDRESS")), show(filepath.Join(outcomes[0].dir, "INBOX")))
			}
		} else if o.told && !o.terminal && !o.verbose { // each line for itself
			for i := range outcomes {
				showOne(o.p.Stdout, &outcomes[i])
			}
		} else {
			showAll(o.p.Stdout, outcomes)
		}
	}
	if len(outcomes) > 1 && status != exitOK && (status != exitLater || o.terminal || o.verbose) {
		fmt.Fprintf(o.p.Stderr, "mailstow: %s finished: %s (exit %d)\n", o.command, tallyWords(outcomes), status)
	}
}
