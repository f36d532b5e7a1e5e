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
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"mailstow/internal/filter"
	"mailstow/internal/fingerprint"
	"mailstow/internal/repair"
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

	// Limits returns what the server says of how much it takes, and of what may
	// be stored in mailboxes.
	Limits(ctx context.Context, boxes []mailbox.Mailbox) (mailbox.Limits, error)

	// Flag gives messages of a mailbox flags and takes flags from them.
	Flag(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID, add, remove []string) error

	// List, Describe, Headers and Fetch are those of a backup's source.
	List(ctx context.Context, m mailbox.Mailbox, told mailbox.State, details bool) (mailbox.Listing, error)
	Describe(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message) error
	Headers(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error
	Fetch(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error

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
	Placed   string // the server's spelling of the mailbox that it belongs to there; "" for none
}

// Archive holds what is to be stored. Its methods may be called from several
// goroutines.
type Archive interface {
	Folders(ctx context.Context) ([]Folder, error)

	// Place says that a folder's messages go into a mailbox; stay, that they
	// are to go there the next time too.
	Place(m mailbox.Mailbox, folder string, stay bool)

	// EachHeld calls fn for every message that stands for one in the mailbox,
	// and says of each whether it is in the folder.
	EachHeld(ctx context.Context, folder string, m mailbox.Mailbox, fn func(Held)) error

	// Unclaimed returns the folder's messages that stand for none in the
	// mailbox; live says of an ID there that it does.
	Unclaimed(ctx context.Context, folder string, m mailbox.Mailbox, live func(mailbox.ID) bool) ([]fingerprint.Candidate, error)

	// Forms returns other forms in which a server may have the folder's
	// messages: repaired before they were sent, or changed by the server.
	Forms(ctx context.Context, folder string) ([]fingerprint.Candidate, error)

	// Open returns a message, read and found whole. In a dry run there may be
	// messages with negative numbers: they are still to come, and are not opened.
	Open(ctx context.Context, message int64) (Content, error)

	// Describe says which message it is.
	Describe(ctx context.Context, message int64) (Description, error)

	Begin() Batch
}

// Held is a message of the archive that stands for one in a mailbox.
type Held struct {
	ID         mailbox.ID
	Here       bool     // it is in the folder that was asked about
	Recognised bool     // by its header; the octets were not compared
	Told       []string // the flags that the server told of it last, or was given
	fingerprint.Candidate
}

// Content is a message that can be sent.
type Content struct {
	mailbox.Upload
	Close func() error
}

// repaired reads the content with repairs made.
func (c Content) repaired(s repair.Steps) *repair.Reader {
	return repair.NewReader(io.LimitReader(c.Content, c.Size), s)
}

// Description is what a person needs to find a message.
type Description struct {
	Date                     time.Time
	From, Subject, MessageID string
	File                     string // below the account's directory, "" if it is gone
}

// Batch is a group of notes that become durable together.
type Batch interface {
	Claim(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64, proven bool) error
	Pushed(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64) error

	// Form notes another form in which the server may have a message, and what
	// was done to it.
	Form(archived int64, p fingerprint.Print, note string)

	// Told notes which flags the server has of a message.
	Told(ctx context.Context, m mailbox.Mailbox, id mailbox.ID, flags []string) error

	Commit(ctx context.Context) error
}

// Options adjust a [Run].
type Options struct {
	DryRun      bool
	Connections int // most at the same time; zero means one
	Filter      filter.Filter
	Mapping     Mapping

	// Only are the messages to be stored, by the archive's numbers; nil for all.
	// The others are known, so that none is taken for one of them.
	Only map[int64]bool

	NoRepair    bool // a message that is refused is not sent in another form
	SkipTooBig  bool // messages that are too large for the server are no failure
	IgnoreQuota bool // store although the server says that it has no room
	Remake      bool // a mailbox that was there once and has gone is made again
	UpdateFlags bool // bring the flags of what is there in step
	MaxOctets   int64
	MaxDuration time.Duration // these two end the run early; zero for never

	Filling *Filling // nil if the archive holds all that there will be

	// Unsettled says that an earlier run was killed, so that the server may
	// still be storing what it has sent.
	Unsettled bool

	// Pause is how long to wait before the second login after a lost
	// connection; it doubles from there. Zero means a second.
	Pause time.Duration
}

// Filling is a backup that fills the archive while the run goes on.
type Filling struct {
	Ready  <-chan struct{}                       // closed when all folders are there
	Done   <-chan struct{}                       // closed when nothing more comes
	Coming func() (messages int64, octets int64) // what was going to come when Ready was closed
}

// Run stores every message of the archive that the server lacks.
func Run(ctx context.Context, server Server, archive Archive, sink report.Sink, o Options) (Result, error) {
	r := newRun(server, archive, sink, o)
	return r.finish(ctx, r.push(ctx))
}

func newRun(server Server, archive Archive, sink report.Sink, o Options) *run {
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	o.Connections = max(o.Connections, 1)
	return &run{Options: o, server: server, archive: archive, sink: sink, start: time.Now()}
}

// finish closes the connections and says how the run went.
func (r *run) finish(ctx context.Context, err error) (Result, error) {
	r.close(err == nil)
	result := Result{Duration: time.Since(r.start), Limits: r.limits, Stored: r.stored, Unsettled: r.unanswered.Load()}
	whole := err == nil
	result.Settled = r.lookedAt && !result.Unsettled
	for _, p := range r.plans {
		result.Tallies = append(result.Tallies, p.Tally)
		result.Settled = result.Settled && p.Skipped == "" && p.Reason == ""
		whole = whole && (p.whole() || r.DryRun && !r.proving && p.Reason == "" && len(p.Missing) == 0)
	}
	switch {
	case whole:
		return result, nil
	case ctx.Err() != nil:
		return result, context.Cause(ctx)
	case errors.As(err, new(*PausedError)):
		return result, err
	case err != nil && (r.stored > 0 || errors.As(err, new(*FullError)) || errors.As(err, new(*RoomError))):
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
	start   time.Time
	plans   []*plan
	limits  mailbox.Limits
	lookers []*looker
	idle    []Uploader // connections that are ready to send
	coming  chan dialed
	due     int // of those that are coming

	noRoom  bool // nothing is sent, for that reason
	proving bool // nothing is stored
	full    bool // and octets are compared

	rests      atomic.Int32 // how often the server was busy since it took something
	unanswered atomic.Bool  // something was sent, and it is not known what became of it

	pass     int  // how often it has been sent to
	lookedAt bool // every folder that is wanted

	mu     sync.Mutex
	stored int    // messages that the server has taken
	taken  int64  // octets that were, or are being, sent
	paused string // why nothing more is sent, "" while it is
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
	if r.Filling != nil {
		select {
		case <-r.Filling.Ready:
		case <-r.Filling.Done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	first, err := r.planAll(ctx)
	if err != nil {
		return err
	}
	if !r.DryRun {
		r.connectAhead(ctx)
	}
	if err := r.lookAll(ctx, r.Unsettled); err != nil {
		return err
	}
	r.lookedAt = true
	r.announce()
	err = r.room()
	switch {
	case r.Filling == nil:
	case err == nil:
		err = r.follow(ctx, first)
	default: // what is missing is known when all has come
		if err := r.filled(ctx, first, false); err != nil {
			return err
		}
	}
	if errors.As(err, new(*RoomError)) || err == nil && r.DryRun {
		for _, p := range r.plans {
			if r.noRoom && r.DryRun {
				p.Sent, p.SentOctets = 0, 0
			}
		}
		return errors.Join(err, r.noteAll(ctx))
	}
	if err != nil {
		return err
	}
	return r.sendRest(ctx, first)
}

// sendRest sends, and looks at what was sent, in passes.
func (r *run) sendRest(ctx context.Context, first *looker) error {
	fewest, stalls := math.MaxInt, 0
	for pass := range maxPasses {
		if err := first.createAll(ctx); err != nil {
			return err
		}
		if err := r.lookAll(ctx, false); err != nil { // what was there under another name
			return err
		}
		left, send := r.left()
		if send == 0 {
			break
		}
		if left < fewest {
			fewest, stalls = left, 0
		}
		sendErr := r.sendAll(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		stalls++
		r.noRoom = errors.As(sendErr, new(*FullError))
		if sendErr != nil && (retry.IsPermanent(sendErr) || stalls == maxStalls) {
			if r.lookAll(ctx, true) == nil {
				if left, _ := r.left(); left == 0 { // the others have done its work
					return nil
				}
				r.noteAll(ctx)
			}
			return sendErr
		}
		if sendErr != nil {
			r.sink.Report(report.Reconnecting{Err: sendErr, Try: pass + 2})
			if err := retry.Pause(ctx, r.Pause, stalls); err != nil {
				return err
			}
		}
		if err := r.lookAll(ctx, sendErr != nil); err != nil {
			return err
		}
		if r.paused != "" && sendErr == nil {
			break
		}
	}
	if r.UpdateFlags {
		if err := first.updateFlags(ctx); err != nil {
			return err
		}
	}
	if _, send := r.left(); r.paused != "" && send > 0 {
		return errors.Join(r.noteAll(ctx), &PausedError{r.paused})
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

// announce says what is going to be sent, and what cannot be.
func (r *run) announce() {
	planned := report.Planned{}
	for _, p := range r.plans {
		if !p.wanted() {
			continue
		}
		if p.blocked != "" {
			r.sink.Report(report.Blocked{Mailbox: p.Folder, Messages: len(p.missing), Reason: p.blocked})
		} else if n := len(p.tooLarge); n > 0 {
			r.sink.Report(report.Blocked{Mailbox: p.Folder, Messages: n, Reason: fmt.Sprintf("the server takes no message over %d octets", r.limits.Message)})
		}
		planned.Mailboxes, planned.Messages = planned.Mailboxes+1, planned.Messages+p.Archived
		for _, c := range p.sendable() {
			planned.New, planned.NewOctets = planned.New+1, planned.NewOctets+c.Size
		}
	}
	more, size := r.expected()
	planned.Messages, planned.New, planned.NewOctets = planned.Messages+int(more), planned.New+int(more), planned.NewOctets+size
	r.sink.Report(planned)
}

// noteAll writes down which messages are missing, and why.
func (r *run) noteAll(ctx context.Context) error {
	for _, p := range r.plans {
		p.Missing, p.TooLarge = nil, nil
		p.Created = p.Created && (p.exists || p.toMake())
		for _, c := range p.missing {
			text, tooLarge := p.refuse[c.Message], p.tooLarge[c.Message]
			switch {
			case text != "":
			case p.Reason != "":
				text = p.Reason
			case p.blocked != "":
				text = p.blocked
			case r.noRoom:
				text = "there is no room for all"
			case r.DryRun:
				continue // it would be sent
			default:
				text = "the run ended before it was sent"
			}
			remark, err := r.remark(ctx, c, text)
			if err != nil {
				return err
			}
			remark.TooLarge = tooLarge
			if tooLarge && r.SkipTooBig {
				p.TooLarge = append(p.TooLarge, remark)
			} else {
				p.Missing = append(p.Missing, remark)
			}
		}
	}
	return nil
}

// remark describes a message.
func (r *run) remark(ctx context.Context, c fingerprint.Candidate, text string) (Remark, error) {
	d, err := r.archive.Describe(ctx, c.Message)
	if err != nil {
		return Remark{}, retry.Permanent(err)
	}
	return Remark{Description: d, Size: c.Size, Text: text}, nil
}

// keep commits what has been found out, but in a dry run.
func (r *run) keep(ctx context.Context, b Batch) error {
	if r.DryRun {
		return nil
	}
	return commit(ctx, b)
}

func commit(ctx context.Context, b Batch) error {
	if err := b.Commit(ctx); err != nil {
		return archiveFailed(err)
	}
	return nil
}

// archiveFailed is the error of an archive that cannot be written.
func archiveFailed(err error) error { return retry.Permanent(fmt.Errorf("archive: %w", err)) }
