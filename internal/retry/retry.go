// Package retry says which failures may pass, and waits for those that do.
package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Permanent marks an error that trying again cannot cure, such as a refused
// password.
func Permanent(err error) error { return &permanent{err} }

// IsPermanent reports whether err was marked by [Permanent].
func IsPermanent(err error) bool { return errors.As(err, new(*permanent)) }

type permanent struct{ error }

func (p *permanent) Unwrap() error { return p.error }

// Refused marks the answer of a server that said no to one command. The
// connection can still be used.
func Refused(err error) error { return &refused{err} }

// IsRefused reports whether err was marked by [Refused].
func IsRefused(err error) bool { return errors.As(err, new(*refused)) }

type refused struct{ error }

func (r *refused) Unwrap() error { return r.error }

// Pause waits before try number n (1 is the second try): base, doubled each
// time, with up to half of it added at random so that clients which fell
// together do not come back together. It returns early when ctx ends.
func Pause(ctx context.Context, base time.Duration, n int) error {
	d := base << min(n-1, 16)
	if d > 0 {
		d += rand.N(d/2 + 1)
	}
	return Sleep(ctx, d)
}

// Sleep waits for d, or until ctx ends, whose cause it then returns.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
