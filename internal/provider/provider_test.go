package provider_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"mailstow/internal/provider"
)

func TestEntriesAreWhole(t *testing.T) {
	names, domains := map[string]bool{}, map[string]bool{}
	for _, p := range provider.All() {
		if names[p.Name] || p.Name != strings.ToLower(p.Name) || p.Title == "" || len(p.IMAP) == 0 || len(p.Facts) == 0 {
			t.Errorf("%s: its name is taken, or something lacks", p.Name)
		}
		names[p.Name] = true
		for _, d := range p.Domains {
			if domains[d] || d != strings.ToLower(d) || strings.Contains(d, "@") {
				t.Errorf("%s: the domain %q", p.Name, d)
			}
			domains[d] = true
			if provider.OfDomain(strings.ToUpper(d)) != p {
				t.Errorf("%s: is not found by %s", p.Name, d)
			}
		}
		for _, s := range slices.Concat(p.IMAP, p.POP3) {
			u, err := url.Parse(s)
			if err != nil || !slices.Contains([]string{"imaps", "pop3s", "imap"}, u.Scheme) || u.Hostname() != provider.Host(s) || u.Path != "" {
				t.Errorf("%s: the server %q, %v", p.Name, s, err)
			}
			if provider.OfHost(u.Hostname()) == nil && u.Hostname() != "127.0.0.1" {
				t.Errorf("%s: is not found by its server %s", p.Name, s)
			}
		}
		for _, f := range p.Facts {
			if f.Text == "" || f.Source == "" || f.Sure == "" {
				t.Errorf("%s: a fact without a source: %+v", p.Name, f)
			}
		}
		for _, r := range p.Refusals {
			for _, w := range r.Words {
				if w != strings.ToLower(w) {
					t.Errorf("%s: %q is never found in small letters", p.Name, w)
				}
			}
			if r.What == "" || r.Do == "" {
				t.Errorf("%s: a refusal says nothing: %+v", p.Name, r)
			}
		}
	}
}

func TestProvidersAreFound(t *testing.T) {
	for host, want := range map[string]string{"aspmx.l.google.com.": "gmail", "example-com.mail.protection.outlook.com": "microsoft365", "notgoogle.com": "", "in1-smtp.messagingengine.com": "fastmail", "mx.example.org": ""} {
		got := ""
		if p := provider.OfMX(host); p != nil {
			got = p.Name
		}
		if got != want {
			t.Errorf("MX %s: %q, want %q", host, got, want)
		}
	}
	if p := provider.OfHost("IMAP.gmail.com"); p == nil || p.Name != "gmail" {
		t.Error("Gmail is not found by its host")
	}
	if user := provider.Named("icloud").User("me@icloud.com"); user != "me" {
		t.Errorf("iCloud's user is %q", user)
	}
	if user := provider.Named("Gmail").User("me@gmail.com"); user != "me@gmail.com" {
		t.Errorf("Gmail's user is %q", user)
	}
}

// The words of real servers, from their users' reports.
func TestRefusalsAreUnderstood(t *testing.T) {
	for _, c := range []struct{ provider, answer, want string }{
		{"gmail", "NO [ALERT] Application-specific password required: https://support.google.com/accounts/answer/185833 (Failure)", "Google does not accept the account password"},
		{"outlook", "NO Basic authentication is disabled.", "Microsoft no longer accepts passwords"},
		{"163", "NO LOGIN Login error or password error", "imap.163.com refused"},
		{"163", "NO SELECT Unsafe Login. Please contact kefu@188.com for help", "unsafe"},
		{"yandex", "NO [AUTHENTICATIONFAILED] LOGIN Invalid credentials or IMAP is disabled", "Yandex refused"},
		{"gmail", "NO [UNAVAILABLE] try later", ""},
	} {
		got := ""
		if r := provider.Named(c.provider).Refused(c.answer); r != nil {
			got = r.What
		}
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s says %q: %q, want %q", c.provider, c.answer, got, c.want)
		}
	}
}
