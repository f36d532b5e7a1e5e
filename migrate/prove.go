package migrate

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"mailstow/internal/fingerprint"
	"mailstow/internal/repair"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// Prove compares an archive with a server, and changes nothing. With full the
// octets of each message are compared, apart from header fields that the
// server has added.
func Prove(ctx context.Context, server Server, archive Archive, sink report.Sink, o Options, full bool) (Result, error) {
	o.DryRun = true
	r := newRun(server, archive, sink, o)
	r.proving, r.full = true, full
	return r.finish(ctx, r.prove(ctx))
}

func (r *run) prove(ctx context.Context) error {
	if _, err := r.planAll(ctx); err != nil {
		return err
	}
	if err := r.lookAll(ctx, false); err != nil {
		return err
	}
	for _, p := range r.plans {
		p.Sent, p.SentOctets = 0, 0
		for _, c := range p.missing {
			text := "it is not on the server"
			if !p.exists {
				text = "its mailbox is not on the server"
			}
			remark, err := r.remark(ctx, c, text)
			if err != nil {
				return err
			}
			remark.TooLarge = p.tooLarge[c.Message]
			if remark.TooLarge && r.SkipTooBig {
				p.TooLarge = append(p.TooLarge, remark)
			} else {
				p.Missing = append(p.Missing, remark)
			}
		}
	}
	if r.full {
		return r.compareAll(ctx)
	}
	return nil
}

// compareAll compares the octets of what is on the server with the archive's,
// a folder on each connection.
func (r *run) compareAll(ctx context.Context) error {
	work := make(chan *plan, len(r.plans))
	planned := report.Planned{}
	for _, p := range r.plans {
		if p.wanted() && p.exists && len(p.there) > 0 {
			work <- p
			planned.Mailboxes, planned.Messages, planned.New = planned.Mailboxes+1, planned.Messages+p.Archived, planned.New+len(p.there)
			for _, c := range p.there {
				planned.NewOctets += c.Size
			}
		}
	}
	close(work)
	r.sink.Report(planned)
	for len(r.lookers) < min(r.Connections, len(work)) {
		r.lookers = append(r.lookers, &looker{run: r})
	}
	var g errgroup.Group
	for _, l := range r.lookers {
		g.Go(func() error {
			for p := range work {
				r.sink.Report(report.MailboxStarted{Mailbox: p.Folder})
				err := l.do(ctx, func(d Destination) error { return l.compareContents(ctx, d, p) })
				switch {
				case retry.IsRefused(err):
					p.Reason = err.Error()
				case err != nil:
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// compareContents compares what has not been compared yet. What the server
// does not send is a difference.
func (r *run) compareContents(ctx context.Context, d Destination, p *plan) error {
	sums := map[int64][]fingerprint.Sum{} // of forms that were sent
	forms, err := r.archive.Forms(ctx, p.path)
	if err != nil {
		return retry.Permanent(err)
	}
	for _, f := range forms {
		if f.SHA256 != (fingerprint.Sum{}) {
			sums[f.Message] = append(sums[f.Message], f.SHA256)
		}
	}
	var msgs []mailbox.Message
	for id := range p.there {
		msgs = append(msgs, mailbox.Message{ID: id})
	}
	err = d.Fetch(ctx, p.box, msgs, func(m mailbox.Message, size int64, content io.Reader) error {
		c, asked := p.there[m.ID]
		if !asked {
			_, err := io.Copy(io.Discard, content)
			return err
		}
		why, err := r.differs(ctx, c, sums[c.Message], content)
		if err != nil {
			return err
		}
		delete(p.there, m.ID)
		if why == "" {
			p.Compared++
		} else {
			remark, err := r.remark(ctx, c, why)
			if err != nil {
				return err
			}
			p.Differ = append(p.Differ, remark)
		}
		r.sink.Report(report.MessageArrived{Size: size})
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range p.there {
		remark, err := r.remark(ctx, c, "the server does not send it")
		if err != nil {
			return err
		}
		p.Differ = append(p.Differ, remark)
	}
	p.there = nil
	return nil
}

// differs compares a message with the server's copy, which it reads to its
// end, and says how they differ, "" for not at all. forms are the digests of
// other forms in which it may have been sent.
func (r *run) differs(ctx context.Context, c fingerprint.Candidate, forms []fingerprint.Sum, copied io.Reader) (why string, err error) {
	if len(forms) == 0 {
		why, err = r.compareWith(ctx, c, 0, copied)
	} else {
		var held []byte // such messages are few, and a server took them
		if held, err = io.ReadAll(copied); err != nil {
			return "", err
		}
		if why, err = r.compareWith(ctx, c, 0, bytes.NewReader(held)); why == "" {
			return "", err
		}
		for steps := range allRepairs {
			if same, err := r.isForm(ctx, c, steps+1, forms); err != nil || !same {
				continue
			}
			if other, err := r.compareWith(ctx, c, steps+1, bytes.NewReader(held)); other == "" && err == nil {
				return "", nil // just what was sent
			}
		}
	}
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, copied)
	return why, err
}

// isForm reports whether a message with repairs is one of the forms.
func (r *run) isForm(ctx context.Context, c fingerprint.Candidate, steps repair.Steps, forms []fingerprint.Sum) (bool, error) {
	content, err := r.archive.Open(ctx, c.Message)
	if err != nil {
		return false, err
	}
	defer content.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, content.repaired(steps))
	return slices.Contains(forms, fingerprint.Sum(sum.Sum(nil))), err
}

// compareWith compares a message, with repairs, with a copy.
func (r *run) compareWith(ctx context.Context, c fingerprint.Candidate, steps repair.Steps, copied io.Reader) (why string, err error) {
	content, err := r.archive.Open(ctx, c.Message)
	if err != nil {
		return "in the archive: " + err.Error(), nil
	}
	defer content.Close()
	if steps != 0 {
		return compareOctets(content.repaired(steps), copied)
	}
	return compareOctets(io.LimitReader(content.Content, content.Size), copied)
}

// compareOctets compares a message with a copy to which header fields, or a
// final line end, may have been added.
func compareOctets(message, copied io.Reader) (why string, err error) {
	a, b := bufio.NewReaderSize(message, 32<<10), bufio.NewReaderSize(copied, 32<<10)
	fieldsA, err := readFields(a)
	if err != nil {
		return "", err
	}
	fieldsB, err := readFields(b)
	if err != nil {
		return "", err
	}
	if !among(fieldsA, fieldsB) {
		return "its header is not the same", nil
	}
	bufA, bufB := make([]byte, 16<<10), make([]byte, 16<<10)
	for {
		n, errA := io.ReadFull(a, bufA)
		k, errB := io.ReadFull(b, bufB[:n])
		if errB != nil && !errors.Is(errB, io.EOF) && !errors.Is(errB, io.ErrUnexpectedEOF) {
			return "", errB
		}
		if !bytes.Equal(bufA[:n], bufB[:k]) {
			return "its body is not the same", nil
		}
		if errA != nil {
			break
		}
	}
	rest, err := io.ReadAll(io.LimitReader(b, 3))
	if err != nil {
		return "", err
	}
	if len(rest) > 0 && string(rest) != "\r\n" {
		return "its body is longer", nil
	}
	return "", nil
}
