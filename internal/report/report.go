// Package report carries news from the engines to whoever shows it.
//
// Engines emit events and never print. The command line turns events into
// text, JSON lines or nothing at all.
package report

import (
	"time"

	"mailstow/mailbox"
)

// Event is one of the event types of this package.
type Event any

// Planned says what a run found on the server and what it is going to fetch.
type Planned struct {
	Mailboxes int
	Messages  int   // on the server
	New       int   // to be fetched
	NewOctets int64 // as the server announces them
	Back      bool  // New are read back from the archive
}

// FoldersReady says that every folder of the archive is there into which the run
// is going to put mail.
type FoldersReady struct{}

// Blocked says that messages cannot be stored on a server, before anything is.
type Blocked struct {
	Mailbox  mailbox.Name
	Messages int
	Reason   string
}

// MailboxStarted says that the engine begins to fetch from a mailbox.
type MailboxStarted struct{ Mailbox mailbox.Name }

// MessageArrived says that a message has been received. It is not yet safe.
type MessageArrived struct{ Size int64 }

// MessageStored says that a message is safely in the archive.
type MessageStored struct {
	Mailbox    mailbox.Name
	ID         mailbox.ID
	Size       int64  // octets
	SHA256     string // hexadecimal; "" for one that was not downloaded
	Recognised bool   // it was in the archive already
	Linked     bool   // its content was, in another folder
}

// MessageFailed says that one message could not be fetched. The run goes on,
// and ends with an error.
type MessageFailed struct {
	Mailbox mailbox.Name
	ID      mailbox.ID
	Size    int64 // as announced; -1 if unknown
	Reason  string
}

// MessageRemoved says that the server has removed a message, by its word.
type MessageRemoved struct {
	Would   bool // in a dry run: it would be told to
	Mailbox mailbox.Name
	ID      mailbox.ID
	Size    int64  // octets, as the server counts them
	Copy    string // the archived file, below the account's directory, without flags
}

// MailboxFailed says that a whole mailbox could not be read.
type MailboxFailed struct {
	Mailbox mailbox.Name
	Reason  string
}

// MailboxDone says how a mailbox and its folder stand at the end.
type MailboxDone struct{ Tally }

// Rebuilt says that the server has given its messages new IDs.
type Rebuilt struct {
	Mailbox              mailbox.Name
	Was, Is              uint32 // UIDVALIDITY; 0 where there is none
	Recognised, Download int
}

// Nameless says that the server gives messages no IDs that last.
type Nameless struct {
	Mailbox  mailbox.Name
	Messages int
	Of       int // that are there
}

// Renamed says that a mailbox has another name on the server than it had; its
// folder has been moved along.
type Renamed struct {
	Mailbox mailbox.Name
	Was     string // the folder's path before
}

// Short says that messages came, twice in the same octets, shorter than the
// server announces them. They are kept.
type Short struct {
	Mailbox  mailbox.Name
	Messages int
}

// Reconnecting says that the connection was lost and is tried again.
type Reconnecting struct {
	Err error
	Try int // the second login is 2
}

// Slowed says that the server is busy and is left alone for a while.
type Slowed struct {
	Err  error // the server's words
	Wait time.Duration
}

// FewerConnections says that the server bears fewer connections than it was
// asked for. The run goes on with those it has.
type FewerConnections struct{ Err error }

// Tally is the reconciliation of one mailbox: what the server has, and what
// became of it.
type Tally struct {
	Mailbox     mailbox.Name
	Role        string
	Path        string // of the folder, below the account's directory
	UIDValidity uint32

	OnServer int // the server's own count
	Listed   int // what it named when asked for all
	Kept     int // of these, in the archive before the run
	New      int // downloaded, or linked
	Linked   int // of these, not downloaded: their content was in another folder
	Again    int // recognised: in the archive, but not known to be the server's
	Removed  int // left out: the user removed them from the archive
	Excluded int // left out: the user does not want them
	Failed   int

	Oldest, Newest time.Time // arrivals of the new ones, in a dry run; zero if they are not known

	Flags     int // messages whose flags were brought in step
	Octets    int64
	InArchive int // messages in the folder now, also those that left the server

	Unchanged bool   // the mailbox stands as it did, and was not opened
	Skipped   string // why the user does not want the mailbox, "" if it is wanted
	Reason    string // why the mailbox could not be read, "" if it could
}

// Archived is how many of the listed messages the archive holds.
func (t Tally) Archived() int { return t.Kept + t.New + t.Again }

// Missing is how many messages are on the server and not in the archive,
// apart from those that the user removed or does not want.
func (t Tally) Missing() int {
	if t.Skipped != "" {
		return 0
	}
	return max(t.OnServer, t.Listed) - t.Archived() - t.Removed - t.Excluded
}

// Balanced reports whether the sums meet: every message that the server says
// it has was named, and is in the archive or left out for a reason.
func (t Tally) Balanced() bool {
	return t.Skipped != "" || t.Reason == "" && t.OnServer == t.Listed && t.Listed == t.Archived()+t.Removed+t.Excluded+t.Failed
}

// Sink receives events. It must be safe for concurrent use.
type Sink interface{ Report(Event) }

// Discard ignores every event.
var Discard Sink = discard{}

type discard struct{}

func (discard) Report(Event) {}

// Result is what a run ends with.
type Result struct {
	Tallies  []Tally
	Duration time.Duration
}

// Sum adds the tallies up.
func (r Result) Sum() (sum Tally) {
	for _, t := range r.Tallies {
		sum.OnServer += t.OnServer
		sum.Listed += t.Listed
		sum.Kept += t.Kept
		sum.New += t.New
		sum.Linked += t.Linked
		sum.Again += t.Again
		sum.Removed += t.Removed
		sum.Excluded += t.Excluded
		sum.Failed += t.Failed
		sum.Flags += t.Flags
		sum.Octets += t.Octets
		sum.InArchive += t.InArchive
	}
	return sum
}

// Missing adds up what is missing, mailbox by mailbox.
func (r Result) Missing() (n int) {
	for _, t := range r.Tallies {
		n += max(t.Missing(), 0)
	}
	return n
}
