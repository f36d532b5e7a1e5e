package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// The times of a program that stays.
const (
	watchEvery = 15 * time.Minute // how often --watch looks at everything: IDLE tells of one mailbox
	watchPause = 5 * time.Second  // after a run, whatever the server tells
	lostPause  = 20 * time.Second // before the watch is tried again, doubled each time
)

// watcher is a connection over which the server tells that mail has come.
type watcher interface {
	Examine(ctx context.Context, m mailbox.Mailbox) error
	// Idle returns when something has changed in the mailbox, or after most.
	Idle(ctx context.Context, most time.Duration) error
	Close(finished bool) error
}

// stay backs accounts up again and again until the program is told to end. It
// does not end by itself, unless the only account is set up wrongly.
func (p *program) stay(c *cli.Context, accounts []*account) error {
	every := c.Duration("every")
	if every == 0 {
		every = watchEvery
	}
	if a := accounts[0]; c.Bool("watch") && len(accounts) == 1 && a.broken == nil && a.protocol != mailbox.IMAP {
		return configFailed(a.name+" cannot be watched: POP3 does not tell of new mail", "use --every TIME, or IMAP")
	}
	jobs := min(max(c.Int("jobs"), 1), len(accounts))
	k := &keeper{p: p, c: c, every: every, turn: make(chan struct{}, jobs), accounts: accounts, latest: map[*account]outcome{}}
	statuses := make([]int, len(accounts))
	var wg sync.WaitGroup
	for i, a := range accounts {
		wg.Go(func() { statuses[i] = k.keep(a) })
	}
	wg.Wait()
	if c.Context.Err() != nil {
		return &saidError{explain(c.Context, "", context.Cause(c.Context)).status}
	}
	return &saidError{together(statuses)}
}

// keeper keeps accounts in step.
type keeper struct {
	p     *program
	c     *cli.Context
	every time.Duration
	turn  chan struct{} // one for each run that may be at work

	accounts []*account

	mu     sync.Mutex
	latest map[*account]outcome // how the last run of each went that has ended
}

// run backs one account up, and tells how all of them stand.
func (k *keeper) run(a *account) (status int) {
	out := k.p.newOutput(k.c, "backup", []*account{a})
	defer out.close()
	out.sharers = cap(k.turn)
	outcomes := k.p.pullAll(k.c, []*account{a}, out)
	status = statusOf(outcomes)
	out.finish(outcomes, status)

	k.mu.Lock()
	defer k.mu.Unlock()
	if old, ok := k.latest[a]; !ok || !outcomes[0].locked() || old.locked() { // at a locked one another run is at work
		k.latest[a] = outcomes[0]
	}
	var all []outcome
	for _, a := range k.accounts {
		if o, ok := k.latest[a]; ok {
			all = append(all, o)
		}
	}
	night := k.p.nightWatch(k.c, out)
	night.partly = len(all) < len(k.accounts)
	night.end(all, statusOf(all))
	return status
}

// keep backs one account up whenever the server tells of new mail, and every
// so often. It returns when the program is to end, or if the first run finds
// that the only account is set up wrongly.
func (k *keeper) keep(a *account) (status int) {
	ctx := k.c.Context
	w := &watch{login: &login{account: a}, on: k.c.Bool("watch") && a.protocol == mailbox.IMAP}
	defer w.close()
	for first := true; ctx.Err() == nil; first = false {
		if a.broken != nil && !first {
			a = k.mend(a)
			w.login.account, w.on = a, k.c.Bool("watch") && a.protocol == mailbox.IMAP
		}
		if status != exitLogin && a.broken == nil {
			w.open(ctx) // before the run, so that what comes during it is told
		}
		k.turn <- struct{}{}
		status = k.run(a)
		<-k.turn
		if len(k.accounts) == 1 && first && (status == exitLogin || status == exitConfig) {
			return status
		}
		if status == exitLogin {
			a.forget()
		}
		if retry.Sleep(ctx, watchPause) == nil {
			w.wait(ctx, k.every-watchPause, status != exitLogin)
		}
	}
	return status
}

// mend makes an account that could not be made, if that can be done now: its
// server may have been looked up before the network was there.
func (k *keeper) mend(a *account) *account {
	made, err := a.again()
	if err != nil {
		return a
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.accounts[slices.Index(k.accounts, a)] = made
	delete(k.latest, a)
	return made
}

// watch is a watcher, made again when it is lost.
type watch struct {
	login *login
	on    bool
	conn  watcher // nil while there is none
	fails int     // in a row
}

// open makes the connection, if that can be done. The run that follows tells
// what is wrong with the server if something is.
func (w *watch) open(ctx context.Context) {
	if !w.on || w.conn != nil {
		return
	}
	w.login.forget()
	src, err := w.login.connect(ctx)
	if err != nil {
		return
	}
	conn, ok := src.(watcher)
	if !ok {
		err = fmt.Errorf("IDLE: %w", errors.ErrUnsupported)
	} else {
		err = conn.Examine(ctx, mailbox.Mailbox{Name: mailbox.NewName("INBOX"), Wire: "INBOX"})
	}
	if err != nil {
		src.Close(true)
		return
	}
	w.conn = conn
}

// wait returns when there is a reason to look again: something has come, the
// watch has been lost and made again, or the time is over.
func (w *watch) wait(ctx context.Context, most time.Duration, mayLogIn bool) {
	end := time.Now().Add(most)
	for ctx.Err() == nil && time.Now().Before(end) {
		if w.conn == nil {
			pause := time.Until(end)
			if w.on && mayLogIn {
				pause = min(lostPause<<min(w.fails, 10), pause)
			}
			if retry.Sleep(ctx, pause) != nil || !w.on || !mayLogIn {
				return
			}
			w.fails++
			if w.open(ctx); w.conn != nil {
				return // something may have come meanwhile
			}
			continue
		}
		begun := time.Now()
		err := w.conn.Idle(ctx, time.Until(end))
		if err == nil || ctx.Err() != nil {
			w.fails = 0
			return
		}
		w.close()
		if errors.Is(err, errors.ErrUnsupported) || retry.IsRefused(err) {
			w.on = false // the server has no IDLE, or will not do it
		}
		if time.Since(begun) > lostPause {
			w.fails = 0
		}
	}
}

func (w *watch) close() {
	if w.conn != nil {
		w.conn.Close(true)
		w.conn = nil
	}
}
