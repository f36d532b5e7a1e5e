// Package backup copies mail from a server into an archive.
//
// A run asks the archive what it lacks and fetches just that, so a run that
// was interrupted continues where it stopped. It ends with a reconciliation:
// what the server has, what it named, and what became of each message.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"mailstow/internal/filter"
	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/mailbox"
)

// Source is the part of a mail server that a backup reads.
//
// It has no method that changes or deletes mail. An error that is marked
// [retry.Refused] means that the server said no and the connection can still
// be used; after any other the connection is of no more use.
type Source interface {
	Protocol() mailbox.Protocol

	// Mailboxes returns the mailboxes that can hold messages.
	Mailboxes(ctx context.Context) ([]mailbox.Mailbox, error)

	// States returns how mailboxes stand, by their spelling on the server. It
	// leaves out those of which the server does not tell it.
	States(ctx context.Context, boxes []mailbox.Mailbox) (map[string]mailbox.State, error)

	// List names every message of a mailbox. Sizes and dates may be missing,
	// unless details are asked for. told is how the mailbox stood by
	// [Source.States], zero if that is not known.
	List(ctx context.Context, m mailbox.Mailbox, told mailbox.State, details bool) (mailbox.Listing, error)

	// Changes tells what has changed since a mailbox stood as it did. It is
	// asked only where the server keeps HIGHESTMODSEQ.
	Changes(ctx context.Context, m mailbox.Mailbox, since mailbox.State) (mailbox.Changes, error)

	// Describe fills in sizes and dates.
	Describe(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message) error

	// Headers calls fn with the header block of messages, one at a time.
	// Messages may be left out.
	Headers(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error

	// Fetch calls fn with the content of messages, one at a time: its size
	// (-1 if that comes only with the end) and the octets. The reader is
	// valid until fn returns, and fails if the content ends early. Messages
	// may be left out. If fn returns an error, Fetch ends the connection and
	// returns that error. No message is marked as read.
	Fetch(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error

	// Close ends the connection. finished says that all that was fetched is
	// safe, so that the server may be told that the work is done.
	Close(finished bool) error
}

// Archive is the part of an archive that a backup asks and writes.
type Archive interface {
	// Path returns the directory of a mailbox's folder.
	Path(m mailbox.Mailbox) string

	// Standing returns how a mailbox stood when all of it was in the archive.
	Standing(ctx context.Context, m mailbox.Mailbox) (mailbox.Standing, error)

	// Known returns what is remembered of messages on the server.
	Known(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID) (map[mailbox.ID]mailbox.Kept, error)

	// EachKnown calls fn with what is remembered of each of the server's
	// messages. fn must not use the archive.
	EachKnown(ctx context.Context, m mailbox.Mailbox, fn func(mailbox.ID, mailbox.Kept)) error

	// Unclaimed returns the messages of the mailbox's folder that stand for
	// none of the messages for which live is true; gone says that the server
	// did not list one of these when it was asked last.
	Unclaimed(ctx context.Context, m mailbox.Mailbox, live func(id mailbox.ID, gone bool) bool) ([]fingerprint.Candidate, error)

	// InArchive counts the messages in the mailbox's folder.
	InArchive(ctx context.Context, m mailbox.Mailbox) (int, error)

	// Former returns the mailboxes, by the server's spelling, that it knows
	// and that are not listed.
	Former(listed func(wire string) bool) []string

	// Resembles reports whether a listing with details may be that of a former
	// mailbox under another name.
	Resembles(ctx context.Context, former string, l mailbox.Listing) (bool, error)

	// Adopt makes the folder of a former mailbox that of a listed one, and
	// returns where it was; "" if that cannot be done.
	Adopt(ctx context.Context, former string, m mailbox.Mailbox, l mailbox.Listing, listed func(wire string) bool) (was string, err error)

	// Stage writes a message, to become part of a batch. If it fails, nothing
	// of the message is left. Several may be staged at the same time.
	Stage(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, content io.Reader) (Staged, error)

	// Holding returns, for those of a server's names of contents that it
	// knows, a message in the archive with that content.
	Holding(ctx context.Context, objects []string) (map[string]int64, error)

	// Copy stages another copy of an archived message, read anew and found
	// whole. It returns nil if the archive cannot give one.
	Copy(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64) (Staged, error)

	// Begin starts a group of changes.
	Begin() Batch
}

// Staged is a message that is written but not yet part of anything. It is
// either added to a batch or discarded.
type Staged interface {
	Print() fingerprint.Print
	Discard() error
}

// Batch is a group of changes that become durable together.
type Batch interface {
	// Touch makes the mailbox's folder.
	Touch(ctx context.Context, m mailbox.Mailbox) error

	// Add makes a staged message part of the batch. note says what is odd
	// about it, "" for nothing.
	Add(s Staged, note string)

	// Claim notes that a message on the server is one of the archive's.
	Claim(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64, proven bool) error

	// SetFlags brings an archived message in step with the flags of msg.
	SetFlags(ctx context.Context, m mailbox.Mailbox, msg mailbox.Message, archived int64) error

	// Gone notes that the server no longer lists messages, or does again.
	Gone(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID, gone bool) error

	// Failures notes which messages could not be fetched, and why; those
	// that were noted before are forgotten.
	Failures(ctx context.Context, m mailbox.Mailbox, reasons map[mailbox.ID]string) error

	// Done notes how the mailbox stood when all of it was in the archive.
	Done(ctx context.Context, m mailbox.Mailbox, s mailbox.State) error

	// Full reports whether it is time to commit.
	Full() bool

	// Commit returns when everything in the batch would survive a power cut.
	Commit(ctx context.Context) error

	Discard() error
}

// ErrIncomplete is returned by [Run] when something on the server is not in
// the archive. What it is was reported.
var ErrIncomplete = errors.New("some messages are not in the archive")

// ArchiveError is the error of a run that the archive's disk ended.
type ArchiveError struct{ Err error }

func (e *ArchiveError) Error() string { return e.Err.Error() }
func (e *ArchiveError) Unwrap() error { return e.Err }

// RoomError is the error of a run that has not begun to fetch, because the
// archive's disk does not hold what there is to fetch.
type RoomError struct{ Need, Free int64 } // octets

func (e *RoomError) Error() string {
	return fmt.Sprintf("no room for %d octets: %d are free", e.Need, e.Free)
}

// PausedError is the error of a run that stopped in good order before it had
// everything: a limit was reached, or the server asked for it.
type PausedError struct {
	Reason string
	Most   bool // it is Options.MaxOctets
}

func (e *PausedError) Error() string { return "stopped early: " + e.Reason }

// Options adjust a [Run]. The zero value is a sensible choice.
type Options struct {
	// DryRun looks and plans, and changes nothing.
	DryRun bool

	// Connections is how many there may be at the same time. Zero means one.
	Connections int

	// Filter says which mailboxes and messages are wanted.
	Filter filter.Filter

	// Refetch gets again what the user removed from the archive.
	Refetch bool

	// FoldersFirst says to make all folders durable before mail is fetched, and
	// to report that.
	FoldersFirst bool

	// MaxOctets is after how many octets of mail to stop. Zero means never.
	MaxOctets int64

	// Room is how many octets the archive's disk has free. Zero means that it is not
	// known.
	Room int64

	// MaxDuration is after how long to stop. Zero means never.
	MaxDuration time.Duration

	// Pause is how long to wait before the second login after a lost
	// connection, or when the server is busy; it doubles from there. Zero
	// means a second.
	Pause time.Duration

	// Patience is how long to go on without anything arriving. Zero means
	// five minutes.
	Patience time.Duration
}

// Run copies every message that the archive lacks. It calls open for each
// connection it needs and closes what it opened. The result is true also
// where an error is returned.
func Run(ctx context.Context, open func(context.Context) (Source, error), archive Archive, sink report.Sink, o Options) (report.Result, error) {
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Patience == 0 {
		o.Patience = 5 * time.Minute
	}
	start, caller := time.Now(), ctx
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if o.MaxDuration > 0 {
		late := time.AfterFunc(o.MaxDuration, func() { stop(&PausedError{Reason: fmt.Sprintf("%v have passed", o.MaxDuration)}) })
		defer late.Stop()
	}
	r := &run{
		Options: o,
		crew:    &crew{open: open, sink: sink, pause: o.Pause, patience: o.Patience, most: max(o.Connections, 1), since: start},
		archive: archive,
		sink:    sink,
		stop:    stop,
	}
	err := r.pull(ctx)
	result := report.Result{Duration: time.Since(start)}
	for _, p := range r.plans {
		if !p.done && !o.DryRun { // the run has ended early
			p.tally.InArchive, _ = archive.InArchive(context.WithoutCancel(ctx), p.Mailbox)
		}
		result.Tallies = append(result.Tallies, p.tally)
	}
	err = r.verdict(caller, ctx, err, result)
	r.crew.close(err == nil)
	return result, err
}

// run is one run over all mailboxes of an account.
type run struct {
	Options
	crew    *crew
	archive Archive
	sink    report.Sink
	stop    func(error) // ends the run at once, for a reason

	plans     []*plan
	looked    bool    // which mailboxes there are is known
	stateless bool    // the connection was lost when the server was to tell how mailboxes stand
	writer    *writer // nil in a dry run
	octets    atomic.Int64
}

func (r *run) pull(ctx context.Context) error {
	if err := r.survey(ctx); err != nil {
		return err
	}
	if r.DryRun {
		for _, p := range r.plans {
			p.pretend()
		}
		return nil
	}
	r.writer = newWriter(ctx, r.archive, r.sink)
	err := r.carryOut(ctx)
	if err != nil {
		r.stop(err)
	}
	// What has arrived is kept, whatever ended the run.
	return errors.Join(err, r.writer.close())
}

// verdict makes the run's error of what ended it and of the sums. caller is
// the context that the run was given.
func (r *run) verdict(caller, ctx context.Context, err error, result report.Result) error {
	sum, whole := result.Sum(), r.whole(result)
	var disk *ArchiveError
	var paused *PausedError
	switch {
	case errors.As(err, &disk):
		return disk
	case caller.Err() != nil:
		return context.Cause(caller)
	case errors.As(err, &paused) || errors.As(context.Cause(ctx), &paused):
		if whole {
			return nil // what was asked for was the last
		}
		if sum.Failed == 0 {
			return paused
		}
		return errors.Join(ErrIncomplete, paused)
	case err != nil && sum.New+sum.Again > 0:
		return errors.Join(ErrIncomplete, err)
	case err != nil:
		return err
	case r.crew.givenUp > 0 && sum.New+sum.Again == 0:
		return r.crew.last
	case !whole:
		return ErrIncomplete
	}
	return nil
}

// whole reports whether everything on the server that is wanted is in the
// archive; in a dry run, whether everything could be looked at.
func (r *run) whole(result report.Result) bool {
	for _, p := range r.plans {
		if !p.surveyed && !p.idle() {
			return false
		}
	}
	for _, t := range result.Tallies {
		if r.writer != nil && !t.Balanced() || t.Skipped == "" && (t.Reason != "" || t.OnServer != t.Listed) || t.Failed > 0 {
			return false
		}
	}
	return r.looked
}
