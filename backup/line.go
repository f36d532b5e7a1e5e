package backup

import (
	"context"
	"errors"
	"time"

	"mailstow/internal/report"
	"mailstow/internal/retry"
)

// maxLogins is how often a run logs in without anything having arrived.
const maxLogins = 3

// line is the connection to the server, made again when it is lost.
type line struct {
	open  func(context.Context) (Source, error)
	sink  report.Sink
	pause time.Duration

	src    Source
	fails  int   // logins since something arrived
	last   error // why the connection was lost
	inUse  bool  // it was lost after the login
	givens int   // mailboxes given up since something arrived
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
	if !errors.As(err, new(*gaveUpError)) || !l.inUse || l.givens >= maxGivenUp {
		return false
	}
	l.givens++
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
			l.arrived()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if retry.IsRefused(err) || retry.IsPermanent(err) {
			return err
		}
		l.lost(err)
	}
}

// get returns the connection, made anew if there is none.
func (l *line) get(ctx context.Context) (Source, error) {
	for l.src == nil {
		if l.fails >= maxLogins {
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
	l.close()
	l.fails++
	l.last, l.inUse = err, true
}

// arrived notes that the connection was of use.
func (l *line) arrived() { l.fails, l.givens = 0, 0 }

func (l *line) close() {
	if l.src != nil {
		l.src.Close()
		l.src = nil
	}
}
