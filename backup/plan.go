package backup

import (
	"context"
	"errors"
	"slices"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// plan is what a run is going to do for one mailbox.
type plan struct {
	mailbox.Mailbox
	listing mailbox.Listing // without messages
	tally   report.Tally
	done    bool   // carried out
	session Source // in which IDs hold that do not last
	imap    bool

	want     []mailbox.Message              // to be fetched
	claims   []claim                        // recognised
	flags    []claim                        // whose flags have changed on the server
	gone     []mailbox.ID                   // no longer listed
	back     []mailbox.ID                   // listed again
	bySum    map[fingerprint.Sum][]int64    // archived messages that stand for no message on the server
	headers  map[mailbox.ID]fingerprint.Sum // that were read
	headless map[mailbox.ID]bool            // the connection was lost on their header
	doubtful map[mailbox.ID]fingerprint.Sum // of what came in another size than announced
	failed   map[mailbox.ID]failure
	short    int // messages that came shorter than announced, twice
}

// failure is a message that could not be fetched, and why.
type failure struct {
	mailbox.Message
	reason string
}

func (p *plan) fail(m mailbox.Message, reason string) { p.failed[m.ID] = failure{m, reason} }

// pretend fills in the tally as if all had gone well.
func (p *plan) pretend() {
	p.tally.New, p.tally.Again, p.tally.Flags = len(p.want), len(p.claims), len(p.flags)
	for _, m := range p.want {
		p.tally.Octets += max(m.Size, 0)
	}
}

// claim pairs a message on the server with one in the archive.
type claim struct {
	mailbox.Message
	archived int64
	removed  bool // from the archive, by the user
}

// plan looks at a mailbox and decides what is to be done. A mailbox that the
// server does not let us read has a plan with a reason and nothing to do.
func (r *run) plan(ctx context.Context, mb mailbox.Mailbox) (*plan, error) {
	p := &plan{
		Mailbox:  mb,
		headers:  map[mailbox.ID]fingerprint.Sum{},
		headless: map[mailbox.ID]bool{},
		doubtful: map[mailbox.ID]fingerprint.Sum{},
		failed:   map[mailbox.ID]failure{},
	}
	survey := func(src Source) error { return r.survey(ctx, src, p) }
	err := r.line.do(ctx, survey)
	if errors.Is(err, mailbox.ErrRebuilt) {
		err = r.line.do(ctx, survey)
	}
	if retry.IsRefused(err) || errors.Is(err, mailbox.ErrRebuilt) {
		p.unreadable(r.sink, err.Error())
		err = nil
	}
	p.tally.Mailbox, p.tally.Role, p.tally.Path = mb.Name, mb.Role, r.archive.Path(mb)
	return p, err
}

// unreadable makes a plan that has nothing to do, for a reason.
func (p *plan) unreadable(sink report.Sink, reason string) {
	p.tally = report.Tally{Mailbox: p.Name, Role: p.Role, Path: p.tally.Path, Reason: reason}
	p.want, p.claims, p.flags, p.gone, p.back = nil, nil, nil, nil, nil
	sink.Report(report.MailboxFailed{Mailbox: p.Name, Reason: reason})
}

// survey fills in a plan. It begins anew when it is called again.
func (r *run) survey(ctx context.Context, src Source, p *plan) error {
	l, err := src.List(ctx, p.Mailbox)
	if err == nil && l.Exists != len(l.Messages) { // mail may be coming and going
		l, err = src.List(ctx, p.Mailbox)
	}
	if err != nil {
		return err
	}
	known, err := r.archive.Known(ctx, p.Mailbox)
	if err != nil {
		return retry.Permanent(&ArchiveError{err})
	}
	if src.Protocol() == mailbox.IMAP && l.UIDValidity == 0 {
		known = nil // without UIDVALIDITY a UID of yesterday names nothing
	}
	p.tally = report.Tally{UIDValidity: l.UIDValidity, OnServer: l.Exists, Listed: len(l.Messages)}
	p.session, p.imap = src, src.Protocol() == mailbox.IMAP
	p.want, p.claims, p.flags, p.gone, p.back = nil, nil, nil, nil, nil
	listed := make(map[mailbox.ID]bool, len(l.Messages))
	for _, m := range l.Messages {
		kept, ok := known[m.ID]
		if !ok || m.Transient {
			p.want = append(p.want, m)
			continue
		}
		listed[m.ID] = true
		r.keep(p, src.Protocol(), m, kept)
	}
	for id, kept := range known {
		if !listed[id] && !kept.Gone {
			p.gone = append(p.gone, id)
		}
	}
	l.Messages = nil
	p.listing = l
	if len(p.want) == 0 {
		return nil
	}
	if err := src.Describe(ctx, p.Mailbox, p.want); err != nil {
		return err
	}
	return r.recognise(ctx, src, p, listed)
}

// keep plans a message that the archive knows.
func (r *run) keep(p *plan, protocol mailbox.Protocol, m mailbox.Message, kept mailbox.Kept) {
	if kept.Gone {
		p.back = append(p.back, m.ID)
	}
	if kept.Removed {
		p.tally.Removed++
		return
	}
	p.tally.Kept++
	if protocol == mailbox.IMAP && !slices.Equal(m.Flags, kept.Flags) {
		p.flags = append(p.flags, claim{Message: m, archived: kept.Message})
	}
}

// recognise finds out which of the wanted messages the archive holds already,
// without being known as the server's: size and header block are the same.
// Two messages that are alike need two in the archive.
func (r *run) recognise(ctx context.Context, src Source, p *plan, live map[mailbox.ID]bool) error {
	free, err := r.archive.Unclaimed(ctx, p.Mailbox, func(id mailbox.ID) bool { return live[id] })
	if err != nil {
		return retry.Permanent(&ArchiveError{err})
	}
	p.bySum = map[fingerprint.Sum][]int64{}
	if len(free) == 0 {
		return nil
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
	if len(live) == 0 && len(p.claims) > 0 && len(p.gone) > 0 {
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
		r.line.arrived()
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
