// Package provider holds what is known of mail providers: where their servers
// are, how one logs in there, what they allow, and what is odd about them.
//
// Nothing here was tried with an account of a provider; each entry says where
// it is from.
package provider

import (
	"slices"
	"strings"
)

// Provider is what is known of one. Empty fields are not known, or nothing
// special.
type Provider struct {
	Name    string   // as in provider = "gmail"
	Title   string   // as people know it
	Domains []string // of the addresses it gives
	MX      []string // domains of the hosts that take mail for its customers' own domains

	// The servers, as URLs. The first is the one to use.
	IMAP, POP3 []string

	// LocalUser says that the name to log in with is what stands in front of
	// the @ of the address.
	LocalUser bool

	Password Password // what logs in; "" is the password of the account
	Page     string   // where one gets it, or switches it on
	SignIn   *SignIn  // OAuth2; nil for none

	Limits Limits

	Refusals []Refusal // of logins, the more special first

	Hides string // what it does not show to programs, and what to do; "" for nothing that is known

	Facts []Fact
}

// Password is what a provider takes in place of the account's password.
type Password string

// The kinds.
const (
	AccountPassword Password = ""                   // the one of its web pages
	AppPassword     Password = "app password"       // made for one program
	Code            Password = "authorization code" // the same in China: 授权码
	OwnPassword     Password = "e-mail password"    // one for mail programs, set by the user
	NoPassword      Password = "none"               // OAuth2 only
)

// SignIn is where a person lets a program read their mail (OAuth2, RFC 6749).
type SignIn struct {
	Kind  string // of the application: google or microsoft, as in [oauth2.google]
	Auth  string // URLs; {tenant} stands for the organisation
	Token string
	// Device is for a machine without a browser (RFC 8628); "" for none.
	Device string

	IMAPScopes, POP3Scopes []string
	AppScopes              []string          // for an application that reads all mail; nil for none
	Extra                  map[string]string // further parameters of Auth
}

// Limits are what a provider allows, 0 where that is not known.
type Limits struct {
	DailyDownload int64 // octets in 24 hours over IMAP
	DailyPOP3     int64
	DailyUpload   int64
	Connections   int   // that are used at the same time; it may allow more
	Message       int64 // octets that a message to be stored may have
	Shown         []int // a mailbox with exactly so many messages may have more
}

// Refusal is an answer to a login, and what it means.
type Refusal struct {
	Words []string // parts of the answer, in small letters; any of them
	Code  string   // for programs; "" for auth_failed
	What  string   // what has happened
	Why   string
	Do    string // what to do; {account} stands for its name
}

// Fact is something odd.
type Fact struct {
	Text   string // with what mailstow does about it
	Source string
	Sure   Sureness
}

// Sureness says how sure a fact is.
type Sureness string

// The levels.
const (
	Vendor    Sureness = "vendor"  // its own words, or Thunderbird's list
	Several   Sureness = "several" // maintainers of other programs, or several reports
	OneReport Sureness = "one report"
)

// All returns the providers that are known.
func All() []*Provider { return all }

// Named returns the provider with the name, nil if there is none.
func Named(name string) *Provider {
	return find(func(p *Provider) bool { return p.Name == strings.ToLower(name) })
}

// OfDomain returns the provider that gives addresses of the domain, nil if none
// is known.
func OfDomain(domain string) *Provider {
	domain = strings.ToLower(domain)
	return find(func(p *Provider) bool { return slices.Contains(p.Domains, domain) })
}

// OfMX returns the provider whose host takes a domain's mail, nil if none is
// known.
func OfMX(host string) *Provider {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return find(func(p *Provider) bool {
		return slices.ContainsFunc(p.MX, func(mx string) bool { return host == mx || strings.HasSuffix(host, "."+mx) })
	})
}

// OfHost returns the provider that has the server, nil if none is known.
func OfHost(host string) *Provider {
	host = strings.ToLower(host)
	if host == "127.0.0.1" { // a program of the user's own
		return nil
	}
	return find(func(p *Provider) bool {
		return slices.ContainsFunc(slices.Concat(p.IMAP, p.POP3), func(u string) bool { return Host(u) == host })
	})
}

// Host returns the host of a server's URL, without its port.
func Host(server string) string {
	_, host, _ := strings.Cut(server, "://")
	host, _, _ = strings.Cut(host, ":")
	return host
}

func find(is func(*Provider) bool) *Provider {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i]
	}
	return nil
}

// User returns the name with which the owner of an address logs in.
func (p *Provider) User(address string) string {
	if at := strings.LastIndexByte(address, '@'); p.LocalUser && at > 0 {
		return address[:at]
	}
	return address
}

// Refused returns what a server's answer to a login means, nil if that is not
// known.
func (p *Provider) Refused(answer string) *Refusal {
	answer = strings.ToLower(answer)
	i := slices.IndexFunc(p.Refusals, func(r Refusal) bool {
		return slices.ContainsFunc(r.Words, func(w string) bool { return strings.Contains(answer, w) })
	})
	if i < 0 {
		return nil
	}
	return &p.Refusals[i]
}
