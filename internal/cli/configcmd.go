package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/internal/provider"
	"mailstow/mailbox"
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
		Flags:  slices.Concat([]cli.Flag{text("to", "archive `DIR`", "t"), text("via", "`PROTOCOL` of an account that has both: imap, pop3, or auto (imap)"), number("connections", "`N` connections to an account at the same time", 0), text("bwlimit", "read at most `SIZE` a second from an account")}, wantedFlags(), loginFlags()),
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
			if c.Bool("json") {
				newJSONLines(p.Stdout).write("config", object{"path": path})
			} else {
				fmt.Fprintln(p.Stdout, path)
			}
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
	checks := map[string]credential.Secret{"[notify]": cfg.Notify.Healthchecks}
	for _, set := range cfg.Accounts {
		checks["[accounts."+set.Name+"]"] = set.Healthchecks
	}
	for table, check := range checks {
		if u, err := url.Parse(check.Reveal()); !check.IsEmpty() && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
			return configFailed("healthchecks of "+table+" is no address of a check", "write it like https://hc-ping.com/...")
		}
	}
	switch {
	case c.Bool("json"):
		newJSONLines(p.Stdout).write("config", object{"path": cfg.Path, "accounts": cfg.Names()})
	case !c.Bool("quiet"):
		some := fmt.Sprintf("%d accounts", len(cfg.Accounts))
		if len(cfg.Accounts) == 1 {
			some = "1 account"
		}
		fmt.Fprintf(p.Stdout, "%s: no mistakes; %s\n", cfg.Path, some)
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
			return configFailed(fmt.Sprintf("there is no account %q in %s", redacted(name), cfg.Path), "mailstow config show lists them all")
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
			t.add("  "+s.key, show(p.short(s.value)), show(p.short(s.from)))
		}
		fmt.Fprint(p.Stdout, t.String())
	}
	return nil
}

// settings lists what is in force for an account.
func (p *program) settings(c *cli.Context, cfg *config.File, set config.Account) []setting {
	l := &settingList{c: c, cfg: cfg, account: set.Name}
	asWritten := set
	a, err := p.configured(c, p.archiveRoot(c, cfg), set)
	l.add("address", set.Address, "")
	switch {
	case errors.Is(err, errNotLookedUp):
		l.add("server", "is looked up when it is needed", "the address")
	case err != nil:
		l.add("server", "? "+explain(c.Context, "", err).what, "")
	default:
		p.addServer(l, a, asWritten)
		p.addLogin(l, a, set)
		p.addArchive(l, a)
		l.addWanted(a)
		l.addLimits(a, set)
		l.addTrim(a)
		l.addPlacing(a)
	}
	if !set.Healthchecks.IsEmpty() {
		l.add("healthchecks", masked, "")
	}
	return l.all
}

// settingList gathers settings, and finds out where each is from.
type settingList struct {
	c       *cli.Context
	cfg     *config.File
	account string
	all     []setting
}

// Where a setting is from that nobody has made, and what is shown of a secret.
const (
	builtIn = "built in"
	masked  = "***"
)

// add adds a setting that has a value; usual says where it is from if neither an
// option nor the config file says it.
func (l *settingList) add(key, value, usual string) {
	from := l.cfg.Where(l.account, key)
	if option := strings.ReplaceAll(key, "_", "-"); l.c.IsSet(option) {
		from = "--" + option
	}
	l.addFrom(key, value, first(from, usual))
}

func (l *settingList) addFrom(key, value, from string) {
	if value != "" {
		l.all = append(l.all, setting{key, value, from})
	}
}

// addServer lists where an account's server is.
func (p *program) addServer(l *settingList, a *account, set config.Account) {
	if a.provider != nil {
		by := "its server"
		if _, domain, ok := cutAddress(set.Address); ok && provider.OfDomain(domain) == a.provider {
			by = "its address"
		}
		l.add("provider", a.provider.Name, by)
	}
	l.add("server", redacted(set.Server), "")
	l.add("imap", redacted(set.IMAP), "")
	l.add("pop3", redacted(set.POP3), "")
	if set.Server == "" && set.IMAP == "" && set.POP3 == "" {
		from := "the list of providers"
		if known := p.servers().remembered(set.Address, time.Time{}); known != nil && set.Provider == "" {
			from = known[0].By + ", remembered"
		}
		l.add("server", a.endpoint.Addr, from)
	}
	l.add("timeout", a.endpoint.Timeout.String(), builtIn)
	l.add("tls_ca", set.TLSCA, "")
	l.add("tls_fingerprint", set.TLSFingerprint, "")
	l.add("tls_cert", set.TLSCert, "")
	l.add("tls_key", set.TLSKey, "")
	if a.endpoint.Proxy != nil {
		l.addFrom("proxy", a.endpoint.Proxy.Redacted(), "ALL_PROXY")
	}
}

// addLogin lists who logs in, and how.
func (p *program) addLogin(l *settingList, a *account, set config.Account) {
	l.add("user", a.user, "the server's URL, or the address")
	l.add("auth_user", a.authUser, "")
	login, state, _ := p.loginState(l.c, a, set)
	l.add("auth", login, builtIn)
	from := p.passwordOutside(l.c, set)
	for _, key := range []string{"password", "password_command", "password_file", "token_command"} {
		from = first(from, l.cfg.Where(l.account, key))
	}
	l.addFrom("password", masked+", "+state, from)
	if !slices.Contains(signIns, first(l.c.String("auth"), set.Auth)) {
		return
	}
	kind := ""
	if a.provider != nil && a.provider.SignIn != nil {
		kind = a.provider.SignIn.Kind
	}
	o, secret := set.OAuth2.Or(set.Applications[kind]), ""
	if !o.ClientSecret.IsEmpty() {
		secret = masked
	}
	for _, s := range []struct{ key, value string }{
		{"client_id", o.ClientID}, {"client_secret", secret}, {"client_secret_command", commandLine(o.Command)}, {"tenant", o.Tenant}, {"scopes", strings.Join(o.Scopes, ", ")},
		{"auth_url", o.AuthURL}, {"token_url", o.TokenURL}, {"device_url", o.DeviceURL}, {"key_file", o.KeyFile},
	} {
		l.add("oauth2."+s.key, s.value, l.cfg.WhereTop("oauth2."+kind+"."+s.key))
	}
}

// addArchive lists where an account's archive is.
func (p *program) addArchive(l *settingList, a *account) {
	from := l.cfg.Where(l.account, "archive")
	switch {
	case l.c.String("to") != "":
		from = "--to"
	case from == "" && p.Getenv("MAILSTOW_ARCHIVE") != "":
		from = "MAILSTOW_ARCHIVE"
	case from == "":
		from = first(l.cfg.WhereTop("archive"), builtIn)
	}
	l.addFrom("archive", a.dir, from)
}

// addWanted lists which mail is wanted.
func (l *settingList) addWanted(a *account) {
	f := a.filter(time.Now())
	l.add("folders", strings.Join(f.Folders, ", "), "--folder")
	l.add("include", strings.Join(f.Include, ", "), "")
	l.add("exclude", strings.Join(f.Exclude, ", "), "")
	if f.MaxSize > 0 {
		l.add("max_size", octets(f.MaxSize), "")
	}
}

// addLimits lists how much an account's server is asked.
func (l *settingList) addLimits(a *account, set config.Account) {
	switch {
	case a.protocol == mailbox.POP3:
		l.addFrom("connections", fmt.Sprint(a.connections), "POP3 has one at a time")
	case a.provider != nil && a.provider.Limits.Connections > 0:
		l.add("connections", fmt.Sprint(a.connections), "provider "+a.provider.Name)
	default:
		l.add("connections", fmt.Sprint(a.connections), builtIn)
	}
	if set.Bandwidth > 0 || l.c.IsSet("bwlimit") {
		l.add("bwlimit", first(l.c.String("bwlimit"), octets(set.Bandwidth))+" a second", "")
	}
	for _, b := range []struct {
		key         string
		octets, set int64
	}{{"daily_download", a.download, set.DailyDownload}, {"daily_upload", a.upload, set.DailyUpload}} {
		if b.octets > 0 {
			l.add(b.key, octets(b.octets), "provider")
		} else if b.set < 0 {
			l.add(b.key, "off", "")
		}
	}
}

// addTrim lists how room is made.
func (l *settingList) addTrim(a *account) {
	l.add("keep_newer_than", first(a.keepNewer, "30d"), builtIn)
	l.add("trim.quota", a.trim.Quota, "")
	l.add("trim.until", a.trim.Until, "")
	l.add("trim.older_than", a.trim.OlderThan, "")
	l.add("trim.max_delete", first(a.trim.MaxDelete, "25%"), builtIn+", with --yes")
	for _, s := range []struct {
		key string
		yes bool
	}{{"include_flagged", a.trim.IncludeFlagged}, {"include_synced", a.trim.IncludeSynced}, {"include_unread", a.trim.IncludeUnread}, {"trash", a.trim.Trash}} {
		if s.yes {
			l.add("trim."+s.key, "true", "")
		}
	}
	l.add("trim.before", commandLine(a.trim.Before), "")
}

// addPlacing lists where mail goes that is stored on the account's server.
func (l *settingList) addPlacing(a *account) {
	for _, from := range slices.Sorted(maps.Keys(a.mapping.Renamed)) {
		l.addFrom("map", from+" -> "+a.mapping.Renamed[from], l.cfg.Where(l.account, "map"))
	}
	l.add("under", a.mapping.Under, "")
	if a.mapping.NoRoles {
		l.add("automap", "false", "")
	}
}
