package backup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// plan is what a run is going to do for one mailbox.
type plan struct {
	mailbox.Mailbox
	standing mailbox.Standing
	told     mailbox.State // as the server told it without opening the mailbox
	state    mailbox.State // now
	session  Source        // in which IDs hold that do not last
	imap     bool

	// What the survey found.
	want     []mailbox.Message                 // to be fetched
	twins    []mailbox.Message                 // to be copied from the archive
	claims   []claim                           // recognised
	flags    []claim                           // whose flags have changed on the server
	gone     []mailbox.ID                      // no longer listed
	back     []mailbox.ID                      // listed again
	headers  map[mailbox.ID]fingerprint.Header // that were read
	dates    map[mailbox.ID]time.Time          // that those tell, if dates decide
	headless map[mailbox.ID]bool               // the connection was lost on their header

	mu       sync.Mutex // what follows changes while several lines fetch
	tally    report.Tally
	done     bool                           // carried out
	bySum    map[fingerprint.Sum][]int64    // archived messages that stand for no message on the server
	doubtful map[mailbox.ID]fingerprint.Sum // of what came in another size than announced
	failed   map[mailbox.ID]failure
	short    int // messages that came shorter than announced, twice
	tasks    int // that are not done
	started  bool
	surveyed bool
	finished bool
}

// failure is a message that could not be fetched, and why.
type failure struct {
	mailbox.Message
	reason string
}

func (p *plan) fail(m mailbox.Message, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed[m.ID] = failure{m, reason}
}

func newPlan(mb mailbox.Mailbox) *plan {
	return &plan{
		Mailbox:  mb,
		headers:  map[mailbox.ID]fingerprint.Header{},
		dates:    map[mailbox.ID]time.Time{},
		headless: map[mailbox.ID]bool{},
		doubtful: map[mailbox.ID]fingerprint.Sum{},
		failed:   map[mailbox.ID]failure{},
	}
}

// pretend fills in the tally as if all had gone well.
func (p *plan) pretend() {
	p.tally.New, p.tally.Linked, p.tally.Again, p.tally.Flags = len(p.want)+len(p.twins), len(p.twins), len(p.claims), len(p.flags)
	for _, m := range p.want {
		p.tally.Octets += max(m.Size, 0)
		if at := m.InternalDate; !at.IsZero() {
			if p.tally.Oldest.IsZero() || at.Before(p.tally.Oldest) {
				p.tally.Oldest = at
			}
			if at.After(p.tally.Newest) {
				p.tally.Newest = at
			}
		}
	}
}

// claim pairs a message on the server with one in the archive.
type claim struct {
	mailbox.Message
	archived int64
	removed  bool // from the archive, by the user
	inStep   bool // its flags are the server's
}

// archiveFailed is the error of an archive that cannot be asked or written,
// unless the run has been ended.
func archiveFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return retry.Permanent(&ArchiveError{err})
}

// unreadable makes a plan that has nothing to do, for a reason.
func (p *plan) unreadable(sink report.Sink, reason string) {
	p.tally = report.Tally{Mailbox: p.Name, Role: p.Role, Path: p.tally.Path, Reason: reason}
	p.want, p.twins, p.claims, p.flags, p.gone, p.back = nil, nil, nil, nil, nil, nil
	sink.Report(report.MailboxFailed{Mailbox: p.Name, Reason: reason})
}

// idle reports whether there is nothing to be done.
func (p *plan) idle() bool { return p.tally.Unchanged || p.tally.Skipped != "" || p.tally.Reason != "" }

// maxBelieved is the most that a message is taken to need on the disk: a server
// that says more does not keep all the others from coming.
const maxBelieved = 1 << 30

// survey plans every mailbox. One that cannot be read does not stop the
// others.
func (r *run) survey(ctx context.Context) error {
	var open []*plan
	err := r.crew.work(ctx, 1, func(l *line) (bool, error) {
		return false, l.do(ctx, func(src Source) (err error) {
			open, err = r.look(ctx, src)
			return err
		})
	})
	if err != nil {
		return err
	}
	q := newQueue(min((len(open)+1)/2, max(r.Connections, 1)))
	for _, p := range open {
		q.add(p, task{plan: p})
	}
	err = r.crew.drain(ctx, q, func(l *line) (bool, error) {
		t, ok := q.next(nil)
		if !ok {
			return false, nil
		}
		err := r.plan(ctx, l, t.plan)
		switch {
		case errors.Is(err, errRetired):
			q.done(t, []task{t})
		case err != nil:
			q.close()
			r.stop(err)
			q.done(t, nil)
		default:
			q.done(t, nil)
		}
		return true, err
	})
	if err != nil {
		return err
	}
	if err := r.setTwinsApart(ctx); err != nil {
		return err
	}
	planned, need := report.Planned{Mailboxes: len(r.plans)}, int64(0)
	for _, p := range r.plans {
		planned.Messages += p.tally.OnServer
		planned.New += len(p.want) + len(p.twins)
		for _, m := range p.want {
			planned.NewOctets += max(m.Size, 0)
			need += min(max(m.Size, 0), maxBelieved)
		}
	}
	r.sink.Report(planned)
	if r.MaxOctets > 0 {
		need = min(need, r.MaxOctets)
	}
	if r.Room > 0 && need > r.Room && !r.DryRun {
		return retry.Permanent(&RoomError{need, r.Room})
	}
	return nil
}

// look asks which mailboxes there are and makes a plan for each. It returns
// those that have to be opened.
func (r *run) look(ctx context.Context, src Source) (open []*plan, err error) {
	boxes, err := src.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	r.plans, r.looked = nil, false
	wanted := boxes[:0:0]
	for _, mb := range boxes {
		p := newPlan(mb)
		p.tally = report.Tally{Mailbox: mb.Name, Role: mb.Role, Path: r.archive.Path(mb), Skipped: r.Filter.Skips(mb)}
		p.imap = src.Protocol() == mailbox.IMAP
		r.plans = append(r.plans, p)
		if p.tally.Skipped == "" {
			wanted = append(wanted, mb)
		}
	}
	var states map[string]mailbox.State
	if !r.stateless {
		if states, err = src.States(ctx, wanted); err != nil {
			r.stateless = true // a second time the run goes without
			return nil, err
		}
	}
	for _, p := range r.plans {
		if p.standing, err = r.archive.Standing(ctx, p.Mailbox); err != nil {
			return nil, archiveFailed(ctx, err)
		}
	}
	if err := r.followRenames(ctx, src, states); err != nil {
		return nil, err
	}
	for _, p := range r.plans {
		state, told := states[p.Wire]
		if p.tally.Skipped != "" {
			p.tally.OnServer, p.tally.Listed = state.Exists, state.Exists
			continue
		}
		p.told = state
		if told && r.unchanged(p.standing, state) {
			p.tally.Unchanged, p.tally.UIDValidity = true, state.UIDValidity
			p.tally.OnServer, p.tally.Listed = state.Exists, state.Exists
			p.tally.Removed, p.tally.Kept = p.standing.Removed, state.Exists-p.standing.Removed
			continue
		}
		open = append(open, p)
	}
	r.looked = true
	return open, nil
}

// unchanged reports whether a mailbox stands as it did when all of it was in
// the archive, so that it need not be opened. Without HIGHESTMODSEQ that can
// be said of an empty one alone: flags may have changed in another.
func (r *run) unchanged(then mailbox.Standing, now mailbox.State) bool {
	return then.State == now && now.UIDValidity != 0 && then.Failed == 0 && then.Live == now.Exists &&
		(now.HighestModSeq != 0 || now.Exists == 0) && !(r.Refetch && then.Removed > 0)
}

// plan looks at a mailbox and decides what is to be done. A mailbox that the
// server does not let us read has a plan with a reason and nothing to do.
func (r *run) plan(ctx context.Context, l *line, p *plan) error {
	survey := func(src Source) error { return r.surveyOne(ctx, src, p) }
	err := l.do(ctx, survey)
	if errors.Is(err, mailbox.ErrRebuilt) {
		err = l.do(ctx, survey)
	}
	switch {
	case retry.IsRefused(err) || errors.Is(err, mailbox.ErrRebuilt):
		p.unreadable(r.sink, err.Error())
		r.crew.arrived()
		return nil
	case err == nil:
		p.surveyed = true
		r.crew.arrived()
		return nil
	case l.another(err):
		p.unreadable(r.sink, "the connection is lost on it: "+err.Error())
		return nil
	}
	return err
}

// surveyOne fills in a plan. It begins anew when it is called again.
func (r *run) surveyOne(ctx context.Context, src Source, p *plan) error {
	p.tally = report.Tally{Mailbox: p.Name, Role: p.Role, Path: p.tally.Path}
	p.want, p.twins, p.claims, p.flags, p.gone, p.back = nil, nil, nil, nil, nil, nil
	p.session = src
	if r.stepwise(p) {
		done, err := r.surveyChanges(ctx, src, p)
		if done || err != nil && !retry.IsRefused(err) && !errors.Is(err, mailbox.ErrRebuilt) {
			return err
		}
	}
	return r.surveyAll(ctx, src, p)
}

// stepwise reports whether it may be enough to ask for what has changed.
func (r *run) stepwise(p *plan) bool {
	then, now := p.standing.State, p.told
	return then.HighestModSeq != 0 && then.UIDValidity != 0 && (now.UIDValidity == 0 || now.UIDValidity == then.UIDValidity) && !r.Refetch
}

// surveyChanges asks for what has changed since the last complete pull. It is
// not enough if the sums do not meet then.
func (r *run) surveyChanges(ctx context.Context, src Source, p *plan) (enough bool, err error) {
	ch, err := src.Changes(ctx, p.Mailbox, p.standing.State)
	if err != nil {
		return false, err
	}
	if ch.HighestModSeq == 0 {
		return false, nil
	}
	ids := make([]mailbox.ID, len(ch.Messages))
	for i, m := range ch.Messages {
		ids[i] = m.ID
	}
	known, err := r.archive.Known(ctx, p.Mailbox, ids)
	if err != nil {
		return false, archiveFailed(ctx, err)
	}
	have := p.standing
	seen := p.sift(ch.Messages, known, &have)
	if have.Live+len(p.want) != ch.Exists && ch.Vanished != nil {
		err := r.archive.EachKnown(ctx, p.Mailbox, func(id mailbox.ID, kept mailbox.Kept) {
			if !kept.Gone && !seen[id] && ch.Vanished(id) {
				p.gone = append(p.gone, id)
				have.Live--
				if kept.Removed {
					have.Removed--
				}
			}
		})
		if err != nil {
			return false, archiveFailed(ctx, err)
		}
	}
	// A server that has given out new UIDs and names none of them leaves
	// something out.
	silent := ch.UIDNext == 0 || ch.UIDNext != p.standing.UIDNext && len(p.want) == 0
	if silent || have.Live+len(p.want) != ch.Exists {
		p.want, p.flags, p.gone, p.back = nil, nil, nil, nil
		return false, nil
	}
	p.state = ch.State
	p.tally.UIDValidity, p.tally.OnServer, p.tally.Listed = ch.UIDValidity, ch.Exists, ch.Exists
	p.tally.Kept, p.tally.Removed = have.Live-have.Removed, have.Removed
	stays := map[mailbox.ID]bool{}
	for _, id := range p.gone {
		stays[id] = false
	}
	for _, id := range p.back {
		stays[id] = true
	}
	return true, r.settleWants(ctx, src, p, func(id mailbox.ID, gone bool) bool {
		if here, changed := stays[id]; changed {
			return here
		}
		return !gone
	})
}

// sift plans what is to be done about messages that have changed: those that
// are not known are wanted. It counts in have those that are listed again, and
// returns which messages it has seen.
func (p *plan) sift(changed []mailbox.Message, known map[mailbox.ID]mailbox.Kept, have *mailbox.Standing) (seen map[mailbox.ID]bool) {
	seen = map[mailbox.ID]bool{}
	for _, m := range changed {
		kept, ok := known[m.ID]
		switch {
		case seen[m.ID]:
		case !ok:
			p.want = append(p.want, m)
		default:
			if kept.Gone {
				p.back = append(p.back, m.ID)
				have.Live++
				if kept.Removed {
					have.Removed++
				}
			}
			if !kept.Removed && !slices.Equal(m.Flags, kept.Flags) {
				p.flags = append(p.flags, claim{Message: m, archived: kept.Message})
			}
		}
		seen[m.ID] = true
	}
	return seen
}

// surveyAll lists the whole mailbox.
func (r *run) surveyAll(ctx context.Context, src Source, p *plan) error {
	details, told := p.standing.Live == 0, p.told
	l, err := src.List(ctx, p.Mailbox, told, details)
	if err == nil && l.Exists != len(l.Messages) { // mail may be coming and going
		l, err = src.List(ctx, p.Mailbox, told, details)
	}
	if err != nil {
		return err
	}
	p.state = l.State
	p.tally.UIDValidity, p.tally.OnServer, p.tally.Listed = l.UIDValidity, l.Exists, len(l.Messages)
	nameless, place := 0, make(map[mailbox.ID]int, len(l.Messages)) // in the listing, of what may be known
	for i, m := range l.Messages {
		if m.Transient {
			nameless++
		} else {
			place[m.ID] = i
		}
	}
	if nameless > 0 {
		r.sink.Report(report.Nameless{Mailbox: p.Name, Messages: nameless, Of: len(l.Messages)})
	}
	settled, live := make([]bool, len(l.Messages)), 0
	err = r.archive.EachKnown(ctx, p.Mailbox, func(id mailbox.ID, kept mailbox.Kept) {
		i, listed := place[id]
		// Without UIDVALIDITY a UID of yesterday names nothing; a unique-id may name
		// another message when its own is gone (RFC 1939 section 7).
		if listed && (p.imap && l.UIDValidity != 0 || !p.imap && !kept.Gone) && !(r.Refetch && kept.Removed) {
			settled[i] = true
			live++
			r.keep(p, l.Messages[i], kept)
		} else if !listed && !kept.Gone {
			p.gone = append(p.gone, id)
		}
	})
	if err != nil {
		return archiveFailed(ctx, err)
	}
	if live == 0 {
		p.want = l.Messages
	} else {
		for i, m := range l.Messages {
			if !settled[i] {
				p.want = append(p.want, m)
			}
		}
	}
	return r.settleWants(ctx, src, p, func(id mailbox.ID, _ bool) bool {
		i, listed := place[id]
		return listed && settled[i]
	})
}

// keep plans a message that the archive knows.
func (r *run) keep(p *plan, m mailbox.Message, kept mailbox.Kept) {
	if kept.Gone {
		p.back = append(p.back, m.ID)
	}
	if kept.Removed {
		p.tally.Removed++
		return
	}
	p.tally.Kept++
	if p.imap && !slices.Equal(m.Flags, kept.Flags) {
		p.flags = append(p.flags, claim{Message: m, archived: kept.Message})
	}
}

// describe asks for the sizes and dates that the wanted messages lack. A
// server that tells of new flags while it lists may have told them without.
func (p *plan) describe(ctx context.Context, src Source) error {
	var bare []int
	for i, m := range p.want {
		if m.Size < 0 {
			bare = append(bare, i)
		}
	}
	switch len(bare) {
	case 0:
		return nil
	case len(p.want):
		return src.Describe(ctx, p.Mailbox, p.want)
	}
	msgs := make([]mailbox.Message, len(bare))
	for k, i := range bare {
		msgs[k] = p.want[i]
	}
	err := src.Describe(ctx, p.Mailbox, msgs)
	for k, i := range bare {
		p.want[i] = msgs[k]
	}
	return err
}

// settleWants drops what the user does not want from what is to be fetched,
// and recognises what the archive has.
func (r *run) settleWants(ctx context.Context, src Source, p *plan, live func(id mailbox.ID, gone bool) bool) error {
	if err := p.describe(ctx, src); err != nil {
		return err
	}
	if r.Filter.ByMessage() {
		if err := r.choose(ctx, src, p); err != nil {
			return err
		}
	}
	if len(p.want) == 0 {
		return nil
	}
	return r.recognise(ctx, src, p, live)
}

// choose drops the wanted messages that the filter does not want. Where the
// server does not tell when a message arrived, its header does.
func (r *run) choose(ctx context.Context, src Source, p *plan) error {
	undated := func(m mailbox.Message) bool { return m.InternalDate.IsZero() && r.Filter.Wants(m) }
	if r.Filter.ByDate() {
		if err := r.readHeaders(ctx, src, p, undated); err != nil {
			return err
		}
	}
	all := len(p.want)
	p.want = slices.DeleteFunc(p.want, func(m mailbox.Message) bool {
		if m.InternalDate.IsZero() {
			m.InternalDate = p.dates[m.ID]
		}
		return !r.Filter.Wants(m)
	})
	p.tally.Excluded = all - len(p.want)
	return nil
}
