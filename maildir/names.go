package maildir

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"mailstow/mailbox"
)

// Limits of file systems: of one name, and of a path that leaves room for the
// archive's own directory and for file names below it.
const (
	maxComponent = 255
	maxPath      = 1500
)

// PathOf returns the directory, below the account's, that a mailbox's folder
// has unless another mailbox is there already. Decoding the percent signs of
// each component gives the mailbox's name back, but for components that are
// too long: those are cut and end in "%=" and a hash of the name.
func PathOf(name mailbox.Name) string {
	var parts []string
	for _, elem := range name.Elems() {
		part := encode(elem)
		if len(part) > maxComponent {
			part = shorten(part, spelled(name))
		}
		parts = append(parts, part)
	}
	p := strings.Join(parts, "/")
	if len(p) > maxPath {
		p = shorten(parts[0], spelled(name))
	}
	return p
}

// encode spells one element of a name so that it is a safe, unambiguous name
// of a directory.
func encode(elem string) string {
	switch strings.ToLower(elem) {
	case "":
		return "%"
	case "cur", "new", "tmp", keywordsFile: // what a Maildir has itself
		return fmt.Sprintf("%%%02X", elem[0]) + elem[1:]
	}
	kept := len(strings.TrimRight(elem, " ."))
	var b strings.Builder
	for i := 0; i < len(elem); {
		r, n := utf8.DecodeRuneInString(elem[i:])
		switch {
		case r == utf8.RuneError && n == 1, r == '/', r == '%', r < ' ', r >= 0x7f && r < 0xa0,
			r == '.' && i == 0, i >= kept:
			for _, c := range []byte(elem[i : i+n]) {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		default:
			b.WriteString(elem[i : i+n])
		}
		i += n
	}
	return b.String()
}

// decode is the inverse of encode, but for components that were cut.
func decode(part string) string {
	if part == "%" {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] == '%' && i+2 < len(part) {
			if c, err := hex.DecodeString(part[i+1 : i+3]); err == nil {
				b.WriteByte(c[0])
				i += 2
				continue
			}
		}
		b.WriteByte(part[i])
	}
	return b.String()
}

// nameOfPath returns the name that a folder's path stands for.
func nameOfPath(p string) mailbox.Name {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = decode(parts[i])
	}
	return mailbox.NewName(parts...)
}

// spelled returns a name as its hash is taken of.
func spelled(name mailbox.Name) string { return strings.Join(name.Elems(), "\x00") }

// shorten cuts a component, between characters, and adds a hash of what it
// stands for. "%=" cannot come from encode.
func shorten(part, whole string) string {
	sum := sha256.Sum256([]byte(whole))
	mark := "%=" + hex.EncodeToString(sum[:6])
	if len(part)+len(mark) > maxComponent {
		part = part[:maxComponent-len(mark)]
		for !utf8.ValidString(part) {
			part = part[:len(part)-1]
		}
		if i := strings.LastIndexByte(part, '%'); i >= 0 && i > len(part)-3 {
			part = part[:i]
		}
	}
	return part + mark
}

// apart returns the path for a mailbox whose own path is taken by another; it
// is told from others by whole.
func apart(name mailbox.Name, whole string) string {
	p := PathOf(name)
	return path.Join(path.Dir(p), shorten(path.Base(p), whole))
}

// folded returns what two paths have in common if they meet in one directory
// on a file system that ignores case or Unicode normal forms.
func folded(p string) string { return strings.ToLower(norm.NFC.String(p)) }
