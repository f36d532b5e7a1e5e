package cli

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"mailstow/backup"
	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/internal/filter"
	"mailstow/internal/guess"
	"mailstow/internal/imapconn"
	"mailstow/internal/imapwire"
	"mailstow/internal/netconn"
	"mailstow/internal/pop3conn"
	"mailstow/internal/provider"
	"mailstow/internal/retry"
	"mailstow/internal/sasl"
	"mailstow/internal/signin"
	"mailstow/mailbox"
	"mailstow/maildir"
	"mailstow/migrate"
)

// The connections happen to have the methods that a backup wants.
var (
	_ backup.Source = (*imapconn.Conn)(nil)
	_ backup.Source = (*pop3conn.Conn)(nil)
)

// account is one login that a command works on.
type account struct {
	name     string // what the user calls it
	arg      string // what names it on a command line
	dir      string // its archive
	address  string // "" if it is not known
	perhaps  string // an address that a URL may be meant to be; "" for none
	protocol mailbox.Protocol
	host     string
	servers  []string // those of the account's mail, as [serverOf] names them
	user     string
	provider *provider.Provider // nil if it is not known
	insecure bool               // plain text to another machine, as the user insists
	endpoint netconn.Endpoint

	method   string // of logging in, "" for the best with a password
	authUser string // who logs in, "" for user
	password func(context.Context) (credential.Secret, error)
	from     string // where the password is from, for people; "" if it is not known yet
	kept     bool   // it is what auth login has kept
	changing bool   // password returns an access token, which does not last

	signIn func() *signin.Tokens // that a person has done; nil for none

	// tokens returns an access token other than one that is not accepted any more;
	// nil where there is no sign-in.
	tokens func(ctx context.Context, used credential.Secret) (credential.Secret, error)

	once  sync.Mutex
	known *credential.Secret // what secret has returned

	onlyIPv4 atomic.Bool // the server has shown that it wants that

	alerts alerts // of the server

	broken error                    // why nothing can be done with it; nil for most
	again  func() (*account, error) // that may make it when the network is there; nil for one that is made

	filter      func(now time.Time) filter.Filter
	connections int   // most at the same time
	transfer    int64 // octets after which to stop, 0 for never
	download    int64 // octets that may be read in 24 hours, 0 for any number
	upload      int64 // octets that may be stored there in 24 hours, 0 for any number

	named     bool              // in the config file
	check     credential.Secret // the URL of a check of its own, empty for none
	trim      config.Trim
	keepNewer string // an age; "" for the usual

	mapping migrate.Mapping // where folders go that are stored there

	takes bool         // mail is stored there
	pair  *config.Pair // that it is the destination of, nil for none
}

// source names the server and login for the archive. Ports that stand for
// the same server are left out; another port is another server.
func (a *account) source() string {
	return fmt.Sprintf("%s:%s@%s", a.protocol, a.user, a.server())
}

func (a *account) server() string {
	_, port, _ := net.SplitHostPort(a.endpoint.Addr)
	return serverOf(a.host, port)
}

// serverOf names a server, without its port if that is a usual one.
func serverOf(host, port string) string {
	switch port {
	case "", "143", "993", "110", "995":
		return strings.ToLower(host)
	}
	return net.JoinHostPort(strings.ToLower(host), port)
}

// allServers names the servers of URLs, each once.
func allServers(urls ...string) (all []string) {
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" {
			continue
		}
		if s := serverOf(u.Hostname(), u.Port()); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// open logs in.
func (a *account) open(secret credential.Secret) func(context.Context) (backup.Source, error) {
	login := a.login(secret)
	dial := func(ctx context.Context) (backup.Source, error) {
		return opened(imapconn.Dial(ctx, a.reached(), login))
	}
	if a.protocol == mailbox.POP3 {
		server := &pop3conn.Server{Endpoint: a.endpoint, Login: login}
		dial = func(ctx context.Context) (backup.Source, error) {
			server.Login = login
			return opened(server.Dial(ctx))
		}
	}
	return func(ctx context.Context) (src backup.Source, err error) {
		err = a.loggingIn(ctx, &login, func() error { src, err = dial(ctx); return err })
		return src, err
	}
}

// reached says where the server is: over IPv4 alone once it has not let a login
// be used over IPv6, as Outlook.com does.
func (a *account) reached() netconn.Endpoint {
	e := a.endpoint
	e.OnlyIPv4 = a.onlyIPv4.Load()
	return e
}

// loggingIn calls dial, and once more if it was with an access token that has
// ended before its time. What is wrong with a login it says in the user's words.
func (a *account) loggingIn(ctx context.Context, l *sasl.Login, dial func() error) error {
	err := dial()
	if a.tokens != nil && errors.As(err, new(*credential.RefusedError)) {
		token, tokenErr := a.tokens(ctx, l.Secret)
		if tokenErr != nil {
			return retry.Permanent(tokenErr)
		}
		l.Secret = token
		err = dial()
	}
	return a.misplaced(a.misnamed(ctx, a.understood(err)))
}

// login says who logs in, and how.
func (a *account) login(secret credential.Secret) sasl.Login {
	l := sasl.Login{User: a.user, Secret: secret, Method: a.method}
	if a.authUser != "" {
		l.User, l.As = a.authUser, a.user
	}
	return l
}

// secret returns the password, which is looked for once, or a token, which is
// not kept.
func (a *account) secret(ctx context.Context) (credential.Secret, error) {
	a.once.Lock()
	defer a.once.Unlock()
	if a.known == nil || a.changing {
		s, err := a.password(ctx)
		if err != nil {
			return credential.Secret{}, lasting(err)
		}
		a.known = &s
	}
	return *a.known, nil
}

// forget has the password looked for again.
func (a *account) forget() {
	a.once.Lock()
	defer a.once.Unlock()
	a.known = nil
}

// lasting marks an error of finding a password as permanent, unless it is that of
// a server which could not be reached.
func lasting(err error) error {
	if errors.As(err, new(*serverError)) {
		return err
	}
	return retry.Permanent(err)
}

// opened keeps a nil connection from becoming a Source that is not nil.
func opened[C backup.Source](c C, err error) (backup.Source, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

func configFailed(what, do string) error {
	return &problemError{problem: problem{what: what, do: do, status: exitConfig, code: "config"}}
}

// readConfig returns the config file, nil if there is none and none was asked
// for.
func (p *program) readConfig(c *cli.Context) (*config.File, error) {
	paths, asked := config.Paths(p.Getenv), p.Getenv("MAILSTOW_CONFIG") != ""
	if path := c.String("config"); path != "" {
		paths, asked = []string{path}, true
	}
	for _, path := range paths {
		f, err := config.Read(path, p.Getenv("HOME"))
		switch {
		case err == nil:
			p.notify = f.Notify
			return f, nil
		case errors.Is(err, fs.ErrNotExist) && !asked:
		case errors.As(err, new(*config.Error)):
			return nil, err
		default:
			pr := problem{what: "the config file cannot be read: " + err.Error(), status: exitConfig, code: "config"}
			if errors.Is(err, fs.ErrNotExist) {
				pr.do = "check its path; mailstow init writes one"
			}
			return nil, &problemError{pr, err}
		}
	}
	return nil, nil
}

// archiveRoot returns the directory that holds a directory for each account.
func (p *program) archiveRoot(c *cli.Context, cfg *config.File) string {
	switch {
	case c.String("to") != "":
		return c.String("to")
	case p.Getenv("MAILSTOW_ARCHIVE") != "":
		return p.Getenv("MAILSTOW_ARCHIVE")
	case cfg != nil && cfg.Archive != "":
		return cfg.Archive
	}
	return filepath.Join(p.Getenv("HOME"), "mail-archive")
}

// accounts returns the accounts that the arguments name, or all of the config
// file's.
func (p *program) accounts(c *cli.Context) ([]*account, error) {
	cfg, err := p.readConfig(c)
	if err != nil {
		return nil, err
	}
	root, names := p.archiveRoot(c, cfg), c.Args().Slice()
	if len(names) == 0 {
		if cfg == nil || len(cfg.Accounts) == 0 {
			return nil, configFailed("no account is named, and no config file names one (looked for "+strings.Join(config.Paths(p.Getenv), ", ")+")",
				"mailstow backup me@example.org --to DIR, or mailstow init")
		}
		for _, set := range cfg.Accounts {
			names = append(names, set.Name)
		}
	}
	found := make([]*account, len(names))
	var g errgroup.Group
	for i, name := range names { // at once: some may have to be looked up
		g.Go(func() (err error) {
			var wrong *problemError
			again := func() (*account, error) { return p.account(c, cfg, root, name) }
			found[i], err = again()
			if len(names) > 1 && errors.As(err, &wrong) { // which is no matter of the others
				set, _ := cfg.Account(name)
				found[i] = &account{name: first(set.Name, name), dir: dirOf(c, root, set), check: set.Healthchecks, broken: err, again: again}
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	p.several = len(found) > 1
	for i, a := range found {
		if err := apart(found[:i+1]); err != nil { // which is no matter of the others
			a.broken, a.again = err, func() (*account, error) { return nil, err }
		}
	}
	return found, nil
}

// apart makes sure that no two accounts share a directory.
func apart(all []*account) error {
	byDir := map[string]string{}
	for _, a := range all {
		if a.broken != nil {
			continue
		}
		if other, ok := byDir[a.dir]; ok {
			return configFailed(fmt.Sprintf("%s and %s have the same directory in the archive: %s", other, a.name, a.dir), `give one of them another address = "..."`)
		}
		byDir[a.dir] = a.name
	}
	return nil
}

func (p *program) account(c *cli.Context, cfg *config.File, root, arg string) (*account, error) {
	if arg == "" { // a variable of a script that is not set
		return nil, &usageError{text: "an account has an empty name", hint: "name it, or leave the argument out for all accounts"}
	}
	if strings.Contains(arg, "://") {
		if address := addressIn(arg); address != "" {
			return p.account(c, cfg, root, address)
		}
		return p.unnamed(c, root, config.Account{Server: arg})
	}
	if set, ok := cfg.Account(arg); ok {
		return p.configured(c, root, set)
	}
	if strings.Contains(arg, "@") {
		return p.unnamed(c, root, config.Account{Address: arg})
	}
	where := "there is no config file (looked for " + strings.Join(config.Paths(p.Getenv), ", ") + ")"
	if cfg != nil {
		where = "it is not in " + cfg.Path
	}
	do := "name it there, or give an address, or the server: imaps://USER@HOST"
	if near := guess.Nearest(arg, cfg.Names()); near != "" {
		do = "did you mean " + near + "?"
	}
	return nil, configFailed(fmt.Sprintf("there is no account %q: %s", redacted(arg), where), do)
}

// addressIn returns the address in a URL whose host gives addresses and serves
// no mail: imaps://me@gmail.com; "" for any other.
func addressIn(server string) string {
	u, err := url.Parse(server)
	if err != nil || u.User.Username() == "" || u.Port() != "" || provider.OfDomain(u.Hostname()) == nil || provider.OfHost(u.Hostname()) != nil {
		return ""
	}
	return u.User.Username() + "@" + u.Hostname()
}

// unnamed makes an account of what the command line says: a URL, or an address.
func (p *program) unnamed(c *cli.Context, root string, set config.Account) (*account, error) {
	a, err := p.fromConfig(c, set)
	if err != nil {
		return nil, err
	}
	if set.Server == "" && set.Address != "" {
		a.dir = maildir.PathOf(mailbox.NewName(set.Address))
	}
	if u, err := url.Parse(set.Server); err == nil && u.Port() == "" && strings.Contains(a.host, ".") && net.ParseIP(a.host) == nil && !strings.Contains(a.user, "@") {
		a.perhaps = a.user + "@" + a.host
	}
	a.name, a.arg, a.dir = a.dir, set.Address, filepath.Join(root, a.dir)
	if set.Server != "" {
		_, port, _ := net.SplitHostPort(a.endpoint.Addr)
		a.arg = a.urlOf(a.protocol, a.endpoint.Security, port)
	}
	return a, nil
}

// configured makes an account of one in the config file.
func (p *program) configured(c *cli.Context, root string, set config.Account) (*account, error) {
	a, err := p.fromConfig(c, set)
	if err != nil {
		var pr *problemError
		if errors.As(err, &pr) {
			pr.account = set.Name
		}
		return nil, err
	}
	a.name, a.arg, a.dir = set.Name, set.Name, dirOf(c, root, set)
	return a, nil
}

// dirOf returns the directory of an account of the config file.
func dirOf(c *cli.Context, root string, set config.Account) string {
	if set.Archive != "" && c.String("to") == "" {
		root = set.Archive
	}
	return filepath.Join(root, maildir.PathOf(mailbox.NewName(first(set.Address, set.Name))))
}

// fromConfig makes an account of the URL that --via chooses.
func (p *program) fromConfig(c *cli.Context, set config.Account) (*account, error) {
	via := mailbox.Protocol(c.String("via"))
	if p.storing {
		via = mailbox.IMAP
	}
	whose, err := p.find(c, &set)
	if err != nil {
		return nil, err
	}
	if set.Server == "" { // one URL for each protocol
		if set.Server = set.IMAP; set.IMAP == "" || via == mailbox.POP3 && set.POP3 != "" {
			set.Server = set.POP3
		}
	}
	a, err := p.fromURL(c, set, whose)
	if err != nil {
		return nil, err
	}
	for key, u := range map[mailbox.Protocol]string{mailbox.IMAP: set.IMAP, mailbox.POP3: set.POP3} {
		if u != "" && u == set.Server && a.protocol != key {
			return nil, configFailed(fmt.Sprintf("%s = %q is a server of the other protocol", key, u), "")
		}
	}
	return a, nil
}

// checkVia makes sure that an account is reached as --via says.
func (a *account) checkVia(via string) error {
	switch {
	case !slices.Contains([]string{"", "auto", string(mailbox.IMAP), string(mailbox.POP3)}, via):
		return &usageError{text: fmt.Sprintf("--via %q: there is imap, pop3 and auto", via)}
	case via != "" && via != "auto" && via != string(a.protocol):
		return configFailed(fmt.Sprintf("no %s server is named", strings.ToUpper(via)), fmt.Sprintf(`give %s = "%ss://..." in the config file`, via, via))
	}
	return nil
}

// scheme is what the beginning of a URL means.
type scheme struct {
	protocol mailbox.Protocol
	security netconn.Security
	port     string
}

var schemes = map[string]scheme{
	"imaps":         {mailbox.IMAP, netconn.Implicit, "993"},
	"imap":          {mailbox.IMAP, netconn.Upgrade, "143"},
	"imap+insecure": {mailbox.IMAP, netconn.Plain, "143"},
	"pop3s":         {mailbox.POP3, netconn.Implicit, "995"},
	"pop3":          {mailbox.POP3, netconn.Upgrade, "110"},
	"pop3+insecure": {mailbox.POP3, netconn.Plain, "110"},
}

// fromURL makes an account of the URL in set.Server, and of what is known of its
// provider, nil for none. Its dir is still relative: the user's address, else
// USER@HOST.
func (p *program) fromURL(c *cli.Context, set config.Account, whose *provider.Provider) (*account, error) {
	set.Beside = p.beside
	u, s, err := parseServer(set.Server)
	if err != nil {
		return nil, err
	}
	a := &account{protocol: s.protocol, host: strings.ToLower(u.Hostname()), user: first(loginOption(c, set, "user"), u.User.Username(), set.User, set.Address)}
	if a.user == "" {
		return nil, configFailed("nobody is named to log in as", "imaps://USER@HOST, or --user USER")
	}
	if a.provider, a.address = whose, set.Address; whose == nil {
		a.provider = provider.OfHost(a.host)
	}
	urls := []string{set.Server, set.IMAP, set.POP3}
	if a.provider != nil {
		urls = slices.Concat(urls, a.provider.IMAP, a.provider.POP3)
	}
	a.servers = allServers(urls...)
	a.check = set.Healthchecks
	a.mapping = migrate.Mapping{Renamed: set.Map, Under: set.Under, NoRoles: set.NoAutomap}
	a.named, a.trim, a.keepNewer = set.Name != "", set.Trim, set.KeepNewerThan
	a.dir = a.user
	if !strings.Contains(a.user, "@") {
		a.dir = a.user + "@" + a.host
	}
	a.dir = maildir.PathOf(mailbox.NewName(a.dir))
	a.endpoint = netconn.Endpoint{Addr: net.JoinHostPort(u.Hostname(), first(u.Port(), s.port)), Security: s.security, Timeout: c.Duration("timeout")}
	a.endpoint.Alert = a.alerts.hear
	if a.endpoint.Proxy, err = netconn.ProxyFor(p.Getenv, a.endpoint.Addr); err != nil {
		return nil, configFailed(err.Error(), "write it like socks5://HOST:1080")
	}
	if set.Timeout > 0 && !c.IsSet("timeout") {
		a.endpoint.Timeout = set.Timeout
	}
	if c.Count("verbose") > 1 {
		a.endpoint.Trace = func(line string) { p.trace(a, line) }
	}
	if a.endpoint.Timeout <= 0 { // a command without that option
		a.endpoint.Timeout = time.Minute
	}
	if s.security == netconn.Plain {
		if a.insecure = !loopback(a.host); a.insecure && !c.Bool("allow-insecure") {
			return nil, configFailed(fmt.Sprintf("%s would send the password and all mail in plain text over the network", u.Scheme), "use "+strings.TrimSuffix(u.Scheme, "+insecure")+"s:// or, if there is no other way, --allow-insecure")
		}
	} else if a.endpoint.TLS, err = tlsConfig(a.host, first(loginOption(c, set, "tls-ca"), set.TLSCA), first(loginOption(c, set, "tls-cert"), set.TLSCert), first(loginOption(c, set, "tls-key"), set.TLSKey)); err != nil {
		return nil, err
	}
	if pin := first(loginOption(c, set, "tls-fingerprint"), set.TLSFingerprint); pin != "" && a.endpoint.TLS != nil {
		if err := trustOnly(a.endpoint.TLS, pin); err != nil {
			return nil, err
		}
	}
	if err := a.checkVia(c.String("via")); err != nil && !p.storing {
		return nil, err
	}
	a.password = func(ctx context.Context) (credential.Secret, error) { return p.password(ctx, c, a, set) }
	if err := p.loginBy(c, a, set); err != nil {
		return nil, err
	}
	if err := a.want(c, set); err != nil {
		return nil, err
	}
	return a, nil
}

// parseServer reads the URL of a server.
func parseServer(server string) (*url.URL, scheme, error) {
	failed := func(what, do string) (*url.URL, scheme, error) { return nil, scheme{}, configFailed(what, do) }
	u, err := url.Parse(server)
	if err != nil {
		return failed(fmt.Sprintf("%q is no URL of a mail server", redacted(server)), "write it like imaps://USER@HOST")
	}
	s, ok := schemes[u.Scheme]
	if !ok || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
		return failed(fmt.Sprintf("%q is no URL of a mail server", redacted(server)),
			"write it like imaps://USER@HOST; there are imaps, imap (STARTTLS), pop3s, pop3 (STLS), imap+insecure and pop3+insecure")
	}
	if _, hasPassword := u.User.Password(); hasPassword {
		return failed("the URL has a password in it, which everybody on this machine can see", "use --password-command, --password-file or MAILSTOW_PASSWORD")
	}
	if n, err := strconv.Atoi(u.Port()); u.Port() != "" && (err != nil || n < 1 || n > 65535) {
		return failed("there is no port "+u.Port(), "imaps has "+schemes["imaps"].port+", pop3s "+schemes["pop3s"].port+"; without a port it is that")
	}
	return u, s, nil
}

// redacted shows what is meant to be a URL without what may be a password in it.
func redacted(text string) string {
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		return u.Redacted()
	}
	if i := strings.LastIndexByte(text, '@'); i >= 0 && strings.Contains(text[:i], ":") {
		return "..." + text[i:]
	}
	return text
}

// loginBy decides how the account logs in.
func (p *program) loginBy(c *cli.Context, a *account, set config.Account) error {
	a.method, a.authUser = strings.ToLower(first(loginOption(c, set, "auth"), set.Auth)), first(loginOption(c, set, "auth-user"), set.AuthUser)
	if a.method == "password" {
		a.method = ""
	}
	methods := imapwire.Methods
	if a.protocol == mailbox.POP3 {
		methods = pop3conn.Methods
	}
	if slices.Contains(signIns, a.method) {
		return p.signsIn(a, set)
	}
	if a.method != "" && !slices.Contains(methods, a.method) {
		return configFailed(fmt.Sprintf("there is no way to log in to %s over %s called %q", a.host, strings.ToUpper(string(a.protocol)), a.method), "use password or one of "+strings.Join(slices.Concat(signIns, methods), ", "))
	}
	token := p.token(c, a, set)
	if token != nil && a.method != "xoauth2" && a.method != "oauthbearer" {
		return configFailed("an access token is of use with xoauth2 or oauthbearer alone", "add --auth xoauth2, or auth = \"xoauth2\"")
	}
	switch a.method {
	case "xoauth2", "oauthbearer":
		if token == nil {
			return configFailed(a.method+" needs an access token", `give the command that prints one: --token-command CMD, or token_command = "..." in the config file`)
		}
		a.changing, a.password = true, token
	case "external":
		if a.endpoint.TLS == nil || len(a.endpoint.TLS.Certificates) == 0 {
			return configFailed("external needs a client certificate", "--tls-cert FILE and --tls-key FILE")
		}
		a.password = func(context.Context) (credential.Secret, error) { return credential.Secret{}, nil }
	}
	return nil
}

// token returns what gives access tokens that another program has got, nil if
// nothing does.
func (p *program) token(c *cli.Context, a *account, set config.Account) func(context.Context) (credential.Secret, error) {
	command := set.TokenCommand
	if line := loginOption(c, set, "token-command"); line != "" {
		command = credential.Shell(line)
	} else if own := set.TokenVariable(); set.Name != "" && p.Getenv(own) != "" && a.method != "" {
		a.from = own
		return func(context.Context) (credential.Secret, error) { return credential.NewSecret(p.Getenv(own)), nil }
	}
	if len(command) == 0 {
		return nil
	}
	a.from = "`" + commandLine(command) + "`"
	return func(ctx context.Context) (credential.Secret, error) {
		return commandSecret(credential.FromCommand(ctx, "token command", command))
	}
}

// loginOption reads an option that says how to log in. Where a command works on
// two servers, it is for the one that is named by a URL.
func loginOption(c *cli.Context, set config.Account, name string) string {
	inList := c.String("pairs") != "" && name == "tls-ca" // which is no secret
	if !inList && (set.Beside || c.Command.Name == "migrate" && set.Name != "") {
		return ""
	}
	return c.String(name)
}

// commandSecret makes a failed command a refused login.
func commandSecret(secret credential.Secret, err error) (credential.Secret, error) {
	if err != nil && !errors.Is(err, credential.ErrNotPrivate) {
		pr := problem{what: err.Error(), status: exitLogin, code: "auth_failed"}
		if errors.As(err, new(*fs.PathError)) {
			pr.do = "see that the file is there, and that this user can read it"
		}
		err = &problemError{problem: pr}
	}
	return secret, err
}

func first(candidates ...string) string {
	for _, s := range candidates {
		if s != "" {
			return s
		}
	}
	return ""
}

// loopback reports whether a host is this machine whatever a name server
// says.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func tlsConfig(host, caFile, certFile, keyFile string) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, first(keyFile, certFile))
		if err != nil {
			return nil, configFailed("the client certificate cannot be read: "+err.Error(), "--tls-cert and --tls-key name files in PEM form")
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	if caFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, configFailed("the CA file cannot be read: "+err.Error(), "--tls-ca, or tls_ca in the config file, names a file in PEM form")
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, configFailed(caFile+" holds no certificate in PEM form", "openssl x509 -in FILE -inform DER makes that of one in another form")
	}
	cfg.RootCAs = pool
	return cfg, nil
}

// trustOnly has one certificate alone trusted, whoever has signed it.
func trustOnly(cfg *tls.Config, pin string) error {
	want, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(pin), "sha256:"), ":", ""))
	if err != nil || len(want) != sha256.Size {
		return configFailed(fmt.Sprintf("tls_fingerprint: %q is no SHA-256 of a certificate", pin), "openssl s_client -connect HOST:PORT </dev/null | openssl x509 -noout -fingerprint -sha256")
	}
	cfg.InsecureSkipVerify = true // the digest says more than a signature
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		got := sha256.Sum256(state.PeerCertificates[0].Raw)
		if subtle.ConstantTimeCompare(got[:], want) != 1 {
			return retry.Permanent(&problemError{problem: problem{
				what: "the server shows another certificate than the one of tls_fingerprint", why: "it shows sha256:" + hex.EncodeToString(got[:]),
				do: "if the server has a new certificate, write that down; if not, somebody stands between", status: exitUnavailable, code: "tls_untrusted",
			}})
		}
		return nil
	}
	return nil
}

// password finds the account's password: what the command line says, then
// the environment, then the config file, then the person at the terminal.
func (p *program) password(ctx context.Context, c *cli.Context, a *account, set config.Account) (credential.Secret, error) {
	own := set.Variable()
	var secret credential.Secret
	var err error
	switch {
	case loginOption(c, set, "password-command") != "":
		a.from = "`" + loginOption(c, set, "password-command") + "`"
		secret, err = credential.FromCommand(ctx, passwordCommand, credential.Shell(loginOption(c, set, "password-command")))
	case loginOption(c, set, "password-file") == "-":
		secret, err = credential.FromReader(p.Stdin, "standard input")
	case loginOption(c, set, "password-file") != "":
		a.from = loginOption(c, set, "password-file")
		secret, err = credential.FromFile(a.from)
	case set.Name != "" && p.Getenv(own) != "":
		a.from = own
		return credential.NewSecret(p.Getenv(own)), nil
	case set.Name != "" && credential.Granted(p.Getenv, set.Name) != "": // systemd
		a.from = credential.Granted(p.Getenv, set.Name)
		secret, err = credential.FromGranted(a.from)
	case set.Name == "" && p.Getenv("MAILSTOW_PASSWORD") != "" && !p.several:
		a.from = "MAILSTOW_PASSWORD"
		return credential.NewSecret(p.Getenv("MAILSTOW_PASSWORD")), nil
	case len(set.PasswordCommand) > 0:
		a.from = "`" + commandLine(set.PasswordCommand) + "`"
		secret, err = credential.FromCommand(ctx, passwordCommand, set.PasswordCommand)
	case set.PasswordFile != "":
		a.from = set.PasswordFile
		secret, err = credential.FromFile(set.PasswordFile)
	case set.HasPassword:
		return set.Password, nil
	case set.PasswordVar != "":
		return credential.NewSecret(p.Getenv(set.PasswordVar)), nil
	case p.Getenv("MAILSTOW_PASSWORD") != "" && !p.several && c.Command.Name != "migrate": // one server's password is no other's business
		return credential.NewSecret(p.Getenv("MAILSTOW_PASSWORD")), nil
	default:
		secret, a.from, err = p.store().Load(passwordName(a.name), a.server())
		if errors.Is(err, credential.ErrNotKept) {
			return p.ask(ctx, c, a)
		}
		if a.kept = err == nil; !a.kept {
			return secret, a.keptElsewhere(err)
		}
	}
	return commandSecret(secret, err)
}

// passwordCommand is what a command is called that prints a password.
const passwordCommand = "password command"

// Names under which secrets of an account are kept.
func passwordName(account string) string { return account + ".password" }
func grantName(account string) string    { return account + ".oauth2" }

// keptElsewhere makes a problem of a secret that is kept for other servers, or
// cannot be read.
func (a *account) keptElsewhere(err error) error {
	var elsewhere *credential.ElsewhereError
	switch {
	case errors.Is(err, credential.ErrNotPrivate):
		return err
	case !errors.As(err, &elsewhere):
		return &problemError{problem{what: "what is kept for this account cannot be used: " + err.Error(), do: "mailstow auth login " + a.arg, status: exitLogin, code: "auth_failed"}, err}
	}
	return &problemError{problem{
		what: fmt.Sprintf("what is kept for this account is for %s, and was not given to %s", strings.Join(elsewhere.Servers, ", "), a.server()),
		do:   "if that is its server now: mailstow auth login " + a.arg, status: exitLogin, code: "auth_failed",
	}, err}
}

// commandLine shows a command as it was written.
func commandLine(argv []string) string {
	if len(argv) == 3 && argv[0] == "sh" && argv[1] == "-c" {
		return argv[2]
	}
	return strings.Join(argv, " ")
}

// reach connects to the server, so that no password is asked for that could not be
// given to it.
func (a *account) reach(ctx context.Context) error {
	conn, err := netconn.Dial(ctx, a.reached())
	if err != nil {
		return &serverError{a.misplaced(a.misnamed(ctx, err))}
	}
	return conn.Close()
}

// ask asks the person at the terminal.
func (p *program) ask(ctx context.Context, c *cli.Context, a *account) (credential.Secret, error) {
	if p.mayAsk(c) {
		if err := a.reach(ctx); err != nil {
			return credential.Secret{}, err
		}
	}
	return p.askSecret(c, fmt.Sprintf("Password for %s on %s (not stored): ", show(a.user), a.host),
		configFailed("there is no password for "+a.user+", and nobody to ask", "mailstow auth login "+a.arg+" keeps one; or use --password-command, --password-file or MAILSTOW_PASSWORD"))
}

// loginFlags are the options that say how to reach a server.
func loginFlags() []cli.Flag {
	return []cli.Flag{
		text("user", "login `NAME`, where the URL has none"),
		text("password-command", "run `CMD`, read the password from its first line"),
		text("password-file", "read the password from the first line of `FILE` (- is stdin)"),
		text("auth", "log in by `METHOD`: password, oauth2, xoauth2 ... (see mailstow.toml(5))"),
		text("auth-user", "log in as `NAME`, to read the mail of another user"),
		text("token-command", "run `CMD` for an access token, whenever one is needed"),
		text("tls-ca", "also trust the CA certificates in `FILE`"),
		text("tls-fingerprint", "trust the certificate with this SHA-256 `HEX` alone"),
		text("tls-cert", "show the server the client certificate in `FILE`"),
		text("tls-key", "key of the client certificate, if `FILE` is another"),
		yes("allow-insecure", "let +insecure URLs reach other machines"),
		duration("timeout", "give up on a server that is silent for `TIME`", time.Minute),
	}
}
