package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	gomaildir "github.com/emersion/go-maildir"
)

// letterOf says how a Maildir file name shows a flag. \Deleted is not shown:
// mail programs remove files that are marked so.
var letterOf = map[string]gomaildir.Flag{
	`\answered`:  gomaildir.FlagReplied,
	`\seen`:      gomaildir.FlagSeen,
	`\flagged`:   gomaildir.FlagFlagged,
	`\draft`:     gomaildir.FlagDraft,
	"$forwarded": gomaildir.FlagPassed,
}

// keywordsFile is where Dovecot keeps the keywords that the letters a to z
// stand for in a folder's file names.
const keywordsFile = "dovecot-keywords"

const maxKeywords = 26

// keywords are the keywords of one folder that have a letter, by letter.
type keywords struct {
	dir   string // the folder's
	names [maxKeywords]string
}

func loadKeywords(dir string) (*keywords, error) {
	k := &keywords{dir: dir}
	b, err := os.ReadFile(filepath.Join(dir, keywordsFile))
	if errors.Is(err, os.ErrNotExist) {
		return k, nil
	}
	for line := range strings.Lines(string(b)) {
		number, name, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		if n, err := strconv.Atoi(number); err == nil && n >= 0 && n < maxKeywords {
			k.names[n] = name
		}
	}
	return k, err
}

// letters returns the letters for flags. Keywords that are new get the next
// free letter, and the file that says so is durable when letters returns. A
// keyword for which no letter is left is kept in the index alone.
func (k *keywords) letters(flags []string) ([]gomaildir.Flag, error) {
	var out []gomaildir.Flag
	added := false
	for _, f := range flags {
		if l, ok := letterOf[strings.ToLower(f)]; ok {
			out = append(out, l)
			continue
		}
		if strings.HasPrefix(f, `\`) || strings.ContainsAny(f, "\r\n") {
			continue
		}
		i := slices.IndexFunc(k.names[:], func(name string) bool { return strings.EqualFold(name, f) })
		if i < 0 {
			if i = slices.Index(k.names[:], ""); i < 0 {
				continue
			}
			k.names[i], added = f, true
		}
		out = append(out, gomaildir.Flag('a'+i))
	}
	if added {
		return out, k.save()
	}
	return out, nil
}

// letters returns the letters that show flags in a folder's file names.
func (a *Archive) letters(f *folder, flags []string) ([]gomaildir.Flag, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return f.keywords.letters(flags)
}

// flagsOnDisk returns the flags that a file name's letters stand for, with
// those among noted that no letter can show.
func (a *Archive) flagsOnDisk(f *folder, letters string, noted []string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	flags := f.keywords.flagsOf(letters)
	for _, n := range noted {
		if !f.keywords.shows(n) {
			flags = append(flags, n)
		}
	}
	return flags
}

// shows reports whether a file name can tell if a flag is set.
func (k *keywords) shows(flag string) bool {
	_, system := letterOf[strings.ToLower(flag)]
	return system || slices.ContainsFunc(k.names[:], func(name string) bool { return strings.EqualFold(name, flag) })
}

// merge returns the flags of a message: the server's where they have changed
// since it told them last, else those of the archive.
func merge(told, server, local []string) []string {
	has := func(flags []string, f string) bool {
		return slices.ContainsFunc(flags, func(g string) bool { return strings.EqualFold(f, g) })
	}
	var merged []string
	for _, f := range slices.Concat(server, local) {
		keep := has(local, f)
		if has(server, f) != has(told, f) {
			keep = has(server, f)
		}
		if keep && !has(merged, f) {
			merged = append(merged, f)
		}
	}
	slices.Sort(merged)
	return merged
}

func (k *keywords) save() error {
	var b bytes.Buffer
	for i, name := range k.names {
		if name != "" {
			fmt.Fprintf(&b, "%d %s\n", i, name)
		}
	}
	return writeFile(filepath.Join(k.dir, keywordsFile), b.Bytes())
}

// flagsOf returns the flags that a file name's letters stand for.
func (k *keywords) flagsOf(letters string) []string {
	var flags []string
	for _, l := range letters {
		switch {
		case l >= 'a' && l < 'a'+maxKeywords && k.names[l-'a'] != "":
			flags = append(flags, k.names[l-'a'])
		case l == 'R':
			flags = append(flags, `\Answered`)
		case l == 'S':
			flags = append(flags, `\Seen`)
		case l == 'F':
			flags = append(flags, `\Flagged`)
		case l == 'D':
			flags = append(flags, `\Draft`)
		case l == 'P':
			flags = append(flags, "$Forwarded")
		}
	}
	slices.Sort(flags)
	return flags
}

// newFile begins the name of a file that is not yet in its place.
const newFile = ".mailstow-new-"

// writeFile puts data in place of a file, durably and at once.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), newFile+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
