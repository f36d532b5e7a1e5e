package backup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// maxLogins is how often the last line logs in without anything having
// arrived on any.
const maxLogins = 3

// maxGivenUp is how many mailboxes in a row may be given up because the
// connection is lost on them, before the run is.
const maxGivenUp = 3

// maxRests is how often one question is asked again of a server that says it
// is busy, and maxBusy how often in a row any may be before the run pauses.
const (
	maxRests = 6
	maxBusy  = 40
)

// recruitAfter is how long after a line was given up another may be tried.
const recruitAfter = 30 * time.Second

// crew is the lines of a run to its server, at most as many as the server
// bears. It begins with one.
type crew struct {
	open     func(context.Context) (Source, error)
	sink     report.Sink
	pause    time.Duration
	patience time.Duration

	mu       sync.Mutex
	most     int       // lines that may be at work
	alive    int       // lines that are
	over     bool      // a line has found nothing to do, or an error
	idle     []*line   // lines that are not, with their connections
	arrivals int       // how often something arrived, on any line
	since    time.Time // when it did last, or the run began
	givenUp  int       // mailboxes given up since then
	busy     int       // answers since then that the server is busy
	rest     time.Time // nothing is asked before then
	retired  time.Time // when the last line was given up
	last     error     // why a connection was lost last
}

// line is one connection to the server, made again when it is lost. It is
// used by one goroutine at a time.
type line struct {
	*crew
	src   Source
	near  *plan // whose mailbox the connection has open
	fails int   // logins and losses since something arrived
	seen  int   // arrivals when it logged in, or failed, last
	idled bool  // it failed before anything more had arrived
	inUse bool  // the connection was lost after the login
}

// gaveUpError is the error of a connection that is not made again.
type gaveUpError struct{ error }

func (e *gaveUpError) Unwrap() error { return e.error }

// errRetired says that a line is given up while others go on.
var errRetired = errors.New("this connection is given up")

// work lets lines call step until it says that there is nothing more to do,
// and returns the first error. A line for which step returns errRetired
// leaves the others to it.
func (c *crew) work(ctx context.Context, lines int, step func(*line) (more bool, err error)) error {
	var wg sync.WaitGroup
	var first error
	fail := func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if first == nil {
			first = err
		}
	}
	var start func()
	loop := func(l *line) {
		defer wg.Done()
		for ctx.Err() == nil {
			more, err := step(l)
			if errors.Is(err, errRetired) {
				return
			}
			if err != nil {
				fail(err)
			}
			if err != nil || !more {
				break
			}
			if c.surplus() {
				l.close(false)
				c.putBack(l)
				return
			}
			start()
		}
		c.leave()
		c.putBack(l)
	}
	start = func() {
		for c.recruit(lines) {
			l := c.take()
			wg.Add(1)
			go loop(l)
		}
	}
	c.mu.Lock()
	c.over = false
	c.mu.Unlock()
	start()
	wg.Wait()
	if first == nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return first
}

// drain works until the queue is empty, or an error ends the run.
func (c *crew) drain(ctx context.Context, q *queue, step func(*line) (more bool, err error)) error {
	for {
		if err := c.work(ctx, q.lines, step); err != nil || q.empty() {
			return err
		}
	}
}

// recruit reports whether one more line should be at work, and counts it.
func (c *crew) recruit(wanted int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.alive >= max(min(wanted, c.most), 1) || c.alive > 0 && time.Since(c.retired) < recruitAfter {
		return false
	}
	c.alive++
	return true
}

// ready counts the lines that have a connection and nothing to do.
func (c *crew) ready() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.idle {
		if l.src != nil {
			n++
		}
	}
	return n
}

func (c *crew) take() *line {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) > 0 {
		i := max(slices.IndexFunc(c.idle, func(l *line) bool { return l.src != nil }), 0)
		l := c.idle[i]
		c.idle = slices.Delete(c.idle, i, i+1)
		return l
	}
	return &line{crew: c}
}

func (c *crew) putBack(l *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, l)
}

// leave counts a line as gone for which there is nothing more to do. None is
// started after it.
func (c *crew) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alive--
	c.over = true
}

// surplus reports whether there are more lines than the server bears, and
// counts the calling one as gone then.
func (c *crew) surplus() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive <= max(c.most, 1) {
		return false
	}
	c.alive--
	return true
}

// close ends the connections; finished says that the run has nothing more to
// ask, and all that it fetched is safe.
func (c *crew) close(finished bool) {
	var wg sync.WaitGroup
	for _, l := range c.idle {
		wg.Go(func() { l.close(finished) })
	}
	wg.Wait()
}

// moving notes that octets of a message arrive.
func (c *crew) moving() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = time.Now()
}

// arrived notes that a connection was of use.
func (c *crew) arrived() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrivals++
	c.givenUp, c.busy, c.since = 0, 0, time.Now()
}

// slow notes that the server has said that it is busy. A patient crew grows
// smaller and waits; else the answer may have been about one message. It
// returns the error with which the run pauses if the server has said so too
// often, or asks for more than patience.
func (c *crew) slow(cause error, wait time.Duration, patient bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy++
	wait = max(wait, c.pause<<min(c.busy-1, 5))
	if c.busy > maxBusy || time.Since(c.since)+wait > c.patience {
		return &PausedError{Reason: "the server asks to be left alone: " + cause.Error()}
	}
	if !patient {
		return nil
	}
	c.most = max(c.most-1, 1)
	if until := time.Now().Add(wait); until.After(c.rest) {
		c.rest = until
	}
	c.sink.Report(report.Slowed{Err: cause, Wait: wait})
	return nil
}

// rested waits while the crew is to ask nothing.
func (c *crew) rested(ctx context.Context) error {
	for {
		c.mu.Lock()
		wait := time.Until(c.rest)
		c.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		if err := retry.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// another reports whether another mailbox should be tried after one on which
// the connection was lost too often: the server still lets us in.
func (l *line) another(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !errors.As(err, new(*gaveUpError)) || !l.inUse || l.givenUp >= maxGivenUp || time.Since(l.since) > l.patience {
		return false
	}
	l.givenUp++
	l.fails = maxLogins - 1
	return true
}

// do calls f with a connection, again after a lost one, or when the server
// was busy, as long as that is of use. A refusal is f's own business and is
// returned.
func (l *line) do(ctx context.Context, f func(Source) error) error {
	for rests := 0; ; {
		src, err := l.get(ctx)
		if err != nil {
			return err
		}
		if err = f(src); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait, busy := retry.IsBusy(err)
		if busy && rests < maxRests {
			rests++
			if err := l.slow(err, wait, true); err != nil {
				return err
			}
		}
		switch {
		case retry.IsRefused(err) && busy && rests < maxRests:
		case retry.IsRefused(err) || retry.IsPermanent(err) || errors.Is(err, mailbox.ErrRebuilt):
			return err
		default:
			l.lost(err)
		}
	}
}

// get returns the connection, made anew if there is none.
func (l *line) get(ctx context.Context) (Source, error) {
	for l.src == nil {
		if err := l.mayLogIn(ctx); err != nil {
			return nil, err
		}
		src, err := l.open(ctx)
		wait, busy := retry.IsBusy(err)
		switch {
		case err == nil:
			l.src = src
			if l.fails == 0 {
				l.note()
			}
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case l.leaves(busy || retry.IsPermanent(err) || retry.IsRefused(err)):
			l.sink.Report(report.FewerConnections{Err: err})
			return nil, errRetired
		case retry.IsPermanent(err):
			return nil, err
		default:
			if busy {
				if err := l.slow(err, wait, true); err != nil {
					return nil, err
				}
			}
			l.lost(err)
			l.inUse = false
		}
	}
	return l.src, l.rested(ctx)
}

// mayLogIn waits before a login that follows a failure, and is an error if
// there have been enough of them.
func (l *line) mayLogIn(ctx context.Context) error {
	if l.fails == 0 {
		return l.rested(ctx)
	}
	l.mu.Lock()
	alone := l.alive <= 1
	enough := l.fails >= maxLogins || !alone && l.idled || time.Since(l.since) > l.patience
	last := l.last
	l.mu.Unlock()
	if enough && l.leaves(false) {
		return errRetired
	}
	if enough {
		return &gaveUpError{last}
	}
	l.sink.Report(report.Reconnecting{Err: last, Try: l.fails + 1})
	if err := retry.Pause(ctx, l.pause, l.fails); err != nil {
		return err
	}
	return l.rested(ctx)
}

// leaves takes the line out of the crew if others stay; forGood says that the
// server bears no more lines than those.
func (l *line) leaves(forGood bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alive <= 1 {
		return false
	}
	l.alive--
	l.retired = time.Now()
	if forGood {
		l.most = l.alive
	}
	return true
}

// note notes what had arrived when the line logged in.
func (l *line) note() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = l.arrivals
}

// lost notes that the connection is of no more use.
func (l *line) lost(err error) {
	l.close(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idled = l.seen == l.arrivals; !l.idled {
		l.fails, l.seen = 0, l.arrivals
	}
	l.fails++
	l.last, l.inUse = err, true
}

// leave ends a connection over one message: the server is well, and there is
// no need to wait for it.
func (l *line) leave() {
	l.close(false)
	l.fails = 0
	l.arrived()
}

func (l *line) close(finished bool) {
	if l.src != nil {
		l.src.Close(finished)
		l.src = nil
	}
}
