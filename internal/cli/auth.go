package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/internal/provider"
	"mailstow/internal/signin"
)

func (p *program) authCommand() *cli.Command {
	return &cli.Command{
		Name:      "auth",
		Category:  other,
		Usage:     "keep a password, or sign in with a browser (OAuth2)",
		ArgsUsage: "login|status|logout [ACCOUNT]...",
		Description: `  mailstow auth login gmail          # asks for the password, tries it, keeps it
  mailstow auth login m365           # auth = "oauth2": sign in with a browser
  mailstow auth login m365 --flow paste    # on a machine without a browser
  mailstow auth status               # how each account logs in, and until when
  mailstow auth logout gmail         # forget it

Passwords and sign-ins are kept in the keyring of the system or, where there is
none, in files that only you can read. Where a password command or a password
file is set, that is used.`,
		Flags: append([]cli.Flag{
			text("to", "archive `DIR`", "t"),
			text("flow", "sign in by `FLOW`: browser, paste, device (default: browser)"),
			text("keep", "keep it in the `PLACE`: keyring, file (default: the keyring if there is one)"),
			yes("no-test", "keep a password without trying it"),
			text("via", "`PROTOCOL` of an account that has both: imap, pop3, or auto (imap)"),
		}, loginFlags()...),
		Action: p.auth,
	}
}

func (p *program) auth(c *cli.Context) error {
	verb, args := c.Args().First(), c.Args().Tail()
	switch {
	case verb == "login" && len(args) == 1:
		return p.authLogin(c, args[0])
	case verb == "logout" && len(args) == 1:
		return p.authLogout(c, args[0])
	case verb == "status":
		return p.authStatus(c, args)
	case verb == "login" || verb == "logout":
		return &usageError{text: "`mailstow auth " + verb + "` needs one account", hint: "mailstow auth " + verb + " ACCOUNT"}
	}
	return &usageError{text: "`mailstow auth` is login, status or logout", hint: "mailstow auth login ACCOUNT"}
}

// authAccount returns an account that is named.
func (p *program) authAccount(c *cli.Context, name string) (*account, error) {
	cfg, err := p.readConfig(c)
	if err != nil {
		return nil, err
	}
	return p.account(c, cfg, p.archiveRoot(c, cfg), name)
}

func (p *program) authLogin(c *cli.Context, name string) error {
	if keep := c.String("keep"); keep != credential.Anywhere && keep != credential.InFile && keep != credential.InKeyring {
		return &usageError{text: fmt.Sprintf("--keep %q: there is keyring and file", keep)}
	}
	if c.String("keep") == credential.InKeyring && !p.store().Keyring {
		return configFailed("there is no keyring that can be asked here", "--keep file")
	}
	a, err := p.authAccount(c, name)
	if err != nil {
		return err
	}
	switch {
	case a.signIn != nil:
		return p.signIn(c, a)
	case a.changing, a.method == "external":
		return configFailed(a.name+" logs in without anything that could be kept", "mailstow check "+a.arg+" tries it")
	}
	return p.keepPassword(c, a)
}

// keepPassword asks for a password, tries it, and keeps it.
func (p *program) keepPassword(c *cli.Context, a *account) error {
	var secret credential.Secret
	var err error
	switch {
	case c.String("password-command") != "" || c.String("password-file") != "":
		secret, err = a.password(c.Context)
	default:
		if a.provider != nil && a.provider.Page != "" && a.provider.Password != provider.AccountPassword && a.provider.Password != provider.NoPassword {
			fmt.Fprintf(p.Stderr, "%s wants an %s: create one at %s\n", a.provider.Title, a.provider.Password, a.provider.Page)
		}
		if p.mayAsk(c) && !c.Bool("no-test") {
			if err := a.reach(c.Context); err != nil {
				return err
			}
		}
		secret, err = p.askSecret(c, fmt.Sprintf("Password for %s on %s: ", show(a.user), a.host),
			configFailed("there is nobody to ask for the password", "--password-file FILE (- is standard input), or --password-command CMD"))
	}
	if err != nil {
		return err
	}
	if !c.Bool("no-test") {
		src, err := a.open(secret)(c.Context)
		if err != nil {
			if !errors.As(err, new(*problemError)) {
				err = &serverError{err}
			}
			pr := explain(c.Context, a.name, err)
			pr.print(p.Stderr)
			fmt.Fprintln(p.Stderr, "Nothing was kept.")
			return &saidError{pr.status}
		}
		src.Close(true)
	}
	where, err := p.store().Save(passwordName(a.name), secret, a.servers, c.String("keep"))
	if err != nil {
		return err
	}
	if !c.Bool("quiet") {
		fmt.Fprintf(p.Stdout, "%s: kept in %s\n", show(a.name), show(where))
	}
	return nil
}

// signIn has the person sign in.
func (p *program) signIn(c *cli.Context, a *account) error {
	tokens := a.signIn()
	app, err := tokens.Application(c.Context)
	if err != nil {
		return err
	}
	var grant *signin.Grant
	switch flow := first(c.String("flow"), "browser"); flow {
	case "browser":
		grant, err = app.Browser(c.Context, func(address string) { p.sendToBrowser(a, address) })
	case "paste":
		grant, err = app.Paste(c.Context, func(address string) {
			fmt.Fprintf(p.Stderr, "Open this in a browser anywhere, and sign in as %s:\n\n  %s\n\nIn the end it shows a page that cannot be opened. Paste its address here.\n", show(app.Address), address)
		}, func() (string, error) { return p.askLine(c, "Address: ") })
	case "device":
		grant, err = app.FromDevice(c.Context, func(address, code string) {
			fmt.Fprintf(p.Stderr, "Open %s in a browser anywhere, type this code, and sign in as %s:\n\n  %s\n\nWaiting...\n", show(address), show(app.Address), show(code))
		})
	default:
		return &usageError{text: fmt.Sprintf("--flow %q: there is browser, paste and device", flow)}
	}
	if err != nil {
		return a.signInFailed(err)
	}
	renew := a.tokens
	a.tokens = nil // this one has to do
	src, err := a.open(credential.NewSecret(grant.Access))(c.Context)
	a.tokens = renew
	if err != nil { // the account may not be the one that signed in
		var pr *problemError
		if !errors.As(err, &pr) {
			return &serverError{err}
		}
		pr.problem.what = "the sign-in worked, and the server does not let it in: " + pr.problem.what
		pr.problem.do = "sign in as " + app.Address + "; see that IMAP is switched on for the mailbox, and that the application has the permission for it"
		return pr
	}
	src.Close(true)
	where, err := tokens.Keep(c.Context, grant, a.servers, c.String("keep"))
	if err != nil {
		return err
	}
	if !c.Bool("quiet") {
		fmt.Fprintf(p.Stdout, "%s: signed in; kept in %s\n", show(a.name), show(where))
	}
	return nil
}

// sendToBrowser opens an address in the person's browser, and shows it.
func (p *program) sendToBrowser(a *account, address string) {
	fmt.Fprintf(p.Stderr, "Sign in as %s with the browser. If none opens, open this in one on this machine:\n\n  %s\n\n", show(first(a.address, a.user)), address)
	if from := p.Getenv("SSH_CONNECTION"); from != "" {
		fmt.Fprintln(p.Stderr, "You are here over SSH: the browser has to be on this machine, or use --flow paste.")
		return
	}
	if p.terminal(p.Stdin) {
		browser := p.Getenv("BROWSER")
		if browser == "" {
			browser = map[bool]string{true: "open", false: "xdg-open"}[runtime.GOOS == "darwin"]
		}
		if cmd := exec.Command(browser, address); cmd.Start() == nil {
			go cmd.Wait()
		}
	}
}

// askLine asks the person at the terminal or, where there is none, reads standard
// input.
func (p *program) askLine(c *cli.Context, question string) (string, error) {
	p.asking.Lock()
	defer p.asking.Unlock()
	var line string
	tty, err := p.person(c)
	if err == nil {
		defer tty.Close()
		line, err = tty.line(c.Context, question)
	} else {
		line, err = answer(c.Context, func() (string, error) { return bufio.NewReader(p.Stdin).ReadString('\n') })
	}
	if strings.TrimSpace(line) == "" {
		return "", errors.Join(configFailed("nothing was typed", ""), err)
	}
	return line, nil
}

func (p *program) authLogout(c *cli.Context, name string) error {
	if name == "" {
		return &usageError{text: "an account has an empty name"}
	}
	cfg, err := p.readConfig(c)
	if err != nil {
		return err
	}
	if set, ok := cfg.Account(name); ok {
		name = set.Name
	} else if strings.Contains(name, "://") {
		a, err := p.account(c, cfg, p.archiveRoot(c, cfg), name)
		if err != nil {
			return err
		}
		name = a.name
	}
	password, grant := p.store().Remove(passwordName(name)), p.tokens(name).Forget(c.Context)
	more := ""
	switch notKept := errors.Is(grant, credential.ErrNotKept); {
	case notKept && errors.Is(password, credential.ErrNotKept):
		return configFailed("nothing is kept for "+redacted(name), "mailstow auth status")
	case grant != nil && !notKept:
		return grant
	case password != nil && !errors.Is(password, credential.ErrNotKept):
		return password
	case grant == nil:
		more = "; where you signed in, take the program's access away too"
	}
	if !c.Bool("quiet") {
		fmt.Fprintf(p.Stdout, "%s: forgotten%s\n", show(name), more)
	}
	return nil
}

// staleAfter is how long a sign-in may lie unused before it is told of: some end
// after 90 days.
const staleAfter = 60 * 24 * time.Hour

func (p *program) authStatus(c *cli.Context, names []string) error {
	cfg, err := p.readConfig(c)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		if cfg == nil || len(cfg.Accounts) == 0 {
			return configFailed("no account is named, and no config file names one", "mailstow auth status ACCOUNT")
		}
		for _, set := range cfg.Accounts {
			names = append(names, set.Name)
		}
	}
	p.still, p.several = true, len(names) > 1
	t := table{head: []string{"account", "login", "state"}}
	var lines *jsonLines
	if c.Bool("json") {
		lines = newJSONLines(p.Stdout)
	}
	status := exitOK
	for _, name := range names {
		login, state, ok := "-", "", false
		a, err := p.account(c, cfg, p.archiveRoot(c, cfg), name)
		if err == nil {
			set, _ := cfg.Account(a.name)
			login, state, ok = p.loginState(c, a, set)
		} else {
			state = explain(c.Context, "", err).what
		}
		if !ok {
			status = exitLogin
		}
		if lines != nil {
			lines.write("auth", object{"account": redacted(name), "login": login, "state": state, "ok": ok})
			continue
		}
		t.add(show(redacted(name)), login, show(p.short(state)))
	}
	if lines == nil {
		fmt.Fprint(p.Stdout, t.String())
	}
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

// passwordOutside names what gives an account's password before the config file is
// asked, "" for nothing.
func (p *program) passwordOutside(c *cli.Context, set config.Account) string {
	switch own := set.Variable(); {
	case loginOption(c, set, "password-command") != "":
		return "--password-command"
	case loginOption(c, set, "password-file") != "":
		return "--password-file"
	case set.Name != "" && p.Getenv(own) != "":
		return own
	case set.Name != "" && credential.Granted(p.Getenv, set.Name) != "":
		return "systemd"
	}
	return ""
}

// loginState says how an account logs in, and whether it can.
func (p *program) loginState(c *cli.Context, a *account, set config.Account) (login, state string, ok bool) {
	switch {
	case a.signIn != nil:
		g, err := a.signIn().Grant()
		if err != nil {
			return byPerson, explain(c.Context, "", a.signInFailed(err)).what + ": mailstow auth login " + a.arg, false
		}
		if g.Ended != "" {
			return byPerson, "the sign-in has ended: mailstow auth login " + a.arg, false
		}
		state = "ok, renewed " + ago(time.Since(g.Renewed)) + " ago"
		if time.Since(g.Renewed) < time.Minute {
			state = "ok, renewed just now"
		}
		if time.Since(g.Renewed) > staleAfter {
			state += "; it may end after 90 days without use"
		}
		return byPerson, state, true
	case a.changing && a.from != "":
		return a.method, "from " + a.from, true
	case a.changing:
		return "oauth2", "by the application's own right", true
	case a.method == "external":
		return "external", "by a client certificate", true
	}
	login = first(a.method, "password")
	outside := p.passwordOutside(c, set)
	switch {
	case outside != "":
		return login, "from " + outside, true
	case len(set.PasswordCommand) > 0:
		return login, "from `" + commandLine(set.PasswordCommand) + "`", true
	case set.PasswordFile != "":
		_, err := credential.FromFile(set.PasswordFile)
		if err != nil {
			return login, explain(c.Context, "", err).what, false
		}
		return login, "from " + set.PasswordFile, true
	case set.HasPassword:
		return login, "from the config file", true
	case p.Getenv("MAILSTOW_PASSWORD") != "" && !p.several:
		return login, "from MAILSTOW_PASSWORD", true
	}
	_, where, err := p.store().Load(passwordName(a.name), a.server())
	switch {
	case err == nil:
		return login, "kept in " + where, true
	case errors.Is(err, credential.ErrNotKept):
		return login, "there is none: mailstow auth login " + a.arg, false
	}
	return login, explain(c.Context, "", a.keptElsewhere(err)).what, false
}
