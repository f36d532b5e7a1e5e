// Package filter decides which mailboxes and which messages are wanted.
//
// It only looks at what is known of them; a server is never asked to choose.
package filter

import (
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"mailstow/mailbox"
)

// Filter says what is wanted. The zero value wants everything.
type Filter struct {
	Folders []string // names: if there are any, just these mailboxes
	Include []string // patterns: if there are any, just what matches one
	Exclude []string // patterns: not what matches one, whatever the others say

	NotBefore time.Time // older messages are not wanted
	Before    time.Time // this young, or younger, is not wanted
	MaxSize   int64     // octets; 0 for no limit
}

// Skips returns why a mailbox is not wanted, "" if it is.
func (f *Filter) Skips(m mailbox.Mailbox) string {
	for _, p := range f.Exclude {
		if Match(p, m) {
			return "exclude '" + p + "'"
		}
	}
	if len(f.Folders)+len(f.Include) == 0 {
		return ""
	}
	for _, name := range f.Folders {
		if sameName(name, m.Name) {
			return ""
		}
	}
	for _, p := range f.Include {
		if Match(p, m) {
			return ""
		}
	}
	return "not among those asked for"
}

// ByMessage reports whether some messages of a wanted mailbox may not be.
func (f *Filter) ByMessage() bool {
	return f.ByDate() || f.MaxSize > 0
}

// ByDate reports whether the time of arrival decides.
func (f *Filter) ByDate() bool { return !f.NotBefore.IsZero() || !f.Before.IsZero() }

// Wants reports whether a message is wanted. One whose size or date the
// server does not tell is.
func (f *Filter) Wants(m mailbox.Message) bool {
	switch {
	case f.MaxSize > 0 && m.Size > f.MaxSize:
		return false
	case m.InternalDate.IsZero():
		return true
	case !f.NotBefore.IsZero() && m.InternalDate.Before(f.NotBefore):
		return false
	case !f.Before.IsZero() && !m.InternalDate.Before(f.Before):
		return false
	}
	return true
}

// Match reports whether a mailbox matches a pattern: a role such as \Junk,
// its whole name, or a glob in which * stands for anything within a level, **
// for any levels, ? for one character and [a-z] for one of those. INBOX, and
// a role, is the same in any case.
func Match(pattern string, m mailbox.Mailbox) bool {
	if strings.HasPrefix(pattern, `\`) && !strings.Contains(pattern, "/") {
		return m.Role != "" && strings.EqualFold(pattern, m.Role)
	}
	return sameName(pattern, m.Name) || matchLevels(levels(pattern), levels(m.Name.String()))
}

// Check returns an error for a pattern that can match nothing.
func Check(pattern string) error {
	if strings.HasPrefix(pattern, `\`) {
		return nil
	}
	if _, err := path.Match(strings.ReplaceAll(pattern, "**", "*"), ""); err != nil {
		return fmt.Errorf("%q is no pattern: a [ has no ]", pattern)
	}
	return nil
}

// levels splits a name as people write it, in composed form, with INBOX in
// capitals.
func levels(name string) []string {
	parts := strings.Split(norm.NFC.String(name), "/")
	if strings.EqualFold(parts[0], "INBOX") {
		parts[0] = "INBOX"
	}
	return parts
}

func sameName(typed string, n mailbox.Name) bool {
	return strings.Join(levels(typed), "/") == strings.Join(levels(n.String()), "/")
}

// matchLevels matches level by level. A ** takes as many as it must, at the
// end one at least.
func matchLevels(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			pattern = pattern[1:]
			if len(pattern) == 0 {
				return len(name) > 0
			}
			for ; len(name) > 0; name = name[1:] {
				if matchLevels(pattern, name) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); !ok || err != nil {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}
