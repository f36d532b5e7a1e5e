// Package cli is the command line of mailstow: options in, engine calls,
// events out, exit status back. It decides nothing about mail.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"mailstow/internal/config"
	"mailstow/internal/lookup"
	"mailstow/internal/quantity"
)

// Env is what a run of the program gets from outside.
type Env struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string

	// Find finds the mail servers of an address, as [lookup.Finder.Find] does;
	// nil for the usual way.
	Find func(ctx context.Context, address string) ([]lookup.Server, error)
}

// Run runs the program and returns its exit status. When ctx ends with an
// [Interrupted], that is the status.
func Run(ctx context.Context, env Env) int {
	p := &program{Env: env}
	if p.inJournal(env.Stdout) {
		p.Stdout = &journal{w: env.Stdout, usual: "<6>"}
	}
	if p.inJournal(env.Stderr) {
		p.Stderr = &journal{w: env.Stderr, usual: "<3>"}
	}
	app := p.app()
	args := env.Args
	if len(args) == 0 || len(args) == 1 && (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
		p.rootHelp(app)
		return exitOK
	}
	if args[0] == "--version" || args[0] == "-V" {
		fmt.Fprintln(p.Stdout, "mailstow", version())
		return exitOK
	}
	if args[0] == completing {
		p.complete(ctx, app, args[1:])
		return exitOK
	}
	if args[0] == "help" {
		args = append(args[1:2:2], "--help")
	}
	args, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, append([]string{"mailstow"}, args...))
	}
	return p.finish(ctx, err)
}

// program is one run of mailstow.
type program struct {
	Env
	several bool // accounts are worked on
	notify  config.Notify
	traced  sync.Mutex // held while a line of a trace is printed
	log     *jsonLines // of the command that runs, nil for none

	storing  bool       // the account that is being made is where mail goes to
	still    bool       // the network is not asked for anything
	changing bool       // mail is going to be removed from the account that is being made
	beside   bool       // and the other one is named by a URL
	asking   sync.Mutex // held while a person is asked
	warned   sync.Once  // of a variable that means nothing
}

// terminal reports whether a stream is one, and a useful one.
func (p *program) terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && p.Getenv("TERM") != "dumb"
}

func init() { cli.FlagStringer = optionHelp }

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:                      "mailstow",
		Usage:                     "keep mail safe: back it up, prove that it is whole, make room for more",
		Writer:                    p.Stdout,
		ErrWriter:                 p.Stderr,
		HideHelp:                  true, // the library's flags for help and version are shared by all runs of a process
		HideVersion:               true,
		DisableSliceFlagSeparator: true, // a folder may be called "a,b"
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usageFailed,
		Commands: []*cli.Command{
			p.initCommand(), p.checkCommand(), p.backupCommand(), p.migrateCommand(), p.restoreCommand(), p.trimCommand(), p.statusCommand(), p.verifyCommand(), p.listCommand(), p.demoCommand(), p.configCommand(), p.authCommand(), p.providersCommand(), p.completionCommand(),
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError = usageFailed
		c.HideHelp = true
		c.CustomHelpTemplate = commandHelp
		c.Flags = append(c.Flags, commonFlags()...)
	}
	return app
}

// badValue is what the library says of a value that an option does not take.
var badValue = regexp.MustCompile(`(?s)^invalid (?:boolean )?value ".*" for (?:flag )?-+([\w-]+): (.*)$`)

func usageFailed(_ *cli.Context, err error, _ bool) error {
	m := badValue.FindStringSubmatch(err.Error())
	switch {
	case m == nil:
		return &usageError{text: err.Error()}
	case m[2] == "parse error":
		return &usageError{text: "--" + m[1] + " takes no value"}
	}
	return &usageError{text: "--" + m[1] + ": " + m[2]}
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "0.1.0-dev"
}

const commandHelp = `mailstow {{.Name}} - {{.Usage}}

Usage:  mailstow {{.Name}} [options]{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}

{{.Description}}

Options:{{range .VisibleFlags}}
  {{.}}{{end}}
`

// optionHelp is an option's line in the help: its names, the placeholder that
// stands in backquotes in its usage, and its default if it has one.
func optionHelp(f cli.Flag) string {
	d := f.(cli.DocGenerationFlag)
	before, rest, quoted := strings.Cut(d.GetUsage(), "`")
	placeholder, after, _ := strings.Cut(rest, "`")
	usage := before + placeholder + after
	var names []string
	for _, name := range f.Names() {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		names = append(names, dashes+name)
	}
	head := strings.Join(names, ", ")
	if quoted {
		head += " " + placeholder
	}
	switch text := d.GetDefaultText(); {
	case !d.TakesValue(), text == "", text == "0", text == "0s":
	default:
		usage += " (default: " + strings.TrimSuffix(text, "0s") + ")"
	}
	return head + "\t" + usage
}

// rootHelp lists the commands in the order of use.
func (p *program) rootHelp(app *cli.App) {
	fmt.Fprintf(p.Stdout, "mailstow - %s\n\nTry it, no account needed:\n  mailstow demo\n\nWith an account, no config needed:\n  mailstow backup imaps://me@mail.example.org --to ~/mail-archive\n", app.Usage)
	for _, group := range []string{everyDay, move, makeRoom, lookInside, other} {
		fmt.Fprintf(p.Stdout, "\n%s\n", group)
		for _, c := range app.Commands {
			if c.Category == group {
				fmt.Fprintf(p.Stdout, "  %-10s %s\n", c.Name, c.Usage)
			}
		}
	}
	fmt.Fprint(p.Stdout, "\nmailstow COMMAND --help shows examples and options.\n")
}

const (
	everyDay   = "Every day"
	move       = "Move"
	makeRoom   = "Make room"
	lookInside = "Look inside"
	other      = "Other"
)

// Options that mean the same everywhere.

func text(name, usage string, aliases ...string) cli.Flag {
	return &cli.StringFlag{Name: name, Usage: usage, Aliases: aliases}
}

// texts is an option that may be given several times.
func texts(name, usage string) cli.Flag { return &cli.StringSliceFlag{Name: name, Usage: usage} }

func yes(name, usage string, aliases ...string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, Aliases: aliases, DisableDefaultText: true}
}

// span is the value of an option that is a length of time.
type span time.Duration

func (s *span) Set(text string) error {
	d, err := quantity.Duration(text)
	*s = span(d)
	return err
}

func (s *span) String() string { return time.Duration(*s).String() }

func duration(name, usage string, value time.Duration) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: (*span)(&value)}
}

// tally is the value of an option that is a number of things.
type tally int

func (n *tally) Set(text string) error {
	v, err := strconv.Atoi(text)
	if err != nil || v < 1 {
		return fmt.Errorf("%q is no number above 0", text)
	}
	*n = tally(v)
	return nil
}

func (n *tally) String() string { return strconv.Itoa(int(*n)) }

func number(name, usage string, value int) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: (*tally)(&value)}
}

func commonFlags() []cli.Flag {
	return []cli.Flag{
		text("config", "read `FILE` instead of ~/.config/mailstow/config.toml", "c"),
		yes("quiet", "print errors only", "q"),
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say more; without a terminal also what went well; -vv shows what is said to servers", Count: new(int), DisableDefaultText: true},
		yes("json", "print JSON lines on stdout"),
		text("log-file", "write all that happens to `FILE` too, as JSON lines"),
		yes("no-input", "never ask; fail with what is needed"),
		yes("help", "show help", "h"),
	}
}

// finish prints what is left to say and returns the exit status.
func (p *program) finish(ctx context.Context, err error) int {
	var said *saidError
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &said):
		return said.status
	case errors.As(err, &usage):
		fmt.Fprintln(p.Stderr, "mailstow:", show(usage.text))
		if usage.hint != "" {
			fmt.Fprintln(p.Stderr, " ", strings.TrimSpace(usage.hint))
		}
		return exitUsage
	}
	pr := explain(ctx, "", err)
	if slices.Contains(p.Args, "--json") {
		failedJSON(p.Stdout, pr)
	} else {
		pr.print(p.Stderr)
	}
	return pr.status
}
