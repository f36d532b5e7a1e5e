package config

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"mailstow/internal/credential"
	"mailstow/internal/guess"
	"mailstow/internal/quantity"
)

// Pair is a mailbox to be moved: its account, and the one it goes to.
type Pair struct {
	Line                int // in the file
	Source, Destination Account
	Map                 map[string]string // folder -> mailbox
	Under               string
}

// Key is what distinguishes the pair from others.
func (p Pair) Key() string {
	return strings.Join([]string{p.Source.Server, p.Source.User, p.Destination.Server, p.Destination.User, p.Under}, "\x00")
}

// Errors are all the mistakes in a file.
type Errors struct {
	Path string
	All  []*Error
}

func (e *Errors) Error() string {
	if len(e.All) == 1 {
		return e.All[0].Error()
	}
	return fmt.Sprintf("%s has %d mistakes", e.Path, len(e.All))
}

// The formats of a list of pairs.
const (
	CSV      = "csv"      // with a header line
	ImapSync = "imapsync" // host1;user1;password1;host2;user2;password2; without one
	TOML     = "toml"
)

// Formats are what [ReadPairs] knows.
var Formats = []string{CSV, TOML, ImapSync}

// ReadPairs reads a list of pairs; format "" goes by the file's name. home
// replaces a leading ~ in it; getenv is nil where no password is needed. The
// error is an [Errors] if the file can be read but not all of it makes sense.
func ReadPairs(path, format, home string, getenv func(string) string) ([]Pair, error) {
	f, text, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if format == "" {
		format = CSV
		if strings.EqualFold(filepath.Ext(path), ".toml") {
			format = TOML
		}
	}
	r := &pairReader{reader: reader{path: path, home: home, text: string(text)}, dir: filepath.Dir(path), getenv: getenv}
	switch format {
	case CSV:
		r.csv(text)
	case ImapSync:
		r.imapsync(text)
	case TOML:
		r.toml(text)
	default:
		return nil, &Error{Path: path, Text: fmt.Sprintf("there is no format %q", format), Hint: "use one of " + strings.Join(Formats, ", ")}
	}
	if r.plain {
		if err := credential.Private(f); err != nil {
			r.fail(0, "others can read this file, and it holds a password", "chmod 600 "+path)
		}
	}
	seen := map[string]int{}
	for _, p := range r.pairs {
		if first, twice := seen[p.Key()]; twice {
			r.fail(p.Line, fmt.Sprintf("this is the pair of line %d again", first), "")
		}
		seen[p.Key()] = p.Line
	}
	if len(r.pairs) == 0 && len(r.errors) == 0 {
		r.fail(0, "it names no pair", "")
	}
	if len(r.errors) > 0 {
		slices.SortStableFunc(r.errors, func(a, b *Error) int { return a.Line - b.Line })
		return nil, &Errors{Path: path, All: r.errors}
	}
	return r.pairs, nil
}

// pairReader reads one list.
type pairReader struct {
	reader
	dir    string // that files are named from
	getenv func(string) string
	pairs  []Pair
	errors []*Error
	plain  bool // a password stands in the file
}

func (r *pairReader) fail(line int, text, hint string) {
	r.errors = append(r.errors, &Error{Path: r.path, Line: line, Text: text, Hint: hint})
}

// columns are those of a CSV file; the first two are needed.
var columns = []string{"source", "destination", "source_password", "destination_password", "source_user", "destination_user", "options"}

// records reads the lines of a CSV file, whatever separates its cells.
func (r *pairReader) records(text []byte, comma rune) (all [][]string, lines []int) {
	c := csv.NewReader(bytes.NewReader(text))
	c.Comma, c.Comment, c.FieldsPerRecord = comma, '#', -1
	for {
		record, err := c.Read()
		var bad *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return all, lines
		case errors.As(err, &bad):
			r.fail(bad.Line, bad.Err.Error(), "")
			return all, lines
		case err != nil:
			r.fail(0, err.Error(), "")
			return all, lines
		}
		line, _ := c.FieldPos(0)
		all, lines = append(all, record), append(lines, line)
	}
}

// separator is what separates the cells of the first line that is no comment.
func separator(text []byte) rune {
	for line := range bytes.Lines(text) {
		if t := bytes.TrimSpace(line); len(t) > 0 && t[0] != '#' {
			best, most := ',', 0
			for _, c := range ",;\t" {
				if n := bytes.Count(line, []byte(string(c))); n > most {
					best, most = c, n
				}
			}
			return best
		}
	}
	return ','
}

func (r *pairReader) csv(text []byte) {
	records, lines := r.records(text, separator(text))
	if len(records) == 0 {
		return
	}
	at := map[string]int{}
	for _, needed := range columns[:2] {
		if !slices.ContainsFunc(records[0], func(cell string) bool { return strings.EqualFold(strings.TrimSpace(cell), needed) }) {
			r.fail(lines[0], fmt.Sprintf("the first line names no column %q", needed), "it must be like "+strings.Join(columns[:4], ",")+"; a list of imapsync needs --pairs-format imapsync")
			return
		}
	}
	for i, name := range records[0] {
		name = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(columns, name) {
			hint := "there are " + strings.Join(columns, ", ")
			if near := guess.Nearest(name, columns); near != "" {
				hint = "did you mean " + near + "?"
			}
			r.fail(lines[0], fmt.Sprintf("there is no column %q", name), hint)
			continue
		}
		at[name] = i
	}
	for i, record := range records[1:] {
		line := lines[i+1]
		cell := func(name string) string {
			k, ok := at[name]
			switch {
			case !ok || k >= len(record):
				return ""
			case strings.HasSuffix(name, "_password"):
				return record[k]
			}
			return strings.TrimSpace(record[k])
		}
		if len(record) > len(records[0]) {
			r.fail(line, fmt.Sprintf("it has %d cells, and the first line has %d", len(record), len(records[0])), "put a cell with a comma in it into quotes")
			continue
		}
		p := Pair{Line: line, Map: map[string]string{}}
		p.Source, p.Destination = Account{Server: cell("source"), User: cell("source_user")}, Account{Server: cell("destination"), User: cell("destination_user")}
		r.secret(&p.Source, line, cell("source_password"))
		r.secret(&p.Destination, line, cell("destination_password"))
		r.options(&p, cell("options"))
		r.add(p)
	}
}

// imapsync reads the list of imapsync's FAQ.Massive, which knows no quotes.
func (r *pairReader) imapsync(text []byte) {
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, ";")
		if len(f) < 6 {
			r.fail(n, fmt.Sprintf("it has %d cells", len(f)), "host1;user1;password1;host2;user2;password2;")
			continue
		}
		host1, host2 := strings.TrimSpace(f[0]), strings.TrimSpace(f[3])
		if host1 == "" || host2 == "" {
			r.fail(n, "it names no host", "")
			continue
		}
		p := Pair{Line: n, Map: map[string]string{}}
		p.Source, p.Destination = Account{Server: "imaps://" + host1, User: strings.TrimSpace(f[1])}, Account{Server: "imaps://" + host2, User: strings.TrimSpace(f[4])}
		r.password(&p.Source, f[2])
		r.password(&p.Destination, f[5])
		r.add(p)
	}
}

func (r *pairReader) add(p Pair) {
	for name, side := range map[string]Account{"source": p.Source, "destination": p.Destination} {
		if side.Server == "" {
			r.fail(p.Line, "it names no "+name, "")
			return
		}
	}
	r.pairs = append(r.pairs, p)
}

func (r *pairReader) password(a *Account, text string) {
	if text != "" {
		a.Password, a.HasPassword, r.plain = credential.NewSecret(text), true, true
	}
}

// secret reads where a password is: file:PATH, cmd:COMMAND, env:NAME, or the
// password itself.
func (r *pairReader) secret(a *Account, line int, cell string) {
	kind, rest, ok := strings.Cut(cell, ":")
	switch {
	case ok && kind == "file":
		if a.PasswordFile = r.expand(rest); !filepath.IsAbs(a.PasswordFile) {
			a.PasswordFile = filepath.Join(r.dir, a.PasswordFile)
		}
	case ok && kind == "cmd":
		a.PasswordCommand = credential.Shell(rest)
	case ok && kind == "env":
		if a.PasswordVar = rest; r.getenv != nil && r.getenv(rest) == "" {
			r.fail(line, "the environment has no "+rest, "")
		}
	default:
		r.password(a, cell)
	}
}

// options reads KEY=VALUE pairs, separated by blanks; quotes keep blanks.
func (r *pairReader) options(p *Pair, cell string) {
	for i, word := range words(cell) { // a word that is none may be a password that has slipped
		key, value, ok := strings.Cut(word, "=")
		switch {
		case !ok || value == "":
			r.fail(p.Line, fmt.Sprintf("option %d has no value", i+1), "write it like exclude=Lists/**")
		case key == "folder":
			p.Source.Folders = append(p.Source.Folders, value)
		case key == "include":
			p.Source.Include = append(p.Source.Include, value)
		case key == "exclude":
			p.Source.Exclude = append(p.Source.Exclude, value)
		case key == "under":
			p.Under = value
		case key == "max-size":
			n, err := quantity.Size(value)
			if err != nil || n == 0 {
				r.fail(p.Line, fmt.Sprintf("max-size: %q is no size", value), `write it like "25M"`)
			}
			p.Source.MaxSize = n
		case key == "map":
			from, to, ok := strings.Cut(value, "=")
			if !ok || from == "" || to == "" {
				r.fail(p.Line, fmt.Sprintf("map: %q is no pair", value), "write it like 'map=Sent Items=Sent'")
			}
			p.Map[from] = to
		default:
			r.fail(p.Line, fmt.Sprintf("option %d is none that there is", i+1), "there are folder, include, exclude, map, under, max-size")
		}
	}
}

// words splits a text at blanks that are not in quotes.
func words(text string) (all []string) {
	var word strings.Builder
	quote, begun := rune(0), false
	for _, c := range text {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			quote, begun = c, true
		case c == ' ' || c == '\t':
			if begun {
				all = append(all, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	if begun {
		all = append(all, word.String())
	}
	return all
}

// pairSettings is a pair of a TOML list: users, or servers in place of those
// of the tables above it.
type pairSettings struct {
	Source              string            `toml:"source"`
	Destination         string            `toml:"destination"`
	SourcePassword      string            `toml:"source_password"`
	DestinationPassword string            `toml:"destination_password"`
	Folders             []string          `toml:"folders"`
	Include             []string          `toml:"include"`
	Exclude             []string          `toml:"exclude"`
	MaxSize             string            `toml:"max_size"`
	Map                 map[string]string `toml:"map"`
	Under               string            `toml:"under"`
}

type pairDocument struct {
	Source      settings       `toml:"source"`
	Destination settings       `toml:"destination"`
	Pairs       []pairSettings `toml:"pair"`
}

func (r *pairReader) toml(text []byte) {
	var doc pairDocument
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		var strict *toml.StrictMissingError
		if !errors.As(err, &strict) {
			r.errors = append(r.errors, explain(r.path, text, err).(*Error))
			return
		}
		for _, missing := range strict.Errors {
			line, _ := missing.Position()
			key := missing.Key()
			r.fail(line, fmt.Sprintf("there is no key %q", strings.Join(key, ".")), "")
		}
		return
	}
	lines := r.pairLines()
	for i, s := range doc.Pairs {
		p := Pair{Map: s.Map, Under: s.Under}
		if i < len(lines) {
			p.Line = lines[i]
		}
		for _, side := range []struct {
			a                    *Account
			name, text, password string
			settings             settings
		}{{&p.Source, "source", s.Source, s.SourcePassword, doc.Source}, {&p.Destination, "destination", s.Destination, s.DestinationPassword, doc.Destination}} {
			a, err := r.account(side.name, side.settings.or(side.text), settings{})
			if err != nil {
				var e *Error
				if errors.As(err, &e) {
					e.Line, e.Text = p.Line, strings.ReplaceAll(e.Text, "[accounts."+side.name+"]", "["+side.name+"]")
					r.errors = append(r.errors, e)
				}
				continue
			}
			if a.PasswordFile != "" && !filepath.IsAbs(a.PasswordFile) {
				a.PasswordFile = filepath.Join(r.dir, a.PasswordFile)
			}
			if a.Server == "" {
				a.Server = or(a.IMAP, a.POP3)
			}
			a.Name, a.IMAP, a.POP3, *side.a = "", "", "", a
			r.plain = r.plain || a.HasPassword
			if !strings.Contains(side.text, "://") && a.Server != "" {
				side.a.User = side.text
			}
			if side.password != "" {
				side.a.HasPassword, side.a.PasswordCommand, side.a.PasswordFile = false, nil, ""
				r.secret(side.a, p.Line, side.password)
			}
		}
		p.Source.Folders, p.Source.Include, p.Source.Exclude = orList(s.Folders, p.Source.Folders), orList(s.Include, p.Source.Include), orList(s.Exclude, p.Source.Exclude)
		if s.MaxSize != "" {
			n, err := quantity.Size(s.MaxSize)
			if err != nil || n == 0 {
				r.fail(p.Line, fmt.Sprintf("max_size: %q is no size", s.MaxSize), `write it like "25M"`)
			}
			p.Source.MaxSize = n
		}
		r.add(p)
	}
}

// or returns s with a server in place of its own if text is one. What logs in to
// one host is no business of another.
func (s settings) or(text string) settings {
	if !strings.Contains(text, "://") {
		if s.Server == "" && s.IMAP == "" && s.POP3 == "" && strings.Contains(text, "@") {
			s.Address = text
		}
		return s
	}
	if hostOf(text) != hostOf(or(s.Server, or(s.IMAP, s.POP3))) {
		s.Password, s.PasswordCommand, s.PasswordFile, s.Auth, s.AuthUser, s.TokenCommand = "", nil, "", "", "", nil
	}
	s.Server, s.IMAP, s.POP3, s.User, s.Provider = text, "", "", "", ""
	return s
}

// hostOf returns the scheme, the host and the port of a URL, "" of what is none.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + strings.ToLower(u.Host)
}

// pairLines returns the lines on which pairs begin.
func (r *pairReader) pairLines() (lines []int) {
	n := 0
	for line := range strings.Lines(r.text) {
		n++
		if strings.HasPrefix(strings.TrimSpace(line), "[[pair]]") {
			lines = append(lines, n)
		}
	}
	return lines
}
