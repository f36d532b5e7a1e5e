package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"mailstow/internal/provider"
)

func (p *program) providersCommand() *cli.Command {
	return &cli.Command{
		Name:      "providers",
		Category:  other,
		Usage:     "what is known of mail providers, and from where",
		ArgsUsage: "[NAME|DOMAIN]...",
		Description: `  mailstow providers
  mailstow providers gmail           # servers, login, limits, and what is odd
  mailstow providers hotmail.com

An account of one of these needs no server in the config file: its address is
enough, or provider = "NAME" where the address does not show it.`,
		Action: p.providers,
	}
}

func (p *program) providers(c *cli.Context) error {
	all := provider.All()
	if c.NArg() > 0 {
		all = nil
		for _, name := range c.Args().Slice() {
			one := provider.Named(name)
			if one == nil {
				one = provider.OfDomain(name[strings.LastIndexByte(name, '@')+1:])
			}
			if one == nil {
				return configFailed(fmt.Sprintf("no provider called %q is known", redacted(name)), "mailstow providers lists them")
			}
			all = append(all, one)
		}
	}
	switch {
	case c.Bool("json"):
		lines := newJSONLines(p.Stdout)
		for _, one := range all {
			lines.write("provider", providerFields(one))
		}
	case c.NArg() > 0:
		for i, one := range all {
			if i > 0 {
				fmt.Fprintln(p.Stdout)
			}
			p.showProvider(one)
		}
	default:
		t := table{head: []string{"name", "provider", "IMAP", "POP3", "logs in with"}}
		for _, one := range all {
			pop3 := "-"
			if len(one.POP3) > 0 {
				pop3 = provider.Host(one.POP3[0])
			}
			t.add(one.Name, one.Title, provider.Host(one.IMAP[0]), pop3, strings.Join(logins(one), ", "))
		}
		fmt.Fprint(p.Stdout, t.String())
	}
	return nil
}

// logins are the ways to log in to a provider, the best for most people first.
func logins(one *provider.Provider) (all []string) {
	switch one.Password {
	case provider.AccountPassword:
		all = append(all, "password")
	case provider.NoPassword:
	default:
		all = append(all, string(one.Password))
	}
	if one.SignIn != nil {
		all = append(all, "OAuth2")
	}
	return all
}

func (p *program) showProvider(one *provider.Provider) {
	fmt.Fprintf(p.Stdout, "%s (provider = %q)\n", one.Title, one.Name)
	name := "the whole address"
	if one.LocalUser {
		name = "what stands in front of the @"
	}
	for _, l := range [][2]string{
		{"addresses", strings.Join(one.Domains, " ")},
		{"servers", strings.Join(slices.Concat(one.IMAP, one.POP3), " ")},
		{"login", name + "; " + strings.Join(logins(one), ", or ")},
		{"page", one.Page},
		{"limits", strings.Join(limitWords(one.Limits), ", ")},
	} {
		if l[1] != "" {
			fmt.Fprintf(p.Stdout, "  %-10s %s\n", l[0], l[1])
		}
	}
	for _, f := range one.Facts {
		fmt.Fprintf(p.Stdout, "  - %s\n      %s: %s\n", f.Text, f.Sure, f.Source)
	}
}

// limitWords tells a provider's limits as it counts.
func limitWords(l provider.Limits) (all []string) {
	for _, one := range []struct {
		octets int64
		what   string
	}{{l.DailyDownload, "a day to read over IMAP"}, {l.DailyPOP3, "a day to read over POP3"}, {l.DailyUpload, "a day to store"}} {
		if one.octets > 0 {
			all = append(all, fmt.Sprintf("%s MB %s", count(int(one.octets/1_000_000)), one.what))
		}
	}
	if l.Message > 0 {
		all = append(all, fmt.Sprintf("%.1f MB a message", float64(l.Message)/1_000_000))
	}
	if l.Connections > 0 {
		all = append(all, fmt.Sprintf("%d connections are used", l.Connections))
	}
	return all
}

func providerFields(one *provider.Provider) object {
	o := object{"name": one.Name, "title": one.Title, "domains": one.Domains, "imap": one.IMAP, "pop3": one.POP3, "user": "address", "login": logins(one)}
	if one.LocalUser {
		o["user"] = "local_part"
	}
	if one.Page != "" {
		o["page"] = one.Page
	}
	for key, n := range map[string]int64{"daily_download": one.Limits.DailyDownload, "daily_download_pop3": one.Limits.DailyPOP3, "daily_upload": one.Limits.DailyUpload, "message_bytes": one.Limits.Message, "connections": int64(one.Limits.Connections)} {
		if n > 0 {
			o[key] = n
		}
	}
	var facts []object
	for _, f := range one.Facts {
		facts = append(facts, object{"text": f.Text, "source": f.Source, "sure": f.Sure})
	}
	o["facts"] = facts
	return o
}
