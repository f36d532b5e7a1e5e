package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"mailstow/internal/credential"
	"mailstow/internal/monitor"
	"mailstow/maildir"
)

// inJournal reports whether what is printed to a stream goes to systemd's journal.
func (p *program) inJournal(stream io.Writer) bool {
	var device, inode uint64
	if n, _ := fmt.Sscanf(p.Getenv("JOURNAL_STREAM"), "%d:%d", &device, &inode); n != 2 {
		return false
	}
	f, ok := stream.(*os.File)
	if !ok {
		return true
	}
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && uint64(st.Dev) == device && st.Ino == inode
}

// journal gives lines the priorities of sd-daemon(3).
type journal struct {
	w     io.Writer
	usual string

	mu   sync.Mutex
	line []byte
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for b := range bytes.Lines(p) {
		if j.line = append(j.line, b...); !bytes.HasSuffix(b, []byte("\n")) {
			break
		}
		priority := j.usual
		switch {
		case bytes.Contains(j.line, []byte("warning: ")):
			priority = "<4>"
		case bytes.HasPrefix(j.line, []byte("[")): // how far it has come
			priority = "<6>"
		}
		if _, err := io.WriteString(j.w, priority+string(j.line)); err != nil {
			return 0, err
		}
		j.line = nil
	}
	return len(p), nil
}

// logFile opens the log that is asked for, nil if none is.
func (p *program) logFile(c *cli.Context) *jsonLines {
	path := c.String("log-file")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(p.Stderr, "mailstow: warning: there is no log: "+show(err.Error()))
		return nil
	}
	j := newJSONLines(f)
	j.log, j.file = true, f
	return j
}

// trace shows a line of what goes to or comes from a server: in the log if there
// is one.
func (p *program) trace(a *account, line string) {
	p.traced.Lock()
	defer p.traced.Unlock()
	if p.log != nil {
		p.log.write("wire", object{"account": a.name, "line": line})
		return
	}
	fmt.Fprintf(p.Stderr, "%s: %s\n", show(a.name), show(line))
}

// close ends the output.
func (o *output) close() {
	signal.Stop(o.asked)
	close(o.asked)
	if o.log != nil {
		o.p.traced.Lock()
		defer o.p.traced.Unlock()
		o.p.log = nil
		o.log.file.Close()
	}
	o.systemd.Status("done")
}

// check tells a service that waits for pings how a run goes.
type check struct {
	p   *program
	c   *cli.Context
	out *output
	monitor.Check

	account *account // nil for all
	metrics bool
	partly  bool // some accounts have not ended a run yet, so that nothing is good
	started sync.Once
}

// nightWatch is told of a run over all accounts.
func (p *program) nightWatch(c *cli.Context, out *output) *check {
	w := p.newCheck(c, out, p.notify.Healthchecks)
	w.metrics = p.notify.MetricsFile != "" && !out.dryRun
	return w
}

// checkOf is told of a run over one account, if that has a check of its own.
func (p *program) checkOf(c *cli.Context, a *account, out *output) *check {
	w := p.newCheck(c, out, a.check)
	w.account = a
	out.watched(w)
	return w
}

func (p *program) newCheck(c *cli.Context, out *output, address credential.Secret) *check {
	w := &check{p: p, c: c, out: out}
	if !out.dryRun {
		w.Check = monitor.Check{URL: address.Reveal(), Run: uuid.NewString()}
	}
	return w
}

// begin tells that the work begins, once.
func (w *check) begin() {
	if w.URL != "" {
		w.started.Do(func() { w.failed(w.Start(w.c.Context)) })
	}
}

// end tells how accounts went. Of those at which another run is at work, that run
// tells.
func (w *check) end(outcomes []outcome, status int) {
	if w.metrics {
		w.failed(w.writeMetrics(outcomes))
	}
	if w.URL == "" {
		return
	}
	good, locked := true, 0
	for i := range outcomes {
		o := &outcomes[i]
		if o.locked() {
			locked++
			continue
		}
		good = good && (o.status() == exitOK || o.paused())
	}
	switch {
	case locked == len(outcomes), good && w.partly:
		return
	case good:
		status = exitOK
	}
	var text bytes.Buffer
	if len(outcomes) == 1 {
		showOne(&text, &outcomes[0])
	} else {
		showAll(&text, outcomes)
	}
	for i := range outcomes {
		if pr := outcomes[i].problem; pr != nil {
			pr.print(&text)
		}
	}
	w.failed(w.End(w.c.Context, status, text.String()))
}

// locked reports whether another run is at work on the account.
func (o *outcome) locked() bool { return o.problem != nil && o.problem.code == "locked" && !o.begun }

// paused reports whether an account's run has stopped in good order and has
// brought something, or may bring nothing today: that is how the first weeks of
// a large account are, and nothing to wake anybody for.
func (o *outcome) paused() bool {
	return o.problem != nil && o.problem.status == exitLater && o.problem.code != "locked" && (o.problem.code == "daily_limit" || o.result.Sum().New > 0)
}

// failed tells that somebody could not be told. It is no failure of the run.
func (w *check) failed(err error) {
	switch {
	case err == nil:
	case w.account != nil:
		w.out.warn(w.account, "its check could not be told: "+err.Error())
	default:
		w.out.remark(problem{what: "warning: it could not be told how the run goes: " + err.Error(), code: "notify"})
	}
}

// writeMetrics brings the file of metrics up to date. What it says of other
// accounts of the config file, and of archives that cannot be read, stays.
func (w *check) writeMetrics(outcomes []outcome) error {
	m, err := monitor.ReadMetrics(w.p.notify.MetricsFile)
	if err != nil {
		return err
	}
	if w.c.NArg() == 0 && !w.partly { // all there are
		var names []string
		for i := range outcomes {
			names = append(names, outcomes[i].account.name)
		}
		m.Keep(names)
	}
	var failed []error
	for i := range outcomes {
		o := &outcomes[i]
		name := o.account.name
		if o.locked() {
			continue
		}
		m.Set("mailstow_last_run_timestamp_seconds", name, float64(o.ended.Unix()))
		m.Set("mailstow_last_run_exit_code", name, float64(o.status()))
		m.Set("mailstow_last_run_duration_seconds", name, o.result.Duration.Seconds())
		if o.used > 0 {
			m.Set("mailstow_quota_used_bytes", name, float64(o.used))
		}
		if o.quota > 0 {
			m.Set("mailstow_quota_limit_bytes", name, float64(o.quota))
		}
		if o.dir == "" {
			continue
		}
		err := open(w.c.Context, place{name, o.dir}, func(ar *maildir.Archive) error {
			s, err := standing(w.c, ar)
			if err != nil {
				return err
			}
			m.Set("mailstow_archive_messages", name, float64(s.messages))
			m.Set("mailstow_archive_bytes", name, float64(s.octets))
			m.Set("mailstow_failed_messages", name, float64(len(s.failures)))
			if s.last != nil {
				m.Set("mailstow_missing_messages", name, float64(s.last.Missing))
			}
			if s.good != nil {
				m.Set("mailstow_last_success_timestamp_seconds", name, float64(s.good.Ended.Unix()))
			}
			return nil
		})
		if err != nil && !errors.Is(err, maildir.ErrNone) && w.c.Context.Err() == nil {
			failed = append(failed, fmt.Errorf("%s: %w", name, err))
		}
	}
	if err := m.Write(w.p.notify.MetricsFile); err != nil {
		failed = append(failed, fmt.Errorf("metrics_file = %q: %w", w.p.notify.MetricsFile, err))
	}
	return errors.Join(failed...)
}
