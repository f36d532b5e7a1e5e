package migrate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"mailstow/mailbox"
)

// Mapping says where folders go.
type Mapping struct {
	Renamed map[string]string // folder -> mailbox, both as people write them
	Under   string            // the mailbox above all others; "" for none
	NoRoles bool              // a folder goes by its name whatever its role
}

// roots are the roles of which a server has one mailbox each. Mail in the
// others (\All, \Flagged, \Important) is in those as well, or was put there
// by the server.
var roots = []string{`\Sent`, `\Drafts`, `\Trash`, `\Junk`, `\Archive`}

// target returns where a folder goes: as the user says, else where it went before,
// else by its role or name. That is the name of its mailbox, and the mailbox
// itself if the server has it. shared says that all folders but INBOX lie
// below INBOX, as some servers want it: that level is not the folder's own.
func (m Mapping) target(f Folder, boxes []mailbox.Mailbox, shared bool) (name mailbox.Name, there *mailbox.Mailbox) {
	if to, ok := m.Renamed[f.Name.String()]; ok {
		return nameOf(to), nil
	}
	name = f.Name
	elems := name.Elems()
	if shared && len(elems) > 1 && elems[0] == "INBOX" {
		elems = elems[1:]
		name = mailbox.NewName(elems...)
	}
	if i := slices.IndexFunc(boxes, func(b mailbox.Mailbox) bool { return b.Wire == f.Placed }); i >= 0 && m.stays() {
		return boxes[i].Name, &boxes[i]
	}
	if m.Under != "" {
		return mailbox.NewName(append(nameOf(m.Under).Elems(), elems...)...), nil
	}
	if !m.NoRoles && slices.Contains(roots, f.Role) {
		for i, b := range boxes {
			if b.Role == f.Role {
				return b.Name, &boxes[i]
			}
		}
	}
	return name, nil
}

func nameOf(typed string) mailbox.Name { return mailbox.NewName(strings.Split(typed, "/")...) }

// sharesInbox reports whether all folders but INBOX lie below it.
func sharesInbox(folders []Folder) bool {
	below := false
	for _, f := range folders {
		elems := f.Name.Elems()
		switch {
		case elems[0] != "INBOX":
			return false
		case len(elems) > 1:
			below = true
		}
	}
	return below
}

// maxLevel is how many octets a level of a plain name may have.
const maxLevel = 60

// plainer returns a name that every server takes: letters, digits and a few
// signs. What is too long ends in a part of its digest, so that two names do
// not become one.
func plainer(n mailbox.Name) mailbox.Name {
	levels := n.Elems()
	for i, level := range levels {
		plain := strings.Map(func(r rune) rune {
			if unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || strings.ContainsRune(" -_,+@()", r) {
				return r
			}
			return '_'
		}, strings.ToValidUTF8(level, "_"))
		if plain = strings.TrimSpace(plain); plain == "" {
			plain = "_"
		}
		if len(plain) > maxLevel {
			sum := sha256.Sum256([]byte(level))
			plain = strings.TrimSpace(strings.ToValidUTF8(plain[:maxLevel-9], "")) + "_" + hex.EncodeToString(sum[:4])
		}
		levels[i] = plain
	}
	return mailbox.NewName(levels...)
}

// stays reports whether a folder goes where it goes now the next time too.
func (m Mapping) stays() bool { return m.Under == "" && !m.NoRoles }

// UnknownFolderError says that a folder which is to go elsewhere is not there.
type UnknownFolderError struct{ Folder string }

func (e *UnknownFolderError) Error() string { return "there is no folder " + e.Folder }

// CollisionError says that two folders would go into one mailbox.
type CollisionError struct{ Folder, Other, Mailbox string }

func (e *CollisionError) Error() string {
	return fmt.Sprintf("the folders %s and %s would both go into %s", e.Other, e.Folder, e.Mailbox)
}
