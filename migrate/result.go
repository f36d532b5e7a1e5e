package migrate

import (
	"errors"
	"fmt"
	"time"

	"mailstow/mailbox"
)

// Remark is a message of which something is to be said.
type Remark struct {
	Description
	Size     int64
	Text     string
	TooLarge bool // for the server
}

// Tally says how a folder and its mailbox stand at the end.
type Tally struct {
	Folder  mailbox.Name
	Mailbox mailbox.Name
	Renamed bool   // the mailbox could not be called as wished
	Refused string // what the server said to the name that was wished; "" if it was not asked
	Created bool   // or, in a dry run, is to be
	Skipped string // why the user does not want the folder, "" if it is wanted

	Archived   int // messages in the folder
	Excluded   int // of these, not on the server, as the user does not want them there
	Before     int // on the server before, as the archive knew
	Recognised int // found there
	Sent       int // stored now; in a dry run, to be stored
	SentOctets int64
	OnServer   int // what the server lists in the mailbox at the end

	ByHeader int            // of those on the server, known by their header alone
	Compared int            // whose octets were compared with the archive's in this run
	Redated  int            // sent, and given another time of arrival by the server
	Unkept   map[string]int // flags that the server did not keep, and of how many messages
	Flagged  int            // messages there that were given other flags

	Missing  []Remark
	TooLarge []Remark // not on the server, for that reason, and no failure
	Altered  []Remark // sent in another form than the archive's
	Differ   []Remark // whose octets are not the archive's
	Reason   string   // why nothing could be done for the folder; "" if it could
}

// There is how many of the folder's messages the server has.
func (t Tally) There() int { return t.Before + t.Recognised + t.Sent }

// Left is how many of the folder's messages are missing on the server.
func (t Tally) Left() int {
	if t.Skipped != "" {
		return 0
	}
	return t.Archived - t.There() - t.Excluded - len(t.TooLarge)
}

// whole reports whether nothing is missing, and nothing else is wrong.
func (t Tally) whole() bool {
	return t.Skipped != "" || t.Reason == "" && len(t.Missing)+len(t.Differ) == 0 && t.Left() == 0
}

// Result is what a run ends with.
type Result struct {
	Tallies []Tally

	Stored    int  // messages that the server said it has stored; the tallies say what was seen
	Unsettled bool // the server may still be storing what it was sent
	Settled   bool // it is known of each folder what the server has, also after earlier runs

	Limits   mailbox.Limits
	Duration time.Duration
}

// Missing adds up what is not on the server.
func (r Result) Missing() (n int) {
	for _, t := range r.Tallies {
		n += t.Left()
	}
	return n
}

// ErrIncomplete is returned by [Run] when something of the archive is not on
// the server, and by [Prove] when that cannot be shown. What it is is in the
// result.
var ErrIncomplete = errors.New("some messages are not on the server")

// PausedError says that a run ended before everything was sent, as it was
// told to.
type PausedError struct{ Reason string }

func (e *PausedError) Error() string { return e.Reason }

// RoomError says that the server has less room than is needed, before that is
// sent.
type RoomError struct {
	Need, Free int64  // octets or messages
	Of         string // which
}

func (e *RoomError) Error() string {
	return fmt.Sprintf("the server has room for %d %s, and %d are to be stored", e.Free, e.Of, e.Need)
}
