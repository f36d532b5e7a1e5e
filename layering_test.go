package main

import (
	"go/build"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the dependency diagram of docs/design.md. A package may import
// the packages on its line and nothing else of this module.
var mayImport = map[string][]string{
	// the program
	".": {"internal/cli"},
	"internal/cli": {
		"backup", "maildir", "mailbox", "migrate", "internal/config", "internal/credential", "internal/demo", "internal/filter", "internal/fingerprint", "internal/guess",
		"internal/imapconn", "internal/imapwire", "internal/lookup", "internal/monitor", "internal/netconn", "internal/pop3conn", "internal/pop3wire", "internal/provider", "internal/quantity", "internal/report",
		"internal/replace", "internal/retry", "internal/sasl", "internal/signin", "trim",
	},

	// the engine: no network, no disk, no terminal
	"backup": {"mailbox", "internal/filter", "internal/fingerprint", "internal/report", "internal/retry"},

	"migrate": {"mailbox", "internal/filter", "internal/fingerprint", "internal/repair", "internal/report", "internal/retry"},

	"trim": {"mailbox", "internal/filter", "internal/fingerprint", "internal/report", "internal/retry"},

	// the edges, each protocol on its wire
	"maildir":           {"mailbox", "internal/fingerprint", "internal/lock"},
	"internal/imapconn": {"mailbox", "internal/imapwire", "internal/netconn", "internal/retry", "internal/sasl"},
	"internal/pop3conn": {"mailbox", "internal/credential", "internal/netconn", "internal/pop3wire", "internal/retry", "internal/sasl"},
	"internal/imapwire": {"mailbox", "internal/credential", "internal/netconn", "internal/retry", "internal/sasl"},
	"internal/pop3wire": {"internal/credential", "internal/netconn", "internal/retry", "internal/sasl"},
	"internal/sasl":     {"internal/credential"},
	"internal/netconn":  {"internal/retry"},
	"internal/config":   {"internal/credential", "internal/guess", "internal/quantity"},
	"internal/lookup":   {"internal/provider"},
	"internal/signin":   {"internal/credential", "internal/lock"},
	"internal/monitor":  {"internal/replace"},
	"internal/demo":     {},

	// the words
	"mailbox":              {},
	"internal/credential":  {"internal/replace"},
	"internal/filter":      {"mailbox"},
	"internal/fingerprint": {},
	"internal/guess":       {},
	"internal/lock":        {},
	"internal/provider":    {},
	"internal/quantity":    {},
	"internal/repair":      {},
	"internal/replace":     {},
	"internal/report":      {"mailbox"},
	"internal/retry":       {},

	// servers for tests
	"internal/mailtest": {},
}

// homes says which package may import an outside module.
var homes = map[string][]string{
	"github.com/emersion/go-imap":    {"internal/imapconn", "internal/demo"},
	"github.com/knadh/go-pop3":       {"internal/pop3conn"},
	"github.com/emersion/go-maildir": {"maildir"},
	"github.com/emersion/go-message": {"internal/fingerprint"},
	"github.com/emersion/go-sasl":    {"internal/sasl"},
	"github.com/xdg-go/scram":        {"internal/sasl"},
	"github.com/klauspost/compress":  {"internal/imapwire"},
	"github.com/urfave/cli":          {"internal/cli"},
	"github.com/dustin/go-humanize":  {"internal/cli"},
	"github.com/google/uuid":         {"internal/cli"},
	"github.com/pelletier/go-toml":   {"internal/config", "maildir"},
	"golang.org/x/net":               {"internal/lookup", "internal/netconn"}, // names, and proxies
	"golang.org/x/oauth2":            {"internal/signin"},
	"golang.org/x/term":              {"internal/cli"},
	"golang.org/x/time":              {"internal/netconn"},
	"golang.org/x/sys":               {"maildir"},
	"github.com/zalando/go-keyring":  {"internal/credential"},
	"modernc.org/sqlite":             {"maildir"},
}

func TestPackagesImportOnlyDownwards(t *testing.T) {
	const module = "mailstow/"
	err := filepath.WalkDir(".", func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); name != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
			return filepath.SkipDir
		}
		pkg, err := build.ImportDir(dir, 0)
		if err != nil {
			return nil // no Go files here
		}
		allowed, known := mayImport[filepath.ToSlash(dir)]
		if !known {
			t.Errorf("%s: not in the dependency diagram", dir)
		}
		for _, imp := range pkg.Imports {
			if local, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, local) {
				t.Errorf("%s must not import %s", dir, local)
			}
			for lib, in := range homes {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(in, filepath.ToSlash(dir)) {
					t.Errorf("%s must not import %s; only %s may", dir, imp, strings.Join(in, " and "))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
