package retry

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Busy marks an error of a server that wants to be asked less: not before
// wait has passed, if it is not zero.
func Busy(err error, wait time.Duration) error { return &busy{err, wait} }

// IsBusy reports whether err was marked by [Busy], and with which wait.
func IsBusy(err error) (wait time.Duration, marked bool) {
	var b *busy
	if errors.As(err, &b) {
		return b.wait, true
	}
	return 0, false
}

type busy struct {
	error
	wait time.Duration
}

func (b *busy) Unwrap() error { return b.error }

// MarkBusy marks err as [Busy] if the server's words say so.
func MarkBusy(err error, words string) error {
	if wait, ok := readBusy(words); ok {
		return Busy(err, wait)
	}
	return err
}

// busyWords are how servers say that they are asked too much, in response
// codes (RFC 5530, RFC 9051, RFC 2449, RFC 3206) and in the texts of Gmail,
// Exchange Online, Dovecot and Yahoo.
var busyWords = []string{
	"[THROTTLED", "[UNAVAILABLE", "[INUSE", "[IN-USE", "[SYS/TEMP", "[LOGIN-DELAY",
	"THROTTLED", "RATE LIMIT", "TOO MANY SIMULTANEOUS CONNECTIONS", "MAXIMUM NUMBER OF CONNECTIONS",
	"AUTHENTICATED BUT NOT CONNECTED", "BANDWIDTH LIMITS",
}

// busyLimit is a limit on how much is asked. Others are on what a message or a
// mailbox may be (RFC 5530 section 3), and waiting does not cure them.
var busyLimit = regexp.MustCompile(`\[LIMIT\b.*\b(RATE|TOO MANY (COMMANDS|REQUESTS|LOGINS)|CONNECTIONS?|BANDWIDTH|LATER)\b`)

var backoffTime = regexp.MustCompile(`(?i)suggested backoff time: *(\d{1,9}) *milliseconds`)

// maxWait is how long a server can have us wait.
const maxWait = time.Hour

func readBusy(words string) (wait time.Duration, busy bool) {
	if m := backoffTime.FindStringSubmatch(words); m != nil {
		ms, _ := strconv.Atoi(m[1])
		return min(time.Duration(ms)*time.Millisecond, maxWait), true
	}
	words = strings.ToUpper(words)
	if busyLimit.MatchString(words) {
		return 0, true
	}
	for _, w := range busyWords {
		if strings.Contains(words, w) {
			return 0, true
		}
	}
	return 0, false
}
