package lookup

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"mailstow/internal/provider"
)

// document is what a domain publishes (draft-ietf-mailmaint-autoconfig).
type document struct {
	Servers []struct {
		Type       string `xml:"type,attr"`
		Host       string `xml:"hostname"`
		Port       string `xml:"port"`
		SocketType string `xml:"socketType"`
		User       string `xml:"username"`
	} `xml:"emailProvider>incomingServer"`
}

// maxDocument bounds what is read of one, in octets.
const maxDocument = 256 << 10

// published reads the document at a URL; nil if there is none, or none of use.
func (a *asker) published(ctx context.Context, by string, vouched bool, from string) (all []Server) {
	b, err := a.get(ctx, from)
	var doc document
	if err != nil || xml.Unmarshal(b, &doc) != nil {
		return nil
	}
	fill := strings.NewReplacer("%EMAILADDRESS%", a.address, "%EMAILLOCALPART%", a.local, "%EMAILDOMAIN%", a.domain)
	for _, s := range doc.Servers {
		scheme, usual := schemeOf(strings.ToLower(s.Type), strings.ToUpper(s.SocketType))
		host := strings.ToLower(fill.Replace(strings.TrimSpace(s.Host)))
		port, err := strconv.ParseUint(strings.TrimSpace(s.Port), 10, 16)
		user := fill.Replace(strings.TrimSpace(s.User))
		if scheme == "" || err != nil || port == 0 || !isDomain(host) || strings.ContainsAny(user, "%\r\n\x00") {
			continue
		}
		if user == "" {
			user = a.address
		}
		all = append(all, Server{URL: urlOf(scheme, host, strconv.FormatUint(port, 10), usual), User: user, By: by, Vouched: vouched, Provider: provider.OfHost(host)})
	}
	return all
}

// schemeOf returns the scheme of a kind of server, and its port; "" for what is
// of no use here, or goes without TLS.
func schemeOf(kind, socket string) (scheme, port string) {
	switch {
	case kind == "imap" && socket == "SSL":
		return "imaps", "993"
	case kind == "imap" && socket == "STARTTLS":
		return "imap", "143"
	case kind == "pop3" && socket == "SSL":
		return "pop3s", "995"
	case kind == "pop3" && socket == "STARTTLS":
		return "pop3", "110"
	}
	return "", ""
}

// get reads what is at a URL. It never goes on without TLS.
func (a *asker) get(ctx context.Context, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{}
	if a.finder.Client != nil {
		client = *a.finder.Client
	}
	client.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if next.URL.Scheme != "https" || len(via) > 5 {
			return errors.New("it leads elsewhere")
		}
		return nil
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = errors.New("it has no end")
	}
	return b, err
}

func escaped(s string) string { return url.QueryEscape(s) }
