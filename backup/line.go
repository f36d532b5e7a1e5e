package backup

import (
	"context"
	"errors"
	"time"

	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// maxLogins is how often a run logs in without anything having arrived.
const maxLogins = 3

// line is the connection to the server, made again when it is lost.
type line struct {
	open     func(context.Context) (Source, error)
	sink     report.Sink
	pause    time.Duration
	patience time.Duration

	src     Source
	since   time.Time // something arrived, or the run began
	fails   int       // logins since then
	givenUp int       // mailboxes given up since then
	last    error     // why the connection was lost
	inUse   bool      // it was lost after the login
}

// gaveUpError is the error of a connection that is not made again.
type gaveUpError struct{ error }

func (e *gaveUpError) Unwrap() error { return e.error }

// maxGivenUp is how many mailboxes in a row may be given up because the
// connection is lost on them, before the run is.
const maxGivenUp = 3

// another reports whether another mailbox should be tried after one on which
// the connection was lost too often: the server still lets us in.
func (l *line) another(err error) bool {
	if !errors.As(err, new(*gaveUpError)) || !l.inUse || l.givenUp >= maxGivenUp || time.Since(l.since) > l.patience {
		return false
	}
	l.givenUp++
	l.fails = maxLogins - 1
	return true
}

// do calls f with a connection, again after a lost one as long as that is of
// use. A refusal is f's own business and is returned.
func (l *line) do(ctx context.Context, f func(Source) error) error {
	for {
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
		if retry.IsRefused(err) || retry.IsPermanent(err) || errors.Is(err, mailbox.ErrRebuilt) {
			return err
		}
		l.lost(err)
	}
}

// get returns the connection, made anew if there is none.
func (l *line) get(ctx context.Context) (Source, error) {
	for l.src == nil {
		if l.fails >= maxLogins || l.fails > 0 && time.Since(l.since) > l.patience {
			return nil, &gaveUpError{l.last}
		}
		if l.fails > 0 {
			l.sink.Report(report.Reconnecting{Err: l.last, Try: l.fails + 1})
			if err := retry.Pause(ctx, l.pause, l.fails); err != nil {
				return nil, err
			}
		}
		src, err := l.open(ctx)
		switch {
		case err == nil:
			l.src = src
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case retry.IsPermanent(err):
			return nil, err
		default:
			l.lost(err)
			l.inUse = false
		}
	}
	return l.src, nil
}

// lost notes that the connection is of no more use.
func (l *line) lost(err error) {
	l.close(false)
	l.fails++
	l.last, l.inUse = err, true
}

// arrived notes that the connection was of use.
func (l *line) arrived() { l.fails, l.givenUp, l.since = 0, 0, time.Now() }

// close ends the connection; finished says that the run has nothing more to
// ask, and all that it fetched is safe.
func (l *line) close(finished bool) {
	if l.src != nil {
		l.src.Close(finished)
		l.src = nil
	}
}
