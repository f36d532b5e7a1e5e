// Package trim makes room on a server: it removes messages of which the archive
// holds a copy that has just been read back and found to be the same.
//
// Nothing else in the program can remove mail. A message goes only if, in this
// very run, the backup of its mailbox was complete, its file was read from the
// disk and has the digest of the index, the server's message is still the one
// that was archived, and a list that says how to put it back is durable.
package trim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"mailstow/internal/filter"
	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// Session is a connection that lists, reads and removes. An error that is
// marked [retry.Refused] means that the server said no and the connection can
// still be used; after any other it is of no more use.
type Session interface {
	Protocol() mailbox.Protocol
	Ways() mailbox.Ways

	// Mailboxes, List, Headers and Fetch are those of a backup's source.
	Mailboxes(ctx context.Context) ([]mailbox.Mailbox, error)
	List(ctx context.Context, m mailbox.Mailbox, told mailbox.State, details bool) (mailbox.Listing, error)
	Headers(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, []byte) error) error
	Fetch(ctx context.Context, m mailbox.Mailbox, msgs []mailbox.Message, fn func(mailbox.Message, int64, io.Reader) error) error

	// Usage returns how much room mail takes, and how much there is.
	Usage(ctx context.Context, boxes []mailbox.Mailbox) (mailbox.Usage, error)

	// Hold opens a mailbox for removal, and returns those of the messages that
	// it has, as they are now.
	Hold(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID) ([]mailbox.Message, error)

	// Remove removes messages that were held: these and no others. With trash,
	// the spelling of a mailbox, it moves them there. After an error that is no
	// refusal it is not known what has been done.
	Remove(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID, trash string) (mailbox.Removal, error)

	// Unmark takes the mark of what is deleted from messages that were held.
	Unmark(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID) error

	Close(finished bool) error
}

// Archive is the part of an archive that a trim asks and tells.
type Archive interface {
	// EachCopy calls fn for the archived copy of each message that a mailbox
	// had at the last backup. fn must not use the archive.
	EachCopy(ctx context.Context, m mailbox.Mailbox, fn func(mailbox.ID, Copy)) error

	// Forms returns digests of other forms in which messages were sent to a
	// server, by the archive's numbers.
	Forms(ctx context.Context, messages []int64) (map[int64][]fingerprint.Sum, error)

	// ReadBack reads messages from the disk. Those that are as the index says
	// are durable when it returns; it returns why the others are in doubt.
	ReadBack(ctx context.Context, messages []int64, progress func(octets int64)) (map[int64]Doubt, error)

	// Content opens a message's file.
	Content(ctx context.Context, message int64) (io.ReadCloser, error)

	// Begun returns the messages that earlier runs were about to remove and of
	// which it is not known that they are gone or left in peace, by the server's
	// spelling of their mailboxes.
	Begun() (map[string]map[mailbox.ID]bool, error)

	// Doom puts messages on the list of what this run removes. They are durable
	// on it when it returns nil.
	Doom(m mailbox.Mailbox, doomed []Doomed) error

	// Became notes on the list what has become of messages, and in the index
	// which are gone. What has a reason is still there; unmarked says that it is
	// not marked as deleted any more.
	Became(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID, why map[mailbox.ID]string, unmarked bool) error
}

// Copy is the archived copy of a message.
type Copy struct {
	fingerprint.Candidate
	Folder, Key string // where its file is

	Exact   bool   // its octets are those that came from this mailbox, and nothing was odd about them
	Foreign bool   // another program has put its file into the archive
	Synced  bool   // another program seems to keep the file in step with a server, and would remove it with the message
	Object  string // the server's name for the content; "" for none
	Dated   bool   // Arrived is the server's INTERNALDATE
	Read    bool   // an IMAP server has told its flags
	Fetched bool   // it came over POP3, which a server may have taken for reading it
	Guessed bool   // Arrived is what the sender says
	Since   int64  // when the archive got it, Unix seconds

	FormSizes []int64 // octets of other forms that a server may have
}

// Doubt is why a file does not prove that the archive has a message.
type Doubt struct {
	File string // below the account's directory
	Text string
}

// Doomed is a message that is about to be removed.
type Doomed struct {
	Message mailbox.Message
	Copy    Copy
}

// Options say what is to be removed. Nothing is if neither OlderThan,
// LargerThan nor Until is set.
type Options struct {
	DryRun bool
	Filter filter.Filter // of mailboxes; what it says of messages does not count
	Backup report.Result // of this account, a moment ago

	OlderThan  time.Time // only what arrived before it; zero for any time
	KeepSince  time.Time // nothing that arrived since
	LargerThan int64     // only what has more octets; 0 for any size
	Until      Goal
	Quota      int64 // octets, where the server does not tell; 0 for none

	Flagged, Unread bool // also such messages
	Synced          bool // also those whose files another program keeps in step
	Trash           bool // move to the trash
	Paranoid        bool // download each message again and compare it

	// Confirm is asked before the first message is removed. An error of it ends
	// the run.
	Confirm func(context.Context, *Plan) error

	// Pause is how long to wait before the second login after a lost
	// connection; it doubles from there. Zero means a second.
	Pause time.Duration
}

// Goal is how much may be used: octets, or a part of the quota.
type Goal struct {
	Octets  int64
	Percent float64 // of the quota; used if Octets is 0
}

func (g Goal) set() bool { return g.Octets > 0 || g.Percent > 0 }

// ErrUnsafe is the error of a run that has left a mailbox alone, or has stopped
// in it, because something was not safe. What it is is in the result.
var ErrUnsafe = errors.New("not everything is safe in the archive")

// ErrNotRemoved is the error of a run in which the server has refused something,
// or after which something that it was to remove is still there.
var ErrNotRemoved = errors.New("the server has not removed everything")

// ShortError is the error of a run that could not make as much room as it was to.
type ShortError struct{ Old, Wanted int64 } // octets

func (e *ShortError) Error() string {
	return fmt.Sprintf("only %d of %d octets may be removed", e.Old, e.Wanted)
}

// NoWayError says that the server cannot remove just the messages that are
// named; Move, that it could move them to the trash.
type NoWayError struct{ Move bool }

func (e *NoWayError) Error() string {
	return "the server cannot remove just the messages that are named (it has no UIDPLUS)"
}

// ErrNoTrash is returned where mail is to go to the trash and there is none, or
// no way to move it there.
var ErrNoTrash = errors.New("the server has no trash that mail can be moved to")

// ErrNoQuota is returned for a goal in percent where nobody says of what.
var ErrNoQuota = errors.New("the server does not say how much room there is")

// ArchiveError is the error of a run that the archive's disk ended.
type ArchiveError struct{ Err error }

func (e *ArchiveError) Error() string { return e.Err.Error() }
func (e *ArchiveError) Unwrap() error { return e.Err }

// Run decides what goes, proves that the archive has it, and removes it. It
// calls open for each connection it needs. The result is true also where an
// error is returned.
func Run(ctx context.Context, open func(context.Context) (Session, error), archive Archive, sink report.Sink, o Options) (Result, error) {
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	r := &run{Options: o, open: open, archive: archive, sink: sink}
	start := time.Now()
	err := r.trim(ctx)
	r.takeBack(ctx)
	if r.conn != nil {
		r.conn.Close(err == nil)
	}
	result := r.result()
	result.Duration = time.Since(start)
	return result, r.verdict(err)
}

// run is one run over the mailboxes of an account.
type run struct {
	Options
	open    func(context.Context) (Session, error)
	archive Archive
	sink    report.Sink

	conn     Session       // nil until it is needed, and when it is lost
	wait     time.Duration // before the next login
	protocol mailbox.Protocol
	boxes    []mailbox.Mailbox
	trash    *mailbox.Mailbox // where mail goes to; nil if it is removed
	begun    map[string]map[mailbox.ID]bool

	plan    Plan
	folders []*folder
	after   *mailbox.Usage // nil until it is asked for
	looked  bool           // afterwards, at everything
}

func (r *run) trim(ctx context.Context) error {
	if err := r.survey(ctx); err != nil {
		return err
	}
	if err := r.choose(ctx); err != nil {
		return err
	}
	if err := r.prove(ctx); err != nil {
		return err
	}
	r.sumUp()
	if r.DryRun {
		for _, f := range r.folders {
			for _, c := range f.chosen {
				r.sink.Report(f.removed(c, true))
			}
		}
		return nil
	}
	if r.plan.Delete == 0 {
		return nil
	}
	if r.protocol == mailbox.POP3 { // others cannot get at the mailbox while a session has it
		r.hangUp(true)
	}
	if err := r.Confirm(ctx, &r.plan); err != nil {
		return err
	}
	if err := r.removeAll(ctx); err != nil {
		if ctx.Err() == nil { // what was done is looked at whatever ended it
			err = errors.Join(err, r.lookAgain(ctx))
		}
		return err
	}
	return r.lookAgain(ctx)
}

// maxTries is how often a connection is made anew without any progress.
const maxTries = 3

// do calls f with the connection, and again on a new one if that is lost.
func (r *run) do(ctx context.Context, f func(Session) error) (err error) {
	for try := 1; ; try++ {
		if err = r.dial(ctx); err == nil {
			err = f(r.conn)
		}
		if err == nil || r.refused(err) || final(ctx, err) || try == maxTries {
			return err
		}
		if err := r.rest(ctx, err, try); err != nil {
			return err
		}
	}
}

// refused reports whether the server has said no, and would again.
func (r *run) refused(err error) bool {
	_, busy := retry.IsBusy(err)
	return retry.IsRefused(err) && r.conn != nil && !busy
}

// rest waits after a lost connection, or a busy server, for the next login.
func (r *run) rest(ctx context.Context, err error, try int) error {
	r.hangUp(false)
	wait, busy := retry.IsBusy(err)
	if busy {
		r.sink.Report(report.Slowed{Err: err, Wait: max(wait, r.Pause<<(try+1))})
		return retry.Sleep(ctx, max(wait, r.Pause<<(try+1)))
	}
	r.sink.Report(report.Reconnecting{Err: err, Try: try + 1})
	return retry.Pause(ctx, r.Pause, try)
}

// final reports whether it is of no use to try again after an error.
func final(ctx context.Context, err error) bool {
	return ctx.Err() != nil || retry.IsPermanent(err) || errors.Is(err, mailbox.ErrRebuilt) || errors.Is(err, errStop) || errors.As(err, new(*ArchiveError))
}

// dial makes a connection if there is none.
func (r *run) dial(ctx context.Context) error {
	if r.conn != nil {
		return nil
	}
	if err := retry.Sleep(ctx, r.wait); err != nil {
		return err
	}
	conn, err := r.open(ctx)
	if err == nil {
		r.conn = conn
	}
	return err
}

func (r *run) hangUp(finished bool) {
	if r.conn != nil {
		r.conn.Close(finished)
		r.conn = nil
	}
}

// verdict makes the run's error of what ended it and of what it left undone.
func (r *run) verdict(err error) error {
	unsafe, left := false, false
	for _, f := range r.folders {
		unsafe = unsafe || f.Why != "" || len(f.Unsafe) > 0 || f.Others > f.OthersArchived
		left = left || f.Refused != "" || len(f.Left) > 0 || f.StillMarked > 0
	}
	var all []error
	if unsafe {
		all = append(all, ErrUnsafe)
	}
	if left {
		all = append(all, ErrNotRemoved)
	}
	if err != nil {
		all = append(all, err)
	}
	if len(all) == 0 {
		return r.short()
	}
	return errors.Join(all...)
}

// short returns an error if the goal is not reached.
func (r *run) short() error {
	p := &r.plan
	if p.Goal == 0 || p.Used <= p.Goal {
		return nil
	}
	used := p.After()
	if !r.DryRun {
		used = p.Used - r.result().RemovedOctets
		if now, ok := r.usedAfter(); ok && r.trash == nil {
			used = now
		}
	}
	if used-p.Waiting > p.Goal {
		return &ShortError{Old: p.Octets, Wanted: p.Used - p.Goal}
	}
	return nil
}

// usedAfter returns what the server says is used now; ok is false if it was not
// asked.
func (r *run) usedAfter() (used int64, ok bool) {
	if r.after == nil {
		return 0, false
	}
	switch r.plan.By {
	case ByQuota:
		return r.after.Used, r.after.Quota > 0
	case BySizes:
		return r.after.Sizes, r.after.Sizes >= 0
	}
	return 0, false
}

func (r *run) result() Result {
	res := Result{Plan: r.plan, Looked: r.looked}
	res.UsedNow, res.Measured = r.usedAfter()
	for _, f := range r.folders {
		res.Removed += f.Removed
		res.RemovedOctets += f.RemovedOctets
	}
	return res
}

// find returns the mailbox with a role, nil if there is none.
func (r *run) find(role string) *mailbox.Mailbox {
	i := slices.IndexFunc(r.boxes, func(m mailbox.Mailbox) bool { return m.Role == role })
	if i < 0 {
		return nil
	}
	return &r.boxes[i]
}
