package mailbox_test

import (
	"slices"
	"strings"
	"testing"

	"mailstow/mailbox"
)

// Two mailboxes must never become one: names that differ stay different,
// whatever a server puts into them.
func FuzzNamesKeepTheirElements(f *testing.F) {
	f.Add("INBOX", "2024")
	f.Add("a\x00b", "\x01")
	f.Add("a\x01", "0")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		n := mailbox.NewName(a, b)
		if got := n.Elems(); !slices.Equal(got, []string{a, b}) {
			t.Errorf("Elems of (%q, %q) = %q", a, b, got)
		}
		if one := mailbox.NewName(a + b); one == n {
			t.Errorf("(%q, %q) is the same as one element", a, b)
		}
		if joined := mailbox.NewName(strings.Join([]string{a, b}, "\x00")); joined == n {
			t.Errorf("(%q, %q) is the same as one element with a NUL", a, b)
		}
	})
}
