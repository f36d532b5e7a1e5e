package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"mailstow/internal/guess"
)

// usageError is a wrong use of the command line.
type usageError struct{ text, hint string }

func (e *usageError) Error() string { return e.text }

const noInsecurity = "--tls-ca FILE for a private CA; nothing switches verification off"

// foreignCommands says what commands of other tools are called here.
var foreignCommands = map[string]string{
	"version": "mailstow --version",
	"sync":    "mailstow backup", "pull": "mailstow backup", "fetch": "mailstow backup", "download": "mailstow backup", "get": "mailstow backup", "run": "mailstow backup",
	"push": "mailstow migrate", "copy": "mailstow migrate", "move": "mailstow migrate", "upload": "mailstow migrate", "import": "mailstow migrate DIR ACCOUNT",
	"add": "mailstow init", "setup": "mailstow init", "configure": "mailstow init", "login": "mailstow auth login", "logout": "mailstow auth logout",
	"test": "mailstow check", "doctor": "mailstow check", "prune": "mailstow trim", "delete": "mailstow trim", "expunge": "mailstow trim", "clean": "mailstow trim",
	"ls": "mailstow list", "show": "mailstow list", "accounts": "mailstow config show",
}

// foreign says what options of other tools are called here.
var foreign = map[string]string{
	"dry":       "--dry-run",
	"version":   "mailstow --version",
	"subset":    "mailstow verify --subset",
	"port":      "a URL such as imaps://user@host:port",
	"host":      "a URL such as imaps://user@host",
	"delete":    "nothing: a backup never deletes",
	"delete1":   "nothing: a backup never deletes",
	"delete2":   "nothing: a backup never deletes",
	"host1":     "a URL such as imaps://user@host",
	"user1":     "a URL such as imaps://user@host",
	"password":  "--password-command, --password-file, MAILSTOW_PASSWORD or the prompt",
	"password1": "--password-command or --password-file",
	"passfile1": "--password-file",
	"insecure":  noInsecurity,
	"logfile":   "--log-file",
	"debug":     "--verbose",
	"noop":      "--dry-run",

	"no-verify":            noInsecurity,
	"no-ssl-verify":        noInsecurity,
	"no-check-certificate": noInsecurity,
	"nosslcheck":           noInsecurity,
	"skip-verify":          noInsecurity,

	"justlogin":         "mailstow check",
	"justfolders":       "mailstow check",
	"f1f2":              "--map FOLDER=MAILBOX",
	"regextrans2":       "--map FOLDER=MAILBOX",
	"subfolder2":        "--under NAME",
	"automap":           "nothing: that is the usual; --no-automap is the other",
	"user2":             "a URL such as imaps://user@host",
	"host2":             "a URL such as imaps://user@host",
	"password2":         "MAILSTOW_DESTINATION_PASSWORD, or the config file",
	"maxage":            "--newer-than",
	"minage":            "--older-than",
	"maxsize":           "--max-size",
	"folder-blacklist":  "--exclude",
	"transfers":         "--connections",
	"maxbytespersecond": "--bwlimit",
	"exitwhenover":      "--max-transfer",
	"authuser1":         "--auth-user",
	"idle":              "--watch",
	"maildir":           "--to",
	"destination":       "--to",
}

// arrange puts arguments into the order that urfave/cli v2 understands:
// command, options, "--", the rest. The library takes an option behind the
// first argument for an argument, and drops it without a word.
func arrange(app *cli.App, args []string) ([]string, error) {
	cmd, rest := findCommand(app, args)
	if cmd == nil {
		return nil, noCommand(app, args)
	}
	takesValue := options(cmd)
	a := arranger{cmd: cmd, takesValue: takesValue}
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			a.words = append(a.words, rest...)
			rest = nil
		case len(arg) < 2 || arg[0] != '-':
			a.words = append(a.words, arg)
		default:
			var err error
			if rest, err = a.option(arg, rest); err != nil {
				return nil, err
			}
		}
	}
	if slices.ContainsFunc(a.options, func(o string) bool { return o == "--help" || o == "-h" }) {
		return []string{cmd.Name, "--help"}, nil // whatever it would be about
	}
	out := append([]string{cmd.Name}, a.options...)
	return append(append(out, "--"), a.words...), nil
}

// noCommand says which word ought to have been a command.
func noCommand(app *cli.App, args []string) error {
	words := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return strings.HasPrefix(arg, "-") })
	if len(words) == 0 {
		return &usageError{text: "no command is named", hint: listCommands}
	}
	var e *usageError
	for _, word := range words { // one may be the value of an option in front
		if e = unknownCommand(app, word); e.hint != listCommands {
			break
		}
	}
	return e
}

const listCommands = "mailstow --help lists them"

// unknownCommand guesses what was meant by a command that does not exist.
func unknownCommand(app *cli.App, name string) *usageError {
	e := &usageError{text: fmt.Sprintf("there is no command %q", redacted(name)), hint: listCommands}
	var names []string
	for _, known := range app.Commands {
		names = append(names, known.Name)
	}
	if ours := foreignCommands[name]; ours != "" {
		e.hint = "use " + ours
	} else if near := guess.Nearest(name, names); near != "" {
		e.hint = fmt.Sprintf("did you mean mailstow %s?", near)
	}
	return e
}

// findCommand returns the command that is named in args, and args without it.
// Options may stand in front of it.
func findCommand(app *cli.App, args []string) (*cli.Command, []string) {
	for i, arg := range args {
		if arg == "--" {
			return nil, nil
		}
		if strings.HasPrefix(arg, "-") {
			continue
		}
		for _, c := range app.Commands {
			if c.HasName(arg) {
				return c, slices.Concat(args[:i], args[i+1:])
			}
		}
		if i == 0 {
			return nil, nil
		}
	}
	return nil, nil
}

// options returns the names of a command's options, and whether each takes a
// value.
func options(c *cli.Command) map[string]bool {
	known := map[string]bool{"help": false, "h": false}
	for _, f := range c.Flags {
		value := true
		if d, ok := f.(cli.DocGenerationFlag); ok {
			value = d.TakesValue()
		}
		for _, name := range f.Names() {
			known[name] = value
		}
	}
	return known
}

type arranger struct {
	cmd            *cli.Command
	takesValue     map[string]bool
	options, words []string
}

// option takes one option, and its value off rest if it has one there.
func (a *arranger) option(arg string, rest []string) ([]string, error) {
	option, _, inline := strings.Cut(arg, "=")
	name := strings.TrimLeft(option, "-")
	value, known := a.takesValue[name]
	switch {
	case known && value && !inline:
		if len(rest) == 0 {
			return nil, &usageError{text: fmt.Sprintf("option %s needs a value", arg)}
		}
		a.options = append(a.options, arg+"="+rest[0])
		return rest[1:], nil
	case known:
		a.options = append(a.options, arg)
		return rest, nil
	case !strings.HasPrefix(arg, "--") && a.bundle(arg[1:], rest):
		return a.unbundle(arg[1:], rest), nil
	}
	e := &usageError{text: fmt.Sprintf("unknown option %s for `mailstow %s`", option, a.cmd.Name)}
	ours := foreign[name]
	near := guess.Nearest(name, slices.Sorted(maps.Keys(a.takesValue)))
	switch {
	case strings.HasPrefix(ours, "nothing"):
		e.hint = ours
	case ours != "":
		e.hint = "use " + ours
	case near != "":
		e.hint = "did you mean --" + near + "?"
	default:
		e.hint = fmt.Sprintf("mailstow %s --help lists them", a.cmd.Name)
	}
	return nil, e
}

// bundle reports whether letters are one-letter options, as in -nv or -tDIR.
func (a *arranger) bundle(letters string, rest []string) bool {
	for i, r := range letters {
		value, known := a.takesValue[string(r)]
		if !known {
			return false
		}
		if value {
			return i+1 < len(letters) || len(rest) > 0
		}
	}
	return true
}

func (a *arranger) unbundle(letters string, rest []string) []string {
	for i, r := range letters {
		if a.takesValue[string(r)] {
			value := letters[i+1:]
			if value == "" {
				value, rest = rest[0], rest[1:]
			}
			a.options = append(a.options, "-"+string(r)+"="+value)
			return rest
		}
		a.options = append(a.options, "-"+string(r))
	}
	return rest
}
