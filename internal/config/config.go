// Package config reads the file that names a user's accounts.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"mailstow/internal/credential"
	"mailstow/internal/guess"
	"mailstow/internal/quantity"
)

// File is the content of a config file.
type File struct {
	Path     string // where it was read from
	Archive  string // the root that holds a directory for each account
	Accounts []Account
	Notify   Notify

	Applications map[string]OAuth2 // by their kinds: google, microsoft

	text []byte
}

// Account returns the account with a name or an address. A nil file has none.
func (f *File) Account(nameOrAddress string) (a Account, ok bool) {
	if f == nil {
		return a, false
	}
	i := slices.IndexFunc(f.Accounts, func(a Account) bool { return a.Name == nameOrAddress || a.Address == nameOrAddress })
	if i < 0 {
		return a, false
	}
	return f.Accounts[i], true
}

// Names are those of the accounts. A nil file has none.
func (f *File) Names() (names []string) {
	if f != nil {
		for _, a := range f.Accounts {
			names = append(names, a.Name)
		}
	}
	return names
}

// Account is one login at one provider. Empty fields were not set.
type Account struct {
	Name            string
	Address         string
	Provider        string // its name; "" to have it found out
	Server          string // a URL such as imaps://mail.example.org; or, in its place,
	IMAP, POP3      string // one for each; all empty to have them looked up
	User            string
	Password        credential.Secret
	HasPassword     bool
	PasswordCommand []string // a program and its arguments
	PasswordFile    string
	PasswordVar     string // a variable of the environment
	TLSCA           string
	TLSFingerprint  string // of the only certificate that is trusted; "" for those of CAs
	TLSCert, TLSKey string // files with a client certificate and its key
	Timeout         time.Duration
	Archive         string

	Auth         string   // a way to log in, "" for the best with a password
	AuthUser     string   // who logs in, where it is not User
	TokenCommand []string // prints an access token
	OAuth2       OAuth2   // of this account alone

	// Applications are those of the file, by their kinds: google, microsoft.
	Applications map[string]OAuth2

	Folders, Include, Exclude []string
	MaxSize                   int64 // octets; 0 for any
	Bandwidth                 int64 // octets a second; 0 for any
	DailyDownload             int64 // octets that may be read in a day; 0 for what the provider allows, -1 for any
	DailyUpload               int64 // octets that may be stored there in a day; as DailyDownload
	Connections               int   // 0 for the usual number

	KeepNewerThan string // an age
	Trim          Trim

	Healthchecks credential.Secret // the URL of a check of its own

	// Where folders go that are stored there.
	Map       map[string]string
	Under     string
	NoAutomap bool

	// Beside says that the command line names another server, whose options
	// are not for this one.
	Beside bool
}

// Variable is the variable of the environment with the account's password.
func (a Account) Variable() string {
	return "MAILSTOW_PASSWORD_" + strings.ToUpper(strings.ReplaceAll(a.Name, "-", "_"))
}

// TokenVariable is that with an access token.
func (a Account) TokenVariable() string {
	return strings.Replace(a.Variable(), "PASSWORD", "TOKEN", 1)
}

// Notify says who is told how runs go.
type Notify struct {
	Healthchecks credential.Secret `toml:"healthchecks"` // the URL of a check; whoever knows it can speak for it
	MetricsFile  string            `toml:"metrics_file"` // for node_exporter
}

// OAuth2 is an application that is let in by a person who signs in, or by those
// who run a domain. Empty fields were not set.
type OAuth2 struct {
	ClientID      string            `toml:"client_id"`
	ClientSecret  credential.Secret `toml:"client_secret"`
	SecretCommand any               `toml:"client_secret_command"` // a text or a list of texts
	Command       []string          `toml:"-"`                     // that prints the secret; nil for none
	Tenant        string            `toml:"tenant"`
	Scopes        []string          `toml:"scopes"`
	AuthURL       string            `toml:"auth_url"`
	TokenURL      string            `toml:"token_url"`
	DeviceURL     string            `toml:"device_url"`
	KeyFile       string            `toml:"key_file"` // of a service account
}

// Or returns o with what it does not say from another one. What one application
// keeps secret is no business of another.
func (o OAuth2) Or(other OAuth2) OAuth2 {
	if o.ClientID == "" {
		o.ClientID = other.ClientID
		if o.ClientSecret.IsEmpty() && o.Command == nil {
			o.ClientSecret, o.Command = other.ClientSecret, other.Command
		}
	}
	o.Tenant, o.AuthURL, o.TokenURL, o.DeviceURL = or(o.Tenant, other.Tenant), or(o.AuthURL, other.AuthURL), or(o.TokenURL, other.TokenURL), or(o.DeviceURL, other.DeviceURL)
	o.Scopes, o.KeyFile = orList(o.Scopes, other.Scopes), or(o.KeyFile, other.KeyFile)
	return o
}

// Trim says how room is made on an account's server: [accounts.NAME.trim].
// Amounts and ages are as the user wrote them, and have been found right.
type Trim struct {
	Quota, Until, OlderThan, MaxDelete           string
	IncludeFlagged, IncludeUnread, IncludeSynced bool
	Trash                                        bool
	Before                                       []string // a command that has to succeed first; nil for none
}

// trimSettings are the keys of such a table.
type trimSettings struct {
	Quota          string `toml:"quota"`
	Until          string `toml:"until"`
	OlderThan      string `toml:"older_than"`
	MaxDelete      string `toml:"max_delete"`
	IncludeFlagged *bool  `toml:"include_flagged"`
	IncludeUnread  *bool  `toml:"include_unread"`
	IncludeSynced  *bool  `toml:"include_synced"`
	Trash          *bool  `toml:"trash"`
	Before         any    `toml:"before"` // a text or a list of texts
}

// Error is a mistake in a config file.
type Error struct {
	Path string
	Line int // 0 if it is about the file as a whole
	Text string
	Hint string // what to do, "" if that is plain
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Text)
}

// settings are the keys that an account, or [defaults], may have.
type settings struct {
	Address         string `toml:"address"`
	Provider        string `toml:"provider"`
	Server          string `toml:"server"`
	IMAP            string `toml:"imap"`
	POP3            string `toml:"pop3"`
	User            string `toml:"user"`
	Password        string `toml:"password"`
	PasswordCommand any    `toml:"password_command"`
	PasswordFile    string `toml:"password_file"`
	TLSCA           string `toml:"tls_ca"`
	TLSFingerprint  string `toml:"tls_fingerprint"`
	TLSCert         string `toml:"tls_cert"`
	TLSKey          string `toml:"tls_key"`
	Timeout         string `toml:"timeout"`
	Archive         string `toml:"archive"`

	Auth         string `toml:"auth"`
	AuthUser     string `toml:"auth_user"`
	TokenCommand any    `toml:"token_command"`
	OAuth2       OAuth2 `toml:"oauth2"`

	Folders       []string `toml:"folders"`
	Include       []string `toml:"include"`
	Exclude       []string `toml:"exclude"`
	MaxSize       string   `toml:"max_size"`
	Bandwidth     string   `toml:"bwlimit"`
	DailyDownload string   `toml:"daily_download"`
	DailyUpload   string   `toml:"daily_upload"`
	Connections   int      `toml:"connections"`

	Healthchecks credential.Secret `toml:"healthchecks"`

	Map     map[string]string `toml:"map"`
	Under   string            `toml:"under"`
	Automap *bool             `toml:"automap"`

	KeepNewerThan string       `toml:"keep_newer_than"`
	Trim          trimSettings `toml:"trim"`
}

// accountKeys are the keys of settings, the others those of its tables.
var (
	accountKeys = keysOf(reflect.TypeFor[settings]())
	trimKeys    = keysOf(reflect.TypeFor[trimSettings]())
	oauth2Keys  = keysOf(reflect.TypeFor[OAuth2]())
	notifyKeys  = keysOf(reflect.TypeFor[Notify]())
)

// Keys returns the keys that a config file may have, by their tables: "" is the
// top, "accounts" an account.
func Keys() map[string][]string {
	return map[string][]string{"": keysOf(reflect.TypeFor[document]()), "accounts": accountKeys, "trim": trimKeys, "oauth2": oauth2Keys, "notify": notifyKeys}
}

func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("toml"); key != "-" {
			keys = append(keys, key)
		}
	}
	return keys
}

type document struct {
	Archive  string              `toml:"archive"`
	Defaults settings            `toml:"defaults"`
	Accounts map[string]settings `toml:"accounts"`
	OAuth2   map[string]OAuth2   `toml:"oauth2"`
	Notify   Notify              `toml:"notify"`
}

// Paths returns where a config file is looked for, the first first.
func Paths(getenv func(string) string) []string {
	var paths []string
	if p := getenv("MAILSTOW_CONFIG"); p != "" {
		return []string{p}
	}
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		paths = append(paths, filepath.Join(dir, "mailstow", "config.toml"))
	} else if home := getenv("HOME"); home != "" {
		paths = append(paths, filepath.Join(home, ".config", "mailstow", "config.toml"))
	}
	return append(paths, "/etc/mailstow/config.toml")
}

// open opens a file, which may hold secrets, and reads it. The caller closes it.
func open(path string) (f *os.File, text []byte, err error) {
	if f, err = os.Open(path); err != nil {
		return nil, nil, err
	}
	if text, err = io.ReadAll(f); err != nil {
		f.Close()
	}
	return f, text, err
}

// Read reads the config file at path. home replaces a leading ~ in it.
func Read(path, home string) (*File, error) {
	f, text, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var doc document
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, explain(path, text, err)
	}
	r := reader{path: path, home: home, text: string(text)}
	if doc.Defaults.Address != "" {
		return nil, &Error{Path: path, Line: r.lineOf("defaults"), Text: "[defaults] cannot have an address: accounts differ in it"}
	}
	file := &File{Path: path, Archive: r.expand(doc.Archive), Notify: doc.Notify, text: text}
	file.Applications = doc.OAuth2
	file.Notify.MetricsFile = r.expand(file.Notify.MetricsFile)
	secret := doc.Defaults.Password != ""
	for kind, app := range doc.OAuth2 {
		if err := r.oauth2("oauth2."+kind, &app); err != nil {
			return nil, err
		}
		doc.OAuth2[kind] = app
		secret = secret || !app.ClientSecret.IsEmpty()
	}
	if err := r.oauth2("defaults", &doc.Defaults.OAuth2); err != nil {
		return nil, err
	}
	for name, s := range doc.Accounts {
		a, err := r.account(name, s, doc.Defaults)
		if err != nil {
			return nil, err
		}
		a.Applications = doc.OAuth2
		secret = secret || a.HasPassword || !a.OAuth2.ClientSecret.IsEmpty()
		file.Accounts = append(file.Accounts, a)
	}
	if secret {
		if err := credential.Private(f); err != nil {
			return nil, &Error{Path: path, Text: "others can read this file, and it holds a password", Hint: "chmod 600 " + path}
		}
	}
	slices.SortFunc(file.Accounts, func(a, b Account) int { return strings.Compare(a.Name, b.Name) })
	byVariable := map[string]string{}
	for _, a := range file.Accounts {
		if other, ok := byVariable[a.Variable()]; ok {
			return nil, &Error{Path: path, Line: r.lineOf(a.Name), Text: fmt.Sprintf("[accounts.%s] and [accounts.%s] would share a password: %s is for both", other, a.Name, a.Variable()), Hint: "call one of them something else"}
		}
		byVariable[a.Variable()] = a.Name
	}
	return file, nil
}

// explain turns an error of the library into one with a line and a word on
// the nearest key.
func explain(path string, text []byte, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		first := strict.Errors[0]
		line, _ := first.Position()
		key := first.Key()
		e := &Error{Path: path, Line: line, Text: fmt.Sprintf("there is no key %q", key[len(key)-1])}
		known := []string{"archive", "defaults", "accounts", "oauth2", "notify"}
		if len(key) > 1 {
			if !slices.Contains(known, key[0]) {
				e.Text = fmt.Sprintf("there is no table [%s]", strings.Join(key, "."))
				if near := guess.Nearest(key[0], known); near != "" {
					e.Hint = "did you mean [" + strings.Join(append([]string{near}, key[1:]...), ".") + "]?"
				}
				return e
			}
			e.Text += " in [" + strings.Join(key[:len(key)-1], ".") + "]"
			known = accountKeys
			switch {
			case key[len(key)-2] == "trim":
				known = trimKeys
			case key[0] == "notify":
				known = notifyKeys
			case key[0] == "oauth2" || key[len(key)-2] == "oauth2":
				known = oauth2Keys
			}
		}
		if near := guess.Nearest(key[len(key)-1], known); near != "" {
			e.Hint = "did you mean " + near + "?"
		}
		return e
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, _ := decode.Position()
		e := &Error{Path: path, Line: line, Text: strings.TrimPrefix(decode.Error(), "toml: ")}
		switch kind := wrongKind.FindStringSubmatch(e.Text); {
		case kind != nil:
			key := decode.Key()
			e.Text = key[len(key)-1] + " cannot be " + or(kinds[kind[1]], "a time")
			e.Hint = "it is " + kinds[kind[2]]
		case yesOrNo.MatchString(lineOf(text, line)):
			e.Text, e.Hint = "what is so or not is true or false, in small letters", "key = true"
		case unquoted.MatchString(lineOf(text, line)):
			e.Text, e.Hint = "a text without quotes", `key = "text"`
		}
		return e
	}
	return &Error{Path: path, Text: err.Error()}
}

// wrongKind is what the library says of a value: its kind, and that of Go which
// it ought to be.
var wrongKind = regexp.MustCompile(`^cannot decode TOML ([\w ]+?) into .* of type (\W*\w+)`)

// kinds are those of TOML, and of Go.
var kinds = map[string]string{
	"string": `a text in quotes, like "this"`, "integer": "a number", "float": "a fraction", "boolean": "true or false", "array": "a list", "table": "a table",
	"[]string": `a list of texts, like ["this"]`, "int": "a whole number", "bool": "true or false", "map": "a table", "struct": "a table", "config": "a table",
}

// yesOrNo is a line with another word for true or false.
var yesOrNo = regexp.MustCompile(`(?i)^\s*[\w-]+\s*=\s*(true|false|yes|no|on|off)\b`)

// unquoted is a line with a text that has no quotes.
var unquoted = regexp.MustCompile(`^\s*[\w-]+\s*=\s*[A-Za-z/~]`)

// lineOf returns a line of a text, the first of which is 1.
func lineOf(text []byte, n int) string {
	lines := strings.Split(string(text), "\n")
	if n < 1 || n > len(lines) {
		return ""
	}
	return lines[n-1]
}

type reader struct{ path, home, text string }

var accountName = regexp.MustCompile(`^[a-z0-9_-]+$`)

func (r reader) account(name string, s, defaults settings) (Account, error) {
	fail := func(text, hint string) (Account, error) {
		return Account{}, &Error{Path: r.path, Line: r.lineOf(name), Text: text, Hint: hint}
	}
	if !accountName.MatchString(name) {
		return fail(fmt.Sprintf("an account cannot be called %q", name), "use small letters, digits, _ and -")
	}
	a := Account{
		Name:        name,
		Address:     s.Address,
		Archive:     r.expand(or(s.Archive, defaults.Archive)),
		Folders:     orList(s.Folders, defaults.Folders),
		Include:     orList(s.Include, defaults.Include),
		Exclude:     orList(s.Exclude, defaults.Exclude),
		Connections: s.Connections,
		OAuth2:      s.OAuth2,
	}
	if err := r.oauth2(name, &a.OAuth2); err != nil {
		return Account{}, err
	}
	a.OAuth2 = a.OAuth2.Or(defaults.OAuth2)
	if a.Connections == 0 {
		a.Connections = defaults.Connections
	}
	if a.Connections < 0 {
		return fail(fmt.Sprintf("connections of [accounts.%s]: there must be one at least", name), "")
	}
	if a.Healthchecks = s.Healthchecks; a.Healthchecks.IsEmpty() {
		a.Healthchecks = defaults.Healthchecks
	}
	a.setPlacing(s, defaults)
	for _, set := range []func(s, defaults settings) (text, hint string){
		func(s, defaults settings) (text, hint string) { return r.setServer(&a, s, defaults) },
		func(s, defaults settings) (text, hint string) { return r.setLogin(&a, s, defaults) },
		a.setSizes, a.setTrim,
	} {
		if text, hint := set(s, defaults); text != "" {
			return fail(text, hint)
		}
	}
	return a, nil
}

// setServer reads where an account's server is, and tells what is wrong with that.
func (r reader) setServer(a *Account, s, defaults settings) (text, hint string) {
	a.Provider = strings.ToLower(or(s.Provider, defaults.Provider))
	a.Server, a.IMAP, a.POP3 = s.Server, s.IMAP, s.POP3
	if s.Server == "" && s.IMAP == "" && s.POP3 == "" {
		a.Server, a.IMAP, a.POP3 = defaults.Server, defaults.IMAP, defaults.POP3
	}
	a.TLSCA, a.TLSFingerprint = r.expand(or(s.TLSCA, defaults.TLSCA)), or(s.TLSFingerprint, defaults.TLSFingerprint)
	a.TLSCert, a.TLSKey = r.expand(or(s.TLSCert, defaults.TLSCert)), r.expand(or(s.TLSKey, defaults.TLSKey))
	if t := or(s.Timeout, defaults.Timeout); t != "" {
		var err error
		if a.Timeout, err = quantity.Duration(t); err != nil {
			return "timeout: " + err.Error(), ""
		}
	}
	switch {
	case a.Server == "" && a.IMAP == "" && a.POP3 == "" && a.Address == "" && a.Provider == "":
		return fmt.Sprintf("[accounts.%s] has neither a server nor an address", a.Name), `address = "me@example.org", or server = "imaps://mail.example.org"`
	case a.Server != "" && (a.IMAP != "" || a.POP3 != ""):
		return fmt.Sprintf("[accounts.%s] has server beside imap or pop3", a.Name), `give imap = "imaps://..." and pop3 = "pop3s://..." alone`
	}
	for key, text := range map[string]string{"server": a.Server, "imap": a.IMAP, "pop3": a.POP3} {
		if u, err := url.Parse(text); err == nil && u.User != nil {
			if _, has := u.User.Password(); has {
				return fmt.Sprintf("%s of [accounts.%s] has a password in it, which is shown in many places", key, a.Name), "password_command = \"...\", or mailstow auth login " + a.Name
			}
		}
	}
	return "", ""
}

// setLogin reads who logs in, and how, and tells what is wrong with that.
func (r reader) setLogin(a *Account, s, defaults settings) (text, hint string) {
	a.User = or(s.User, defaults.User)
	a.Auth, a.AuthUser = strings.ToLower(or(s.Auth, defaults.Auth)), or(s.AuthUser, defaults.AuthUser)
	if s.Password != "" || s.PasswordFile != "" || s.PasswordCommand != nil {
		defaults.Password, defaults.PasswordFile, defaults.PasswordCommand = "", "", nil // one account's password is no other's
	}
	a.PasswordFile = r.expand(or(s.PasswordFile, defaults.PasswordFile))
	if p := or(s.Password, defaults.Password); p != "" {
		a.Password, a.HasPassword = credential.NewSecret(p), true
	}
	return a.setCommands(s, defaults)
}

// setPlacing reads where mail goes that is stored on the account's server.
func (a *Account) setPlacing(s, defaults settings) {
	if a.Map = s.Map; a.Map == nil {
		a.Map = defaults.Map
	}
	automap := s.Automap
	if automap == nil {
		automap = defaults.Automap
	}
	a.Under, a.NoAutomap = or(s.Under, defaults.Under), automap != nil && !*automap
}

// oauth2 reads the command and the file of an application.
func (r reader) oauth2(table string, o *OAuth2) error {
	var ok bool
	if o.Command, ok = commandOf(o.SecretCommand); !ok {
		return &Error{Path: r.path, Line: r.lineOf(table), Text: fmt.Sprintf("client_secret_command of [%s] is neither text nor a list of texts", table)}
	}
	o.KeyFile = r.expand(o.KeyFile)
	return nil
}

// setCommands reads the commands of an account, and tells what is wrong with
// one.
func (a *Account) setCommands(s, defaults settings) (text, hint string) {
	for _, c := range []struct {
		key           string
		own, everyone any
		argv          *[]string
	}{
		{"password_command", s.PasswordCommand, defaults.PasswordCommand, &a.PasswordCommand},
		{"token_command", s.TokenCommand, defaults.TokenCommand, &a.TokenCommand},
	} {
		command := c.own
		if command == nil {
			command = c.everyone
		}
		var ok bool
		if *c.argv, ok = commandOf(command); !ok {
			return fmt.Sprintf("%s of [accounts.%s] is neither text nor a list of texts", c.key, a.Name), ""
		}
	}
	return "", ""
}

// setSizes reads the sizes of an account, and tells what is wrong with one.
func (a *Account) setSizes(s, defaults settings) (text, hint string) {
	for _, c := range []struct {
		key, text string
		octets    *int64
		budget    bool
	}{
		{"max_size", or(s.MaxSize, defaults.MaxSize), &a.MaxSize, false},
		{"bwlimit", or(s.Bandwidth, defaults.Bandwidth), &a.Bandwidth, false},
		{"daily_download", or(s.DailyDownload, defaults.DailyDownload), &a.DailyDownload, true},
		{"daily_upload", or(s.DailyUpload, defaults.DailyUpload), &a.DailyUpload, true},
	} {
		switch {
		case c.text == "":
			continue
		case c.budget && c.text == "off":
			*c.octets = -1
			continue
		}
		var err error
		if *c.octets, err = quantity.Size(c.text); err != nil || *c.octets == 0 {
			return fmt.Sprintf("%s of [accounts.%s]: %q is no size", c.key, a.Name, c.text), `write it like "25M"; leave it out for no limit`
		}
	}
	return "", ""
}

// setTrim reads how room is made, and tells what is wrong with it.
func (a *Account) setTrim(s, defaults settings) (text, hint string) {
	a.KeepNewerThan = or(s.KeepNewerThan, defaults.KeepNewerThan)
	own, all := s.Trim, defaults.Trim
	yes := func(own, all *bool) bool {
		if own == nil {
			own = all
		}
		return own != nil && *own
	}
	a.Trim = Trim{
		Quota: or(own.Quota, all.Quota), Until: or(own.Until, all.Until), OlderThan: or(own.OlderThan, all.OlderThan), MaxDelete: or(own.MaxDelete, all.MaxDelete),
		IncludeFlagged: yes(own.IncludeFlagged, all.IncludeFlagged), IncludeUnread: yes(own.IncludeUnread, all.IncludeUnread), IncludeSynced: yes(own.IncludeSynced, all.IncludeSynced), Trash: yes(own.Trash, all.Trash),
	}
	now := time.Now()
	for _, c := range []struct {
		key, text string
		check     func(string) error
	}{
		{"keep_newer_than", a.KeepNewerThan, func(s string) error { _, err := quantity.Before(now, s); return err }},
		{"trim.older_than", a.Trim.OlderThan, func(s string) error { _, err := quantity.Before(now, s); return err }},
		{"trim.quota", a.Trim.Quota, func(s string) error { _, err := quantity.Size(s); return err }},
		{"trim.until", a.Trim.Until, func(s string) error { _, _, err := quantity.SizeOrPercent(s); return err }},
		{"trim.max_delete", a.Trim.MaxDelete, func(s string) error { _, _, err := quantity.CountOrPercent(s); return err }},
	} {
		if c.text == "" {
			continue
		}
		if err := c.check(c.text); err != nil {
			return fmt.Sprintf("%s of [accounts.%s]: %v", c.key, a.Name, err), ""
		}
	}
	before := own.Before
	if before == nil {
		before = all.Before
	}
	var ok bool
	if a.Trim.Before, ok = commandOf(before); !ok {
		return fmt.Sprintf("trim.before of [accounts.%s] is neither text nor a list of texts", a.Name), ""
	}
	return "", ""
}

// commandOf reads a command that is a text or a list of texts.
func commandOf(v any) ([]string, bool) {
	switch v := v.(type) {
	case nil:
		return nil, true
	case string:
		return credential.Shell(v), v != ""
	case []any:
		var argv []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			argv = append(argv, s)
		}
		return argv, len(argv) > 0
	}
	return nil, false
}

// lineOf returns the line that begins an account's table, 0 if it is not
// found.
func (r reader) lineOf(name string) int {
	n := 0
	for line := range strings.Lines(r.text) {
		n++
		if t := strings.TrimSpace(line); strings.HasPrefix(t, "[") && strings.Contains(t, name) {
			return n
		}
	}
	return 0
}

func (r reader) expand(p string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok && r.home != "" {
		return filepath.Join(r.home, rest)
	}
	if p == "" || filepath.IsAbs(p) || strings.HasPrefix(p, "~/") {
		return p
	}
	return filepath.Join(filepath.Dir(r.path), p)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func orList(a, b []string) []string {
	if a != nil {
		return a
	}
	return b
}
