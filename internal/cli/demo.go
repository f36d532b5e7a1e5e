package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"mailstow/internal/demo"
)

func (p *program) demoCommand() *cli.Command {
	return &cli.Command{
		Name:     "demo",
		Category: other,
		Usage:    "try everything on this machine with sample mail",
		Description: `  mailstow demo

Starts an IMAP and a POP3 server with sample mail on this machine, backs both
up into a new archive, verifies it, moves it to another server, and leaves it for
a look. Nothing leaves the machine.`,
		Action: p.demo,
	}
}

func (p *program) demo(c *cli.Context) error {
	servers, err := demo.Start()
	if err != nil {
		return err
	}
	defer servers.Close()
	dir, err := os.MkdirTemp("", "mailstow-demo-")
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "mail-archive")
	fmt.Fprintf(p.Stdout, "A mail account with sample mail runs on this machine: IMAP at %s, POP3 at %s.\nIts password is in MAILSTOW_PASSWORD.\n", servers.IMAP, servers.POP3)
	imap := "imap+insecure://" + demo.User + "@" + servers.IMAP
	pop3 := "pop3+insecure://" + demo.User + "@" + servers.POP3
	account, other := filepath.Join(root, demo.User+"@127.0.0.1"), "imap+insecure://"+demo.User+"@"+servers.Other
	for _, step := range []struct {
		about string
		args  []string
	}{
		{"Back up the whole account over IMAP:", []string{"backup", imap, "--to", root, "--verbose"}},
		{"Run it again: there is nothing to do.", []string{"backup", imap, "--to", root, "--verbose"}},
		{"The same inbox over POP3: it is recognised, and nothing is stored twice.", []string{"backup", pop3, "--to", root, "--verbose"}},
		{"Prove that the archive is whole:", []string{"verify", root}},
		{"What is where:", []string{"list", account}},
		{"Move to another server:", []string{"migrate", account, other}},
		{"Prove that it is all there, octet by octet:", []string{"verify", account, "--against", other, "--full"}},
	} {
		fmt.Fprintf(p.Stdout, "\n%s\n  $ mailstow %s\n", step.about, strings.Join(step.args, " "))
		env := p.Env
		env.Args, env.Getenv = step.args, p.demoGetenv(dir)
		if status := Run(c.Context, env); status != exitOK {
			return &saidError{status}
		}
	}
	inbox := filepath.Join(account, "INBOX")
	fmt.Fprintf(p.Stdout, `
The archive is plain Maildir and stays where it is:
  ls %s/cur
  mutt -R -f %s
  rm -r %s        when you have seen enough
Nothing has left this machine.
`, inbox, inbox, dir)
	return nil
}

// demoGetenv keeps the demo away from the user's own configuration and state.
func (p *program) demoGetenv(dir string) func(string) string {
	return func(name string) string {
		switch name {
		case "MAILSTOW_PASSWORD":
			return demo.Password
		case "HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME":
			return dir
		case "MAILSTOW_ARCHIVE":
			return ""
		case "MAILSTOW_CONFIG":
			return os.DevNull
		}
		return p.Getenv(name)
	}
}
