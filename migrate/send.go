package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// What is under way on one connection at most.
const (
	maxCommand       = 50      // messages in one command, where the server takes several
	maxCommandOctets = 1 << 20 // of these
	maxAhead         = 8       // commands that await an answer
	maxAheadOctets   = 8 << 20
)

// shipment is the messages of one command.
type shipment struct {
	msgs   []fingerprint.Candidate
	octets int64
	tag    string
}

// sender sends a folder's messages over several connections.
type sender struct {
	*run
	plan *plan

	mu   sync.Mutex
	left []fingerprint.Candidate
}

// sendAll sends messages. What has been answered is noted; what has not, is
// looked for on the server by whoever comes next. It returns an error if a
// connection ended before all was sent.
func (r *run) sendAll(ctx context.Context, p *plan, msgs []fingerprint.Candidate) error {
	s := &sender{run: r, plan: p, left: msgs}
	var octets int64
	for _, c := range msgs {
		octets += c.Size
	}
	r.sink.Report(report.MailboxStarted{Mailbox: p.Mailbox})
	lines := min(max(r.Connections, 1), 1+len(msgs)/20+int(octets>>20))
	var g errgroup.Group
	for range lines {
		g.Go(func() error { return s.work(ctx) })
	}
	return g.Wait()
}

// take returns the messages of the next command.
func (s *sender) take(many bool) (sh shipment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.left) > 0 {
		c := s.left[0]
		if n := len(sh.msgs); n > 0 && (!many || n == maxCommand || sh.octets+c.Size > maxCommandOctets) {
			break
		}
		sh.msgs, sh.octets = append(sh.msgs, c), sh.octets+c.Size
		s.left = s.left[1:]
	}
	return sh
}

func (s *sender) giveBack(msgs []fingerprint.Candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, msgs...)
}

// fail keeps a message from being sent again in this run.
func (s *sender) fail(c fingerprint.Candidate, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan.refuse[c.Message] = reason
}

// work sends over one connection until nothing is left.
func (s *sender) work(ctx context.Context) error {
	up, err := s.server.Upload(ctx)
	if err != nil {
		return err
	}
	defer up.Close()
	many := up.Many()
	var ahead []shipment
	var octets int64
	rests := 0
	for {
		sh := s.take(many)
		if len(sh.msgs) == 0 && len(ahead) == 0 {
			return nil
		}
		if len(sh.msgs) > 0 {
			if sh, err = s.send(ctx, up, sh); err != nil {
				return err
			}
			if len(sh.msgs) > 0 {
				ahead, octets = append(ahead, sh), octets+sh.octets
			}
		}
		for len(ahead) > 0 && (len(sh.msgs) == 0 || len(ahead) >= maxAhead || octets > maxAheadOctets) {
			first := ahead[0]
			ahead, octets = ahead[1:], octets-first.octets
			err := s.answer(ctx, up, first)
			wait, busy := retry.IsBusy(err)
			switch {
			case busy && retry.IsRefused(err) && rests < maxRests:
				rests++
				s.giveBack(first.msgs)
				if err := s.rest(ctx, err, wait, rests); err != nil {
					return err
				}
			case errors.Is(err, errApart):
				many = false
				s.giveBack(first.msgs)
			case err != nil:
				return err
			default:
				rests = 0
			}
		}
	}
}

// send sends one command. Messages that cannot be read are left out.
func (s *sender) send(ctx context.Context, up Uploader, sh shipment) (shipment, error) {
	var uploads []mailbox.Upload
	readable := sh.msgs[:0]
	for _, c := range sh.msgs {
		content, err := s.archive.Open(ctx, c.Message)
		if err != nil {
			s.fail(c, err.Error())
			continue
		}
		defer content.Close()
		readable = append(readable, c)
		uploads = append(uploads, content.Upload)
	}
	if sh.msgs = readable; len(readable) == 0 {
		return sh, nil
	}
	var err error
	sh.tag, err = up.Send(ctx, s.plan.box, uploads)
	return sh, err
}

// maxRests is how often a busy server is left alone before it is given up.
const maxRests = 6

// rest leaves a busy server alone for as long as it asks for, or longer each
// time.
func (s *sender) rest(ctx context.Context, err error, wait time.Duration, n int) error {
	if wait == 0 {
		wait = s.Pause << n
	}
	s.sink.Report(report.Slowed{Err: err, Wait: wait})
	return retry.Sleep(ctx, wait)
}

// FullError says that the server has no room for more.
type FullError struct{ Answer string }

func (e *FullError) Error() string { return "the server has no room for more mail: " + e.Answer }

// errApart says that a command for several messages is refused: each is to be
// sent by itself, so that the bad one is found.
var errApart = errors.New("one of several is refused")

// answer reads the answer to a command and notes what is stored.
func (s *sender) answer(ctx context.Context, up Uploader, sh shipment) error {
	ids, err := up.Answer(ctx, sh.tag, len(sh.msgs))
	_, busy := retry.IsBusy(err)
	switch {
	case err == nil:
	case !retry.IsRefused(err) || busy:
		return err
	case strings.Contains(strings.ToUpper(err.Error()), "[OVERQUOTA]"):
		return retry.Permanent(&FullError{err.Error()})
	case len(sh.msgs) > 1:
		return errApart
	default:
		s.fail(sh.msgs[0], err.Error())
		return nil
	}
	batch := s.archive.Begin()
	for i, c := range sh.msgs {
		s.fail(c, "the server says that it has stored it, and does not list it")
		if len(ids) == len(sh.msgs) {
			s.mu.Lock()
			s.plan.pushed = append(s.plan.pushed, pushed{c, ids[i]})
			s.mu.Unlock()
			err = errors.Join(err, batch.Pushed(ctx, s.plan.box, mailbox.Message{ID: ids[i], Size: c.Size, Flags: c.Flags}, c.Message))
		}
	}
	if err = errors.Join(err, batch.Commit(context.WithoutCancel(ctx))); err != nil {
		return retry.Permanent(fmt.Errorf("archive: %w", err))
	}
	s.mu.Lock()
	s.stored += len(sh.msgs)
	s.plan.SentOctets += sh.octets
	s.mu.Unlock()
	for _, c := range sh.msgs {
		s.sink.Report(report.MessageArrived{Size: c.Size})
	}
	return nil
}
