package trim

import (
	"time"

	"mailstow/mailbox"
)

// By says whose figure it is how much is used.
type By string

// The figures.
const (
	ByQuota   By = "quota"   // the server's, for the quota
	BySizes   By = "sizes"   // the server's sum of the sizes of messages
	ByListing By = "listing" // the sum of the sizes that it lists
)

// Plan is what is going to be removed.
type Plan struct {
	Delete         int
	Octets         int64
	Oldest, Newest time.Time

	Messages int   // in the account
	Used     int64 // octets; -1 if that is not known
	By       By
	Sizes    int64 // octets of all messages, where that is known beside Used; -1 if not
	Quota    int64 // 0 if there is none
	Goal     int64 // octets that may be used; 0 if that does not matter
	Trash    mailbox.Name
	ToTrash  bool  // the messages are moved to Trash
	Waiting  int64 // octets that are in Trash already
	Labels   bool  // the server has labels: removing from a mailbox alone would free nothing
	Compared int   // messages that were downloaded again and compared
	Fetched  int   // that count as read, perhaps only because they came over POP3

	Folders []*Folder
}

// After is how much will be used, by a server that counts as it lists.
func (p *Plan) After() int64 { return max(p.Used-p.Octets, 0) }

// Kept counts the messages that stay, by their reasons.
func (p *Plan) Kept() map[Kept]int {
	kept := map[Kept]int{}
	for _, f := range p.Folders {
		for why, n := range f.Kept {
			kept[why] += n
		}
	}
	return kept
}

// Kept is why a message stays on the server.
type Kept string

// The reasons, in the order in which they are looked at.
const (
	NotArchived Kept = "not_in_archive"
	RemovedHere Kept = "removed_locally"
	Marked      Kept = "marked_deleted" // by another program
	Rewritten   Kept = "rewritten"      // another program keeps it in another form
	Synced      Kept = "synced"         // another program keeps its file in step with a server
	Missized    Kept = "missized"       // the server has announced another size than that of what it sent
	Twin        Kept = "twin"           // one archived copy stands for it and for another
	Undated     Kept = "no_date"
	Draft       Kept = "draft"
	Flagged     Kept = "flagged"
	Unread      Kept = "unread"
	Recent      Kept = "recent" // KeepSince
	TooYoung    Kept = "not_old"
	TooSmall    Kept = "not_large"
	NotNeeded   Kept = "not_needed" // newer than the last one needed
)

// Reasons are all of them.
var Reasons = []Kept{NotArchived, RemovedHere, Marked, Rewritten, Synced, Missized, Twin, Undated, Draft, Flagged, Unread, Recent, TooYoung, TooSmall, NotNeeded}

// Folder is what is going to be removed from a mailbox and, afterwards, what was.
type Folder struct {
	Mailbox  mailbox.Name
	Role     string
	OnServer int
	Skipped  string // why it is not looked at; "" if it is

	Delete         int
	Octets         int64
	Oldest, Newest time.Time
	Kept           map[Kept]int

	Why    string   // nothing, or nothing more, is removed from it; "" if that is not so
	Unsafe []Remark // the messages because of which that is so
	Chosen int      // how many messages were going to be removed then

	Refused string // the server's words, if it did not let anything, or anything more, be done

	Removed       int
	RemovedOctets int64
	Left          []Remark // the server was to remove them, and they are still there
	Meanwhile     int      // messages that were not removed as they have changed, or gone, meanwhile
	StillMarked   int      // messages that stay, and that the server may still call deleted because of mailstow

	// Others are messages that nobody asked to be removed and that are gone too;
	// of these, some were found whole in the archive afterwards.
	Others, OthersArchived int
}

// Remark is something to be told of a message.
type Remark struct {
	ID   mailbox.ID
	Size int64
	File string // below the account's directory; "" if it is not about the file
	Gone bool   // the server has it no more
	Text string
}

// Result is how a run ended.
type Result struct {
	Plan
	Removed       int
	RemovedOctets int64
	UsedNow       int64 // if it is Measured
	Measured      bool
	Looked        bool // the server was asked again
	Duration      time.Duration
}
