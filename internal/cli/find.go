package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/lookup"
	"mailstow/internal/provider"
	"mailstow/internal/replace"
)

// find says where an account's server is, if the account does not, and returns
// whose it is; nil if that is not known.
func (p *program) find(c *cli.Context, set *config.Account) (*provider.Provider, error) {
	var pr *provider.Provider
	if set.Provider != "" {
		if pr = provider.Named(set.Provider); pr == nil {
			return nil, configFailed(fmt.Sprintf("no provider called %q is known", set.Provider), "mailstow providers lists them; or give its server: server = \"imaps://HOST\"")
		}
	}
	switch {
	case set.Server != "" || set.IMAP != "" || set.POP3 != "":
		return pr, nil
	case pr != nil:
		set.IMAP, set.User = pr.IMAP[0], first(set.User, pr.User(set.Address))
		if len(pr.POP3) > 0 {
			set.POP3 = pr.POP3[0]
		}
	case set.Address == "":
		return nil, configFailed("it has neither a server nor an address", `server = "imaps://HOST", or address = "USER@DOMAIN"`)
	default:
		found, err := p.lookUp(c, set.Name, set.Address)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			switch imap := strings.HasPrefix(s.URL, "imap"); {
			case imap && set.IMAP == "":
				set.IMAP, pr = s.URL, s.Provider
			case !imap && set.POP3 == "":
				set.POP3 = s.URL
			}
		}
		set.User = first(set.User, found[0].User)
	}
	if (p.changing || p.storing) && set.IMAP != "" && pr != nil {
		set.IMAP = pr.IMAP[len(pr.IMAP)-1]
	}
	return pr, nil
}

// lookUp finds the servers of an address, the best first. What is found is
// remembered, so that a run at night does not depend on who answers then.
func (p *program) lookUp(c *cli.Context, name, address string) ([]lookup.Server, error) {
	if !isAddress(address) {
		return nil, configFailed(fmt.Sprintf("%q is no mail address", redacted(address)), "write it like me@example.org, or name the server: imaps://USER@HOST")
	}
	m := p.servers()
	if s := m.remembered(address, time.Now()); s != nil {
		return s, nil
	}
	find := p.finder()
	if p.still {
		find = (&lookup.Finder{Offline: true}).Find
	}
	found, err := find(c.Context, address)
	switch {
	case p.still && errors.Is(err, lookup.ErrNone):
		return nil, &problemError{problem{what: errNotLookedUp.Error(), do: "mailstow check does that", status: exitConfig, code: "config"}, errNotLookedUp}
	case errors.Is(err, lookup.ErrNone):
		if s := m.remembered(address, time.Time{}); s != nil { // old, and better than nothing
			return s, nil
		}
		return nil, configFailed("no mail server was found for "+address, `name it: imaps://USER@HOST, or server = "imaps://HOST" in the config file`)
	case err != nil && c.Context.Err() != nil:
		return nil, context.Cause(c.Context)
	case err != nil:
		return nil, configFailed(err.Error(), "write it like me@example.org, or name the server: imaps://USER@HOST")
	}
	if found[0].Vouched { // what nobody vouches for stays out beside it
		found = slices.DeleteFunc(slices.Clone(found), func(s lookup.Server) bool { return !s.Vouched })
	} else if err := p.agree(c, address, found[0]); err != nil {
		return nil, err
	} else {
		found = found[:1]
	}
	if _, domain, _ := cutAddress(address); provider.OfDomain(domain) == nil {
		m.remember(address, found, time.Now())
	}
	if name == "" && p.terminal(p.Stderr) && !c.Bool("quiet") && !c.Bool("json") || c.Bool("verbose") {
		fmt.Fprintf(p.Stderr, "%s: %s (%s)\n", show(address), show(found[0].URL), show(found[0].By))
	}
	return found, nil
}

// finder finds servers, on the network if it may.
func (p *program) finder() func(context.Context, string) ([]lookup.Server, error) {
	if p.Find != nil {
		return p.Find
	}
	f := &lookup.Finder{Offline: p.Getenv("MAILSTOW_NO_LOOKUP") != ""}
	return f.Find
}

// agree asks a person whether a server may have the password of which the
// domain name system alone says that it is the right one.
func (p *program) agree(c *cli.Context, address string, s lookup.Server) error {
	host := provider.Host(s.URL)
	refused := configFailed(fmt.Sprintf("%s is the server of %s by the word of %s alone, which could be forged", host, address, s.By),
		fmt.Sprintf(`if it is right: server = "%s" in the config file, or that URL on the command line`, s.URL))
	p.asking.Lock()
	defer p.asking.Unlock()
	tty, err := p.person(c)
	if err != nil {
		return refused
	}
	defer tty.Close()
	tty.say("%s: %s says that the server is %s. Nothing vouches for that.", show(address), show(s.By), show(s.URL))
	answer, err := tty.line(c.Context, "Log in there? [y/N] ")
	switch strings.ToLower(answer) {
	case "y", "yes":
		return nil
	}
	if c.Context.Err() != nil {
		return err
	}
	return refused
}

// errNotLookedUp is returned where a server would have to be looked up, and the
// network is not to be asked.
var errNotLookedUp = errors.New("its server has not been looked up yet")

// stateDir is where mailstow remembers things of a kind for this user, "" for
// nowhere.
func (p *program) stateDir(kind string) string {
	state := p.Getenv("XDG_STATE_HOME")
	if home := p.Getenv("HOME"); state == "" && home != "" {
		state = filepath.Join(home, ".local", "state")
	}
	if state == "" {
		return ""
	}
	return filepath.Join(state, "mailstow", kind)
}

// servers is where the servers of domains are remembered: a directory with a
// file for each.
type servers struct{ dir string }

func (p *program) servers() servers { return servers{p.stateDir("servers")} }

// serversLast is how long a server is taken for the one of a domain.
const serversLast = 30 * 24 * time.Hour

// knownServers is what is remembered of a domain.
type knownServers struct {
	Found   time.Time     `json:"found"`
	Servers []knownServer `json:"servers"`
}

type knownServer struct {
	URL  string `json:"url"`
	User string `json:"user"` // with the address, or what stands in front of its @, as in autoconfig
	By   string `json:"by"`
}

const (
	wholeAddress = "%EMAILADDRESS%"
	localPart    = "%EMAILLOCALPART%"
)

func (s servers) file(domain string) string {
	return filepath.Join(s.dir, url.PathEscape(strings.ToLower(domain))+".json")
}

// remembered returns the servers of an address if they were found not too long
// before now, or at any time if that is zero; nil if there are none.
func (s servers) remembered(address string, now time.Time) (all []lookup.Server) {
	local, domain, ok := cutAddress(address)
	if s.dir == "" || !ok {
		return nil
	}
	b, err := os.ReadFile(s.file(domain))
	var known knownServers
	if err != nil || json.Unmarshal(b, &known) != nil || !now.IsZero() && now.Sub(known.Found) > serversLast {
		return nil
	}
	fill := strings.NewReplacer(wholeAddress, address, localPart, local)
	for _, k := range known.Servers {
		k.User = fill.Replace(k.User)
		all = append(all, lookup.Server{URL: k.URL, User: k.User, By: k.By, Vouched: true, Provider: provider.OfHost(provider.Host(k.URL))})
	}
	return all
}

// remember notes the servers of an address. Where it cannot, they are looked up
// again.
func (s servers) remember(address string, found []lookup.Server, now time.Time) {
	local, domain, ok := cutAddress(address)
	if s.dir == "" || !ok {
		return
	}
	known := knownServers{Found: now.UTC()}
	for _, f := range found {
		switch f.User {
		case address:
			f.User = wholeAddress
		case local:
			f.User = localPart
		}
		known.Servers = append(known.Servers, knownServer{f.URL, f.User, f.By})
	}
	if b, err := json.Marshal(known); err == nil && os.MkdirAll(s.dir, 0o700) == nil {
		replace.File(s.file(domain), append(b, '\n'), 0o600)
	}
}

// isAddress reports whether a text can be a mail address. A URL that was mistyped,
// and may have a password in it, is none.
func isAddress(text string) bool {
	local, _, ok := cutAddress(text)
	return ok && (strings.HasPrefix(local, `"`) || !strings.ContainsAny(local, `:\ `))
}

func cutAddress(address string) (local, domain string, ok bool) {
	i := strings.LastIndexByte(address, '@')
	if i <= 0 || i == len(address)-1 {
		return "", "", false
	}
	return address[:i], address[i+1:], true
}
