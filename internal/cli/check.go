package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/credential"
	"mailstow/internal/filter"
	"mailstow/mailbox"
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
			&cli.IntFlag{Name: "connections", Usage: "`N` connections to an account at the same time (default: 4, over POP3 1)"},
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
	out.dryRun = true
	outcomes := p.pullAll(c, accounts, out)
	status := statusOf(outcomes)
	out.checked(outcomes, status)
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

// checked shows what accounts hold, and what a backup would pull.
func (o *output) checked(outcomes []outcome, status int) {
	if o.json != nil {
		o.json.summary(outcomes, status, time.Since(o.started))
		return
	}
	if o.quiet {
		return
	}
	t := table{head: []string{"account", "result", "server", ">folders", ">messages", ">would pull", ">size"}}
	for i := range outcomes {
		r := &outcomes[i]
		if len(r.result.Tallies) == 0 {
			t.add(show(r.account.name), r.word(), show(r.account.endpoint.Addr), "-", "-", "-", "-")
			continue
		}
		sum := r.result.Sum()
		t.add(show(r.account.name), r.word(), show(r.account.endpoint.Addr), count(len(r.result.Tallies)), count(sum.OnServer), count(sum.New), octets(sum.Octets))
	}
	fmt.Fprint(o.p.Stdout, t.String())
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
