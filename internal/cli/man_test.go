package cli

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"mailstow/internal/config"
)

func manual(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/man/" + name)
	must(t, err)
	return string(b)
}

// The manual names each command, option and key that there is, and no other.
func TestManualIsTheProgram(t *testing.T) {
	page := manual(t, "mailstow.1")
	app := (&program{}).app()
	known := map[string]bool{"version": true, "help": true}
	for _, c := range app.Commands {
		if !strings.Contains(page, "\n.It Cm "+c.Name) {
			t.Errorf("mailstow.1 does not name the command %s", c.Name)
		}
		for _, f := range c.Flags {
			known[f.Names()[0]] = true
		}
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile(`Fl -([a-z-]+)`).FindAllStringSubmatch(page, -1) {
		if named[m[1]] = true; !known[m[1]] {
			t.Errorf("mailstow.1 names the option --%s, which there is not", m[1])
		}
	}
	for name := range known {
		if !named[name] {
			t.Errorf("mailstow.1 does not name the option --%s", name)
		}
	}
	page = manual(t, "mailstow.toml.5")
	for table, keys := range config.Keys() {
		for _, key := range keys {
			if !regexp.MustCompile(`(?m)^\.(Cm|It Cm) .*\b`+key+`\b`).MatchString(page) && table+"."+key != ".accounts" && table+"."+key != ".defaults" && table+"."+key != ".oauth2" && table+"."+key != ".notify" {
				t.Errorf("mailstow.toml.5 does not name %s of %q", key, table)
			}
		}
	}
	if _, err := exec.LookPath("mandoc"); err != nil {
		return
	}
	for _, name := range []string{"mailstow.1", "mailstow.toml.5", "mailstow-oauth2.7"} {
		if out, err := exec.Command("mandoc", "-Tlint", "-Wwarning", "../../docs/man/"+name).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// The example in the manual is a config file.
func TestExampleInTheManualIsRead(t *testing.T) {
	for _, name := range []string{"mailstow.toml.5", "mailstow-oauth2.7"} {
		text := ""
		for _, m := range regexp.MustCompile(`(?s)\.Bd -literal[^\n]*\n(.*?)\.Ed`).FindAllStringSubmatch(manual(t, name), -1) {
			text += strings.ReplaceAll(m[1], `\e`, `\`) + "\n"
		}
		file := t.TempDir() + "/config.toml"
		write(t, file, strings.Replace(text, "[accounts.x.oauth2]", "[accounts.x]\naddress = \"me@example.org\"\n[accounts.x.oauth2]", 1))
		if f, err := config.Read(file, "/home/me"); err != nil || len(f.Accounts) < 3 {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}
