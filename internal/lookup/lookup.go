// Package lookup finds the mail servers of an address: in the list of
// providers, by what the address's domain publishes, in Thunderbird's list, and
// in the domain name system.
package lookup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"mailstow/internal/provider"
)

// Server is a server that was found.
type Server struct {
	URL  string // such as imaps://mail.example.org; with a port if it is an unusual one
	User string // the login name
	By   string // who says so, for people

	// Vouched says that whoever answers is known to speak for the domain. What
	// the domain name system alone says could be anybody's word: the server may
	// get the password if a person agrees.
	Vouched bool

	Provider *provider.Provider // whose server it is; nil if that is not known
}

// Resolver asks the domain name system.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
}

// Finder finds servers. Its zero value asks the network.
type Finder struct {
	Client   *http.Client  // nil for the usual one
	Resolver Resolver      // nil for the system's
	Offline  bool          // the list of providers alone
	Within   time.Duration // most that it takes; 0 for five seconds
}

// usualWithin bounds a search.
const usualWithin = 5 * time.Second

// ErrNone is returned if nobody knows a server for an address.
var ErrNone = errors.New("no mail server was found")

// Find returns the servers of an address as the best source names them, the best
// first: IMAP before POP3, TLS from the first octet before an upgrade.
func (f *Finder) Find(ctx context.Context, address string) ([]Server, error) {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 || !isDomain(address[at+1:]) {
		return nil, fmt.Errorf("%q is no address", address)
	}
	domain := strings.ToLower(address[at+1:])
	if p := provider.OfDomain(domain); p != nil {
		return ofProvider(p, address, p.Title+", of the built-in list"), nil
	}
	if f.Offline {
		return nil, ErrNone
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(f.Within, usualWithin))
	defer cancel()
	a := asker{finder: f, address: address, local: address[:at], domain: domain}
	sources := []func(context.Context) []Server{a.autoconfig, a.wellKnown, a.list, a.srv, a.mx} // the most trusted first
	answers := make([]chan []Server, len(sources))
	for i, ask := range sources {
		answers[i] = make(chan []Server, 1)
		go func() { answers[i] <- ask(ctx) }()
	}
	for _, answer := range answers { // a less trusted one does not count while a better one may answer
		if found := <-answer; len(found) > 0 {
			slices.SortStableFunc(found, func(a, b Server) int { return cmp.Compare(rank(a), rank(b)) })
			return found, nil
		}
	}
	return nil, ErrNone
}

// rank orders servers.
func rank(s Server) int {
	scheme, _, _ := strings.Cut(s.URL, "://")
	return slices.Index([]string{"imaps", "imap", "pop3s", "pop3"}, scheme)
}

func ofProvider(p *provider.Provider, address, by string) (all []Server) {
	for _, u := range slices.Concat(p.IMAP[:1], p.POP3) {
		all = append(all, Server{URL: u, User: p.User(address), By: by, Vouched: true, Provider: p})
	}
	return all
}

// asker asks about one address.
type asker struct {
	finder                 *Finder
	address, local, domain string
}

func (a *asker) autoconfig(ctx context.Context) []Server {
	return a.published(ctx, "autoconfig of "+a.domain, true, "https://autoconfig."+a.domain+"/mail/config-v1.1.xml?emailaddress="+escaped(a.address))
}

func (a *asker) wellKnown(ctx context.Context) []Server {
	return a.published(ctx, "autoconfig of "+a.domain, true, "https://"+a.domain+"/.well-known/autoconfig/mail/config-v1.1.xml?emailaddress="+escaped(a.address))
}

// isp is Thunderbird's list.
const isp = "https://autoconfig.thunderbird.net/v1.1/"

func (a *asker) list(ctx context.Context) []Server {
	return a.published(ctx, "Thunderbird's list", true, isp+a.domain)
}

// mx looks for whoever takes the domain's mail: a provider with its own domain.
func (a *asker) mx(ctx context.Context) []Server {
	hosts, err := a.resolver().LookupMX(ctx, a.domain)
	if err != nil {
		return nil
	}
	for _, mx := range hosts {
		if p := provider.OfMX(mx.Host); p != nil {
			return ofProvider(p, a.address, p.Title+", which takes the mail of "+a.domain)
		}
	}
	asked := map[string]bool{a.domain: true}
	for _, mx := range hosts {
		host := strings.ToLower(strings.TrimSuffix(mx.Host, "."))
		base, err := publicsuffix.EffectiveTLDPlusOne(host)
		if err != nil || asked[base] || !isDomain(base) {
			continue
		}
		asked[base] = true
		if found := a.published(ctx, "Thunderbird's list, for "+base+" which takes the mail of "+a.domain, true, isp+base); len(found) > 0 {
			return found
		}
		if found := a.published(ctx, "autoconfig of "+base+", which takes the mail of "+a.domain, false, "https://autoconfig."+base+"/mail/config-v1.1.xml?emailaddress="+escaped(a.address)); len(found) > 0 {
			return found
		}
	}
	return nil
}

// services are those of RFC 6186 and RFC 8314, with the ports that need not be
// told.
var services = []struct{ name, scheme, port string }{
	{"imaps", "imaps", "993"}, {"imap", "imap", "143"}, {"pop3s", "pop3s", "995"}, {"pop3", "pop3", "110"},
}

func (a *asker) srv(ctx context.Context) []Server {
	answers := make([]chan *net.SRV, len(services))
	for i, s := range services {
		answers[i] = make(chan *net.SRV, 1)
		go func() {
			_, records, err := a.resolver().LookupSRV(ctx, s.name, "tcp", a.domain)
			if err != nil || len(records) == 0 {
				answers[i] <- nil
				return
			}
			answers[i] <- records[0]
		}()
	}
	var all []Server
	for i, s := range services {
		r := <-answers[i]
		if r == nil {
			continue
		}
		host := strings.ToLower(strings.TrimSuffix(r.Target, "."))
		if r.Port == 0 || !isDomain(host) { // "." says that there is no such service
			continue
		}
		all = append(all, Server{URL: urlOf(s.scheme, host, fmt.Sprint(r.Port), s.port), User: a.address, By: "SRV record of " + a.domain, Vouched: sameOwner(host, a.domain), Provider: provider.OfHost(host)})
	}
	return all
}

// sameOwner reports whether a host is of the domain, or of the same one above it.
func sameOwner(host, domain string) bool {
	if host == domain || strings.HasSuffix(host, "."+domain) {
		return true
	}
	a, errA := publicsuffix.EffectiveTLDPlusOne(host)
	b, errB := publicsuffix.EffectiveTLDPlusOne(domain)
	return errA == nil && errB == nil && a == b
}

func (a *asker) resolver() Resolver {
	if a.finder.Resolver != nil {
		return a.finder.Resolver
	}
	return net.DefaultResolver
}

func urlOf(scheme, host, port, usual string) string {
	if port == usual {
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// isDomain reports whether a text can be a domain with a dot in it.
func isDomain(s string) bool {
	if len(s) > 253 || !strings.Contains(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.IndexFunc(label, func(r rune) bool {
			return !(r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
		}) >= 0 {
			return false
		}
	}
	return true
}
