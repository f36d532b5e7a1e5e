package backup

import (
	"bytes"
	"context"
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
	pool := newPool(free)
	if err := r.readHeaders(ctx, src, p, func(m mailbox.Message) bool { return pool.hasSize(m.Size) }); err != nil {
		return err
	}
	kept := p.want[:0]
	for _, m := range p.want {
		if header, ok := p.headers[m.ID]; ok && pool.hasSize(m.Size) {
			if c, ok := pool.take(m.Size, header); ok {
				p.claims = append(p.claims, claim{m, c.Message, c.Removed, slices.Equal(m.Flags, c.Flags)})
				continue
			}
		}
		kept = append(kept, m)
	}
	p.want = kept
	p.bySum = pool.rest()
	if p.tally.Kept == 0 && len(p.claims) > 0 && len(p.gone) > 0 {
		r.sink.Report(report.Rebuilt{Mailbox: p.Name, Recognised: len(p.claims), Download: len(p.want)})
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
	for _, m := range msgs {
		if !read[m.ID] {
			p.headless[m.ID] = true
			break
		}
	}
	return err
}

// pool holds archived messages that a server's may be recognised as.
type pool struct {
	sizes map[int64]bool          // that they have, in one of the ways of counting
	any   bool                    // of some, the size says nothing
	free  []fingerprint.Candidate // in the order of their headers
	taken []bool
	from  map[fingerprint.Sum]int // where those with a header begin that are not taken
}

func newPool(free []fingerprint.Candidate) *pool {
	p := &pool{sizes: map[int64]bool{}, free: free, taken: make([]bool, len(free)), from: map[fingerprint.Sum]int{}}
	slices.SortStableFunc(free, func(a, b fingerprint.Candidate) int { return bytes.Compare(a.Header[:], b.Header[:]) })
	for _, c := range free {
		if c.Rewritten {
			p.any = true
		} else {
			p.sizes[c.Size], p.sizes[c.Lines], p.sizes[c.Lines+2] = true, true, true
		}
	}
	return p
}

// hasSize reports whether a message of this size may be in the pool. An
// unknown size (-1) cannot be recognised: a header alone is not enough.
func (p *pool) hasSize(size int64) bool { return p.sizes[size] || p.any && size >= 0 }

// take takes a message with this size and header out of the pool; one with
// exactly this size if there is one, one whose file is there if there is one.
func (p *pool) take(size int64, h fingerprint.Header) (found fingerprint.Candidate, ok bool) {
	for _, fits := range []func(fingerprint.Candidate) bool{
		func(c fingerprint.Candidate) bool { return !c.Removed && c.Size == size },
		func(c fingerprint.Candidate) bool { return !c.Removed },
		func(fingerprint.Candidate) bool { return true },
	} {
		for _, sum := range []fingerprint.Sum{h.Sum, h.Rewritten} {
			for i := p.first(sum); i < len(p.free) && p.free[i].Header == sum; i++ {
				if c := p.free[i]; !p.taken[i] && c.Matches(size, h) && fits(c) {
					p.taken[i] = true
					return c, true
				}
			}
		}
	}
	return found, false
}

// first returns the place of the first message with this header that is not
// taken. Many may be alike.
func (p *pool) first(header fingerprint.Sum) int {
	first, known := p.from[header]
	if !known {
		first, _ = slices.BinarySearchFunc(p.free, header, func(c fingerprint.Candidate, h fingerprint.Sum) int { return bytes.Compare(c.Header[:], h[:]) })
	}
	for ; first < len(p.free) && p.taken[first]; first++ {
	}
	if known || first+1 < len(p.free) && p.free[first+1].Header == header {
		p.from[header] = first
	}
	return first
}

// rest returns what is left in the pool, by the digest of its octets.
func (p *pool) rest() map[fingerprint.Sum][]int64 {
	bySum := map[fingerprint.Sum][]int64{}
	for i, c := range p.free {
		if !p.taken[i] && !c.Removed {
			bySum[c.SHA256] = append(bySum[c.SHA256], c.Message)
		}
	}
	return bySum
}
