package cli

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/credential"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// watchEvery is how often --watch looks at everything: IDLE tells of one
// mailbox.
const watchEvery = 15 * time.Minute

// watcher is a connection over which the server tells that mail has come.
type watcher interface {
	Examine(ctx context.Context, m mailbox.Mailbox) error
	// Idle returns when something has changed in the mailbox, or after most.
	Idle(ctx context.Context, most time.Duration) error
	Close(finished bool) error
}

// stay backs accounts up again and again until the program is told to end.
// It never ends by itself, but for what is wrong before the first run.
func (p *program) stay(c *cli.Context, accounts []*account) error {
	every := c.Duration("every")
	if every <= 0 {
		every = watchEvery
	}
	var wg sync.WaitGroup
	for _, a := range accounts {
		a.rememberPassword()
		wg.Go(func() { p.keepInStep(c, a, every) })
	}
	wg.Wait()
	pr := explain(c.Context, "", context.Cause(c.Context))
	return &saidError{pr.status}
}

// rememberPassword keeps a password that was had once, so that a person is
// asked once.
func (a *account) rememberPassword() {
	if a.changing {
		return
	}
	ask := a.password
	var mu sync.Mutex
	var kept *credential.Secret
	a.password = func(ctx context.Context) (credential.Secret, error) {
		mu.Lock()
		defer mu.Unlock()
		if kept != nil {
			return *kept, nil
		}
		secret, err := ask(ctx)
		if err == nil {
			kept = &secret
		}
		return secret, err
	}
}

// keepInStep backs one account up whenever the server tells of new mail, and
// every so often.
func (p *program) keepInStep(c *cli.Context, a *account, every time.Duration) {
	ctx := c.Context
	w := &watch{login: &login{account: a}, on: c.Bool("watch")}
	defer w.close()
	for ctx.Err() == nil {
		w.open(ctx) // before the run, so that what comes during it is told
		p.backupAll(c, []*account{a})
		w.wait(ctx, every)
	}
}

// watch is a watcher, made again when it is lost.
type watch struct {
	login *login
	on    bool
	conn  watcher // nil while there is none
}

// open makes the connection, if that can be done. The run that follows tells
// what is wrong with the server if something is.
func (w *watch) open(ctx context.Context) {
	if !w.on || w.conn != nil {
		return
	}
	src, err := w.login.connect(ctx)
	if err != nil {
		return
	}
	conn, ok := src.(watcher)
	if ok {
		err = conn.Examine(ctx, mailbox.Mailbox{Name: mailbox.NewName("INBOX"), Wire: "INBOX"})
	}
	if !ok || err != nil {
		src.Close(true)
		return
	}
	w.conn = conn
}

// lostPause is how long to wait for the next run when the watch was lost.
const lostPause = 20 * time.Second

// wait returns when there is a reason to look again.
func (w *watch) wait(ctx context.Context, most time.Duration) {
	until := time.Now().Add(most)
	if w.conn != nil {
		err := w.conn.Idle(ctx, most)
		if err == nil || ctx.Err() != nil {
			return
		}
		w.close()
		if errors.Is(err, errors.ErrUnsupported) {
			w.on = false // the server has no IDLE
		} else {
			until = time.Now().Add(min(lostPause, most))
		}
	}
	retry.Sleep(ctx, time.Until(until))
}

func (w *watch) close() {
	if w.conn != nil {
		w.conn.Close(true)
		w.conn = nil
	}
}
