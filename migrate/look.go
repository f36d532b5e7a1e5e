package migrate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// looker looks at the server over a connection of its own.
type looker struct {
	*run
	conn Destination // nil until it is needed, and when it is lost
}

// maxTries is how often a look at the server is tried anew when the
// connection is lost.
const maxTries = 4

// do calls f with the connection, and again on a new one if that is lost.
func (l *looker) do(ctx context.Context, f func(Destination) error) (err error) {
	for try := range maxTries {
		if try > 0 {
			l.sink.Report(report.Reconnecting{Err: err, Try: try + 1})
			if err := retry.Pause(ctx, l.Pause, try); err != nil {
				return err
			}
		}
		if l.conn == nil {
			if l.conn, err = l.server.Look(ctx); err != nil {
				l.conn = nil
				if retry.IsPermanent(err) || ctx.Err() != nil {
					return err
				}
				continue
			}
		}
		if err = f(l.conn); err == nil || retry.IsRefused(err) || retry.IsPermanent(err) || ctx.Err() != nil {
			return err
		}
		l.conn.Close(false)
		l.conn = nil
	}
	return err
}

// lookAll compares the folders with their mailboxes, where something has been
// sent since the last time, several at once. unsettled says that the server may
// still be storing.
func (r *run) lookAll(ctx context.Context, unsettled bool) error {
	stale := make(chan *plan, len(r.plans))
	for _, p := range r.plans {
		if p.wanted() && !p.looked {
			stale <- p
		}
	}
	close(stale)
	n := min(max(r.Connections-r.due, 1), (len(stale)+1)/2)
	for len(r.lookers) < n {
		r.lookers = append(r.lookers, &looker{run: r})
	}
	r.spare(max(r.Connections-n, 0))
	var g errgroup.Group
	for _, l := range r.lookers {
		g.Go(func() error {
			for p := range stale {
				err := l.look(ctx, p, unsettled)
				switch {
				case err == nil:
					p.looked = true
				case retry.IsRefused(err) && p.doubted > 0 && !p.remade: // it has gone during the run
					p.gone()
				case retry.IsRefused(err):
					p.Reason = err.Error()
				default:
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	if err == nil && unsettled {
		r.unanswered.Store(false)
	}
	return err
}

// gone makes a plan to store everything again.
func (p *plan) gone() {
	p.exists, p.remade, p.looked = false, true, false
	p.blocked, p.pushed, p.untold, p.unanswered = "", nil, nil, nil
	p.Before, p.Recognised, p.Sent, p.ByHeader, p.OnServer = 0, 0, 0, 0, 0
	clear(p.refuse)
	clear(p.tooLarge)
	p.seen = false
}

// look finds out what the mailbox lacks of a folder.
func (l *looker) look(ctx context.Context, p *plan, unsettled bool) (err error) {
	l.archive.Place(p.box, p.path, l.Mapping.stays())
	if !p.exists {
		p.before, p.empty, p.seen = map[mailbox.ID]bool{}, true, true
		return l.ahead(ctx, p)
	}
	if err = l.compare(ctx, p); err == nil && unsettled {
		err = l.settle(ctx, p)
	}
	return err
}

// ahead finds out without asking what the mailbox lacks of a folder, where it
// holds nothing but what the archive knows.
func (r *run) ahead(ctx context.Context, p *plan) error {
	free, err := r.archive.Unclaimed(ctx, p.path, p.box, func(id mailbox.ID) bool { return p.live[id] })
	if err != nil {
		return retry.Permanent(err)
	}
	if free = r.only(free); !p.exists {
		p.Archived = len(free)
	}
	r.lacks(p, free)
	return nil
}

// only returns those of the messages that are to be stored at all.
func (r *run) only(all []fingerprint.Candidate) []fingerprint.Candidate {
	return slices.DeleteFunc(all, func(c fingerprint.Candidate) bool { return !r.among(c.Message) })
}

// among reports whether a message is one of those that are to be stored.
func (r *run) among(message int64) bool { return r.Only == nil || r.Only[message] }

// lacks notes what the mailbox lacks, apart from what is not wanted there.
func (r *run) lacks(p *plan, free []fingerprint.Candidate) {
	p.missing, p.Excluded = free[:0], 0
	for _, c := range free {
		m := mailbox.Message{Size: c.Size, InternalDate: time.Unix(c.Arrived, 0)}
		if c.Message >= 0 && !r.Filter.Wants(m) { // of what is to come, what is not wanted is left out
			p.Excluded++
			continue
		}
		p.missing = append(p.missing, c)
		if c.Message < 0 {
			continue
		}
		if most := r.limits.Message; most > 0 && c.Size+c.BareLF > most && p.refuse[c.Message] == "" {
			p.refuse[c.Message] = fmt.Sprintf("it is larger than the server takes (%d octets)", most)
			p.tooLarge[c.Message] = true
		}
	}
	if r.DryRun {
		p.Sent, p.SentOctets = 0, 0
		for _, c := range p.sendable() {
			p.Sent, p.SentOctets = p.Sent+1, p.SentOctets+c.Size
		}
	}
}

// settle waits until the server stores no more of what it was sent over a
// connection that has ended.
func (l *looker) settle(ctx context.Context, p *plan) error {
	for missing := len(p.missing); missing > 0; {
		if err := retry.Sleep(ctx, 2*l.Pause); err != nil {
			return err
		}
		if err := l.compare(ctx, p); err != nil || len(p.missing) == missing {
			return err
		}
		missing = len(p.missing)
	}
	return nil
}

// compare lists the mailbox, recognises what is not known as the archive's,
// and notes what it lacks.
func (l *looker) compare(ctx context.Context, p *plan) error {
	return l.do(ctx, func(d Destination) error { return l.compareOn(ctx, d, p) })
}

// maxListings is how often a mailbox is listed whose listing does not name as
// many messages as the server counts.
const maxListings = 3

// listAll lists a mailbox, whole or not at all.
func listAll(ctx context.Context, d Destination, m mailbox.Mailbox) (l mailbox.Listing, err error) {
	for range maxListings {
		if l, err = d.List(ctx, m, mailbox.State{}, true); err != nil || len(l.Messages) >= l.Exists {
			return l, err
		}
	}
	return l, retry.Refused(fmt.Errorf("it has %d messages, and the server names %d", l.Exists, len(l.Messages)))
}

func (r *run) compareOn(ctx context.Context, d Destination, p *plan) error {
	l, err := listAll(ctx, d, p.box)
	if err != nil {
		return err
	}
	listed := make(map[mailbox.ID]*mailbox.Message, len(l.Messages))
	for i := range l.Messages {
		listed[l.Messages[i].ID] = &l.Messages[i]
	}
	if err := r.checkPushed(ctx, d, p, l.Messages); err != nil {
		return err
	}
	forms, err := r.archive.Forms(ctx, p.path)
	if err != nil {
		return retry.Permanent(err)
	}
	known, err := r.trusted(ctx, d, p, listed, forms)
	if err != nil {
		return err
	}
	free, err := r.archive.Unclaimed(ctx, p.path, p.box, func(id mailbox.ID) bool { return known[id] })
	if err != nil {
		return retry.Permanent(err)
	}
	var strange []mailbox.Message
	for _, m := range l.Messages {
		if !known[m.ID] {
			strange = append(strange, m)
		}
	}
	p.live = known
	claimed, old, err := r.recognise(ctx, d, p, strange, free, forms)
	if err != nil {
		return err
	}
	if err := r.resemble(ctx, d, p, strange, free, claimed); err != nil {
		return err
	}
	first := !p.seen
	if first {
		p.before = make(map[mailbox.ID]bool, len(listed))
		for id := range listed {
			p.before[id] = true
		}
		p.empty = len(strange) == 0 && len(known) == len(listed)
	} else if err := r.matchUntold(ctx, d, p, known, strange, claimed); err != nil {
		return err
	}
	maps.DeleteFunc(claimed, func(message int64, _ bool) bool { return !r.among(message) })
	free = r.only(free)
	there := p.held
	p.Archived = there + len(free)
	p.OnServer = len(l.Messages)
	p.ByHeader += len(claimed)
	if first {
		p.Before, p.Recognised = there, len(claimed)
	} else {
		p.Recognised += old // while the archive was filled it could not be
		p.Sent = there + len(claimed) - p.Before - p.Recognised
		if p.Sent < 0 { // some have been removed there meanwhile
			p.Before, p.Sent = p.Before+p.Sent, 0
		}
	}
	p.seen = true
	r.lacks(p, slices.DeleteFunc(free, func(c fingerprint.Candidate) bool { return claimed[c.Message] }))
	return nil
}

// trusted returns what the mailbox lists and the archive knows. Some servers
// give an ID to another message, when a mailbox is made anew: one that has
// another size or time than the message it was, another header, and another
// Message-ID is not known. What has the last alone was changed by the server.
func (r *run) trusted(ctx context.Context, d Destination, p *plan, listed map[mailbox.ID]*mailbox.Message, forms []fingerprint.Candidate) (known map[mailbox.ID]bool, err error) {
	known = map[mailbox.ID]bool{}
	headers := map[int64][]fingerprint.Candidate{}
	for _, f := range forms {
		headers[f.Message] = append(headers[f.Message], f)
	}
	var odd []mailbox.Message
	was := map[mailbox.ID][]fingerprint.Candidate{} // what the odd ones should be
	held := map[int64]int{}                         // how often
	byHeader := map[mailbox.ID]bool{}
	p.there = map[mailbox.ID]fingerprint.Candidate{}
	err = r.archive.EachHeld(ctx, p.path, p.box, func(h Held) {
		m := listed[h.ID]
		if m == nil {
			return
		}
		known[h.ID] = true
		if h.Here && !h.Removed && r.among(h.Message) {
			held[h.Message]++
			if h.Recognised {
				byHeader[h.ID] = true
			}
			if r.full {
				p.there[h.ID] = h.Candidate
			}
		}
		fits := func(c fingerprint.Candidate) bool { return c.HasSize(m.Size) }
		otherSize := m.Size >= 0 && !h.HasSize(m.Size) && !slices.ContainsFunc(headers[h.Message], fits)
		otherTime := !h.Recognised && !m.InternalDate.IsZero() && m.InternalDate.Unix() != h.Arrived
		if otherSize || otherTime {
			odd = append(odd, *m)
			was[h.ID] = append(headers[h.Message], h.Candidate)
		}
	})
	if err != nil {
		return nil, retry.Permanent(err)
	}
	defer func() { p.held, p.ByHeader = len(held), len(byHeader) }()
	if len(odd) == 0 {
		return known, nil
	}
	batch := r.archive.Begin()
	err = d.Headers(ctx, p.box, odd, func(m mailbox.Message, header []byte) error {
		h := fingerprint.ReadHeader(header)
		c, same := was[m.ID][len(was[m.ID])-1], slices.ContainsFunc(was[m.ID], func(c fingerprint.Candidate) bool { return c.Header == h.Sum })
		if !same {
			var err error
			if same, err = r.isSame(ctx, c, header); err != nil {
				return err
			}
		}
		if same { // and needs not be asked for again
			batch.Form(c.Message, formThere(m, h), changedThere)
			return nil
		}
		delete(known, m.ID)
		delete(byHeader, m.ID)
		delete(p.there, m.ID)
		if held[c.Message]--; held[c.Message] <= 0 {
			delete(held, c.Message)
		}
		return nil
	})
	if err != nil { // if it is refused, nothing can be said of the mailbox
		return nil, err
	}
	return known, r.keep(ctx, batch)
}

// describe asks for the sizes that are not known.
func describe(ctx context.Context, d Destination, m mailbox.Mailbox, msgs []mailbox.Message) error {
	var bare []mailbox.Message
	for _, msg := range msgs {
		if msg.Size < 0 {
			bare = append(bare, msg)
		}
	}
	if len(bare) == 0 {
		return nil
	}
	if err := d.Describe(ctx, m, bare); err != nil {
		return err
	}
	sizes := map[mailbox.ID]int64{}
	for _, msg := range bare {
		sizes[msg.ID] = msg.Size
	}
	for i := range msgs {
		if size, ok := sizes[msgs[i].ID]; ok {
			msgs[i].Size = size
		}
	}
	return nil
}

// recognise finds out which messages of the server are the archive's. Of these,
// old were there at the first look.
func (r *run) recognise(ctx context.Context, d Destination, p *plan, strange []mailbox.Message, free, forms []fingerprint.Candidate) (claimed map[int64]bool, old int, err error) {
	claimed = map[int64]bool{}
	if len(strange) == 0 || len(free) == 0 {
		return claimed, 0, nil
	}
	sought := make(map[int64]fingerprint.Candidate, len(forms))
	for _, c := range free {
		sought[c.Message] = c
	}
	forms = slices.DeleteFunc(slices.Clone(forms), func(c fingerprint.Candidate) bool {
		_, free := sought[c.Message]
		return !free
	})
	first := slices.Clone(free)
	slices.SortStableFunc(first, func(a, b fingerprint.Candidate) int { // of several alike, what is not to be stored is there
		switch aIn, bIn := r.among(a.Message), r.among(b.Message); {
		case aIn == bIn:
			return 0
		case bIn:
			return -1
		}
		return 1
	})
	pools := []*fingerprint.Pool{fingerprint.NewPool(first), fingerprint.NewPool(forms)}
	if err := describe(ctx, d, p.box, strange); err != nil {
		return nil, 0, err
	}
	strange = slices.DeleteFunc(slices.Clone(strange), func(m mailbox.Message) bool { return !pools[0].HasSize(m.Size) && !pools[1].HasSize(m.Size) })
	if len(strange) == 0 {
		return claimed, 0, nil
	}
	sent := map[int64]bool{} // in this run, without being told where it is
	for _, c := range p.untold {
		sent[c.Message] = true
	}
	batch, read := r.archive.Begin(), map[mailbox.ID]bool{}
	take := func(m mailbox.Message, header []byte) error {
		read[m.ID] = true
		h := fingerprint.ReadHeader(header)
		for _, pool := range pools {
			for c, ok := pool.Take(m.Size, h); ok; c, ok = pool.Take(m.Size, h) {
				if claimed[c.Message] {
					continue
				}
				claimed[c.Message] = true
				if p.before[m.ID] {
					old++
				}
				if sent[c.Message] {
					p.compareFlags(sought[c.Message], m)
				}
				p.live[m.ID] = true
				if r.full {
					p.there[m.ID] = sought[c.Message]
				}
				return batch.Claim(ctx, p.box, m, c.Message, false)
			}
		}
		return nil
	}
	if err := d.Headers(ctx, p.box, strange, take); err != nil && !retry.IsRefused(err) {
		return nil, 0, err
	}
	unread := slices.DeleteFunc(strange, func(m mailbox.Message) bool { return read[m.ID] })
	if len(unread) > 0 {
		if err := d.Headers(ctx, p.box, unread, take); err != nil {
			return nil, 0, err // also if it is refused: nothing can be said of the mailbox
		}
	}
	for _, m := range unread {
		for _, c := range free {
			if !read[m.ID] && !claimed[c.Message] && c.HasSize(m.Size) && p.refuse[c.Message] == "" {
				p.refuse[c.Message] = "it may be one whose header the server does not give"
			}
		}
	}
	return claimed, old, r.keep(ctx, batch)
}
