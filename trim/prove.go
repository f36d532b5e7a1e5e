package trim

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// prove reads back what was chosen, and compares with the server what was not
// downloaded from it as it is. A mailbox of which anything is in doubt is left
// alone.
func (r *run) prove(ctx context.Context) error {
	planned := report.Planned{Back: true}
	for _, f := range r.folders {
		if len(f.chosen) > 0 {
			planned.Mailboxes, planned.Messages = planned.Mailboxes+1, planned.Messages+f.OnServer
		}
		for _, c := range f.chosen {
			planned.New, planned.NewOctets = planned.New+1, planned.NewOctets+c.copy.Size
		}
	}
	if planned.New == 0 {
		return nil
	}
	r.sink.Report(planned)
	for _, f := range r.folders {
		if len(f.chosen) == 0 {
			continue
		}
		r.sink.Report(report.MailboxStarted{Mailbox: f.Mailbox})
		doubts, err := r.readBack(ctx, f.chosen, r.sink)
		if err != nil {
			return err
		}
		for _, c := range f.chosen {
			if c.missized() {
				doubts = append(doubts, Remark{ID: c.msg.ID, Size: c.copy.Size, Text: fmt.Sprintf("the server says that it has %d octets; %d were archived", c.msg.Size, c.copy.Size)})
			}
		}
		if len(doubts) == 0 && !r.DryRun {
			if doubts, err = r.compareSome(ctx, f, r.unproven(f.chosen)); err != nil {
				return err
			}
		}
		if len(doubts) > 0 {
			f.leave(doubts)
		}
	}
	return nil
}

// leave says that nothing, or nothing more, is removed from a mailbox.
func (f *folder) leave(doubts []Remark) {
	f.Unsafe = append(f.Unsafe, doubts...)
	f.chosen = nil
}

// readBack reads the files of messages, and returns those that are in doubt. It
// tells sink of its progress; nil is told nothing.
func (r *run) readBack(ctx context.Context, chosen []*candidate, sink report.Sink) (doubts []Remark, err error) {
	var messages []int64
	for _, c := range chosen {
		messages = append(messages, c.copy.Message)
	}
	var one sync.Mutex
	found, err := r.archive.ReadBack(ctx, messages, func(octets int64) {
		one.Lock()
		defer one.Unlock()
		if sink != nil {
			sink.Report(report.MessageArrived{Size: octets})
		}
	})
	if err != nil {
		return nil, archiveFailed(ctx, err)
	}
	for _, c := range chosen {
		if d, doubted := found[c.copy.Message]; doubted {
			doubts = append(doubts, Remark{ID: c.msg.ID, Size: c.copy.Size, File: d.File, Text: d.Text})
		}
	}
	return doubts, nil
}

func archiveFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &ArchiveError{err}
}

// unproven returns the messages of which it is not known that the archive's
// octets are those that the server has.
func (r *run) unproven(chosen []*candidate) (some []*candidate) {
	for _, c := range chosen {
		if r.Paranoid || !c.copy.Exact || !c.fits(c.msg) {
			some = append(some, c)
		}
	}
	return some
}

// fits reports whether a message that the server tells of may be the one that
// was archived, by its size, time and name of content.
func (c *candidate) fits(m mailbox.Message) bool {
	size := m.Size == c.copy.Size
	if m.InternalDate.IsZero() { // POP3: a last line without an end counts as if it had one
		size = size || m.Size == c.copy.Size+2
	}
	dated := !c.copy.Dated || m.InternalDate.IsZero() || m.InternalDate.Unix() == c.copy.Arrived
	return size && dated && (m.Object == "" || c.copy.Object == "" || m.Object == c.copy.Object)
}

// compareSome downloads messages and compares them with their copies. It
// returns those that differ, or that the server does not send.
func (r *run) compareSome(ctx context.Context, f *folder, some []*candidate) (doubts []Remark, err error) {
	if len(some) == 0 {
		return nil, nil
	}
	var messages []int64
	for _, c := range some {
		messages = append(messages, c.copy.Message)
	}
	forms, err := r.archive.Forms(ctx, messages)
	if err != nil {
		return nil, archiveFailed(ctx, err)
	}
	due := map[mailbox.ID]*candidate{}
	for _, c := range some {
		due[c.msg.ID] = c
	}
	err = r.do(ctx, func(s Session) error {
		rest := slices.DeleteFunc(slices.Clone(some), func(c *candidate) bool { return due[c.msg.ID] == nil })
		for part := range parts(s.Protocol(), rest) {
			err := s.Fetch(ctx, f.box, part, func(m mailbox.Message, _ int64, content io.Reader) error {
				c := due[m.ID]
				if c == nil {
					_, err := io.Copy(io.Discard, content)
					return err
				}
				why, err := r.differs(ctx, c, forms[c.copy.Message], content)
				if err != nil && !errors.Is(err, errStop) {
					return err
				}
				if delete(due, m.ID); why == "" {
					r.plan.Compared++
				} else {
					doubts = append(doubts, Remark{ID: m.ID, Size: c.copy.Size, Text: why})
				}
				return err
			})
			if err != nil && !retry.IsRefused(err) {
				return err
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, errStop):
		r.hangUp(false)
		return doubts, nil
	case err != nil:
		return nil, err
	}
	for _, c := range some {
		if due[c.msg.ID] != nil {
			doubts = append(doubts, Remark{ID: c.msg.ID, Size: c.copy.Size, Text: "the server does not send it, so it cannot be compared"})
		}
	}
	return doubts, nil
}

// parts cuts messages into what is fetched by one call: over POP3 a message
// each, so that one that ends its own answer is no other's.
func parts(p mailbox.Protocol, some []*candidate) func(yield func([]mailbox.Message) bool) {
	var all []mailbox.Message
	for _, c := range some {
		all = append(all, c.msg)
	}
	if p == mailbox.POP3 {
		return slices.Chunk(all, 1)
	}
	return slices.Chunk(all, len(all))
}

// slack is how many octets more than twice its own a message may have on the
// server: other line ends, and fields that the server adds.
const slack = 64 << 10

// differs returns why the server's copy, which it reads to its end, is neither
// the archive's nor one that was made of it to be sent; "" if it is. After
// [errStop] there is more of it than anyone wants to read.
func (r *run) differs(ctx context.Context, c *candidate, forms []fingerprint.Sum, served io.Reader) (why string, err error) {
	const other = "the server's copy is not the same as the archive's"
	octets, text, whole := sha256.New(), fingerprint.NewText(c.copy.Foreign), fingerprint.NewWriter()
	most := 2*c.copy.Size + slack
	n, err := io.Copy(io.MultiWriter(octets, text, whole), io.LimitReader(served, most))
	switch {
	case err != nil:
		return "", err
	case n == most:
		return "the server sends far more than was archived", errStop
	case n != c.msg.Size && n != c.msg.Size+2 && n != c.msg.Size-2 || c.header != nil && *c.header != whole.Print().Header:
		return other, nil // by its own word it has another message than it sends
	}
	sum := fingerprint.Sum(octets.Sum(nil))
	if sum == c.copy.SHA256 || slices.Contains(forms, sum) {
		return "", nil
	}
	file, err := r.archive.Content(ctx, c.copy.Message)
	if err == nil {
		defer file.Close()
		archived := fingerprint.NewText(c.copy.Foreign)
		if _, err = io.Copy(archived, file); err == nil && text.Sum() == archived.Sum() {
			return "", nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "its file cannot be read: " + err.Error(), nil
	}
	return other, nil
}

// otherHeaders returns the messages whose header block is not, as the server
// sends it now, that of the archived copy.
func (r *run) otherHeaders(ctx context.Context, s Session, f *folder, some []*candidate) (odd []*candidate, err error) {
	due := map[mailbox.ID]*candidate{}
	var msgs []mailbox.Message
	for _, c := range some {
		due[c.msg.ID] = c
		msgs = append(msgs, c.msg)
	}
	err = s.Headers(ctx, f.box, msgs, func(m mailbox.Message, block []byte) error {
		c := due[m.ID]
		if c == nil {
			return nil
		}
		header := fingerprint.ReadHeader(block).Sum
		if c.header = &header; header == c.copy.Header {
			delete(due, m.ID)
		}
		return nil
	})
	if err != nil && !retry.IsRefused(err) {
		return nil, err
	}
	for _, c := range some {
		if due[c.msg.ID] != nil {
			odd = append(odd, c)
		}
	}
	return odd, nil
}

// errStop ends the work on a mailbox.
var errStop = errors.New("the mailbox is left alone")
