package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"

	"mailstow/internal/config"
	"mailstow/internal/credential"
	"mailstow/internal/provider"
	"mailstow/maildir"
)

func (p *program) completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Category:  other,
		Usage:     "print what makes a shell complete mailstow's words",
		ArgsUsage: "bash|zsh|fish",
		Description: `  source <(mailstow completion bash)                       # in ~/.bashrc
  source <(mailstow completion zsh)                        # in ~/.zshrc, after compinit
  mailstow completion fish > ~/.config/fish/completions/mailstow.fish

Commands, options, the accounts of the config file and the folders of the
archive are completed. No server is asked.`,
		Action: func(c *cli.Context) error {
			script, ok := completions[c.Args().First()]
			if !ok || c.NArg() != 1 {
				return &usageError{text: "`mailstow completion` is bash, zsh or fish", hint: "source <(mailstow completion bash)"}
			}
			fmt.Fprint(p.Stdout, script)
			return nil
		},
	}
}

// completing is the word by which a shell asks for candidates; the line so far
// follows it.
const completing = "__complete"

var completions = map[string]string{
	// A folder may be called anything, and what is inserted is read by the shell:
	// each candidate is quoted, or readline does it inside quotes.
	"bash": `_mailstow() {
	local cur=${COMP_WORDS[COMP_CWORD]} word candidate
	local -a words=()
	for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
		[[ $word == = ]] && continue # of --option=value, which bash takes apart
		word=${word#[\"\']} word=${word%[\"\']}
		words+=("${word//\\/}")
	done
	[[ $cur == = ]] && cur= words+=("")
	COMPREPLY=()
	while IFS= read -r candidate; do
		[[ $cur == [\"\']* ]] || candidate=$(printf %q "$candidate")
		COMPREPLY+=("$candidate")
	done < <(mailstow ` + completing + ` "${words[@]}" 2>/dev/null)
	if [[ $cur == [\"\']* ]]; then compopt -o filenames 2>/dev/null; fi
	return 0
}
complete -o default -F _mailstow mailstow
`,
	"zsh": `_mailstow() {
	local -a candidates
	candidates=("${(@f)$(mailstow ` + completing + ` "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
	if [[ -n "$candidates" ]]; then compadd -a candidates; else _files; fi
}
compdef _mailstow mailstow
`,
	"fish": `complete -c mailstow -f -a '(mailstow ` + completing + ` (commandline -opc)[2..-1] (commandline -ct))'
complete -c mailstow -l to -s t -r -F
complete -c mailstow -l config -s c -r -F
`,
}

// complete prints the candidates for the last of some words. It never runs a
// command.
func (p *program) complete(ctx context.Context, app *cli.App, words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	current := words[len(words)-1]
	for _, candidate := range p.candidates(ctx, app, words[:len(words)-1], current) {
		if strings.HasPrefix(candidate, current) && !strings.ContainsFunc(candidate, unicode.IsControl) {
			fmt.Fprintln(p.Stdout, candidate)
		}
	}
}

func (p *program) candidates(ctx context.Context, app *cli.App, before []string, current string) (all []string) {
	cmd, rest := findCommand(app, before)
	if cmd == nil {
		if strings.HasPrefix(current, "-") {
			return []string{"--help", "--version"}
		}
		for _, c := range app.Commands {
			all = append(all, c.Name)
		}
		return all
	}
	takesValue := options(cmd)
	if strings.HasPrefix(current, "-") && !slices.Contains(before, "--") {
		for name := range takesValue {
			if len(name) > 1 {
				all = append(all, "--"+name)
			}
		}
		slices.Sort(all)
		return all
	}
	var words []string
	pending := ""
	for _, w := range rest {
		name, _, inline := strings.Cut(strings.TrimLeft(w, "-"), "=")
		switch {
		case pending != "":
			pending = ""
		case !strings.HasPrefix(w, "-") || w == "-":
			words = append(words, w)
		case takesValue[name] && !inline:
			pending = name
		}
	}
	cfg := p.configOf(rest)
	if pending != "" {
		return p.values(ctx, cfg, pending, words)
	}
	return p.words(ctx, cfg, cmd.Name, words)
}

// configOf returns the config file that a line of words is about, nil if there is
// none that can be read.
func (p *program) configOf(words []string) *config.File {
	paths := config.Paths(p.Getenv)
	for i, w := range words {
		if path, ok := strings.CutPrefix(w, "--config="); ok {
			paths = []string{path}
		} else if (w == "--config" || w == "-c") && i+1 < len(words) {
			paths = []string{words[i+1]}
		}
	}
	for _, path := range paths {
		if f, err := config.Read(path, p.Getenv("HOME")); err == nil {
			return f
		}
	}
	return nil
}

// values are what an option may be.
func (p *program) values(ctx context.Context, cfg *config.File, option string, words []string) []string {
	switch option {
	case "via":
		return []string{"imap", "pop3", "auto"}
	case "flow":
		return []string{"browser", "paste", "device"}
	case "keep":
		return []string{credential.InKeyring, credential.InFile}
	case "auth":
		return append([]string{"password", "xoauth2", "oauthbearer", "external"}, signIns...)
	case "folder", "include", "exclude":
		if len(words) == 0 { // of all accounts
			words = cfg.Names()
		}
		var all []string
		for _, name := range words {
			all = append(all, p.foldersOf(ctx, cfg, name)...)
		}
		slices.Sort(all)
		return append(slices.Compact(all), roles[option]...)
	}
	return nil // the shell completes files
}

var roles = map[string][]string{"exclude": {`\Junk`, `\Trash`, `\Drafts`, `\Sent`, `\Archive`}}

// words are what may stand where a command takes words.
func (p *program) words(ctx context.Context, cfg *config.File, command string, before []string) []string {
	verbs := map[string][]string{"auth": {"login", "status", "logout"}, "config": {"show", "path", "check"}, "completion": {"bash", "zsh", "fish"}}
	switch {
	case verbs[command] != nil && len(before) == 0:
		return verbs[command]
	case command == "completion" || command == "demo":
		return nil
	case command == "providers":
		var all []string
		for _, one := range provider.All() {
			all = append(all, one.Name)
		}
		return all
	case command == "list" && len(before) == 1:
		return p.foldersOf(ctx, cfg, before[0])
	case cfg == nil:
		return nil
	}
	var all []string
	for _, a := range cfg.Accounts {
		if !slices.Contains(before, a.Name) {
			all = append(all, a.Name)
		}
	}
	return all
}

// foldersOf returns the folders that the archive has of an account.
func (p *program) foldersOf(ctx context.Context, cfg *config.File, account string) (all []string) {
	if cfg == nil {
		return nil
	}
	c := cli.NewContext(nil, nil, nil)
	for _, set := range cfg.Accounts {
		if set.Name != account {
			continue
		}
		root := first(p.Getenv("MAILSTOW_ARCHIVE"), cfg.Archive)
		open(ctx, place{dir: dirOf(c, root, set)}, func(ar *maildir.Archive) error {
			infos, err := ar.Folders(ctx)
			for _, f := range infos {
				all = append(all, f.Name)
			}
			return err
		})
	}
	return all
}
