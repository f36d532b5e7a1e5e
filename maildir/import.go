package maildir

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf16"

	"mailstow/mailbox"
)

// IsMaildir reports whether a directory is a Maildir.
func IsMaildir(dir string) bool {
	for _, sub := range []string{"cur", "new", "tmp"} {
		if fi, err := os.Stat(filepath.Join(dir, sub)); err != nil || !fi.IsDir() {
			return false
		}
	}
	return true
}

// ErrNotImported is returned by [Import] for a directory that holds other mail.
var ErrNotImported = errors.New("the directory holds mail that is not from there")

// Import brings the messages of a Maildir with others in it into the directory
// of an archive that is not open: of a Maildir++, as Dovecot and Courier write it
// (the directory is INBOX, .Work.2024 in it the mailbox Work/2024), or of nested
// ones. Files are linked where both are on one file system, else copied; what is
// there already only gets its flags. It returns how many messages came. Nothing
// is changed in the Maildir.
func Import(from, to string) (messages int, err error) {
	mark := filepath.Join(to, ownDir, "imported-from")
	switch was, err := os.ReadFile(mark); {
	case err == nil && string(was) != from+"\n":
		return 0, fmt.Errorf("%s: %w", to, ErrNotImported)
	case err != nil:
		if _, err := os.Stat(to); err == nil {
			return 0, fmt.Errorf("%s: %w", to, ErrNotImported)
		}
		if err := os.MkdirAll(filepath.Dir(mark), 0o700); err != nil {
			return 0, err
		}
		if err := os.WriteFile(mark, []byte(from+"\n"), 0o600); err != nil {
			return 0, err
		}
	}
	boxes := map[string]mailbox.Name{from: mailbox.NewName("INBOX")}
	if err := maildirsIn(from, nil, boxes); err != nil {
		return 0, err
	}
	for dir, name := range boxes {
		n, err := importFolder(dir, filepath.Join(to, PathOf(name)))
		if messages += n; err != nil {
			return messages, err
		}
	}
	return messages, nil
}

// maildirsIn finds the Maildirs below a directory whose mailbox has these
// levels.
func maildirsIn(dir string, levels []string, boxes map[string]mailbox.Name) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || slices.Contains([]string{"cur", "new", "tmp", ownDir}, name) {
			continue
		}
		below := slices.Clone(levels)
		if dotted, ok := strings.CutPrefix(name, "."); ok && dotted != "" {
			for level := range strings.SplitSeq(dotted, ".") {
				below = append(below, decodeUTF7(level))
			}
		} else {
			below = append(below, name)
		}
		sub := filepath.Join(dir, name)
		if IsMaildir(sub) {
			boxes[sub] = mailbox.NewName(below...)
		}
		if err := maildirsIn(sub, below, boxes); err != nil {
			return err
		}
	}
	return nil
}

// importFolder brings the messages of one Maildir into another.
func importFolder(from, to string) (messages int, err error) {
	there := map[string]string{} // path below to, by the part before the flags
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(to, sub), 0o700); err != nil {
			return 0, err
		}
		if sub != "tmp" {
			entries, err := os.ReadDir(filepath.Join(to, sub))
			if err != nil {
				return 0, err
			}
			for _, e := range entries {
				there[keyOf(e.Name())] = filepath.Join(sub, e.Name())
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(from, keywordsFile)); err == nil { // what letters in the names stand for
		if err := os.WriteFile(filepath.Join(to, keywordsFile), b, 0o600); err != nil {
			return 0, err
		}
	}
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(from, sub))
		if err != nil {
			return messages, err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") || !e.Type().IsRegular() {
				continue
			}
			path := filepath.Join(sub, e.Name())
			had, known := there[keyOf(e.Name())]
			switch {
			case !known:
				err = linkOrCopy(filepath.Join(from, path), filepath.Join(to, path), filepath.Join(to, "tmp", e.Name()))
				messages++
			case had != path:
				err = os.Rename(filepath.Join(to, had), filepath.Join(to, path))
			}
			if errors.Is(err, os.ErrNotExist) {
				messages, err = messages-1, nil // it was moved or removed meanwhile
			}
			if err != nil {
				return messages, err
			}
		}
	}
	return messages, nil
}

// linkOrCopy makes to the same file as from or, on another file system, a copy
// with its time, which is written at tmp first.
func linkOrCopy(from, to, tmp string) error {
	err := os.Link(from, to)
	if !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EMLINK) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close(), os.Chtimes(tmp, fi.ModTime(), fi.ModTime())); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

// decodeUTF7 reads a name in modified UTF-7 (RFC 3501 section 5.1.3). What is
// none stays as it is.
func decodeUTF7(name string) string {
	var out strings.Builder
	for rest := name; rest != ""; {
		text, coded, found := strings.Cut(rest, "&")
		out.WriteString(text)
		if !found {
			break
		}
		code, after, ended := strings.Cut(coded, "-")
		if !ended {
			return name
		}
		rest = after
		if code == "" {
			out.WriteByte('&')
			continue
		}
		b, err := base64.RawStdEncoding.DecodeString(strings.ReplaceAll(code, ",", "/"))
		if err != nil || len(b)%2 != 0 {
			return name
		}
		units := make([]uint16, 0, len(b)/2)
		for i := 0; i < len(b); i += 2 {
			units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
		}
		out.WriteString(string(utf16.Decode(units)))
	}
	return out.String()
}
