package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/internal/lookup"
	"mailstow/internal/provider"
	"mailstow/mailbox"
)

func (p *program) initCommand() *cli.Command {
	return &cli.Command{
		Name:      "init",
		Category:  everyDay,
		Usage:     "find an account's server, try the login, and write it down",
		ArgsUsage: "[ADDRESS]",
		Description: `  mailstow init me@example.org       # asks what it has to know
  mailstow init --print-timer        # a systemd timer and a cron line to copy

What is found is added to the config file, which is never rewritten. Nothing is
written before a login has worked.`,
		Flags: []cli.Flag{
			yes("print-timer", "print a systemd service and timer, and a cron line"),
			yes("offline", "look servers up in the built-in list alone"),
			text("name", "call the account `NAME` (default: by its provider)"),
			text("to", "archive `DIR`", "t"),
			text("tls-ca", "also trust the CA certificates in `FILE`"),
			yes("allow-insecure", "let +insecure URLs reach other machines"),
		},
		Action: p.init,
	}
}

func (p *program) init(c *cli.Context) error {
	if c.Bool("print-timer") {
		return p.printTimer(c)
	}
	if c.NArg() > 1 {
		return &usageError{text: "`mailstow init` takes one address", hint: "mailstow init me@example.org"}
	}
	tty, err := p.person(c)
	if err != nil {
		return configFailed("init asks questions, and there is nobody to ask", "write the account into "+p.configFile(c)+"; docs: mailstow.toml(5)")
	}
	defer tty.Close()
	w := &wizard{p: p, c: c, person: tty}
	if w.cfg, err = p.readConfig(c); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be named before it is there
		return err
	}
	return w.run(c.Context, c.Args().First())
}

// configFile returns the config file that is read, or would be.
func (p *program) configFile(c *cli.Context) string {
	paths := config.Paths(p.Getenv)
	if path := c.String("config"); path != "" {
		paths = []string{path}
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return paths[0]
}

// wizard finds and tries what an account needs, and writes it down.
type wizard struct {
	p *program
	c *cli.Context
	*person
	cfg *config.File // nil if there is none yet

	lines []string // of the account's table
	apps  []string // tables of applications
}

// ask asks for a line; usual is what an empty one means.
func (w *wizard) ask(question, usual string) (string, error) {
	if usual != "" {
		question += " [" + usual + "]"
	}
	line, err := w.line(w.c.Context, question+": ")
	if err != nil {
		return "", errors.New("nothing was written")
	}
	return first(line, usual), nil
}

// choose has one of several chosen, and returns its place.
func (w *wizard) choose(question string, options []string) (int, error) {
	if len(options) == 1 {
		return 0, nil
	}
	w.say("\n%s", question)
	for i, o := range options {
		w.say("  %d  %s", i+1, o)
	}
	for {
		answer, err := w.ask("Choose", "1")
		if err != nil {
			return 0, err
		}
		for i := range options {
			if answer == fmt.Sprint(i+1) {
				return i, nil
			}
		}
	}
}

func (w *wizard) run(ctx context.Context, address string) (err error) {
	for address == "" {
		if address, err = w.ask("Address", ""); err != nil {
			return err
		}
	}
	if w.cfg != nil && slices.ContainsFunc(w.cfg.Accounts, func(a config.Account) bool { return a.Address == address }) {
		return configFailed(fmt.Sprintf("%s is in %s already", address, w.cfg.Path), "mailstow check, or edit that file")
	}
	set := config.Account{Address: address}
	whose, err := w.findServer(ctx, &set)
	if err != nil {
		return err
	}
	if set.Name, err = w.name(address, whose); err != nil {
		return err
	}
	w.lines = append([]string{fmt.Sprintf("[accounts.%s]", set.Name), fmt.Sprintf("address = %s", quoteTOML(address))}, w.lines...)
	if ca := w.c.String("tls-ca"); ca != "" {
		if ca, err = filepath.Abs(ca); err != nil {
			return err
		}
		w.lines = append(w.lines, "tls_ca = "+quoteTOML(ca))
	}
	a, err := w.login(ctx, set, whose)
	if err != nil {
		return err
	}
	if err := w.describe(ctx, a); err != nil {
		return err
	}
	return w.write(a)
}

// findServer finds the account's server, or asks for it.
func (w *wizard) findServer(ctx context.Context, set *config.Account) (*provider.Provider, error) {
	find := w.p.finder()
	if w.c.Bool("offline") {
		find = (&lookup.Finder{Offline: true}).Find
	}
	found, err := find(ctx, set.Address)
	switch {
	case errors.Is(err, lookup.ErrNone):
		w.say("No mail server was found for %s.", show(set.Address))
		return w.typedServer(set)
	case err != nil:
		return nil, configFailed(err.Error(), "mailstow init me@example.org")
	}
	s := found[0]
	w.say("%s: %s", show(s.By), show(s.URL))
	if !s.Vouched {
		answer, err := w.ask("Nothing vouches for that but the domain name system. Is it right? y/n", "n")
		if err != nil || !strings.HasPrefix(strings.ToLower(answer), "y") {
			return nil, errors.Join(configFailed("nothing was written", "find out the server's name, and write it into the config file"), err)
		}
	}
	_, domain, _ := cutAddress(set.Address)
	set.Server, set.User = s.URL, s.User
	switch {
	case s.Provider != nil && provider.OfDomain(domain) == s.Provider: // the address says it all
	case s.Provider != nil:
		set.Provider = s.Provider.Name
		w.lines = append(w.lines, "provider = "+quoteTOML(s.Provider.Name))
	default:
		w.lines = append(w.lines, "server = "+quoteTOML(s.URL))
		if s.User != set.Address {
			w.lines = append(w.lines, "user = "+quoteTOML(s.User))
		}
	}
	return s.Provider, nil
}

// typedServer asks for the account's server, until it is one. The provider is known
// by the server, or by its name.
func (w *wizard) typedServer(set *config.Account) (*provider.Provider, error) {
	for {
		text, err := w.ask("Its server, as imaps://HOST or pop3s://HOST", "")
		if err != nil {
			return nil, err
		}
		tried := *set
		whose := provider.Named(text)
		if whose != nil {
			tried.Provider = whose.Name
		} else {
			tried.Server = text
			if u, err := url.Parse(text); err == nil {
				whose = provider.OfHost(u.Hostname())
			}
		}
		if _, err := w.p.configured(w.c, w.p.archiveRoot(w.c, w.cfg), tried); err != nil {
			pr := explain(w.c.Context, "", err)
			pr.print(w.out)
			continue
		}
		if whose != nil {
			tried.Provider = whose.Name
			w.lines = append(w.lines, "provider = "+quoteTOML(whose.Name))
		}
		if tried.Server != "" {
			w.lines = append(w.lines, "server = "+quoteTOML(tried.Server))
		}
		*set = tried
		return whose, nil
	}
}

var nameChars = regexp.MustCompile(`[^a-z0-9_-]+`)

// name decides what the account is called.
func (w *wizard) name(address string, whose *provider.Provider) (string, error) {
	_, domain, _ := cutAddress(address)
	base, _, _ := strings.Cut(domain, ".")
	if whose != nil {
		base = whose.Name
	}
	base = first(nameChars.ReplaceAllString(strings.ToLower(base), "-"), "mail")
	taken := func(name string) bool {
		return w.cfg != nil && slices.ContainsFunc(w.cfg.Accounts, func(a config.Account) bool { return a.Name == name })
	}
	usual := base
	for n := 2; taken(usual); n++ {
		usual = fmt.Sprintf("%s-%d", base, n)
	}
	name := w.c.String("name")
	for {
		var err error
		if name == "" {
			if name, err = w.ask("Name for this account", usual); err != nil {
				return "", err
			}
		}
		switch {
		case taken(name):
			w.say("There is an account %s already.", show(name))
		case nameChars.MatchString(name):
			w.say("Use small letters, digits, _ and -.")
		default:
			return name, nil
		}
		name = ""
	}
}

// The ways to log in that a person can choose.
const (
	withPassword = "password"
	withBrowser  = "OAuth2"
	withCommand  = "token command"
)

// login has the person choose a way to log in, and tries it.
func (w *wizard) login(ctx context.Context, set config.Account, whose *provider.Provider) (*account, error) {
	var ways, texts []string
	if whose == nil || whose.Password != provider.NoPassword {
		kind := "password"
		if whose != nil && whose.Password != provider.AccountPassword {
			kind = string(whose.Password)
		}
		ways, texts = append(ways, withPassword), append(texts, kind)
	}
	if whose != nil && whose.SignIn != nil {
		ways = append(ways, withBrowser, withCommand)
		texts = append(texts, "OAuth2           sign in with a browser; needs a client ID of your own", "token command    another program has signed in: oama, mutt_oauth2.py, pizauth, ...")
	}
	n, err := w.choose("How should mailstow log in?", texts)
	if err != nil {
		return nil, err
	}
	switch ways[n] {
	case withBrowser:
		return w.loginWithBrowser(ctx, set, whose)
	case withCommand:
		return w.loginWithToken(ctx, set)
	}
	return w.loginWithPassword(ctx, set, whose)
}

// try logs in as the settings say.
func (w *wizard) try(ctx context.Context, set config.Account) (*account, error) {
	a, err := w.p.configured(w.c, w.p.archiveRoot(w.c, w.cfg), set)
	if err != nil {
		return nil, err
	}
	l := &login{account: a}
	defer l.close()
	src, err := l.connect(ctx)
	if err != nil {
		if !errors.As(err, new(*problemError)) {
			err = &serverError{err}
		}
		return nil, err
	}
	src.Close(true)
	return a, nil
}

// maxAsked is how often a password is asked for.
const maxAsked = 3

func (w *wizard) loginWithPassword(ctx context.Context, set config.Account, whose *provider.Provider) (*account, error) {
	a, err := w.p.configured(w.c, w.p.archiveRoot(w.c, w.cfg), set)
	if err == nil {
		err = a.reach(ctx)
	}
	if err != nil {
		return nil, err
	}
	question := fmt.Sprintf("Password for %s", show(first(set.User, set.Address)))
	if whose != nil && whose.Page != "" && whose.Password != provider.AccountPassword {
		w.say("\n%s wants an %s. Create one at %s", whose.Title, whose.Password, whose.Page)
		question = "Paste it here"
	}
	for n := 1; ; n++ {
		secret, err := w.secret(ctx, question+": ")
		if err != nil {
			return nil, err
		}
		set.Password, set.HasPassword = secret, true
		a, err := w.try(ctx, set)
		if err == nil {
			return a, w.keep(a, secret)
		}
		pr := explain(ctx, "", err)
		pr.do = strings.ReplaceAll(pr.do, "check what the config file gives", "check the password")
		pr.print(w.out)
		if pr.status != exitLogin || n == maxAsked {
			return nil, &saidError{pr.status}
		}
	}
}

// keep puts a password where the person wants it.
func (w *wizard) keep(a *account, secret credential.Secret) error {
	store := w.p.store()
	var places, texts []string
	if store.Keyring {
		places, texts = append(places, credential.InKeyring), append(texts, "the system's keyring")
	}
	if store.Dir != "" {
		places, texts = append(places, credential.InFile), append(texts, "a file that only I can read")
	}
	places, texts = append(places, "command"), append(texts, "nowhere: a command of mine prints it")
	n, err := w.choose("Where should the password be kept?", texts)
	if err != nil {
		return err
	}
	if places[n] != "command" {
		where, err := store.Save(passwordName(a.name), secret, a.servers, places[n])
		if err == nil {
			w.say("Kept in %s.", show(where))
		}
		return err
	}
	for {
		line, err := w.ask("The command (pass show mail/x, secret-tool lookup ...)", "")
		if err != nil {
			return err
		}
		got, err := credential.FromCommand(w.c.Context, passwordCommand, credential.Shell(line))
		switch {
		case err != nil:
			w.say("%s", show(err.Error()))
		case got.Reveal() != secret.Reveal():
			w.say("It prints another password than the one that worked.")
		default:
			w.lines = append(w.lines, "password_command = "+quoteTOML(line))
			return nil
		}
	}
}

func (w *wizard) loginWithBrowser(ctx context.Context, set config.Account, whose *provider.Provider) (*account, error) {
	kind := whose.SignIn.Kind
	set.Auth = byPerson
	w.lines = append(w.lines, "auth = "+quoteTOML(byPerson))
	if w.cfg != nil {
		set.Applications = w.cfg.Applications
	}
	if set.Applications[kind].ClientID == "" {
		w.say("\nAn application of your own is needed once: mailstow-oauth2(7) says how to get it.")
		app := config.OAuth2{}
		var err error
		for app.ClientID == "" {
			if app.ClientID, err = w.ask("Client ID", ""); err != nil {
				return nil, err
			}
		}
		table := []string{fmt.Sprintf("[oauth2.%s]", kind), "client_id = " + quoteTOML(app.ClientID)}
		if kind == "google" {
			if app.ClientSecret, err = w.secret(ctx, "Client secret: "); err != nil {
				return nil, err
			}
			table = append(table, "client_secret = "+quoteTOML(app.ClientSecret.Reveal()))
		}
		if kind == "microsoft" {
			if app.Tenant, err = w.ask("Tenant (common for outlook.com)", "common"); err != nil {
				return nil, err
			}
			table = append(table, "tenant = "+quoteTOML(app.Tenant))
		}
		set.Applications = map[string]config.OAuth2{kind: app}
		w.apps = append(w.apps, strings.Join(table, "\n"))
	}
	a, err := w.p.configured(w.c, w.p.archiveRoot(w.c, w.cfg), set)
	if err != nil {
		return nil, err
	}
	return a, w.p.signIn(w.c, a)
}

func (w *wizard) loginWithToken(ctx context.Context, set config.Account) (*account, error) {
	line, err := w.ask("The command that prints an access token", "")
	if err != nil {
		return nil, err
	}
	set.Auth, set.TokenCommand = "xoauth2", credential.Shell(line)
	w.lines = append(w.lines, `auth = "xoauth2"`, "token_command = "+quoteTOML(line))
	return w.try(ctx, set)
}

// describe says what the account holds.
func (w *wizard) describe(ctx context.Context, a *account) error {
	k := checkup{outcome: &outcome{account: a}}
	l := &login{account: a}
	defer l.close()
	src, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer src.Close(true)
	boxes, err := src.Mailboxes(ctx)
	if err != nil {
		return err
	}
	stores := slices.DeleteFunc(slices.Clone(boxes), func(m mailbox.Mailbox) bool {
		return m.Role == `\All` || m.Role == `\Flagged` || m.Role == `\Important`
	})
	if k.usage, err = src.(measured).Usage(ctx, stores); err != nil {
		return err
	}
	size := ""
	if k.usage.Sizes > 0 {
		size = ", " + octets(k.usage.Sizes)
	}
	w.say("\nLogin ok. %s, %s%s.", folders(len(boxes)), messages(k.usage.Messages), size)
	if n := len(boxes) - len(stores); n > 0 {
		w.say("  %s show the same mail as others; each message is downloaded once.", folders(n))
	}
	if a.download > 0 && k.usage.Sizes > a.download {
		w.say("  %s allows about %s a day: the first backup takes about %d nights. mailstow stops in time and goes on the next night.", a.provider.Title, octets(a.download), (k.usage.Sizes+a.download-1)/a.download)
	}
	if a.provider != nil && a.provider.Hides != "" {
		w.say("  %s.", a.provider.Hides)
	}
	return nil
}

// quoteTOML writes a text as TOML does.
func quoteTOML(s string) string {
	if !strings.ContainsAny(s, `"\`) && strings.IndexFunc(s, func(r rune) bool { return r < ' ' }) < 0 {
		return `"` + s + `"`
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}

// write adds the account to the config file, and says what comes next.
func (w *wizard) write(a *account) error {
	path := w.p.configFile(w.c)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return configFailed("the config file cannot be read: "+err.Error(), "")
	}
	if f, err := os.Open(path); err == nil {
		private := credential.Private(f)
		f.Close()
		if private != nil && slices.ContainsFunc(w.apps, func(table string) bool { return strings.Contains(table, "client_secret") }) {
			return configFailed("nothing was written: others can read "+path+", and a client secret would stand in it", "chmod 600 "+path)
		}
	}
	more := ""
	if len(old) == 0 {
		root := first(w.c.String("to"), w.p.Getenv("MAILSTOW_ARCHIVE"))
		if root == "" {
			if root, err = w.ask("Archive folder", "~/mail-archive"); err != nil {
				return err
			}
		}
		if !strings.HasPrefix(root, "~/") { // cron begins elsewhere
			if root, err = filepath.Abs(root); err != nil {
				return err
			}
		}
		more = "# mailstow.toml(5) says what may stand here.\n\narchive = " + quoteTOML(root) + "   # each account gets a folder in it\n"
	} else if !strings.HasSuffix(string(old), "\n") {
		more = "\n"
	}
	for _, table := range w.apps {
		more += "\n" + table + "\n"
	}
	more += "\n" + strings.Join(w.lines, "\n") + "\n"
	if err := tryConfig(path, string(old)+more, w.p.Getenv("HOME")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := appendTo(path, more); err != nil {
		return configFailed("the config file cannot be written, and is as it was: "+err.Error(), "")
	}
	name := strings.TrimSuffix(strings.TrimPrefix(w.lines[0], "[accounts."), "]")
	w.say("\nWrote [accounts.%s] to %s.", name, show(path))
	w.say("Next:\n  mailstow backup %s\n  mailstow init --print-timer        a systemd timer and a cron line to copy", name)
	return nil
}

// appendTo adds text to a file that only its owner can read, all of it or nothing.
func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = io.WriteString(f, text)
	if err = errors.Join(err, f.Sync()); err != nil {
		err = errors.Join(err, f.Truncate(fi.Size()))
	}
	return errors.Join(err, f.Close())
}

// tryConfig reads what a config file is going to be.
func tryConfig(path, text, home string) error {
	dir, err := os.MkdirTemp("", "mailstow")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	trial := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(trial, []byte(text), 0o600); err != nil {
		return err
	}
	if _, err := config.Read(trial, home); err != nil {
		return configFailed("nothing was written, as the config file would have a mistake: "+strings.ReplaceAll(err.Error(), trial, path), "")
	}
	return nil
}

// printTimer prints what runs mailstow every night.
func (p *program) printTimer(c *cli.Context) error {
	program, err := os.Executable()
	if err != nil {
		program = "/usr/local/bin/mailstow"
	}
	service, cron := program+" backup", program+" backup"
	if path := first(c.String("config"), p.Getenv("MAILSTOW_CONFIG")); path != "" {
		if path, err = filepath.Abs(path); err != nil {
			return err
		}
		service += ` --config "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(path) + `"` // systemd.service(5), COMMAND LINES
		cron += " --config '" + strings.NewReplacer("'", `'\''`, "%", `\%`).Replace(path) + "'"                        // crontab(5)
	}
	fmt.Fprintf(p.Stdout, `# ~/.config/systemd/user/mailstow.service
[Unit]
Description=Back up mail
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=%s
# stopped at a provider's daily limit: the next run goes on
SuccessExitStatus=75
NotifyAccess=main
Nice=10
IOSchedulingClass=idle
# for a system service, a password that no other user can read:
# LoadCredential=mailstow.ACCOUNT.password:/etc/mailstow/ACCOUNT.password

# ~/.config/systemd/user/mailstow.timer
[Unit]
Description=Back up mail every night

[Timer]
OnCalendar=*-*-* 03:00
RandomizedDelaySec=30m
Persistent=true

[Install]
WantedBy=timers.target

# then: systemctl --user enable --now mailstow.timer
#       loginctl enable-linger        (so that it runs while you are not logged in)

# or, in crontab -e; it prints nothing, so that cron sends no mail, when all is well:
# 0 3 * * *  %s
`, service, cron)
	return nil
}
