package backup

import (
	"context"
	"slices"

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
	pool := newPool(free)
	var maybe []mailbox.Message
	for _, m := range p.want {
		if pool.hasSize(m.Size) {
			maybe = append(maybe, m)
		}
	}
	if err := r.readHeaders(ctx, src, p, maybe); err != nil {
		return err
	}
	found := map[mailbox.ID]fingerprint.Candidate{}
	for _, m := range maybe {
		if header, ok := p.headers[m.ID]; ok {
			if archived, ok := pool.take(m.Size, header); ok {
				found[m.ID] = archived
			}
		}
	}
	p.want = slices.DeleteFunc(p.want, func(m mailbox.Message) bool {
		c, ok := found[m.ID]
		if ok {
			p.claims = append(p.claims, claim{m, c.Message, c.Removed})
		}
		return ok
	})
	p.bySum = pool.rest()
	if p.tally.Kept == 0 && len(p.claims) > 0 && len(p.gone) > 0 {
		r.sink.Report(report.Rebuilt{Mailbox: p.Name, Recognised: len(p.claims), Download: len(p.want)})
	}
	return nil
}

// readHeaders digests the header blocks of messages. What is read stays, also
// when the connection is lost; the message on which it is lost is left out
// from then on. A message without header is downloaded and compared.
func (r *run) readHeaders(ctx context.Context, src Source, p *plan, msgs []mailbox.Message) error {
	var unread []mailbox.Message
	for _, m := range msgs {
		if _, ok := p.headers[m.ID]; (!ok || m.Transient) && !p.headless[m.ID] {
			unread = append(unread, m)
		}
	}
	if len(unread) == 0 {
		return nil
	}
	read := map[mailbox.ID]bool{}
	err := src.Headers(ctx, p.Mailbox, unread, func(m mailbox.Message, header []byte) error {
		p.headers[m.ID] = fingerprint.HeaderSum(header)
		read[m.ID] = true
		r.crew.arrived()
		return nil
	})
	if err == nil || retry.IsRefused(err) {
		return nil
	}
	for _, m := range unread {
		if !read[m.ID] {
			p.headless[m.ID] = true
			break
		}
	}
	return err
}

// pool holds archived messages that a server's may be recognised as.
type pool struct {
	bySize map[int64]int                               // how many have it, in one of the ways of counting
	free   map[fingerprint.Sum][]fingerprint.Candidate // by header
}

func newPool(free []fingerprint.Candidate) *pool {
	p := &pool{bySize: map[int64]int{}, free: map[fingerprint.Sum][]fingerprint.Candidate{}}
	for _, c := range free {
		for _, size := range []int64{c.Size, c.Lines, c.Lines + 2} {
			p.bySize[size]++
		}
		p.free[c.Header] = append(p.free[c.Header], c)
	}
	return p
}

// hasSize reports whether a message of this size may be in the pool. An
// unknown size (-1) cannot be recognised: a header alone is not enough.
func (p *pool) hasSize(size int64) bool { return p.bySize[size] > 0 }

// take takes a message with this size and header out of the pool; one with
// exactly this size if there is one, one whose file is there if there is one.
func (p *pool) take(size int64, header fingerprint.Sum) (found fingerprint.Candidate, ok bool) {
	like := p.free[header]
	for _, fits := range []func(fingerprint.Candidate) bool{
		func(c fingerprint.Candidate) bool { return !c.Removed && c.Size == size },
		func(c fingerprint.Candidate) bool { return !c.Removed && c.SizeMatches(size) },
		func(c fingerprint.Candidate) bool { return c.SizeMatches(size) },
	} {
		if i := slices.IndexFunc(like, fits); i >= 0 {
			found = like[i]
			p.free[header] = slices.Delete(like, i, i+1)
			return found, true
		}
	}
	return found, false
}

// rest returns what is left in the pool, by the digest of its octets.
func (p *pool) rest() map[fingerprint.Sum][]int64 {
	bySum := map[fingerprint.Sum][]int64{}
	for _, like := range p.free {
		for _, c := range like {
			if !c.Removed {
				bySum[c.SHA256] = append(bySum[c.SHA256], c.Message)
			}
		}
	}
	return bySum
}
