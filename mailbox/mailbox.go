// Package mailbox holds the words that servers and the archive share: what a
// mailbox is called, how a message is identified, which flags it carries.
//
// It imports nothing else from this module, so every package may use it.
package mailbox

import (
	"errors"
	"io"
	"strings"
	"time"
)

// Name is the path of a mailbox, one element per level: "Work", "2024".
//
// Elements are UTF-8 where the server's spelling could be decoded, else the
// server's own octets. A server's hierarchy delimiter and modified UTF-7
// (RFC 3501 section 5.1.3) stay inside package imapconn; the spelling of
// directory names stays inside package maildir. Names are comparable.
type Name struct {
	path string // elements joined by NUL; NUL and SOH inside one are escaped by SOH
}

var (
	escapeElem   = strings.NewReplacer("\x01", "\x011", "\x00", "\x010")
	unescapeElem = strings.NewReplacer("\x011", "\x01", "\x010", "\x00")
)

// NewName returns the Name with the given elements, outermost first.
func NewName(elems ...string) Name {
	escaped := make([]string, len(elems))
	for i, e := range elems {
		escaped[i] = escapeElem.Replace(e)
	}
	return Name{strings.Join(escaped, "\x00")}
}

// Elems returns the elements of n, outermost first.
func (n Name) Elems() []string {
	elems := strings.Split(n.path, "\x00")
	for i, e := range elems {
		elems[i] = unescapeElem.Replace(e)
	}
	return elems
}

// String returns n for people to read. It does not round-trip, and it may
// hold control characters that a terminal must not see.
func (n Name) String() string { return strings.Join(n.Elems(), "/") }

// Protocol is the way a message came from its server.
type Protocol string

// The protocols.
const (
	IMAP Protocol = "imap"
	POP3 Protocol = "pop3"
)

// Mailbox is a mailbox as its server lists it.
type Mailbox struct {
	Name      Name
	Wire      string // the server's exact spelling: what identifies it there
	Delimiter string // the hierarchy delimiter, "" where there is none
	Role      string // special use (RFC 6154) such as `\Sent`; "" for none
}

// ID identifies a message on one server, in one mailbox, for as long as the
// server keeps its promise. It is opaque: only the connection package that
// made an ID can read it. See RFC 9051 section 2.3.1.1 (UID, UIDVALIDITY) and
// RFC 1939 section 7 (UIDL).
type ID string

// ErrRebuilt says that a server gave the messages of a mailbox new IDs since
// they were listed: its UIDVALIDITY has changed.
var ErrRebuilt = errors.New("the server rebuilt the mailbox during the run (UIDVALIDITY changed)")

// ErrOutOfStep says that a server's stream no longer matches the questions: what
// comes next may be part of a mail that forges answers. The connection is of no
// more use; what was read before stands.
var ErrOutOfStep = errors.New("the server's answers are out of step")

// MessageError says on which message a connection was lost.
type MessageError struct {
	ID  ID
	Err error
}

func (e *MessageError) Error() string { return e.Err.Error() }
func (e *MessageError) Unwrap() error { return e.Err }

// Message describes a message without its content.
type Message struct {
	ID           ID
	Size         int64     // octets, as announced by the server; -1 if unknown
	InternalDate time.Time // INTERNALDATE; zero if the server has none (POP3)
	Transient    bool      // the ID holds for this connection alone: there is no unique-id
	Flags        []string  // system flags and keywords, spelled as in IMAP

	// Object is the server's name for the content, which the message's copies
	// in other mailboxes share (EMAILID of RFC 8474, X-GM-MSGID); "" for none.
	Object string
}

// Upload is a message to be stored on a server.
type Upload struct {
	Flags        []string // system flags and keywords
	InternalDate time.Time
	Size         int64 // octets of Content, whose lines end in CRLF
	Content      io.Reader
}

// Limits are what a server says of how much it takes. Zero stands for what it
// does not tell.
type Limits struct {
	Message                     int64 // octets of the largest message (RFC 7889)
	Used, Quota                 int64 // octets (RFC 9208)
	UsedMessages, QuotaMessages int64

	// Denied are the rights in mailboxes, by their spelling, where the right to
	// store is not among them (RFC 4314).
	Denied map[string]string
}

// State is how a mailbox stands on its server, its messages apart.
type State struct {
	UIDValidity   uint32
	UIDNext       uint32
	HighestModSeq uint64 // RFC 7162; 0 where the server keeps none
	Exists        int    // the server's own count (EXISTS, STAT)
}

// Listing is what a server says that a mailbox holds.
type Listing struct {
	State
	Messages []Message // what it named when asked for all; Size and InternalDate may be missing
}

// Changes are what has happened to a mailbox since a [State].
type Changes struct {
	State
	Messages []Message     // those that are new or have other flags
	Vanished func(ID) bool // which of the others are gone; nil if the server does not tell
}

// Standing is how a mailbox stood when all of it was in the archive last, and
// what the archive has of it now. The zero value is that of a new mailbox.
type Standing struct {
	State
	Live    int // messages that the server had by the archive's last knowledge
	Removed int // of these, removed from the archive by the user
	Failed  int // that could not be fetched
}

// Kept is what an archive remembers of a message on a server.
type Kept struct {
	Message int64    // the archive's own number of it
	Flags   []string // as the server told them last
	Removed bool     // the user removed the file from the archive
	Gone    bool     // the server did not list it at the last run
}

// Usage is how much room mail takes on a server, as far as the server tells.
type Usage struct {
	Used, Quota int64 // octets (RFC 9208); Quota is 0 where there is none
	Sizes       int64 // octets of all messages (RFC 8438); -1 if that is not told
	Messages    int   // in all mailboxes
}

// Session is how a server can be spoken to.
type Session struct {
	TLS    string   // the version of TLS; "" for plain text
	Offers []string // what it can do of which use is made, in its words
}

// Ways are how a server can remove messages.
type Ways struct {
	Exactly bool // those that are named and no others (RFC 4315 UIDPLUS, POP3)
	Move    bool // into another mailbox (RFC 6851)
	Labels  bool // to remove a message from a mailbox only takes a label off it (Gmail)
}

// Removal says what became of messages that were to be removed.
type Removal struct {
	Done []ID          // gone, by the server's word
	Left map[ID]string // still there, and why
	More bool          // the mailbox has lost more messages than that

	// Unmarked says that none of those that are left is marked as deleted because
	// it was to be removed.
	Unmarked bool

	Over bool // the session has ended, as it has to for messages to be removed

	// Wait is how long the server wants to be left alone before the next login.
	Wait time.Duration
}
