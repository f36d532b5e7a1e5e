package backup

import (
	"cmp"
	"context"
	"slices"

	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// followRenames finds out which of the mailboxes that are new to the archive
// are former ones under another name, and gives them the folders of those.
func (r *run) followRenames(ctx context.Context, src Source, states map[string]mailbox.State) error {
	listed := map[string]bool{}
	var fresh []*plan
	for _, p := range r.plans {
		listed[p.Wire] = true
		if p.tally.Skipped == "" && p.standing == (mailbox.Standing{}) {
			fresh = append(fresh, p)
		}
	}
	isListed := func(wire string) bool { return listed[wire] }
	if len(fresh) == 0 || len(r.archive.Former(isListed)) == 0 {
		return nil
	}
	// A folder takes along what lies below it, so outer ones come first.
	slices.SortStableFunc(fresh, func(a, b *plan) int { return cmp.Compare(len(a.Name.Elems()), len(b.Name.Elems())) })
	for _, p := range fresh {
		if s, told := states[p.Wire]; told && s.Exists == 0 {
			continue
		}
		l, err := src.List(ctx, p.Mailbox, states[p.Wire], true)
		if retry.IsRefused(err) {
			continue // the survey tells
		}
		if err != nil {
			return err
		}
		if err := r.followRename(ctx, p, l, isListed); err != nil {
			return archiveFailed(ctx, err)
		}
	}
	return nil
}

func (r *run) followRename(ctx context.Context, p *plan, l mailbox.Listing, listed func(wire string) bool) error {
	for _, wire := range r.archive.Former(listed) {
		alike, err := r.archive.Resembles(ctx, wire, l)
		if err != nil {
			return err
		}
		if !alike {
			continue
		}
		was, err := r.archive.Adopt(ctx, wire, p.Mailbox, l, listed)
		if err != nil || was == "" {
			return err
		}
		p.tally.Path = r.archive.Path(p.Mailbox)
		p.standing, err = r.archive.Standing(ctx, p.Mailbox)
		r.sink.Report(report.Renamed{Mailbox: p.Name, Was: was})
		return err
	}
	return nil
}
