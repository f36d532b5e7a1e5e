// Package migrate stores what an archive holds on an IMAP server.
//
// Run plans, appends what the server lacks, and proves by the server's own
// listing that each message is there. A second run appends nothing, also
// after a crash: what the archive does not know as stored is looked for on
// the server before it is sent.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mailstow/internal/filter"
	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// Destination is a connection that looks at the server and makes mailboxes.
type Destination interface {
	Mailboxes(ctx context.Context) ([]mailbox.Mailbox, error)

	// Spelling returns the mailbox that a name leads to, and whether the name
	// had to be changed for this server.
	Spelling(ctx context.Context, n mailbox.Name) (m mailbox.Mailbox, changed bool, err error)

	// Create makes mailboxes, with their roles if the server has such, and
	// tells by their spelling which it made and what it says of others. One
	// that is neither was there, perhaps under another spelling.
	Create(ctx context.Context, boxes []mailbox.Mailbox) (made map[string]bool, refused map[string]error, err error)

	// List and Headers are those of a backup's source.
	List(ctx context.Context, m mailbox.Mailbox, told mailbox.State, details bool) (mailbox.Listing, error)
	Describe(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message) error
	Headers(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error

	Close(finished bool) error
}

// Uploader is a connection that stores messages.
type Uploader interface {
	Many() bool

	// Tells reports whether Answer returns IDs.
	Tells() bool

	Send(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Upload) (tag string, err error)
	Answer(ctx context.Context, tag string, messages int) ([]mailbox.ID, error)
	Close() error
}

// Server opens connections to the destination.
type Server interface {
	Look(ctx context.Context) (Destination, error)
	Upload(ctx context.Context) (Uploader, error)
}

// Folder is a folder of the archive.
type Folder struct {
	Path     string
	Name     mailbox.Name
	Role     string
	Messages int
	Octets   int64
}

// Archive holds what is to be stored. Its methods may be called from several
// goroutines.
type Archive interface {
	Folders(ctx context.Context) ([]Folder, error)

	// Place says that a folder's messages go into a mailbox.
	Place(m mailbox.Mailbox, folder string)

	// EachKnown calls fn for every message of the mailbox that is known.
	EachKnown(ctx context.Context, m mailbox.Mailbox, fn func(mailbox.ID, mailbox.Kept)) error

	// Unclaimed returns the folder's messages that stand for none in the
	// mailbox; live says of an ID there that it does.
	Unclaimed(ctx context.Context, folder string, m mailbox.Mailbox, live func(mailbox.ID) bool) ([]fingerprint.Candidate, error)

	// Open returns a message, read and found whole.
	Open(ctx context.Context, message int64) (Content, error)

	// Describe says which message it is.
	Describe(ctx context.Context, message int64) (Description, error)

	Begin() Batch
}

// Content is a message that can be sent.
type Content struct {
	mailbox.Upload
	Close func() error
}

// Description is what a person needs to find a message.
type Description struct {
	Date                     time.Time
	From, Subject, MessageID string
}

// Batch is a group of notes that become durable together.
type Batch interface {
	Claim(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64, proven bool) error
	Pushed(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64) error
	Commit(ctx context.Context) error
}

// Options adjust a [Run].
type Options struct {
	DryRun      bool
	Connections int // most at the same time; zero means one
	Filter      filter.Filter
	Mapping     Mapping

	// Unsettled says that an earlier run was killed, so that the server may
	// still be storing what it has sent.
	Unsettled bool

	// Pause is how long to wait before the second login after a lost
	// connection; it doubles from there. Zero means a second.
	Pause time.Duration
}

// Missing is a message that is not on the server.
type Missing struct {
	Description
	Size   int64
	Reason string
}

// Tally says how a folder and its mailbox stand at the end.
type Tally struct {
	Folder  mailbox.Name
	Mailbox mailbox.Name
	Changed bool   // the mailbox could not be called as wished
	Created bool   // or, in a dry run, is to be
	Skipped string // why the user does not want the folder, "" if it is wanted

	Archived   int // messages in the folder
	Before     int // of these, on the server before, as the archive knew
	Recognised int // found there
	Sent       int // stored now; in a dry run, to be stored
	SentOctets int64
	OnServer   int // what the server lists in the mailbox at the end
	Missing    []Missing
	Reason     string // why nothing could be done for the folder; "" if it could
}

// There is how many of the folder's messages the server has.
func (t Tally) There() int { return t.Before + t.Recognised + t.Sent }

// Result is what a run ends with.
type Result struct {
	Tallies  []Tally
	Duration time.Duration
}

// Missing adds up what is not on the server.
func (r Result) Missing() (n int) {
	for _, t := range r.Tallies {
		if t.Skipped == "" {
			n += t.Archived - t.There()
		}
	}
	return n
}

// ErrIncomplete is returned by [Run] when something of the archive is not on
// the server. What it is is in the result.
var ErrIncomplete = errors.New("some messages are not on the server")

// Run stores every message of the archive that the server lacks.
func Run(ctx context.Context, server Server, archive Archive, sink report.Sink, o Options) (Result, error) {
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	o.Connections = max(o.Connections, 1)
	start := time.Now()
	r := &run{Options: o, server: server, archive: archive, sink: sink}
	err := r.push(ctx)
	r.close(err == nil)
	result := Result{Duration: time.Since(start)}
	whole := err == nil
	for _, p := range r.plans {
		result.Tallies = append(result.Tallies, p.Tally)
		if p.Skipped == "" && (p.Reason != "" || len(p.Missing) > 0 || !o.DryRun && p.There() != p.Archived) {
			whole = false
		}
	}
	switch {
	case whole:
		return result, nil
	case ctx.Err() != nil:
		return result, context.Cause(ctx)
	case err != nil && (r.stored > 0 || errors.As(err, new(*FullError))):
		return result, errors.Join(ErrIncomplete, err)
	case err != nil:
		return result, err
	}
	return result, ErrIncomplete
}

// run is one run.
type run struct {
	Options
	server  Server
	archive Archive
	sink    report.Sink
	plans   []*plan
	lookers []*looker
	idle    []Uploader // connections that are ready to send
	coming  chan dialed
	due     int // of those that are coming

	mu     sync.Mutex
	stored int // messages that the server has taken
}

// plan is what is to be done about one folder.
type plan struct {
	Tally
	path    string
	octets  int64 // in the folder
	box     mailbox.Mailbox
	exists  bool
	made    bool                    // in this run
	missing []fingerprint.Candidate // by the last look
	looked  bool                    // nothing has been sent since
	refuse  map[int64]string        // messages that are not to be sent again in this run, and why

	// What was stored since the last look: where the server says it is, or in
	// the order of the answers if it does not say.
	pushed []pushed
	untold []fingerprint.Candidate
	before map[mailbox.ID]bool // what the mailbox held at the first look
}

// pushed is a message that was stored.
type pushed struct {
	fingerprint.Candidate
	id mailbox.ID
}

// wanted reports whether there may be something to do for the folder.
func (p *plan) wanted() bool { return p.Skipped == "" && p.Reason == "" }

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

func (r *run) close(finished bool) {
	for _, l := range r.lookers {
		if l.conn != nil {
			l.conn.Close(finished)
		}
	}
	for range r.due {
		if d := <-r.coming; d.err == nil {
			d.up.Close()
		}
	}
	for _, up := range r.idle {
		up.Close()
	}
}

// maxPasses is how often a server is looked at and sent to in one run;
// maxStalls how often in a row without less being missing.
const (
	maxPasses = 100
	maxStalls = 3
)

// push sends what the server lacks until its own listing shows that nothing is
// missing, or that nothing more can be done.
func (r *run) push(ctx context.Context) error {
	folders, err := r.archive.Folders(ctx)
	if err != nil {
		return retry.Permanent(err)
	}
	first := &looker{run: r}
	r.lookers = append(r.lookers, first)
	if err := first.do(ctx, func(d Destination) error { return r.plan(ctx, d, folders) }); err != nil {
		return err
	}
	if r.DryRun {
		return r.lookAll(ctx, true, false)
	}
	r.connectAhead(ctx)
	if err := first.do(ctx, func(d Destination) error { return r.createAll(ctx, d) }); err != nil {
		return err
	}
	fewest, stalls, unsettled := math.MaxInt, 0, r.Unsettled
	for pass := range maxPasses {
		if err := r.lookAll(ctx, pass == 0, unsettled); err != nil {
			return err
		}
		left, send := r.left()
		if send == 0 {
			return r.noteAll(ctx)
		}
		if left < fewest {
			fewest, stalls = left, 0
		}
		err := r.sendAll(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		stalls++
		switch {
		case err != nil && (retry.IsPermanent(err) || stalls == maxStalls):
			if r.lookAll(ctx, false, false) == nil {
				if left, _ := r.left(); left == 0 { // the others have done its work
					return nil
				}
				r.noteAll(ctx)
			}
			return err
		case err != nil:
			unsettled = true
			r.sink.Report(report.Reconnecting{Err: err, Try: pass + 2})
			if err := retry.Pause(ctx, r.Pause, stalls); err != nil {
				return err
			}
		default:
			unsettled = false
		}
	}
	return r.noteAll(ctx)
}

// left counts the messages that the server lacks, and those of them that can
// be sent.
func (r *run) left() (missing, send int) {
	for _, p := range r.plans {
		if p.wanted() {
			missing, send = missing+len(p.missing), send+len(p.sendable())
		}
	}
	return missing, send
}

// sendable returns the missing messages that have not been refused.
func (p *plan) sendable() []fingerprint.Candidate {
	return slices.DeleteFunc(slices.Clone(p.missing), func(c fingerprint.Candidate) bool { return p.refuse[c.Message] != "" })
}

// createAll makes the mailboxes that are not there.
func (r *run) createAll(ctx context.Context, d Destination) error {
	var boxes []mailbox.Mailbox
	for _, p := range r.plans {
		if p.wanted() && !p.exists {
			boxes = append(boxes, p.box)
		}
	}
	if len(boxes) == 0 {
		return nil
	}
	made, refused, err := d.Create(ctx, boxes)
	if err != nil {
		return err
	}
	for _, p := range r.plans {
		if !p.wanted() || p.exists {
			continue
		}
		if err := refused[p.box.Wire]; err != nil {
			p.Reason = err.Error()
		}
		p.made = made[p.box.Wire]
		p.exists = true
	}
	return nil
}

// lookAll compares the folders with their mailboxes, where something has been
// sent since the last time, several at once.
func (r *run) lookAll(ctx context.Context, first, unsettled bool) error {
	stale := make(chan *plan, len(r.plans))
	for _, p := range r.plans {
		if p.wanted() && !p.looked {
			stale <- p
		}
	}
	close(stale)
	for len(r.lookers) < min(r.Connections, (len(stale)+1)/2) {
		r.lookers = append(r.lookers, &looker{run: r})
	}
	var g errgroup.Group
	for _, l := range r.lookers {
		g.Go(func() error {
			for p := range stale {
				err := l.look(ctx, p, first, unsettled)
				switch {
				case err == nil:
					p.looked = true
				case retry.IsRefused(err):
					p.Reason = err.Error()
				default:
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// look finds out what the mailbox lacks of a folder.
func (l *looker) look(ctx context.Context, p *plan, first, unsettled bool) (err error) {
	if !p.exists && l.DryRun {
		p.Sent = p.Archived
		return nil
	}
	l.archive.Place(p.box, p.path)
	if p.missing, err = l.compare(ctx, p, first); err != nil || !l.DryRun {
		if err == nil && unsettled {
			p.missing, err = l.settle(ctx, p, first)
		}
		return err
	}
	p.Sent = len(p.missing)
	return nil
}

// settle waits until the server stores no more of what it was sent over a
// connection that has ended.
func (l *looker) settle(ctx context.Context, p *plan, first bool) ([]fingerprint.Candidate, error) {
	missing := p.missing
	for len(missing) > 0 {
		if err := retry.Sleep(ctx, 2*l.Pause); err != nil {
			return nil, err
		}
		now, err := l.compare(ctx, p, first)
		if err != nil || len(now) == len(missing) {
			return now, err
		}
		missing = now
	}
	return missing, nil
}

// noteAll writes down which messages are missing, and why.
func (r *run) noteAll(ctx context.Context) error {
	for _, p := range r.plans {
		p.Missing = nil
		for _, c := range p.missing {
			d, err := r.archive.Describe(ctx, c.Message)
			if err != nil {
				return retry.Permanent(err)
			}
			reason := p.refuse[c.Message]
			if reason == "" {
				reason = "the run ended before it was sent"
			}
			p.Missing = append(p.Missing, Missing{Description: d, Size: c.Size, Reason: reason})
		}
	}
	return nil
}

// plan decides which folder goes into which mailbox.
func (r *run) plan(ctx context.Context, d Destination, folders []Folder) error {
	boxes, err := d.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for from := range r.Mapping.Renamed {
		if !slices.ContainsFunc(folders, func(f Folder) bool { return f.Name.String() == from }) {
			return retry.Permanent(&UnknownFolderError{from})
		}
	}
	r.plans = nil
	shared, taken := sharesInbox(folders), map[string]string{}
	for _, f := range folders {
		p := &plan{Tally: Tally{Folder: f.Name, Archived: f.Messages}, path: f.Path, octets: f.Octets, refuse: map[int64]string{}}
		r.plans = append(r.plans, p)
		if p.Skipped = r.Filter.Skips(mailbox.Mailbox{Name: f.Name, Role: f.Role}); p.Skipped != "" {
			continue
		}
		name, there := r.Mapping.target(f, boxes, shared)
		if there == nil {
			if p.box, p.Changed, err = d.Spelling(ctx, name); err != nil {
				return err
			}
			if i := slices.IndexFunc(boxes, func(b mailbox.Mailbox) bool { return b.Wire == p.box.Wire }); i >= 0 {
				there = &boxes[i]
			}
		}
		switch {
		case there != nil:
			p.box, p.exists = *there, true
		case slices.Contains(roots, f.Role):
			p.box.Role = f.Role
		}
		p.Mailbox, p.Created = p.box.Name, !p.exists
		if other, ok := taken[p.box.Wire]; ok {
			return retry.Permanent(&CollisionError{Folder: f.Name.String(), Other: other, Mailbox: p.Mailbox.String()})
		}
		taken[p.box.Wire] = f.Name.String()
	}
	return nil
}

// compare lists the mailbox, recognises what is not known as the archive's,
// and returns what it lacks. first says that nothing has been sent yet.
func (l *looker) compare(ctx context.Context, p *plan, first bool) (missing []fingerprint.Candidate, err error) {
	if first && p.made { // it is empty
		p.before = map[mailbox.ID]bool{}
		return l.archive.Unclaimed(ctx, p.path, p.box, func(mailbox.ID) bool { return false })
	}
	err = l.do(ctx, func(d Destination) error {
		missing, err = l.compareOn(ctx, d, p, first)
		return err
	})
	return missing, err
}

func (r *run) compareOn(ctx context.Context, d Destination, p *plan, first bool) (missing []fingerprint.Candidate, err error) {
	l, err := d.List(ctx, p.box, mailbox.State{}, true)
	if err != nil {
		return nil, err
	}
	listed := make(map[mailbox.ID]bool, len(l.Messages))
	for _, m := range l.Messages {
		listed[m.ID] = true
	}
	if err := r.checkPushed(ctx, d, p, l.Messages); err != nil {
		return nil, err
	}
	known := map[mailbox.ID]bool{}
	if err := r.archive.EachKnown(ctx, p.box, func(id mailbox.ID, _ mailbox.Kept) { known[id] = listed[id] }); err != nil {
		return nil, retry.Permanent(err)
	}
	free, err := r.archive.Unclaimed(ctx, p.path, p.box, func(id mailbox.ID) bool { return listed[id] })
	if err != nil {
		return nil, retry.Permanent(err)
	}
	var strange []mailbox.Message
	for _, m := range l.Messages {
		if !known[m.ID] {
			strange = append(strange, m)
		}
	}
	claimed, err := r.recognise(ctx, d, p, strange, free)
	if err != nil {
		return nil, err
	}
	if first {
		p.before = listed
	} else if err := r.matchUntold(ctx, p, strange, claimed); err != nil {
		return nil, err
	}
	there := p.Archived - len(free)
	p.OnServer = len(l.Messages)
	if first {
		p.Before, p.Recognised = there, len(claimed)
	} else {
		p.Sent = there + len(claimed) - p.Before - p.Recognised
	}
	return slices.DeleteFunc(free, func(c fingerprint.Candidate) bool { return claimed[c.Message] }), nil
}

// checkPushed looks whether what has just been stored is where the server said,
// by its size. If something is not, all of it is looked up by its header: what
// is found elsewhere is noted so. What is not found may have been changed by
// the server, and stays as it was told.
func (r *run) checkPushed(ctx context.Context, d Destination, p *plan, listed []mailbox.Message) error {
	pushed := p.pushed
	sizes := make(map[mailbox.ID]int64, len(listed))
	for _, m := range listed {
		sizes[m.ID] = m.Size
	}
	odd, ours := false, map[int64]bool{}
	var candidates []fingerprint.Candidate
	for _, s := range pushed {
		size, there := sizes[s.id]
		odd = odd || !there || !s.HasSize(size)
		delete(sizes, s.id) // two messages cannot be at one place
		ours[s.Message] = true
		candidates = append(candidates, s.Candidate)
	}
	if !odd {
		p.pushed = nil
		return nil
	}
	others := map[mailbox.ID]bool{}
	err := r.archive.EachKnown(ctx, p.box, func(id mailbox.ID, kept mailbox.Kept) { others[id] = !ours[kept.Message] })
	if err != nil {
		return retry.Permanent(err)
	}
	listed = slices.DeleteFunc(slices.Clone(listed), func(m mailbox.Message) bool { return others[m.ID] })
	if len(listed) == 0 {
		p.pushed = nil
		return nil
	}
	pool, batch := fingerprint.NewPool(candidates), r.archive.Begin()
	err = d.Headers(ctx, p.box, listed, func(m mailbox.Message, header []byte) error {
		c, ok := pool.Take(m.Size, fingerprint.ReadHeader(header))
		if !ok {
			return nil
		}
		return batch.Claim(ctx, p.box, m, c.Message, false)
	})
	if err != nil && !retry.IsRefused(err) {
		return err
	}
	if err := commit(ctx, batch); err != nil {
		return err
	}
	p.pushed = nil
	return nil
}

// matchUntold finds what a server has stored and changed so that it is not
// recognised, and of which it does not say where it is: one connection stores
// in the order in which it answers. That holds if just as many messages have
// come as are looked for.
func (r *run) matchUntold(ctx context.Context, p *plan, strange []mailbox.Message, claimed map[int64]bool) error {
	sought := slices.DeleteFunc(slices.Clone(p.untold), func(c fingerprint.Candidate) bool { return claimed[c.Message] })
	var come []mailbox.Message
	known := map[mailbox.ID]bool{}
	if len(sought) == 0 {
		p.untold = nil
		return nil
	}
	if err := r.archive.EachKnown(ctx, p.box, func(id mailbox.ID, _ mailbox.Kept) { known[id] = true }); err != nil {
		return retry.Permanent(err)
	}
	for _, m := range strange {
		if !p.before[m.ID] && !known[m.ID] {
			come = append(come, m)
		}
	}
	if len(come) != len(sought) {
		p.untold = nil
		return nil
	}
	batch := r.archive.Begin()
	for i, c := range sought {
		if err := batch.Pushed(ctx, p.box, come[i], c.Message); err != nil {
			return archiveFailed(err)
		}
		claimed[c.Message] = true
	}
	if err := commit(ctx, batch); err != nil {
		return err
	}
	p.untold = nil
	return nil
}

func commit(ctx context.Context, b Batch) error {
	if err := b.Commit(ctx); err != nil {
		return archiveFailed(err)
	}
	return nil
}

// archiveFailed is the error of an archive that cannot be written.
func archiveFailed(err error) error { return retry.Permanent(fmt.Errorf("archive: %w", err)) }

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

// recognise finds out which messages of the server are the archive's.
func (r *run) recognise(ctx context.Context, d Destination, p *plan, strange []mailbox.Message, free []fingerprint.Candidate) (claimed map[int64]bool, err error) {
	claimed = map[int64]bool{}
	pool := fingerprint.NewPool(slices.Clone(free))
	if err := describe(ctx, d, p.box, strange); err != nil {
		return nil, err
	}
	strange = slices.DeleteFunc(slices.Clone(strange), func(m mailbox.Message) bool { return !pool.HasSize(m.Size) })
	if len(strange) == 0 || len(free) == 0 {
		return claimed, nil
	}
	batch := r.archive.Begin()
	err = d.Headers(ctx, p.box, strange, func(m mailbox.Message, header []byte) error {
		c, ok := pool.Take(m.Size, fingerprint.ReadHeader(header))
		if !ok {
			return nil
		}
		claimed[c.Message] = true
		return batch.Claim(ctx, p.box, m, c.Message, false)
	})
	if err != nil && !retry.IsRefused(err) {
		return nil, err
	}
	if r.DryRun {
		return claimed, nil
	}
	return claimed, commit(ctx, batch)
}
