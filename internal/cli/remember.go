package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailstow/internal/replace"
	"mailstow/maildir"
)

// memory is where the user's archives are remembered: a directory with a
// file for each. An archive that has vanished, because its disk is not
// mounted, must not be begun anew in its place.
type memory struct{ dir string }

// memory returns the memory in the user's state directory; without one,
// nothing is remembered.
func (p *program) memory() memory { return memory{p.stateDir("archives")} }

// short shows paths in the user's home as people write them.
func (p *program) short(text string) string {
	home := strings.TrimSuffix(p.Getenv("HOME"), "/")
	if home == "" {
		return text
	}
	return strings.ReplaceAll(text, home+"/", "~/")
}

func (m memory) file(archive string) string {
	sum := sha256.Sum256([]byte(archive))
	return filepath.Join(m.dir, hex.EncodeToString(sum[:8]))
}

// remember notes an archive under its absolute path.
func (m memory) remember(archive, id string) error {
	if m.dir == "" {
		return nil
	}
	text := id + " " + archive + "\n"
	if old, err := os.ReadFile(m.file(archive)); err == nil && string(old) == text {
		return nil
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	return replace.File(m.file(archive), []byte(text), 0o600)
}

// noteVerified notes that all of an archive has been read and found whole.
func (p *program) noteVerified(archive string, now time.Time) {
	m := memory{p.stateDir("verified")}
	if m.dir != "" && os.MkdirAll(m.dir, 0o700) == nil {
		replace.File(m.file(archive), []byte(now.UTC().Format(time.RFC3339)+" "+archive+"\n"), 0o600)
	}
}

// lastVerified returns when all of an archive was read and found whole, under its
// absolute path; zero if that is not known.
func (p *program) lastVerified(archive string) time.Time {
	m := memory{p.stateDir("verified")}
	if m.dir == "" {
		return time.Time{}
	}
	b, _ := os.ReadFile(m.file(archive))
	text, _, _ := strings.Cut(string(b), " ")
	at, _ := time.Parse(time.RFC3339, text)
	return at
}

// holds reports whether an archive is remembered.
func (m memory) holds(archive string) bool {
	if m.dir == "" {
		return false
	}
	_, err := os.Stat(m.file(archive))
	return err == nil
}

// vanished is the error of an archive that has vanished.
func vanished(archive string) error {
	return configFailed("the archive "+archive+" has vanished; nothing was created in its place",
		"mount its disk; or, if it is really gone, begin a new one: mailstow backup --new-archive")
}

// vanished reports whether an archive is remembered that is no longer there:
// this very one, or all that stood beside it.
func (m memory) vanished(archive string) bool {
	if m.dir == "" || maildir.Exists(archive) {
		return false
	}
	if m.holds(archive) {
		return true
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return false
	}
	beside := 0
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(m.dir, e.Name()))
		if err != nil {
			continue
		}
		_, other, _ := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
		if filepath.Dir(other) != filepath.Dir(archive) {
			continue
		}
		if maildir.Exists(other) {
			return false
		}
		beside++
	}
	return beside > 0
}
