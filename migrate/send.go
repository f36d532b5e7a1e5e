package migrate

import (
	"context"
	"errors"
	"regexp"
	"slices"
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
	one   bool  // a connection sends alone
	shown *plan // of which was told last that it is being sent
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
	r.pass++
	lines := r.lines(messages, octets)
	for n := max(r.Connections-lines, 1); len(r.lookers) > n; { // they are made again when they are needed
		l := r.lookers[len(r.lookers)-1]
		if l.conn != nil {
			l.conn.Close(true)
		}
		r.lookers = r.lookers[:len(r.lookers)-1]
	}
	var g errgroup.Group
	for range lines {
		g.Go(func() error { return s.work(ctx) })
	}
	return g.Wait()
}

// spare closes connections that are ready to send, but for n.
func (r *run) spare(n int) {
	for len(r.idle) > n {
		r.idle[len(r.idle)-1].Close()
		r.idle = r.idle[:len(r.idle)-1]
	}
}

// take returns the messages of the next command, none if the run is to send no
// more.
func (s *sender) take(many bool) (sh shipment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && !s.over(s.queue[0]) {
		q := s.queue[0]
		if len(q.left) == 0 || q.plan.blocked != "" {
			s.queue = s.queue[1:]
			continue
		}
		sh.plan = q.plan
		for len(q.left) > 0 && !s.over(q) {
			c := q.left[0]
			alone := !many || q.plan.attempts[c.Message] != nil || q.plan.alone[c.Message]
			if n := len(sh.msgs); n > 0 && (alone || n == maxCommand || sh.octets+c.Size > maxCommandOctets) {
				break
			}
			sh.msgs, sh.octets = append(sh.msgs, c), sh.octets+c.Size
			s.taken += c.Size
			if q.left = q.left[1:]; alone {
				break
			}
		}
		break
	}
	if len(sh.msgs) > 0 && sh.plan != s.shown {
		s.shown = sh.plan
		s.sink.Report(report.MailboxStarted{Mailbox: sh.plan.Folder})
	}
	return sh
}

// over reports whether the run is to send no more. The first message is sent
// whatever its size.
func (s *sender) over(q *queued) bool {
	switch {
	case s.paused != "" || len(q.left) == 0:
	case s.MaxDuration > 0 && time.Since(s.start) >= s.MaxDuration:
		s.paused = "the time that it may take is over"
	case s.MaxOctets > 0 && s.taken > 0 && s.taken+q.left[0].Size > s.MaxOctets:
		s.paused = "as much as it may send is sent"
	}
	return s.paused != ""
}

// fail keeps a message from being sent again in this run.
func (s *sender) fail(p *plan, c fingerprint.Candidate, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.refuse[c.Message] = reason
}

// block keeps everything from being sent into a mailbox in this run.
func (s *sender) block(p *plan, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.blocked = reason
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
	defer func() {
		for _, sh := range ahead {
			s.lost(sh)
		}
	}()
	var octets int64
	for {
		sh := s.take(many)
		if len(sh.msgs) == 0 && len(ahead) == 0 {
			return nil
		}
		if len(sh.msgs) > 0 {
			if sh, err = s.send(ctx, up, sh); err != nil {
				s.lost(sh)
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
			case busy && retry.IsRefused(err) && s.rests.Add(1) <= maxRests:
				s.doubtful(first)
				if err := s.rest(ctx, err, wait, int(s.rests.Load())); err != nil {
					return err
				}
			case errors.Is(err, errApart):
				s.apart(first)
			case err != nil:
				if !retry.IsRefused(err) && !errors.As(err, new(*FullError)) {
					s.lost(first)
				}
				return err
			default:
				s.rests.Store(0)
			}
		}
	}
}

// doubtful leaves messages to the next pass, which looks for them first: some
// servers store what they refuse.
func (s *sender) doubtful(sh shipment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.plan.unanswered = append(sh.plan.unanswered, sh.msgs...)
	for _, c := range sh.msgs {
		s.taken -= c.Size
	}
}

// apart has messages sent one by one in the next pass.
func (s *sender) apart(sh shipment) {
	s.doubtful(sh)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range sh.msgs {
		sh.plan.alone[c.Message] = true
	}
}

// lost notes that it is not known what has become of a command.
func (s *sender) lost(sh shipment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.plan.unanswered = append(sh.plan.unanswered, sh.msgs...)
	s.unanswered.Store(true)
}

// send sends one command. Messages that cannot be read are left out.
func (s *sender) send(ctx context.Context, up Uploader, sh shipment) (shipment, error) {
	var uploads []mailbox.Upload
	readable := sh.msgs[:0]
	batch := s.archive.Begin()
	for _, c := range sh.msgs {
		f := s.formOf(sh.plan, c)
		content, err := s.open(ctx, &c, f)
		if err != nil {
			s.fail(sh.plan, c, err.Error())
			continue
		}
		defer content.Close()
		if f.repairs != 0 {
			batch.Form(c.Message, c.Print, f.String())
		}
		readable = append(readable, c)
		uploads = append(uploads, content.Upload)
	}
	if sh.msgs = readable; len(readable) == 0 {
		return sh, nil
	}
	if err := commit(ctx, batch); err != nil { // before the server has it
		return sh, err
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

// The response codes that say what is wrong (RFC 5530, RFC 7889, RFC 3501).
func says(err error, codes ...string) bool {
	words := strings.ToUpper(err.Error())
	for _, code := range codes {
		if strings.Contains(words, "["+code) {
			return true
		}
	}
	return false
}

// tooLargeWords are how servers say that a message is larger than they take,
// where they have no response code for it.
var tooLargeWords = regexp.MustCompile(`(?i)\b(mail|message)( size)?( is| was)? (too (large|big)\b|(larger than|exceeds) (the )?(maximum|allowed|fixed)\b)`)

// othersWords are those of answers that are about something else that is too large.
var othersWords = regexp.MustCompile(`(?i)\b(quota|mailbox|header|line|room|space|index)\b`)

// saysTooLarge reports whether a server refuses a message for its size (RFC 7889
// section 4).
func saysTooLarge(err error) bool {
	words := err.Error()
	return says(err, "TOOBIG") || !says(err, "OVERQUOTA", "SERVERBUG") && tooLargeWords.MatchString(words) && !othersWords.MatchString(words)
}

// answer reads the answer to a command and notes what is stored.
func (s *sender) answer(ctx context.Context, up Uploader, sh shipment) error {
	ids, err := up.Answer(ctx, sh.tag, len(sh.msgs))
	_, busy := retry.IsBusy(err)
	switch {
	case err == nil:
	case !retry.IsRefused(err) || busy:
		return err
	case says(err, "OVERQUOTA") && len(sh.msgs) == 1: // else some of them may fit
		return retry.Permanent(&FullError{err.Error()})
	case says(err, "NOPERM", "READ-ONLY"):
		s.block(sh.plan, err.Error())
		return nil
	case says(err, "TRYCREATE") && s.doubt(sh):
		return nil
	case len(sh.msgs) > 1:
		return errApart
	default:
		return s.refused(ctx, sh, err)
	}
	return s.note(ctx, sh, ids)
}

// doubt leaves what is to be sent into a mailbox to the next pass, which looks
// whether it is there. It reports false if that was done already.
func (s *sender) doubt(sh shipment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := sh.plan
	if p.doubted != 0 && p.doubted != s.pass {
		return false
	}
	p.doubted = s.pass
	for _, c := range sh.msgs {
		s.taken -= c.Size
	}
	s.queue = slices.DeleteFunc(s.queue, func(q *queued) bool { return q.plan == p })
	return true
}

// refused decides what becomes of a message that the server does not take.
func (s *sender) refused(ctx context.Context, sh shipment, err error) error {
	p, c := sh.plan, sh.msgs[0]
	if saysTooLarge(err) {
		s.mu.Lock()
		p.tooLarge[c.Message] = true
		s.mu.Unlock()
		s.fail(p, c, err.Error())
		return nil
	}
	again, why := s.next(ctx, p, c, err)
	if again {
		s.doubtful(sh)
	} else {
		s.fail(p, c, why)
	}
	return nil
}

// note notes what is stored.
func (s *sender) note(ctx context.Context, sh shipment, ids []mailbox.ID) (err error) {
	batch := s.archive.Begin()
	for i, c := range sh.msgs {
		told := len(ids) == len(sh.msgs) && !sh.plan.before[ids[i]] // what was there before is another message
		s.fail(sh.plan, c, "the server says that it has stored it, and does not list it")
		s.mu.Lock()
		if told {
			sh.plan.pushed = append(sh.plan.pushed, pushed{c, ids[i]})
		} else {
			sh.plan.untold = append(sh.plan.untold, c)
		}
		s.mu.Unlock()
		if told {
			err = errors.Join(err, batch.Pushed(ctx, sh.plan.box, mailbox.Message{ID: ids[i], Size: c.Size, Flags: c.Flags}, c.Message))
		}
		if done := s.formOf(sh.plan, c).String(); done != "" {
			remark, remarkErr := s.remark(ctx, c, done)
			err = errors.Join(err, remarkErr)
			s.mu.Lock()
			sh.plan.Altered = append(sh.plan.Altered, remark)
			s.mu.Unlock()
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
