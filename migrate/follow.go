package migrate

import (
	"context"
	"time"

	"mailstow/internal/report"
	"mailstow/internal/retry"
)

// follow sends what comes into the archive while it is being filled, into
// mailboxes that hold nothing else: what is there already can be recognised
// only once all has come. They are looked at again at the end, or after
// trouble.
func (r *run) follow(ctx context.Context, first *looker) error {
	if err := first.createAll(ctx); err != nil {
		return err
	}
	var followed []*plan
	for _, p := range r.plans {
		if p.missing = nil; p.wanted() && p.looked && p.empty {
			followed = append(followed, p)
		}
	}
	unsettled := false
	for stalls := 0; stalls < maxStalls && !over(r.Filling.Done); {
		begun, send := time.Now(), 0
		for _, p := range followed {
			if !p.exists { // it has gone meanwhile
				continue
			}
			if err := r.ahead(ctx, p); err != nil {
				return err
			}
			send += len(p.sendable())
		}
		scan := time.Since(begun)
		if send > 0 {
			err := r.sendAll(ctx)
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case retry.IsPermanent(err):
				stalls, unsettled = maxStalls, true
				continue
			case err != nil:
				stalls++
				r.sink.Report(report.Reconnecting{Err: err, Try: stalls + 1})
				if err := retry.Pause(ctx, r.Pause, stalls); err != nil {
					return err
				}
				if err := r.lookAll(ctx, true); err != nil {
					return err
				}
			default:
				stalls = 0
				for _, p := range followed { // what is in doubt is looked for before it is sent again
					p.looked = len(p.unanswered) == 0 && p.doubted != r.pass
				}
				if err := r.lookAll(ctx, false); err != nil {
					return err
				}
			}
			for _, p := range followed {
				p.looked = true
			}
		}
		if err := wait(ctx, r.Filling.Done, max(followEvery, 4*scan)); err != nil {
			return err
		}
	}
	if err := r.filled(ctx, first, unsettled); err != nil {
		return err
	}
	return r.room()
}

// filled waits until the archive is filled, and looks at everything again.
func (r *run) filled(ctx context.Context, first *looker, unsettled bool) error {
	if err := wait(ctx, r.Filling.Done, -1); err != nil {
		return err
	}
	if err := first.refresh(ctx); err != nil {
		return err
	}
	return r.lookAll(ctx, unsettled)
}

func over(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// followEvery is how often an archive that is being filled is looked at.
const followEvery = 100 * time.Millisecond

// wait returns when done is closed or most has passed, which -1 stands for
// never.
func wait(ctx context.Context, done <-chan struct{}, most time.Duration) error {
	var late <-chan time.Time
	if most >= 0 {
		t := time.NewTimer(most)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-done:
	case <-late:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// refresh takes in what has come into the archive since the plans were made.
func (l *looker) refresh(ctx context.Context) error {
	folders, err := l.archive.Folders(ctx)
	if err != nil {
		return retry.Permanent(err)
	}
	now := map[string]Folder{}
	for _, f := range folders {
		now[f.Path] = f
	}
	for _, p := range l.plans {
		p.octets, p.looked = now[p.path].Octets, false
		delete(now, p.path)
	}
	if len(now) == 0 {
		return nil
	}
	before := map[string]*plan{}
	for _, p := range l.plans {
		before[p.path] = p
	}
	err = l.do(ctx, func(d Destination) error { return l.plan(ctx, d, folders) })
	for i, p := range l.plans {
		if old := before[p.path]; old != nil {
			l.plans[i] = old
		}
	}
	return err
}

// expected is what the archive is still to be filled with.
func (r *run) expected() (messages, octets int64) {
	if r.Filling == nil || over(r.Filling.Done) {
		return 0, 0
	}
	return r.Filling.Coming()
}
