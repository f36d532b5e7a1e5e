package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/provider"
)

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:      "config",
		Category:  other,
		Usage:     "which settings are in force, and where each is from",
		ArgsUsage: "show|path|check [ACCOUNT]...",
		Description: `  mailstow config show gmail         # each setting, and where it is from
  mailstow config path               # which file is read
  mailstow config check              # find mistakes; asks no server

Secrets are not shown. An option counts before the environment, that before the
account, that before [defaults], that before what is known of the provider.`,
		Flags:  slices.Concat([]cli.Flag{text("to", "archive `DIR`", "t"), text("via", "`PROTOCOL` of an account that has both: imap, pop3, or auto (imap)"), &cli.IntFlag{Name: "connections", Usage: "`N` connections to an account at the same time"}, text("bwlimit", "read at most `SIZE` a second from an account")}, wantedFlags(), loginFlags()),
		Action: p.config,
	}
}

func (p *program) config(c *cli.Context) error {
	verb, names := c.Args().First(), c.Args().Tail()
	p.still = true
	switch verb {
	case "path":
		return p.configPath(c)
	case "check":
		return p.configCheck(c)
	case "show":
		return p.configShow(c, names)
	}
	return &usageError{text: "`mailstow config` is show, path or check", hint: "mailstow config show ACCOUNT"}
}

// configPath tells which file is read, or where one is looked for.
func (p *program) configPath(c *cli.Context) error {
	paths := config.Paths(p.Getenv)
	if path := c.String("config"); path != "" {
		paths = []string{path}
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			fmt.Fprintln(p.Stdout, path)
			return nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return configFailed(err.Error(), "")
		}
	}
	return configFailed("there is no config file (looked for "+strings.Join(paths, ", ")+")", "mailstow init makes one")
}

// configCheck looks for mistakes.
func (p *program) configCheck(c *cli.Context) error {
	cfg, err := p.readConfig(c)
	if err != nil {
		return err
	}
	if cfg == nil {
		return p.configPath(c)
	}
	root := p.archiveRoot(c, cfg)
	var all []*account
	for _, set := range cfg.Accounts {
		a, err := p.configured(c, root, set)
		switch {
		case errors.Is(err, errNotLookedUp):
		case err != nil:
			return err
		default:
			all = append(all, a)
		}
	}
	if err := apart(all); err != nil {
		return err
	}
	if !c.Bool("quiet") {
		fmt.Fprintf(p.Stdout, "%s: no mistakes; %d accounts\n", cfg.Path, len(cfg.Accounts))
	}
	return nil
}

// setting is a setting that is in force.
type setting struct{ key, value, from string }

func (p *program) configShow(c *cli.Context, names []string) error {
	cfg, err := p.readConfig(c)
	if err != nil {
		return err
	}
	if cfg == nil {
		return p.configPath(c)
	}
	var lines *jsonLines
	if c.Bool("json") {
		lines = newJSONLines(p.Stdout)
	}
	for _, name := range names {
		if _, ok := cfg.Account(name); !ok {
			return configFailed(fmt.Sprintf("there is no account %q in %s", name, cfg.Path), "mailstow config show lists them all")
		}
	}
	first := true
	for _, set := range cfg.Accounts {
		if len(names) > 0 && !slices.Contains(names, set.Name) && !slices.Contains(names, set.Address) {
			continue
		}
		all := p.settings(c, cfg, set)
		if lines != nil {
			for _, s := range all {
				lines.write("setting", object{"account": set.Name, "key": s.key, "value": s.value, "from": s.from})
			}
			continue
		}
		if !first {
			fmt.Fprintln(p.Stdout)
		}
		first = false
		t := table{head: []string{set.Name, "", ""}}
		for _, s := range all {
			t.add("  "+s.key, show(s.value), show(s.from))
		}
		fmt.Fprint(p.Stdout, t.String())
	}
	return nil
}

// settings lists what is in force for an account.
func (p *program) settings(c *cli.Context, cfg *config.File, set config.Account) (all []setting) {
	const builtIn = "built in"
	name := set.Name
	add := func(key, value, usual string) {
		from := cfg.Where(name, key)
		if option := strings.ReplaceAll(key, "_", "-"); c.IsSet(option) {
			from = "--" + option
		}
		if from == "" {
			from = usual
		}
		if value != "" {
			all = append(all, setting{key, value, from})
		}
	}
	asWritten := set
	a, err := p.configured(c, p.archiveRoot(c, cfg), set)
	add("address", set.Address, "")
	switch {
	case errors.Is(err, errNotLookedUp):
		add("server", "is looked up when it is needed", "the address")
	case err != nil:
		add("server", "? "+explain(c.Context, "", err).what, "")
	default:
		p.addServer(add, a, asWritten)
	}
	if err != nil {
		return all
	}
	if a.endpoint.Proxy != nil {
		add("proxy", a.endpoint.Proxy.Redacted(), "ALL_PROXY")
	}
	add("user", a.user, "the server's URL, or the address")
	login, state, _ := p.loginState(c, a, set)
	add("auth", login, builtIn)
	add("password", "***, "+state, "")
	where := cfg.Where(name, "archive")
	switch {
	case c.String("to") != "":
		where = "--to"
	case where == "" && p.Getenv("MAILSTOW_ARCHIVE") != "":
		where = "MAILSTOW_ARCHIVE"
	case where == "" && cfg.WhereTop("archive") != "":
		where = cfg.WhereTop("archive")
	}
	add("archive", a.dir, "")
	all[len(all)-1].from = first(where, builtIn)
	f := a.filter(time.Now())
	add("folders", strings.Join(f.Folders, ", "), "")
	add("include", strings.Join(f.Include, ", "), "")
	add("exclude", strings.Join(f.Exclude, ", "), "")
	if f.MaxSize > 0 {
		add("max_size", octets(f.MaxSize), "")
	}
	usual := builtIn
	if a.provider != nil && a.provider.Limits.Connections > 0 {
		usual = "provider " + a.provider.Name
	}
	add("connections", fmt.Sprint(a.connections), usual)
	if set.Bandwidth > 0 || c.IsSet("bwlimit") {
		add("bwlimit", first(c.String("bwlimit"), octets(set.Bandwidth))+" a second", "")
	}
	for _, b := range []struct {
		key    string
		octets int64
		set    int64
	}{{"daily_download", a.download, set.DailyDownload}, {"daily_upload", a.upload, set.DailyUpload}} {
		if b.octets > 0 {
			add(b.key, octets(b.octets), "provider")
		} else if b.set < 0 {
			add(b.key, "off", "")
		}
	}
	add("timeout", a.endpoint.Timeout.String(), builtIn)
	add("keep_newer_than", first(a.keepNewer, "30d"), builtIn)
	add("trim.quota", a.trim.Quota, "")
	add("trim.until", a.trim.Until, "")
	add("trim.older_than", a.trim.OlderThan, "")
	add("trim.max_delete", first(a.trim.MaxDelete, "25%"), builtIn+", with --yes")
	for key, yes := range map[string]bool{"trim.include_flagged": a.trim.IncludeFlagged, "trim.include_synced": a.trim.IncludeSynced, "trim.include_unread": a.trim.IncludeUnread, "trim.trash": a.trim.Trash} {
		if yes {
			add(key, "true", "")
		}
	}
	add("trim.before", commandLine(a.trim.Before), "")
	return all
}

// addServer lists where an account's server is.
func (p *program) addServer(add func(key, value, usual string), a *account, set config.Account) {
	if a.provider != nil {
		by := "its server"
		if _, domain, ok := cutAddress(set.Address); ok && provider.OfDomain(domain) == a.provider {
			by = "its address"
		}
		add("provider", a.provider.Name, by)
	}
	for _, s := range []struct{ key, url string }{{"server", set.Server}, {"imap", set.IMAP}, {"pop3", set.POP3}} {
		add(s.key, redacted(s.url), "")
	}
	if set.Server == "" && set.IMAP == "" && set.POP3 == "" {
		from := "the list of providers"
		if known := p.servers().remembered(set.Address, time.Time{}); known != nil && set.Provider == "" {
			from = known[0].By + ", remembered"
		}
		add("server", a.endpoint.Addr, from)
	}
}
