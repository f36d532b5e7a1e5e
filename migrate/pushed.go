package migrate

import (
	"context"
	"slices"
	"strings"

	"mailstow/internal/fingerprint"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// checkPushed looks whether what has just been stored is where the server said:
// by its size and, where that is another, by its header. If something is not,
// all of it is looked up by its header: what is found elsewhere is noted so.
// What is not found may have been changed by the server: it stays as it was
// told, and how it looks there is noted.
func (r *run) checkPushed(ctx context.Context, d Destination, p *plan, listed []mailbox.Message) error {
	if len(p.pushed) == 0 {
		return nil
	}
	at := make(map[mailbox.ID]*mailbox.Message, len(listed))
	for i := range listed {
		at[listed[i].ID] = &listed[i]
	}
	told := map[mailbox.ID][]pushed{} // more than one where the server does not tell the truth
	for _, s := range p.pushed {
		told[s.id] = append(told[s.id], s)
	}
	var odd []mailbox.Message
	lost := false
	for id, all := range told {
		m := at[id]
		switch {
		case m == nil || len(all) > 1:
			lost = true
		case m.Size >= 0 && !all[0].HasSize(m.Size):
			odd = append(odd, *m)
		}
	}
	batch := r.archive.Begin()
	if !lost {
		same, err := r.sameHeaders(ctx, d, p, odd, told, batch)
		if err != nil {
			return err
		}
		lost = same < len(odd)
	}
	if lost {
		if err := r.findPushed(ctx, d, p, listed, told, batch); err != nil {
			return err
		}
	}
	if err := commit(ctx, batch); err != nil {
		return err
	}
	for _, s := range p.pushed {
		if m := at[s.id]; m != nil {
			p.compareFlags(s.Candidate, *m)
		}
	}
	p.pushed = nil
	return nil
}

// formThere is how the server has a message.
func formThere(m mailbox.Message, h fingerprint.Header) fingerprint.Print {
	return fingerprint.Print{Size: m.Size, Lines: m.Size, Header: h.Sum}
}

// sameHeaders counts messages that have the header of what was stored there,
// and notes their sizes.
func (r *run) sameHeaders(ctx context.Context, d Destination, p *plan, odd []mailbox.Message, told map[mailbox.ID][]pushed, batch Batch) (same int, err error) {
	if len(odd) == 0 {
		return 0, nil
	}
	err = d.Headers(ctx, p.box, odd, func(m mailbox.Message, header []byte) error {
		if h, s := fingerprint.ReadHeader(header), told[m.ID][0]; h.Sum == s.Header {
			batch.Form(s.Message, formThere(m, h), changedThere)
			same++
		}
		return nil
	})
	if retry.IsRefused(err) {
		err = nil
	}
	return same, err
}

// changedThere is the note on a form that a server has made.
const changedThere = "changed by the server"

// findPushed looks for what was stored among all that no other message is known
// to be.
func (r *run) findPushed(ctx context.Context, d Destination, p *plan, listed []mailbox.Message, told map[mailbox.ID][]pushed, batch Batch) error {
	sought := map[int64]pushed{}
	for _, all := range told {
		for _, s := range all {
			sought[s.Message] = s
		}
	}
	others := map[mailbox.ID]bool{}
	err := r.archive.EachHeld(ctx, p.path, p.box, func(h Held) {
		if _, ours := sought[h.Message]; !ours {
			others[h.ID] = true
		}
	})
	if err != nil {
		return retry.Permanent(err)
	}
	listed = slices.DeleteFunc(slices.Clone(listed), func(m mailbox.Message) bool { return others[m.ID] })
	if len(listed) == 0 {
		return nil
	}
	var rest []mailbox.Message
	headers := map[mailbox.ID]fingerprint.Header{}
	err = d.Headers(ctx, p.box, listed, func(m mailbox.Message, header []byte) error {
		h := fingerprint.ReadHeader(header)
		for _, s := range told[m.ID] {
			if _, left := sought[s.Message]; left && h.Sum == s.Header { // where it was told
				if m.Size >= 0 && !s.HasSize(m.Size) {
					batch.Form(s.Message, formThere(m, h), changedThere)
				}
				delete(sought, s.Message)
				return batch.Pushed(ctx, p.box, m, s.Message)
			}
		}
		rest = append(rest, m)
		headers[m.ID] = h
		return nil
	})
	if err != nil && !retry.IsRefused(err) {
		return err
	}
	var candidates []fingerprint.Candidate
	for _, s := range sought {
		candidates = append(candidates, s.Candidate)
	}
	pool := fingerprint.NewPool(candidates)
	found := map[mailbox.ID]bool{}
	for _, m := range rest {
		if c, ok := pool.Take(m.Size, headers[m.ID]); ok {
			delete(sought, c.Message)
			found[m.ID] = true
			if err := batch.Claim(ctx, p.box, m, c.Message, false); err != nil {
				return archiveFailed(err)
			}
		}
	}
	for _, m := range rest {
		if all := told[m.ID]; len(all) == 1 && !found[m.ID] {
			if _, left := sought[all[0].Message]; left {
				batch.Form(all[0].Message, formThere(m, headers[m.ID]), changedThere)
				delete(sought, all[0].Message)
			}
		}
	}
	for _, s := range sought {
		p.unanswered = append(p.unanswered, s.Candidate) // the answer says nothing
	}
	return nil
}

// compareFlags counts what the server did not keep of a message that has just
// been stored.
func (p *plan) compareFlags(sent fingerprint.Candidate, m mailbox.Message) {
	for _, f := range sent.Flags {
		kept := slices.ContainsFunc(m.Flags, func(k string) bool { return strings.EqualFold(k, f) })
		if !kept && !strings.EqualFold(f, `\Recent`) {
			if p.Unkept == nil {
				p.Unkept = map[string]int{}
			}
			p.Unkept[f]++
		}
	}
	if !m.InternalDate.IsZero() && m.InternalDate.Unix() != sent.Arrived {
		p.Redated++
	}
}

// matchUntold finds what a server has stored and changed so that it is not
// recognised, and of which it does not say where it is: one connection stores
// in the order in which it answers. That holds if just as many messages have
// come as are looked for, and each has something of the one that it should be.
func (r *run) matchUntold(ctx context.Context, d Destination, p *plan, known map[mailbox.ID]bool, strange []mailbox.Message, claimed map[int64]bool) error {
	sought := slices.DeleteFunc(slices.Clone(p.untold), func(c fingerprint.Candidate) bool { return claimed[c.Message] })
	come := slices.DeleteFunc(slices.Clone(strange), func(m mailbox.Message) bool { return p.before[m.ID] || known[m.ID] })
	if len(sought) == 0 {
		p.untold = nil
		return nil
	}
	same := 0
	if len(come) == len(sought) {
		at := map[mailbox.ID]fingerprint.Candidate{}
		for i, m := range come {
			at[m.ID] = sought[i]
		}
		err := d.Headers(ctx, p.box, come, func(m mailbox.Message, header []byte) error {
			is, err := r.isSame(ctx, at[m.ID], header)
			if is {
				same++
			}
			return err
		})
		if err != nil && !retry.IsRefused(err) {
			return err
		}
	}
	if same < len(sought) || same < len(come) {
		r.unanswered.Store(true) // the next run looks again
		p.untold = nil
		return nil
	}
	batch := r.archive.Begin()
	for i, c := range sought {
		if err := batch.Pushed(ctx, p.box, come[i], c.Message); err != nil {
			return archiveFailed(err)
		}
		claimed[c.Message] = true
	}
	if err := commit(ctx, batch); err != nil {
		return err
	}
	p.untold = nil
	return nil
}
