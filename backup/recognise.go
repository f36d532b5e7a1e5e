package backup

import (
	"context"
	"errors"
	"slices"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// recognise finds out which of the wanted messages the archive holds already,
// without being known as the server's: size and header block are the same.
// Two messages that are alike need two in the archive.
func (r *run) recognise(ctx context.Context, src Source, p *plan, live func(id mailbox.ID, gone bool) bool) error {
	free, err := r.archive.Unclaimed(ctx, p.Mailbox, live)
	if err != nil {
		return archiveFailed(ctx, err)
	}
	p.bySum = map[fingerprint.Sum][]int64{}
	if len(free) == 0 {
		return nil
	}
	if r.Refetch { // what was removed is to come again
		free = slices.DeleteFunc(free, func(c fingerprint.Candidate) bool { return c.Removed })
	}
	pool := fingerprint.NewPool(free)
	if err := r.readHeaders(ctx, src, p, func(m mailbox.Message) bool { return pool.HasSize(m.Size) }); err != nil {
		return err
	}
	kept := p.want[:0]
	for _, m := range p.want {
		if header, ok := p.headers[m.ID]; ok && pool.HasSize(m.Size) {
			if c, ok := pool.Take(m.Size, header); ok {
				p.claims = append(p.claims, claim{m, c.Message, c.Removed, slices.Equal(m.Flags, c.Flags)})
				continue
			}
		}
		kept = append(kept, m)
	}
	p.want = kept
	p.bySum = pool.Rest()
	if p.tally.Kept == 0 && len(p.claims) > 0 && len(p.gone) > 0 {
		r.sink.Report(report.Rebuilt{Mailbox: p.Name, Was: p.standing.UIDValidity, Is: p.state.UIDValidity, Recognised: len(p.claims), Download: len(p.want)})
	}
	return nil
}

// headersAtATime is how many header blocks are asked for at once.
const headersAtATime = 5000

// readHeaders digests the header blocks of those wanted messages that need it.
// What is read stays, also when the connection is lost; the message on which
// it is lost is left out from then on. A message without header is downloaded
// and compared.
func (r *run) readHeaders(ctx context.Context, src Source, p *plan, need func(mailbox.Message) bool) error {
	var unread []mailbox.Message
	for i, m := range p.want {
		if _, ok := p.headers[m.ID]; (!ok || m.Transient) && !p.headless[m.ID] && need(m) {
			unread = append(unread, m)
		}
		if len(unread) == headersAtATime || i == len(p.want)-1 && len(unread) > 0 {
			if err := r.readSome(ctx, src, p, unread); err != nil {
				return err
			}
			unread = unread[:0]
		}
	}
	return nil
}

func (r *run) readSome(ctx context.Context, src Source, p *plan, msgs []mailbox.Message) error {
	read := make(map[mailbox.ID]bool, len(msgs))
	err := src.Headers(ctx, p.Mailbox, msgs, func(m mailbox.Message, header []byte) error {
		p.headers[m.ID] = fingerprint.ReadHeader(header)
		if r.Filter.ByDate() {
			p.dates[m.ID], _ = fingerprint.ReadFields(header).Arrived(time.Now())
		}
		read[m.ID] = true
		r.crew.arrived()
		return nil
	})
	if err == nil || retry.IsRefused(err) {
		return nil
	}
	if lost := (*mailbox.MessageError)(nil); errors.As(err, &lost) {
		p.headless[lost.ID] = true
	} else if i := slices.IndexFunc(msgs, func(m mailbox.Message) bool { return !read[m.ID] }); i >= 0 {
		p.headless[msgs[i].ID] = true
	}
	if errors.Is(err, mailbox.ErrOutOfStep) {
		r.crew.arrived() // it is about one message: the server is well
	}
	return err
}
