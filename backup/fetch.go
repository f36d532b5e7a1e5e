package backup

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// carryOut does what a plan says.
func (r *run) carryOut(ctx context.Context, p *plan) error {
	if p.tally.Reason != "" {
		return nil
	}
	w := r.writer
	err := w.change(func(b Batch) error {
		if err := b.Touch(ctx, p.Mailbox); err != nil {
			return err
		}
		for _, c := range p.claims {
			if err := b.Claim(ctx, p.Mailbox, c.Message, c.archived, false); err != nil {
				return err
			}
			if c.removed {
				w.then(func() { p.tally.Removed++ })
				continue
			}
			if p.imap {
				if err := b.SetFlags(ctx, p.Mailbox, c.Message, c.archived); err != nil {
					return err
				}
			}
			w.then(func() {
				p.tally.Again++
				r.sink.Report(report.MessageStored{Mailbox: p.Name, ID: c.ID, Size: c.Size, Recognised: true})
			})
		}
		for _, c := range p.flags {
			if err := b.SetFlags(ctx, p.Mailbox, c.Message, c.archived); err != nil {
				return err
			}
			w.then(func() { p.tally.Flags++ })
		}
		return errors.Join(b.Gone(ctx, p.Mailbox, p.gone, true), b.Gone(ctx, p.Mailbox, p.back, false))
	})
	if err != nil {
		return err
	}
	if len(p.want) > 0 {
		r.sink.Report(report.MailboxStarted{Mailbox: p.Name, Pending: len(p.want)})
		if err := r.fetchAll(ctx, p); err != nil {
			return err
		}
		if err := r.forgetExpunged(ctx, p); err != nil {
			return err
		}
	}
	return w.change(func(b Batch) error { return r.finish(ctx, b, p) })
}

// finish notes how the mailbox stands; it is reported when all that came
// before is durable.
func (r *run) finish(ctx context.Context, b Batch, p *plan) error {
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
	if len(p.failed) == 0 && p.tally.OnServer == p.tally.Listed {
		if err := b.Done(ctx, p.Mailbox, p.listing); err != nil {
			return err
		}
	}
	r.writer.then(func() {
		p.tally.Failed = len(p.failed)
		p.done = true
		p.tally.InArchive, _ = r.archive.InArchive(context.WithoutCancel(ctx), p.Mailbox)
		r.sink.Report(report.MailboxDone{Tally: p.tally})
	})
	return nil
}

// task is a set of messages to be asked for at once.
type task struct {
	msgs  []mailbox.Message
	tries int  // how often the connection was lost on this very message
	again bool // they came in another size than announced
}

// maxTries is how often the connection may be lost on one message before it
// is left behind.
const maxTries = 2

// fetchAll fetches what a plan wants. Each message ends up in the archive or
// among the failed.
func (r *run) fetchAll(ctx context.Context, p *plan) error {
	tasks := []task{{msgs: p.want}}
	for len(tasks) > 0 {
		more, err := r.fetch(ctx, p, tasks[0])
		if r.line.another(err) {
			for _, t := range tasks {
				for _, m := range t.msgs {
					p.fail(m, "the connection is lost in this folder too often: "+err.Error())
				}
			}
			return nil
		}
		if err != nil {
			return err
		}
		tasks = append(more, tasks[1:]...)
	}
	return nil
}

// fetch asks for the messages of a task and returns what is still to be
// asked for. That no error came proves nothing: the messages that arrived do.
func (r *run) fetch(ctx context.Context, p *plan, t task) ([]task, error) {
	src, err := r.line.get(ctx)
	if err != nil {
		return nil, err
	}
	if src != p.session {
		t.msgs = slices.DeleteFunc(t.msgs, func(m mailbox.Message) bool {
			if m.Transient {
				p.fail(m, "the connection was lost, and the server has no name for it that lasts (no UIDL); the next run goes on")
			}
			return m.Transient
		})
	}
	settled := map[mailbox.ID]bool{}
	err = src.Fetch(ctx, p.Mailbox, t.msgs, func(m mailbox.Message, _ int64, content io.Reader) error {
		done, err := r.take(ctx, p, src.Protocol(), m, content)
		if done {
			settled[m.ID] = true
			r.line.arrived()
		}
		return err
	})
	var left []mailbox.Message
	for _, m := range t.msgs {
		if !settled[m.ID] {
			left = append(left, m)
		}
	}
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
	case err == nil || retry.IsRefused(err):
		return r.narrow(p, t, left, err), nil
	}
	r.line.lost(err)
	return r.isolate(p, t, left, err), nil
}

// narrow goes on after an answer that left messages out: those that came in
// another size than announced are asked for once more, the others in halves,
// down to the ones that the server does not give.
func (r *run) narrow(p *plan, t task, left []mailbox.Message, answer error) (more []task) {
	var doubtful, refused []mailbox.Message
	for _, m := range left {
		if _, ok := p.doubtful[m.ID]; ok && !t.again {
			doubtful = append(doubtful, m)
		} else {
			refused = append(refused, m)
		}
	}
	if len(doubtful) > 0 {
		more = append(more, task{msgs: doubtful, again: true})
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
		for _, half := range halves(refused) {
			half.again = t.again
			more = append(more, half)
		}
	}
	return more
}

// isolate goes on after a lost connection: the message on which it was lost
// is asked for alone, and the others apart from it, the later half first, so
// that several bad messages in a row do not look like a dead server.
func (r *run) isolate(p *plan, t task, left []mailbox.Message, cause error) []task {
	switch {
	case len(left) == 0:
		return nil
	case len(t.msgs) > 1:
		_, doubtful := p.doubtful[left[0].ID]
		more := []task{{msgs: left[:1], tries: 1, again: doubtful}}
		for _, half := range slices.Backward(halves(left[1:])) {
			half.again = t.again
			more = append(more, half)
		}
		return more
	case t.tries+1 < maxTries:
		return []task{{msgs: left, tries: t.tries + 1, again: t.again}}
	}
	p.fail(left[0], "the connection is lost on it: "+cause.Error())
	return nil
}

func halves(msgs []mailbox.Message) []task {
	switch n := len(msgs); n {
	case 0:
		return nil
	case 1:
		return []task{{msgs: msgs}}
	default:
		return []task{{msgs: msgs[:n/2]}, {msgs: msgs[n/2:]}}
	}
}

// sizeDiffers is noted with a message that came twice in the same octets but
// not in the size that the server announced.
const sizeDiffers = "size differs from the announced one"

// take puts one message into the archive. done says that nothing more is to
// be done about it; a message whose size is not the announced one is not done
// until it has come a second time.
func (r *run) take(ctx context.Context, p *plan, protocol mailbox.Protocol, m mailbox.Message, content io.Reader) (done bool, err error) {
	b, err := r.writer.current()
	if err != nil {
		return false, err
	}
	first, again := p.doubtful[m.ID]
	note := ""
	if again {
		note = sizeDiffers
	}
	in := &bounded{r: content, left: bound(m.Size)}
	print, err := b.Add(ctx, p.Mailbox, m, in, note)
	switch {
	case in.err != nil:
		return false, in.err
	case err != nil:
		return false, &ArchiveError{err}
	case print.Size == 0 && m.Size > 0:
		p.fail(m, fmt.Sprintf("the server sends nothing in place of %d octets", m.Size))
		return true, withdraw(b)
	case !again && !agrees(protocol, m.Size, print.Size):
		p.doubtful[m.ID] = print.SHA256
		return false, withdraw(b)
	case again && first != print.SHA256:
		p.fail(m, fmt.Sprintf("the server announces %d octets and sends others each time", m.Size))
		return true, withdraw(b)
	}
	if again && print.Size < m.Size {
		p.short++
	}
	return true, r.settle(ctx, b, p, m, print)
}

// settle keeps a message that has just been added, or notes that the archive
// holds its octets already.
func (r *run) settle(ctx context.Context, b Batch, p *plan, m mailbox.Message, print fingerprint.Print) error {
	r.sink.Report(report.MessageArrived{Size: print.Size})
	stored := report.MessageStored{Mailbox: p.Name, ID: m.ID, Size: print.Size, SHA256: hex.EncodeToString(print.SHA256[:])}
	if same := p.bySum[print.SHA256]; len(same) > 0 {
		p.bySum[print.SHA256] = same[1:]
		if err := errors.Join(withdraw(b), b.Claim(ctx, p.Mailbox, m, same[0], true)); err != nil {
			return &ArchiveError{err}
		}
		stored.Recognised = true
	}
	r.writer.then(func() {
		if stored.Recognised {
			p.tally.Again++
		} else {
			p.tally.New++
			p.tally.Octets += print.Size
		}
		r.sink.Report(stored)
	})
	return nil
}

func withdraw(b Batch) error {
	if err := b.Withdraw(); err != nil {
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
	r    io.Reader
	left int64
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		err = errTooLong
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// forgetExpunged asks once more what the mailbox holds if messages were left
// out: those that are gone by now are not missing. A listing that does not
// agree with itself, or names that do not last, prove nothing.
func (r *run) forgetExpunged(ctx context.Context, p *plan) error {
	if len(p.failed) == 0 {
		return nil
	}
	var l mailbox.Listing
	var protocol mailbox.Protocol
	err := r.line.do(ctx, func(src Source) (err error) {
		protocol = src.Protocol()
		l, err = src.List(ctx, p.Mailbox)
		return err
	})
	if err != nil || protocol != mailbox.IMAP || l.UIDValidity != p.listing.UIDValidity || l.Exists != len(l.Messages) {
		return ctx.Err() // the failures stand
	}
	here := map[mailbox.ID]bool{}
	for _, m := range l.Messages {
		here[m.ID] = true
	}
	for id := range p.failed {
		if !here[id] {
			delete(p.failed, id)
			p.tally.Listed--
			p.tally.OnServer--
		}
	}
	return nil
}
