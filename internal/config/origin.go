package config

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Where returns where the file says something for an account: "FILE:21", or
// "FILE:7 [defaults]"; "" if it does not. A key of a table in the account's is
// written with a dot, as in "trim.until".
func (f *File) Where(account, key string) string {
	for _, t := range []struct{ name, remark string }{{"accounts." + account, ""}, {"defaults", " [defaults]"}} {
		if f.has(t.name, key) {
			return f.at(t.name, key) + t.remark
		}
	}
	return ""
}

// WhereTop returns where the file says something for all, such as "archive" or
// "oauth2.google.client_id"; "" if it does not.
func (f *File) WhereTop(key string) string {
	if !f.has("", key) {
		return ""
	}
	return f.at("", key)
}

// has reports whether a key is set below a table.
func (f *File) has(table, key string) bool {
	var doc map[string]any
	if toml.Unmarshal(f.text, &doc) != nil {
		return false
	}
	path := strings.Split(key, ".")
	if table != "" {
		path = append(strings.Split(table, "."), path...)
	}
	var at any = doc
	for _, name := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return false
		}
		if at, ok = m[name]; !ok {
			return false
		}
	}
	return true
}

// at returns the file and the line on which a key is set below a table, in
// whichever of TOML's ways; without the line if it is not found.
func (f *File) at(table, key string) string {
	path := strings.Split(key, ".")
	for n := len(path) - 1; n >= 0; n-- { // names of the key that stand in the table's head
		head := strings.Trim(table+"."+strings.Join(path[:n], "."), ".")
		for m := len(path); m > n; m-- { // and those in front of the equals sign
			if line := f.line(head, strings.Join(path[n:m], ".")); line > 0 {
				return fmt.Sprintf("%s:%d", f.Path, line)
			}
		}
	}
	return f.Path
}

// line returns the line on which a key is set below a head; 0 for none.
func (f *File) line(head, key string) int {
	in, n := head == "", 0
	for line := range strings.Lines(string(f.text)) {
		n++
		text := strings.TrimSpace(line)
		if strings.HasPrefix(text, "[") {
			name, _, _ := strings.Cut(strings.Trim(text, "["), "]")
			in = strings.TrimSpace(name) == head
			continue
		}
		name, _, set := strings.Cut(text, "=")
		if in && set && strings.Trim(strings.TrimSpace(name), `"'`) == key {
			return n
		}
	}
	return 0
}
