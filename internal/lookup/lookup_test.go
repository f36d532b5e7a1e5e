package lookup_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mailstow/internal/lookup"
)

// names is a domain name system.
type names struct {
	srv map[string]*net.SRV // by service and domain
	mx  map[string][]string
}

func (n names) LookupSRV(_ context.Context, service, _, name string) (string, []*net.SRV, error) {
	if r := n.srv[service+" "+name]; r != nil {
		return "", []*net.SRV{r}, nil
	}
	return "", nil, errors.New("no such host")
}

func (n names) LookupMX(_ context.Context, name string) (all []*net.MX, err error) {
	for _, host := range n.mx[name] {
		all = append(all, &net.MX{Host: host})
	}
	if all == nil {
		err = errors.New("no such host")
	}
	return all, err
}

// web answers for any host over HTTPS: with pages, by host and path.
func web(t *testing.T, pages map[string]string) (client *http.Client, asked func() []string) {
	t.Helper()
	requests := make(chan string, 100)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Host + r.URL.Path
		page, ok := pages[r.Host+r.URL.Path]
		switch {
		case !ok:
			http.NotFound(w, r)
		case strings.HasPrefix(page, "to "):
			http.Redirect(w, r, strings.TrimPrefix(page, "to "), http.StatusFound)
		case page == "never":
			<-r.Context().Done()
		default:
			fmt.Fprint(w, page)
		}
	}))
	t.Cleanup(s.Close)
	transport := s.Client().Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: transport.TLSClientConfig.RootCAs, ServerName: "example.com"} // the name in its certificate
	return s.Client(), func() (all []string) {
		for len(requests) > 0 {
			all = append(all, <-requests)
		}
		return all
	}
}

func page(servers ...string) string {
	return `<?xml version="1.0"?><clientConfig version="1.1"><emailProvider id="x">` + strings.Join(servers, "") + `</emailProvider></clientConfig>`
}

func incoming(kind, host, port, socket, user string) string {
	return fmt.Sprintf(`<incomingServer type="%s"><hostname>%s</hostname><port>%s</port><socketType>%s</socketType><username>%s</username></incomingServer>`, kind, host, port, socket, user)
}

func srv(host string, port uint16) *net.SRV { return &net.SRV{Target: host, Port: port} }

// Each source is found if no better one answers, and not if one does.
func TestEachSourceIsAsked(t *testing.T) {
	imap := page(incoming("pop3", "pop.%EMAILDOMAIN%", "995", "SSL", "%EMAILADDRESS%"), incoming("imap", "mail.example.org", "143", "STARTTLS", "%EMAILLOCALPART%"), incoming("imap", "mail.example.org", "993", "SSL", "%EMAILLOCALPART%"))
	autoconfig := "autoconfig.example.org/mail/config-v1.1.xml"
	wellKnown := "example.org/.well-known/autoconfig/mail/config-v1.1.xml"
	list := "autoconfig.thunderbird.net/v1.1/"
	for name, c := range map[string]struct {
		pages       map[string]string
		names       names
		url, user   string
		by          string
		vouched     bool
		provider    string
		servers     int
		addressThat string
	}{
		"the domain's own host":          {pages: map[string]string{autoconfig: imap, list + "example.org": page(incoming("imap", "other.example.net", "993", "SSL", ""))}, url: "imaps://mail.example.org", user: "me", by: "autoconfig of example.org", vouched: true, servers: 3},
		"the domain's well-known place":  {pages: map[string]string{wellKnown: imap}, url: "imaps://mail.example.org", user: "me", by: "autoconfig of example.org", vouched: true, servers: 3},
		"Thunderbird's list":             {pages: map[string]string{list + "example.org": page(incoming("imap", "imap.example.net", "1993", "SSL", ""))}, url: "imaps://imap.example.net:1993", user: "me@example.org", by: "Thunderbird's list", vouched: true, servers: 1},
		"SRV within the domain":          {names: names{srv: map[string]*net.SRV{"imaps example.org": srv("mail.example.org.", 993), "pop3s example.org": srv("mail.example.org.", 995)}}, url: "imaps://mail.example.org", user: "me@example.org", by: "SRV record of example.org", vouched: true, servers: 2},
		"SRV to another's host":          {names: names{srv: map[string]*net.SRV{"imaps example.org": srv("mail.example.net.", 993)}}, url: "imaps://mail.example.net", user: "me@example.org", by: "SRV record of example.org", servers: 1},
		"SRV that offers nothing":        {names: names{srv: map[string]*net.SRV{"imaps example.org": srv(".", 0), "pop3 example.org": srv("mail.example.org.", 110)}}, url: "pop3://mail.example.org", user: "me@example.org", by: "SRV record of example.org", vouched: true, servers: 1},
		"a known provider's MX":          {names: names{mx: map[string][]string{"example.org": {"aspmx.l.google.com."}}}, url: "imaps://imap.gmail.com", user: "me@example.org", by: "Gmail, which takes the mail of example.org", vouched: true, provider: "gmail", servers: 2},
		"another MX's entry in the list": {pages: map[string]string{list + "example.net": imap}, names: names{mx: map[string][]string{"example.org": {"mx1.example.net."}}}, url: "imaps://mail.example.org", user: "me", by: "Thunderbird's list, for example.net", vouched: true, servers: 3},
		"another MX's own word":          {pages: map[string]string{"autoconfig.example.net/mail/config-v1.1.xml": page(incoming("imap", "imap.example.net", "993", "SSL", "%EMAILADDRESS%"))}, names: names{mx: map[string][]string{"example.org": {"mx1.example.net."}}}, url: "imaps://imap.example.net", user: "me@example.org", by: "autoconfig of example.net", servers: 1},
		"a host that leads elsewhere":    {pages: map[string]string{autoconfig: "to https://x.example.net/y", "x.example.net/y": imap}, url: "imaps://mail.example.org", user: "me", by: "autoconfig of example.org", vouched: true, servers: 3},
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := web(t, c.pages)
			f := &lookup.Finder{Client: client, Resolver: c.names}
			found, err := f.Find(t.Context(), "me@example.org")
			if err != nil || len(found) != c.servers {
				t.Fatalf("%+v, %v", found, err)
			}
			s := found[0]
			if s.URL != c.url || s.User != c.user || !strings.HasPrefix(s.By, c.by) || s.Vouched != c.vouched {
				t.Errorf("%+v", s)
			}
			if got := s.Provider; (got == nil) != (c.provider == "") || got != nil && got.Name != c.provider {
				t.Errorf("provider %v, want %q", got, c.provider)
			}
		})
	}
}

// What would send the password in plain text, or anywhere that is no host, is
// never taken; nor is a page that comes without TLS.
func TestWhatIsOfNoUseIsNotFound(t *testing.T) {
	autoconfig := "autoconfig.example.org/mail/config-v1.1.xml"
	for name, text := range map[string]string{
		"plain text":                   page(incoming("imap", "mail.example.org", "143", "plain", "")),
		"a host that is none":          page(incoming("imap", "mail.example.org/evil?", "993", "SSL", "")),
		"a user with a line end":       page(incoming("imap", "mail.example.org", "993", "SSL", "me&#10;x")),
		"a port that is none":          page(incoming("imap", "mail.example.org", "99300", "SSL", "")),
		"no XML":                       "<html>not here</html",
		"too much":                     page(incoming("imap", "mail.example.org", "993", "SSL", "")) + strings.Repeat(" ", 300<<10),
		"a redirection to plain HTTP":  "to http://autoconfig.example.org/mail/other.xml",
		"a redirection without an end": "to https://" + autoconfig,
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := web(t, map[string]string{autoconfig: text, "autoconfig.example.org/mail/other.xml": page(incoming("imap", "mail.example.org", "993", "SSL", ""))})
			f := &lookup.Finder{Client: client, Resolver: names{}}
			if found, err := f.Find(t.Context(), "me@example.org"); !errors.Is(err, lookup.ErrNone) {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
}

func TestKnownProviderIsFoundWithoutTheNetwork(t *testing.T) {
	client, asked := web(t, nil)
	for _, offline := range []bool{true, false} {
		f := &lookup.Finder{Client: client, Resolver: names{}, Offline: offline}
		found, err := f.Find(t.Context(), "me@GoogleMail.com")
		if err != nil || found[0].URL != "imaps://imap.gmail.com" || !found[0].Vouched || found[0].Provider.Name != "gmail" {
			t.Errorf("%+v, %v", found, err)
		}
	}
	f := &lookup.Finder{Client: client, Resolver: names{}, Offline: true}
	if _, err := f.Find(t.Context(), "me@example.org"); !errors.Is(err, lookup.ErrNone) {
		t.Error(err)
	}
	if all := asked(); len(all) > 0 {
		t.Errorf("the network was asked: %q", all)
	}
	for _, address := range []string{"me", "@example.org", "me@", "me@exa mple.org", "me@localhost", "me@example..org"} {
		if found, err := f.Find(t.Context(), address); err == nil || errors.Is(err, lookup.ErrNone) {
			t.Errorf("%q: %v, %v", address, found, err)
		}
	}
}

// A host that does not answer does not keep the others from being heard.
func TestSilentHostIsNotWaitedForWithoutEnd(t *testing.T) {
	client, _ := web(t, map[string]string{"autoconfig.example.org/mail/config-v1.1.xml": "never"})
	f := &lookup.Finder{Client: client, Within: 300 * time.Millisecond, Resolver: names{srv: map[string]*net.SRV{"imaps example.org": srv("mail.example.org.", 993)}}}
	found, err := f.Find(t.Context(), "me@example.org")
	if err != nil || found[0].By != "SRV record of example.org" {
		t.Errorf("%+v, %v", found, err)
	}
}
