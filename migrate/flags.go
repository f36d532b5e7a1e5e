package migrate

import (
	"context"
	"slices"
	"strings"

	"mailstow/internal/fingerprint"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// change is what is to be done to the flags of messages.
type change struct{ add, remove string } // separated by blanks

// updateFlags brings the flags of what was there before the run in step with
// the archive: what has changed in the archive since the server had it is
// changed there. What has changed there stays.
func (l *looker) updateFlags(ctx context.Context) error {
	for _, p := range l.plans {
		if !p.wanted() || p.blocked != "" {
			continue
		}
		err := l.do(ctx, func(d Destination) error { return l.updateOn(ctx, d, p) })
		switch {
		case retry.IsRefused(err):
			p.Reason = "flags cannot be changed: " + err.Error()
		case err != nil:
			return err
		}
	}
	return nil
}

func (r *run) updateOn(ctx context.Context, d Destination, p *plan) error {
	changes := map[change][]mailbox.ID{}
	now := map[mailbox.ID][]string{}
	whose := map[mailbox.ID]fingerprint.Candidate{}
	var msgs []mailbox.Message
	err := r.archive.EachHeld(ctx, p.path, p.box, func(h Held) {
		if !h.Here || !p.before[h.ID] || !p.live[h.ID] {
			return
		}
		c := change{add: strings.Join(without(h.Flags, h.Told), " ")}
		if !h.Recognised { // else what it had there was not the archive's
			c.remove = strings.Join(without(h.Told, h.Flags), " ")
		}
		if c != (change{}) {
			whose[h.ID], msgs = h.Candidate, append(msgs, mailbox.Message{ID: h.ID})
			changes[c], now[h.ID] = append(changes[c], h.ID), slices.Concat(without(h.Told, strings.Fields(c.remove)), strings.Fields(c.add))
		}
	})
	if err != nil {
		return retry.Permanent(err)
	}
	if len(msgs) == 0 {
		return nil
	}
	ours := map[mailbox.ID]bool{} // the numbers may stand for other messages now
	err = d.Headers(ctx, p.box, msgs, func(m mailbox.Message, header []byte) (err error) {
		ours[m.ID], err = r.isSame(ctx, whose[m.ID], header)
		return err
	})
	if err != nil {
		return err
	}
	for c, ids := range changes {
		ids = slices.DeleteFunc(ids, func(id mailbox.ID) bool { return !ours[id] })
		if len(ids) == 0 {
			continue
		}
		if err := d.Flag(ctx, p.box, ids, strings.Fields(c.add), strings.Fields(c.remove)); err != nil {
			return err
		}
		batch := r.archive.Begin()
		for _, id := range ids {
			if err := batch.Told(ctx, p.box, id, now[id]); err != nil {
				return archiveFailed(err)
			}
		}
		if err := commit(ctx, batch); err != nil {
			return err
		}
		p.Flagged += len(ids)
	}
	return nil
}

// without returns the flags that are not among others, whatever their case. A
// server sets \Recent by itself.
func without(flags, others []string) (left []string) {
	for _, f := range flags {
		same := func(o string) bool { return strings.EqualFold(o, f) }
		if !slices.ContainsFunc(others, same) && !strings.EqualFold(f, `\Recent`) {
			left = append(left, f)
		}
	}
	return left
}
