package retry_test

import (
	"errors"
	"testing"
	"time"

	"mailstow/internal/retry"
)

// What servers have been seen to say: some want to be asked less, and others mean
// what they were asked for, which waiting does not cure.
func TestServersThatWantToBeAskedLessAreUnderstood(t *testing.T) {
	for words, want := range map[string]struct {
		busy bool
		wait time.Duration
	}{
		"NO Request is throttled. Suggested Backoff Time: 300000 milliseconds":           {true, 5 * time.Minute},
		"NO Request is throttled. Suggested Backoff Time: 999999999 milliseconds":        {true, time.Hour},
		"NO [LIMIT] UID FETCH Rate limit hit.":                                           {true, 0},
		"NO [LIMIT] Too many commands, try again later":                                  {true, 0},
		"NO [UNAVAILABLE] Maximum number of connections from user+IP exceeded":           {true, 0},
		"NO [ALERT] Too many simultaneous connections. (Failure)":                        {true, 0},
		"NO [OVERQUOTA] Account exceeded command or bandwidth limits. (Failure)":         {true, 0},
		"-ERR [IN-USE] Do you have another POP session running?":                         {true, 0},
		"NO [LIMIT] Mail size is larger than the maximum size allowed by server":         {},
		"NO [LIMIT] Too many keywords in message":                                        {},
		"NO [LIMIT] Maximum number of keywords reached":                                  {},
		"NO [OVERQUOTA] Quota exceeded (mailbox for user is full)":                       {},
		"NO [AUTHENTICATIONFAILED] Authentication failed.":                               {},
		"NO [MESSAGELIMIT 1000 23221] FETCH completed with 1000 partial results":         {},
		"NO [TOOBIG] Message too large. https://support.google.com/mail/?p=MaxSizeError": {},
	} {
		wait, busy := retry.IsBusy(retry.MarkBusy(errors.New(words), words))
		if busy != want.busy || wait != want.wait {
			t.Errorf("%s: busy %v, wait %v; want %+v", words, busy, wait, want)
		}
	}
}
