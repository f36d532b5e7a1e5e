package migrate

import (
	"context"
	"errors"
	"strings"
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
	plan   *plan
	msgs   []fingerprint.Candidate
	octets int64
	tag    string
}

// sender sends messages over several connections.
type sender struct {
	*run
	queue []*queued
	one   bool // a connection sends alone
}

// queued is what is left to be sent of one folder.
type queued struct {
	plan *plan
	left []fingerprint.Candidate
}

// sendAll sends what is missing. What has been answered is noted; what has
// not, is looked for on the server by whoever comes next. It returns an error
// if a connection ended before all was sent.
func (r *run) sendAll(ctx context.Context) error {
	s := &sender{run: r}
	messages, octets := 0, int64(0)
	for _, p := range r.plans {
		if !p.wanted() {
			continue
		}
		if left := p.sendable(); len(left) > 0 {
			p.looked = false
			s.queue = append(s.queue, &queued{p, left})
			messages += len(left)
			for _, c := range left {
				octets += c.Size
			}
		}
	}
	var g errgroup.Group
	for range r.lines(messages, octets) {
		g.Go(func() error { return s.work(ctx) })
	}
	return g.Wait()
}

// take returns the messages of the next command.
func (s *sender) take(many bool) (sh shipment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		q := s.queue[0]
		if len(q.left) == 0 {
			s.queue = s.queue[1:]
			continue
		}
		sh.plan = q.plan
		for len(q.left) > 0 {
			c := q.left[0]
			if n := len(sh.msgs); n > 0 && (!many || n == maxCommand || sh.octets+c.Size > maxCommandOctets) {
				break
			}
			sh.msgs, sh.octets = append(sh.msgs, c), sh.octets+c.Size
			q.left = q.left[1:]
		}
		break
	}
	return sh
}

func (s *sender) giveBack(sh shipment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, &queued{sh.plan, sh.msgs})
}

// fail keeps a message from being sent again in this run.
func (s *sender) fail(p *plan, c fingerprint.Candidate, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.refuse[c.Message] = reason
}

// connect returns a connection that can send.
func (s *sender) connect(ctx context.Context) (Uploader, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		up := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return up, nil
	}
	if s.due > 0 {
		s.due--
		s.mu.Unlock()
		d := <-s.coming
		return d.up, d.err
	}
	s.mu.Unlock()
	return s.server.Upload(ctx)
}

// dialed is what became of an attempt to connect.
type dialed struct {
	up  Uploader
	err error
}

// connectAhead begins to connect, while the server is looked at, if it is
// certain that something is to be sent.
func (r *run) connectAhead(ctx context.Context) {
	messages, octets := 0, int64(0)
	for _, p := range r.plans {
		if p.wanted() && !p.exists {
			messages, octets = messages+p.Archived, octets+p.octets
		}
	}
	if messages == 0 {
		return
	}
	r.due = r.lines(messages, octets)
	r.coming = make(chan dialed, r.due)
	for range r.due {
		go func() {
			up, err := r.server.Upload(ctx)
			r.coming <- dialed{up, err}
		}()
	}
}

// lines is how many connections are worth while for so much mail.
func (r *run) lines(messages int, octets int64) int {
	return min(r.Connections, 1+messages/20+int(octets>>20))
}

// work sends over one connection until nothing is left.
func (s *sender) work(ctx context.Context) error {
	up, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if !up.Tells() && !s.alone() { // the order tells, and there is one on one connection alone
		up.Close()
		return nil
	}
	if err := s.sendOver(ctx, up); err != nil {
		up.Close()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, up)
	return nil
}

// alone reports whether the caller is the first one to ask.
func (s *sender) alone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.one
	s.one = true
	return first
}

func (s *sender) sendOver(ctx context.Context, up Uploader) (err error) {
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
				s.giveBack(first)
				if err := s.rest(ctx, err, wait, rests); err != nil {
					return err
				}
			case errors.Is(err, errApart):
				many = false
				s.giveBack(first)
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
			s.fail(sh.plan, c, err.Error())
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
	sh.tag, err = up.Send(ctx, sh.plan.box, uploads)
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

func (e *FullError) Error() string { return "the server has no room for more: " + e.Answer }

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
		s.fail(sh.plan, sh.msgs[0], err.Error())
		return nil
	}
	batch := s.archive.Begin()
	for i, c := range sh.msgs {
		s.fail(sh.plan, c, "the server says that it has stored it, and does not list it")
		if len(ids) != len(sh.msgs) {
			s.mu.Lock()
			sh.plan.untold = append(sh.plan.untold, c)
			s.mu.Unlock()
		} else {
			s.mu.Lock()
			sh.plan.pushed = append(sh.plan.pushed, pushed{c, ids[i]})
			s.mu.Unlock()
			err = errors.Join(err, batch.Pushed(ctx, sh.plan.box, mailbox.Message{ID: ids[i], Size: c.Size, Flags: c.Flags}, c.Message))
		}
	}
	if err = errors.Join(err, batch.Commit(context.WithoutCancel(ctx))); err != nil {
		return archiveFailed(err)
	}
	s.mu.Lock()
	s.stored += len(sh.msgs)
	sh.plan.SentOctets += sh.octets
	s.mu.Unlock()
	for _, c := range sh.msgs {
		s.sink.Report(report.MessageArrived{Size: c.Size})
	}
	return nil
}
