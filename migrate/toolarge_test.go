package migrate

import (
	"errors"
	"testing"
)

func TestServersThatFindAMessageTooLargeAreUnderstood(t *testing.T) {
	for words, want := range map[string]bool{
		"NO [TOOBIG] APPEND failed": true,
		"NO [LIMIT] Mail size is larger than the maximum size allowed by server configuration": true,
		"NO Message too large":                                     true,
		"NO [CANNOT] Message size exceeds fixed limit":             true,
		"NO Message could not be stored: the mailbox is too large": false,
		"NO The message is larger than the remaining quota":        false,
		"NO [CANNOT] Message header too large":                     false,
		"NO Message rejected: a line is too big":                   false,
		"NO [SERVERBUG] Internal error: mail index too large":      false,
		"NO [OVERQUOTA] The message is larger than what is left":   false,
		"NO [CANNOT] Message contains bare newlines":               false,
		"NO Invalid header":                                        false,
		"NO [LIMIT] Too many keywords":                             false,
	} {
		if got := saysTooLarge(errors.New(words)); got != want {
			t.Errorf("%s: %v", words, got)
		}
	}
}
