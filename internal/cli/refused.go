package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/imapwire"
	"mailstow/internal/netconn"
	"mailstow/mailbox"
)

// understood says what a refused login means where that is known: of this
// provider, or of where the password is from.
func (a *account) understood(err error) error {
	var refused *credential.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	pr := problem{server: refused.Answer, status: exitLogin, code: "auth_failed"}
	if a.provider != nil {
		if r := a.provider.Refused(refused.Answer); r != nil {
			pr.what, pr.why, pr.do, pr.code = r.What, r.Why, strings.ReplaceAll(r.Do, "{account}", a.arg), first(r.Code, pr.code)
			return &problemError{pr, err}
		}
	}
	pr.what = fmt.Sprintf("login refused by %s for user %q", refused.Server, refused.User)
	pr.do = "check the user name and the password"
	switch {
	case a.kept:
		pr.do = "if the password has changed: mailstow auth login " + a.arg
	case a.from != "":
		pr.do = "check what " + a.from + " gives"
	}
	switch {
	case !strings.Contains(refused.User, "@") && strings.Contains(a.address, "@"):
		pr.do += fmt.Sprintf("; some servers want the whole address: user = %q", a.address)
	case !strings.Contains(refused.User, "@"):
		pr.do += "; some servers want the whole address as the name"
	default:
		pr.do += "; some servers want a password made for this program, or the name without its domain"
	}
	return &problemError{pr, err}
}

// alerts are what a server wants its user to read, each text once.
type alerts struct {
	mu    sync.Mutex
	texts []string
	told  int // of texts
}

// maxAlerts is how many texts are kept of a server that has ever new ones.
const maxAlerts = 20

func (l *alerts) hear(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.texts) < maxAlerts && !slices.Contains(l.texts, text) {
		l.texts = append(l.texts, text)
	}
}

// untold returns those that it has not returned before.
func (l *alerts) untold() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	texts := l.texts[l.told:]
	l.told = len(l.texts)
	return texts
}

// maxOtherNames is how many names of a certificate are tried: whoever made it may
// have put in any number, and whichever they liked.
const maxOtherNames = 2

// misnamed says which name a server's certificate is for, where it is not the one
// that was used, and whether the server answers by that.
func (a *account) misnamed(ctx context.Context, err error) error {
	var cert *tls.CertificateVerificationError
	var name x509.HostnameError
	if !errors.As(err, &cert) || !errors.As(cert.Err, &name) {
		return err
	}
	names := name.Certificate.DNSNames
	if len(names) == 0 {
		return err
	}
	pr := problem{
		what: fmt.Sprintf("%s showed a certificate for %s", a.host, names[0]), status: exitUnavailable, code: "tls_name",
		why: "the provider hosts your domain; the name you use is not in its certificate.",
		do:  "use the provider's own name for the server",
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, other := range names[:min(len(names), maxOtherNames)] {
		if first, rest, ok := strings.Cut(other, "."); ok && first == "*" {
			label, _, _ := strings.Cut(a.host, ".")
			other = label + "." + rest
		}
		if a.answersAs(ctx, other) {
			_, port, _ := net.SplitHostPort(a.endpoint.Addr)
			pr.do = fmt.Sprintf("if that is your provider: server = %q      (that name was tried and its certificate is valid)", urlOf(a.protocol, a.endpoint.Security, other, port))
			break
		}
	}
	return &problemError{pr, err}
}

// answersAs reports whether there is a server of another name with a certificate
// for it, which an outsider cannot have.
func (a *account) answersAs(ctx context.Context, host string) bool {
	_, port, _ := net.SplitHostPort(a.endpoint.Addr)
	e := a.endpoint
	if e.Security != netconn.Implicit { // only a login would show
		return false
	}
	e.Addr, e.TLS = net.JoinHostPort(host, port), a.endpoint.TLS.Clone()
	e.TLS.ServerName, e.TLS.Certificates = host, nil // it is told nothing of who asks
	conn, err := netconn.Dial(ctx, e)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// misplaced says what a server seems to be that is not the one of the URL.
func (a *account) misplaced(err error) error {
	var greeting *netconn.GreetingError
	pr := problem{status: exitUnavailable, code: "not_reachable"}
	_, port, _ := net.SplitHostPort(a.endpoint.Addr)
	switch {
	case errors.Is(err, imapwire.ErrNoPassword):
		pr.what, pr.status, pr.code = imapwire.ErrNoPassword.Error(), exitLogin, "auth_failed"
		pr.do = `auth = "oauth2", or "xoauth2" with a token_command; docs: mailstow-oauth2(7)`
		if a.endpoint.Security == netconn.Plain {
			pr.do = "use TLS: " + a.urlOf(a.protocol, netconn.Upgrade, port)
		}
	case errors.As(err, new(tls.RecordHeaderError)):
		pr.what = a.endpoint.Addr + " does not begin with TLS"
		how := map[mailbox.Protocol]string{mailbox.IMAP: "STARTTLS", mailbox.POP3: "STLS"}[a.protocol]
		pr.do = fmt.Sprintf("if that is the right port: %s (%s)", a.urlOf(a.protocol, netconn.Upgrade, port), how)
	case !errors.As(err, &greeting):
		return err
	case errors.Is(greeting.Err, netconn.ErrSilent) && a.endpoint.Security != netconn.Implicit:
		pr.what = fmt.Sprintf("%s does not greet: %v", a.endpoint.Addr, greeting.Err)
		pr.do = fmt.Sprintf("if that port begins with TLS: %s; else see whether the network is there", a.urlOf(a.protocol, netconn.Implicit, port))
	case greeting.Err != nil:
		return err
	default:
		pr.what, pr.do = greeting.Error(), "check the port"
		for begin, other := range map[string]mailbox.Protocol{"* OK": mailbox.IMAP, "+OK": mailbox.POP3} {
			if strings.HasPrefix(greeting.Greeting, begin) && other != a.protocol {
				pr.do = fmt.Sprintf("it is one of %s: %s", strings.ToUpper(string(other)), a.urlOf(other, a.endpoint.Security, port))
			}
		}
	}
	return &problemError{pr, err}
}

// urlOf returns the URL of the account on its host, with the user where no config
// file names one.
func (a *account) urlOf(protocol mailbox.Protocol, security netconn.Security, port string) string {
	server := urlOf(protocol, security, a.host, port)
	if !a.named {
		server = strings.Replace(server, "://", "://"+strings.ReplaceAll(url.User(a.user).String(), "%40", "@")+"@", 1)
	}
	return server
}

// urlOf returns the URL of a server.
func urlOf(protocol mailbox.Protocol, security netconn.Security, host, port string) string {
	for scheme, s := range schemes {
		if s.protocol == protocol && s.security == security {
			if port == s.port && !strings.Contains(host, ":") {
				return scheme + "://" + host
			}
			return scheme + "://" + net.JoinHostPort(host, port)
		}
	}
	return host
}
