package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// carryOut does what the plans say.
func (r *run) carryOut(ctx context.Context) error {
	var weight int64
	for _, p := range r.plans {
		weight += weightOf(p.want)
	}
	lines := min(max(int(weight/minWeight)+1, r.crew.ready()), max(r.Connections, 1))
	for _, p := range r.plans {
		if err := r.prepare(ctx, p); err != nil {
			return err
		}
	}
	if r.FoldersFirst {
		if err := r.writer.flush(); err != nil {
			return err
		}
		r.sink.Report(report.FoldersReady{})
	}
	if err := r.fetchAll(ctx, lines); err != nil {
		return err
	}
	again := false
	for _, p := range r.plans {
		if len(p.twins) > 0 {
			again = true
			if err := r.copyTwins(ctx, p); err != nil {
				return err
			}
		}
	}
	if !again {
		return nil
	}
	return r.fetchAll(ctx, lines)
}

// fetchAll fetches what is wanted. Plans that have nothing more to do then
// are finished.
func (r *run) fetchAll(ctx context.Context, lines int) error {
	q := newQueue(lines)
	for _, p := range r.plans {
		if len(p.want) > 0 {
			q.add(p, task{plan: p, msgs: p.want})
			p.want = nil
		} else if err := r.finish(ctx, p); err != nil {
			return err
		}
	}
	return r.crew.drain(ctx, q, func(l *line) (bool, error) {
		more, err := r.step(ctx, q, l)
		if err != nil && !errors.Is(err, errRetired) {
			q.close()
			r.stop(err) // the other lines end too
		}
		return more, err
	})
}

// prepare does what needs no connection, a part at a time: there may be much
// of it.
func (r *run) prepare(ctx context.Context, p *plan) error {
	if p.idle() {
		return nil
	}
	w := r.writer
	if err := w.change(func(b Batch) error { return b.Touch(ctx, p.Mailbox) }); err != nil {
		return err
	}
	for some := range slices.Chunk(p.claims, claimsAtATime) {
		if err := w.change(func(b Batch) error { return r.claimAll(ctx, b, p, some) }); err != nil {
			return err
		}
	}
	return w.change(func(b Batch) error {
		for _, c := range p.flags {
			if err := b.SetFlags(ctx, p.Mailbox, c.Message, c.archived); err != nil {
				return err
			}
			w.then(func() { p.count(func(t *report.Tally) { t.Flags++ }) })
		}
		return errors.Join(b.Gone(ctx, p.Mailbox, p.gone, true), b.Gone(ctx, p.Mailbox, p.back, false))
	})
}

const claimsAtATime = 500

// claimAll notes which archived messages are which on the server.
func (r *run) claimAll(ctx context.Context, b Batch, p *plan, claims []claim) error {
	for _, c := range claims {
		if err := b.Claim(ctx, p.Mailbox, c.Message, c.archived, false); err != nil {
			return err
		}
		if c.removed {
			r.writer.then(func() { p.count(func(t *report.Tally) { t.Removed++ }) })
			continue
		}
		if p.imap && !c.inStep {
			if err := b.SetFlags(ctx, p.Mailbox, c.Message, c.archived); err != nil {
				return err
			}
		}
		r.writer.then(func() {
			p.count(func(t *report.Tally) { t.Again++ })
			r.sink.Report(report.MessageStored{Mailbox: p.Name, ID: c.ID, Size: c.Size, Recognised: true})
		})
	}
	return nil
}

// count changes a plan's tally.
func (p *plan) count(f func(*report.Tally)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.tally)
}

// step has a line do the next task.
func (r *run) step(ctx context.Context, q *queue, l *line) (more bool, err error) {
	t, ok := q.next(l.near)
	if !ok {
		return false, nil
	}
	p := t.plan
	l.near = p
	p.start(r.sink)
	left, err := r.fetch(ctx, l, t)
	switch {
	case errors.Is(err, errRetired):
		q.done(t, []task{t})
		return false, err
	case l.another(err):
		reason := "the connection is lost in this folder too often: " + err.Error()
		for _, t := range append(q.drop(p), t) {
			for _, m := range t.msgs {
				p.fail(m, reason)
			}
		}
		left, err = nil, nil
	}
	last := q.done(t, left)
	if err != nil || !last {
		return true, err
	}
	lost := r.forgetExpunged(ctx, l, p)
	if l.another(lost) {
		lost = nil
	}
	if err := r.finish(ctx, p); err != nil {
		return true, err
	}
	return true, lost
}

// start reports, once, that mail is fetched from the plan's mailbox.
func (p *plan) start(sink report.Sink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.started {
		p.started = true
		sink.Report(report.MailboxStarted{Mailbox: p.Name})
	}
}

// finish notes how the mailbox stands; it is reported when all that came
// before is durable.
func (r *run) finish(ctx context.Context, p *plan) error {
	if p.finished || len(p.twins) > 0 {
		return nil
	}
	p.finished = true
	return r.writer.change(func(b Batch) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.idle() {
			if err := r.noteEnd(ctx, b, p); err != nil {
				return err
			}
		}
		r.writer.then(func() {
			inArchive, _ := r.archive.InArchive(context.WithoutCancel(ctx), p.Mailbox)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.tally.Failed, p.tally.InArchive, p.done = len(p.failed), inArchive, true
			r.sink.Report(report.MailboxDone{Tally: p.tally})
		})
		return nil
	})
}

// noteEnd notes what has failed, or that nothing has. A mailbox of which the
// user does not want everything is never done. The caller holds p.mu.
func (r *run) noteEnd(ctx context.Context, b Batch, p *plan) error {
	reasons := map[mailbox.ID]string{}
	for id, f := range p.failed {
		r.sink.Report(report.MessageFailed{Mailbox: p.Name, ID: id, Size: f.Size, Reason: f.reason})
		reasons[id] = f.reason
	}
	if err := b.Failures(ctx, p.Mailbox, reasons); err != nil {
		return err
	}
	if p.short > 0 {
		r.sink.Report(report.Short{Mailbox: p.Name, Messages: p.short})
	}
	if p.surveyed && len(p.failed) == 0 && p.tally.Excluded == 0 && p.tally.OnServer == p.tally.Listed {
		return b.Done(ctx, p.Mailbox, p.state)
	}
	return nil
}

// maxTries is how often the connection may be lost on one message before it
// is left behind.
const maxTries = 2

// fetch asks for the messages of a task and returns what is still to be
// asked for. That no error came proves nothing: the messages that arrived do.
func (r *run) fetch(ctx context.Context, l *line, t task) ([]task, error) {
	src, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	p := t.plan
	if src != p.session {
		t.msgs = slices.DeleteFunc(slices.Clone(t.msgs), func(m mailbox.Message) bool {
			if m.Transient {
				p.fail(m, "the connection was lost, and the server has no name for it that lasts (no UIDL); the next run goes on")
			}
			return m.Transient
		})
	}
	if t.again && p.imap {
		if t.msgs, err = r.stillThere(ctx, src, t); err != nil {
			l.lost(err)
			return []task{t}, nil
		}
	}
	if len(t.msgs) == 0 {
		return nil, nil
	}
	left, err := r.fetchSome(ctx, src, p, t.msgs)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, new(*ArchiveError)):
		return nil, err
	case retry.IsPermanent(err), errors.Is(err, mailbox.ErrRebuilt):
		for _, m := range left {
			p.fail(m, err.Error())
		}
		return nil, nil
	}
	wait, busy := retry.IsBusy(err)
	patient := busy && t.rests < maxRests
	if busy {
		if err := l.slow(err, wait, patient); err != nil {
			return nil, err
		}
	}
	switch {
	case patient && retry.IsRefused(err):
		return []task{{plan: p, msgs: left, rests: t.rests + 1, again: t.again}}, nil
	case err == nil || retry.IsRefused(err):
		return r.narrow(t, left, err), nil
	}
	if errors.Is(err, mailbox.ErrOutOfStep) && errors.As(err, new(*mailbox.MessageError)) {
		l.leave()
	} else {
		l.lost(err)
	}
	if patient { // nothing is wrong with the message
		return []task{{plan: p, msgs: left, tries: t.tries, rests: t.rests + 1, again: t.again}}, nil
	}
	return r.isolate(t, left, err), nil
}

// stillThere returns those of a task's messages that the server still lists:
// some servers send something else in place of a message that has gone
// meanwhile, which must not be kept. What is not listed and not proven gone is
// a failure. It returns an error only if the connection is lost.
func (r *run) stillThere(ctx context.Context, src Source, t task) ([]mailbox.Message, error) {
	now, err := src.List(ctx, t.Mailbox, mailbox.State{}, false)
	if err != nil && !retry.IsRefused(err) {
		return t.msgs, err
	}
	here, proven := idsOf(now.Messages), err == nil && t.plan.proves(now)
	return slices.DeleteFunc(slices.Clone(t.msgs), func(m mailbox.Message) bool {
		switch {
		case here[m.ID]:
		case proven:
			t.plan.forget(m.ID)
		default:
			t.plan.fail(m, "it came in another size than announced, and the server does not list it any more")
		}
		return !here[m.ID]
	}), nil
}

// proves reports whether a listing can prove that messages are gone. One that
// does not agree with itself, or names that do not last, prove nothing.
func (p *plan) proves(now mailbox.Listing) bool {
	return p.imap && now.UIDValidity == p.state.UIDValidity && now.Exists == len(now.Messages)
}

// forget takes a message that has left the server out of the sums.
func (p *plan) forget(id mailbox.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.failed, id)
	p.tally.Listed--
	p.tally.OnServer--
}

func idsOf(msgs []mailbox.Message) map[mailbox.ID]bool {
	ids := make(map[mailbox.ID]bool, len(msgs))
	for _, m := range msgs {
		ids[m.ID] = true
	}
	return ids
}

// narrow goes on after an answer that left messages out: those that came in
// another size than announced are asked for once more, the others in halves,
// down to the ones that the server does not give.
func (r *run) narrow(t task, left []mailbox.Message, answer error) (more []task) {
	p := t.plan
	var doubtful, refused []mailbox.Message
	for _, m := range left {
		if p.doubts(m) && !t.again {
			doubtful = append(doubtful, m)
		} else {
			refused = append(refused, m)
		}
	}
	if len(doubtful) > 0 {
		more = append(more, task{plan: p, msgs: doubtful, again: true})
	}
	switch {
	case len(refused) == 0:
	case len(t.msgs) == 1:
		reason := "the server leaves it out of its answer"
		if answer != nil {
			reason = answer.Error()
		}
		p.fail(refused[0], reason)
	default:
		more = append(more, t.halves(refused)...)
	}
	return more
}

// doubts reports whether a message came in another size than announced.
func (p *plan) doubts(m mailbox.Message) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.doubtful[m.ID]
	return ok
}

// isolate goes on after a lost connection: the message on which it was lost
// is asked for alone, and the others apart from it, the later half first, so
// that several bad messages in a row do not look like a dead server.
func (r *run) isolate(t task, left []mailbox.Message, cause error) []task {
	switch {
	case len(left) == 0:
		return nil
	case len(t.msgs) > 1:
		more := []task{{plan: t.plan, msgs: left[:1], tries: 1, again: t.plan.doubts(left[0])}}
		for _, half := range slices.Backward(t.halves(left[1:])) {
			more = append(more, half)
		}
		return more
	case t.tries+1 < maxTries:
		return []task{{plan: t.plan, msgs: left, tries: t.tries + 1, again: t.again}}
	}
	t.plan.fail(left[0], "the connection is lost on it: "+cause.Error())
	return nil
}

// halves splits messages of a task into two tasks.
func (t task) halves(msgs []mailbox.Message) (two []task) {
	for _, half := range [][]mailbox.Message{msgs[:len(msgs)/2], msgs[len(msgs)/2:]} {
		if len(half) > 0 {
			two = append(two, task{plan: t.plan, msgs: half, rests: t.rests, again: t.again})
		}
	}
	return two
}

// sizeDiffers is noted with a message that came twice in the same octets but
// not in the size that the server announced.
const sizeDiffers = "size differs from the announced one"

// store puts one message into the archive. done says that nothing more is to
// be done about it; a message whose size is not the announced one is not done
// until it has come a second time.
func (r *run) store(ctx context.Context, p *plan, protocol mailbox.Protocol, m mailbox.Message, content io.Reader) (done bool, err error) {
	if ctx.Err() != nil { // a limit has been reached, and more has come already
		return false, context.Cause(ctx)
	}
	staged, err := r.archive.Stage(ctx, p.Mailbox, m, content)
	if err != nil {
		return false, archiveFailed(ctx, err)
	}
	print := staged.Print()
	keep, done, note := p.judge(protocol, m, print)
	if !keep {
		return done, discard(staged)
	}
	r.sink.Report(report.MessageArrived{Size: print.Size})
	if r.octets.Add(print.Size) > r.MaxOctets && r.MaxOctets > 0 {
		defer r.stop(&PausedError{Reason: fmt.Sprintf("%d octets have come", r.MaxOctets), Most: true})
	}
	return true, r.keepOne(ctx, p, m, staged, note, false)
}

// judge decides what is to become of what came for a message.
func (p *plan) judge(protocol mailbox.Protocol, m mailbox.Message, print fingerprint.Print) (keep, done bool, note string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, again := p.doubtful[m.ID]
	switch {
	case print.Size == 0 && m.Size > 0:
		p.failed[m.ID] = failure{m, fmt.Sprintf("the server sends nothing in place of %d octets", m.Size)}
		return false, true, ""
	case agrees(protocol, m.Size, print.Size):
		return true, true, ""
	case !again:
		p.doubtful[m.ID] = print.SHA256
		return false, false, ""
	case first != print.SHA256:
		p.failed[m.ID] = failure{m, fmt.Sprintf("the server announces %d octets and sends others each time", m.Size)}
		return false, true, ""
	}
	if print.Size < m.Size {
		p.short++
	}
	return true, true, sizeDiffers
}

// spare takes an archived message with these octets that stands for none on
// the server, if there is one.
func (p *plan) spare(sum fingerprint.Sum) (archived int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := p.bySum[sum]
	if len(same) == 0 {
		return 0, false
	}
	p.bySum[sum] = same[1:]
	return same[0], true
}

// keepOne keeps a message that has just been staged, or notes that the
// archive holds its octets already; linked says that they came from there.
func (r *run) keepOne(ctx context.Context, p *plan, m mailbox.Message, staged Staged, note string, linked bool) error {
	print, w := staged.Print(), r.writer
	archived, has := p.spare(print.SHA256)
	stored := report.MessageStored{Mailbox: p.Name, ID: m.ID, Size: print.Size, SHA256: hex.EncodeToString(print.SHA256[:]), Recognised: has, Linked: linked && !has}
	if has {
		if err := discard(staged); err != nil {
			return err
		}
	}
	err := w.change(func(b Batch) error {
		w.then(func() {
			p.count(func(t *report.Tally) {
				switch {
				case has:
					t.Again++
				case linked:
					t.New++
					t.Linked++
				default:
					t.New++
					t.Octets += print.Size
				}
			})
			r.sink.Report(stored)
		})
		if has {
			return b.Claim(ctx, p.Mailbox, m, archived, true)
		}
		b.Add(staged, note)
		return nil
	})
	if err != nil && !has {
		staged.Discard()
	}
	return err
}

func discard(s Staged) error {
	if err := s.Discard(); err != nil {
		return &ArchiveError{err}
	}
	return nil
}

// agrees reports whether a message has the size that was announced. POP3 ends
// every message with a line end, which the announced size may not count.
func agrees(protocol mailbox.Protocol, announced, got int64) bool {
	return announced < 0 || got == announced || protocol == mailbox.POP3 && got == announced+2
}

// bound is how much is read of a message that is announced with this size:
// servers count line ends in ways of their own, but not twice over.
func bound(announced int64) int64 {
	if announced < 0 {
		return 1 << 62
	}
	return 2*announced + 1<<20
}

var errTooLong = errors.New("the server sends far more than it announced")

// bounded reads a message and remembers what went wrong on the server's side.
type bounded struct {
	r      io.Reader
	left   int64
	moving func() // is called when something comes
	err    error
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if n > 0 {
		b.moving()
	}
	if b.left -= int64(n); b.left < 0 {
		err = errTooLong
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// forgetExpunged asks once more what the mailbox holds if messages were left
// out: those that are gone by now are not missing. It returns an error only if
// the line is of no more use.
func (r *run) forgetExpunged(ctx context.Context, l *line, p *plan) error {
	if len(p.failed) == 0 {
		return nil
	}
	var now mailbox.Listing
	err := l.do(ctx, func(src Source) (err error) {
		now, err = src.List(ctx, p.Mailbox, mailbox.State{}, false)
		return err
	})
	if errors.Is(err, errRetired) || errors.As(err, new(*gaveUpError)) || errors.As(err, new(*PausedError)) {
		return err
	}
	if err != nil || !p.proves(now) {
		return ctx.Err() // the failures stand
	}
	here := idsOf(now.Messages)
	for id := range maps.Clone(p.failed) {
		if !here[id] {
			p.forget(id)
		}
	}
	return nil
}
