package filter_test

import (
	"strings"
	"testing"
	"time"

	"mailstow/internal/filter"
	"mailstow/mailbox"
)

func box(name, role string) mailbox.Mailbox {
	return mailbox.Mailbox{Name: mailbox.NewName(strings.Split(name, "/")...), Role: role}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name, role string
		want                bool
	}{
		{"Work", "Work", "", true},
		{"Work", "Work/2024", "", false},
		{"Work/*", "Work/2024", "", true},
		{"Work/*", "Work/2024/May", "", false},
		{"Work/**", "Work/2024/May", "", true},
		{"Work/**", "Work", "", false},
		{"**/2024", "Work/2024", "", true},
		{"**/2024", "2024", "", true},
		{"**/Old/**", "A/Old/B", "", true},
		{"**/Old/**", "A/Old", "", false},
		{"W*k", "Work", "", true},
		{"inbox", "INBOX", "", true},
		{"Inbox/x", "INBOX/x", "", true},
		{"work", "Work", "", false},
		{`\Junk`, "Spam", `\Junk`, true},
		{`\junk`, "Spam", `\Junk`, true},
		{`\Junk`, "Junk", "", false},
		{"收件?", "收件箱", "", true},
		{"Entwu\u0308rfe", "Entw\u00fcrfe", "", true}, // typed on a Mac
		{"a[b", "a[b", "", true},                      // a name that is no pattern
		{"Sent, old", "Sent, old", "", true},
	} {
		if got := filter.Match(c.pattern, box(c.name, c.role)); got != c.want {
			t.Errorf("Match(%q, %q %s) = %v", c.pattern, c.name, c.role, got)
		}
	}
}

func TestExcludedIsExcludedWhateverElseIsSaid(t *testing.T) {
	f := filter.Filter{Folders: []string{"INBOX", "Lists/a"}, Include: []string{"Lists/*"}, Exclude: []string{"Lists/b", `\Junk`}}
	for name, want := range map[string]bool{"INBOX": true, "Lists/a": true, "Lists/c": true, "Lists/b": false, "Other": false} {
		if got := f.Skips(box(name, "")); (got == "") != want {
			t.Errorf("Skips(%q) = %q", name, got)
		}
	}
	if new(filter.Filter).Skips(box("x", `\Junk`)) != "" {
		t.Error("a filter that says nothing skips something")
	}
}

// The bounds of an age belong to one side each: a run over what is older and
// one over what is younger take everything, and nothing twice.
func TestAgesMeet(t *testing.T) {
	day := time.Date(2024, 1, 31, 0, 0, 0, 0, time.UTC)
	older, newer := filter.Filter{Before: day}, filter.Filter{NotBefore: day}
	for _, d := range []time.Duration{-time.Second, 0, time.Second} {
		m := mailbox.Message{InternalDate: day.Add(d)}
		if older.Wants(m) == newer.Wants(m) {
			t.Errorf("%v: older %v, newer %v", d, older.Wants(m), newer.Wants(m))
		}
	}
	if m := (mailbox.Message{Size: -1}); !older.Wants(m) || !newer.Wants(m) || !(&filter.Filter{MaxSize: 1}).Wants(m) {
		t.Error("a message of which nothing is known is left out")
	}
}
