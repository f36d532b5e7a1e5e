package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// list writes a file and reads it as a list of pairs.
func list(t *testing.T, name, format, text string, mode os.FileMode) ([]Pair, *Errors) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	pairs, err := ReadPairs(path, format, "/home/me", func(name string) string { return map[string]string{"SET": "from env"}[name] })
	var all *Errors
	if err != nil && !errors.As(err, &all) {
		t.Fatal(err)
	}
	return pairs, all
}

func TestListsAreReadInEachFormat(t *testing.T) {
	for name, c := range map[string]struct{ file, format, text string }{
		"comma":     {"l.csv", "", "source,source_password,destination,destination_password,options\nimaps://a@old,secret,imaps://a@new,cmd:pass new,exclude=Lists/**\n"},
		"semicolon": {"l.csv", "", "\ufeff# a comment, with commas, and more\nSource;Source_Password;Destination;Destination_Password;Options\nimaps://a@old;secret;imaps://a@new;cmd:pass new;exclude=Lists/**\n"},
		"tab":       {"l.txt", "csv", "source\tsource_password\tdestination\tdestination_password\toptions\nimaps://a@old\tsecret\timaps://a@new\tcmd:pass new\t\"exclude=Lists/**\"\n"},
		"toml":      {"l.toml", "", "[source]\nserver = \"imaps://old\"\npassword = \"secret\"\n[destination]\nserver = \"imaps://new\"\n[[pair]]\nsource = \"a\"\ndestination = \"a\"\ndestination_password = \"cmd:pass new\"\nexclude = [\"Lists/**\"]\n"},
	} {
		pairs, mistakes := list(t, c.file, c.format, c.text, 0o600)
		if mistakes != nil || len(pairs) != 1 {
			t.Errorf("%s: %d pairs, %v", name, len(pairs), mistakes)
			continue
		}
		p := pairs[0]
		if !p.Source.HasPassword || p.Source.Password.Reveal() != "secret" || len(p.Destination.PasswordCommand) != 3 || p.Destination.PasswordCommand[2] != "pass new" || len(p.Source.Exclude) != 1 || p.Source.Exclude[0] != "Lists/**" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	pairs, mistakes := list(t, "l.txt", ImapSync, "host1.example;user1;pass1;host2.example;user2;pass2;\n\n# c\nh1;u;p;h2;u;p\n", 0o600)
	if mistakes != nil || len(pairs) != 2 || pairs[0].Source.Server != "imaps://host1.example" || pairs[0].Destination.User != "user2" || pairs[1].Line != 4 {
		t.Errorf("imapsync: %+v, %v", pairs, mistakes)
	}
}

func TestAllMistakesOfAListAreToldAtOnce(t *testing.T) {
	_, mistakes := list(t, "l.csv", "", "source,destination,option\nimaps://a@old,imaps://a@new\n,imaps://b@new\nimaps://a@old,imaps://a@new\nimaps://c@old,imaps://c@new,x,y\n", 0o644)
	want := map[int]string{1: "did you mean options?", 3: "names no source", 4: "line 2 again", 5: "4 cells"}
	if mistakes == nil || len(mistakes.All) != len(want) {
		t.Fatalf("mistakes: %+v", mistakes)
	}
	for _, e := range mistakes.All {
		if w := want[e.Line]; w == "" || !strings.Contains(e.Text+e.Hint, w) {
			t.Errorf("line %d: %s (%s), want %q", e.Line, e.Text, e.Hint, w)
		}
	}
	for text, want := range map[string]string{
		"source,destination,source_password,options\nimaps://a@x,imaps://a@y,env:UNSET,max-size=big\n": "no UNSET",
		"source,destination,options\nimaps://a@x,imaps://a@y,delete=1\n":                               "option 1 is none",
		"source,destination,options\nimaps://a@x,imaps://a@y,map=Sent\n":                               "no pair",
		"source,destination\n\"unclosed\n":                                                             "quote",
		"source\nimaps://a@x\n":                                                                        "no column \"destination\"",
		"":                                                                                             "no pair",
	} {
		_, mistakes := list(t, "l.csv", "", text, 0o600)
		if mistakes == nil || !strings.Contains(mistakes.All[0].Text, want) || strings.Contains(mistakes.All[0].Text, "sekrit") {
			t.Errorf("%q: %+v, want %q", text, mistakes, want)
		}
	}
	for text, want := range map[string]string{
		"[source]\nserve = \"x\"\n[[pair]]\nsource=\"a\"\ndestination=\"b\"\n":                   "source.serve",
		"[source]\nserver=\"imaps://x\"\n[[pair]]\nsource=\"a\"\ndestination=\"b\"\n":            "[destination] has neither a server nor an address",
		"[[pair]]\nsource=\"imaps://a@x\"\ndestination=\"imaps://a@y\"\nmax_size=\"many\"\n":     "max_size",
		"[[pair]]\nsource=\"imaps://a@x\"\ndestination=\"imaps://a@y\"\nsource_password=env:X\n": "",
	} {
		if _, mistakes := list(t, "l.toml", "", text, 0o600); mistakes == nil || !strings.Contains(mistakes.All[0].Text, want) {
			t.Errorf("%q: %+v, want %q", text, mistakes, want)
		}
	}
}

func TestAListWithPasswordsThatOthersCanReadIsRefused(t *testing.T) {
	text := "source,destination,source_password\nimaps://a@x,imaps://a@y,plain\n"
	if _, mistakes := list(t, "l.csv", "", text, 0o644); mistakes == nil || mistakes.All[0].Hint[:9] != "chmod 600" {
		t.Errorf("mistakes: %+v", mistakes)
	}
	for _, cell := range []string{"file:x", "cmd:x", "env:SET"} {
		if _, mistakes := list(t, "l.csv", "", strings.Replace(text, "plain", cell, 1), 0o644); mistakes != nil {
			t.Errorf("%s: %+v", cell, mistakes.All[0])
		}
	}
}

func TestOptionsOfAPairMayHaveBlanks(t *testing.T) {
	pairs, mistakes := list(t, "l.csv", "", "source,destination,options\nimaps://a@x,imaps://a@y,\"'map=Sent Items=Sent' include=Work folder='A B' under=Old max-size=25M\"\n", 0o600)
	if mistakes != nil {
		t.Fatal(mistakes.All[0])
	}
	if p := pairs[0]; p.Map["Sent Items"] != "Sent" || p.Source.Folders[0] != "A B" || p.Under != "Old" || p.Source.MaxSize != 25<<20 || p.Source.Include[0] != "Work" {
		t.Errorf("%+v", p)
	}
}

// Whatever stands in a list, it is read or refused with a line.
func FuzzPairs(f *testing.F) {
	f.Add("source,destination\nimaps://a@b,imaps://c@d\n", 0)
	f.Add("a;b;c;d;e;f;\n", 2)
	f.Add("[source]\nserver = \"imaps://x\"\n[[pair]]\nsource = \"a\"\n", 1)
	path := filepath.Join(f.TempDir(), "l")
	f.Fuzz(func(t *testing.T, text string, format int) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		pairs, err := ReadPairs(path, Formats[uint(format)%3], "/home/me", func(string) string { return "" })
		if (err == nil) != (len(pairs) > 0) {
			t.Errorf("%d pairs, %v", len(pairs), err)
		}
		for _, p := range pairs {
			if p.Source.Server == "" || p.Destination.Server == "" {
				t.Errorf("%+v has no server", p)
			}
		}
	})
}

// The login for all mailboxes of one server goes to no other.
func TestDefaultsOfOneServerAreNoOthers(t *testing.T) {
	text := "[source]\nserver = \"imaps://old\"\npassword = \"secret\"\nauth_user = \"admin\"\n[[pair]]\nsource = \"SOURCE\"\ndestination = \"imaps://a@new\"\n"
	for source, has := range map[string]bool{"a": true, "imaps://a@old": true, "imaps://a@other": false, "imaps://a@old:1993": false, "imap://a@old": false} {
		pairs, mistakes := list(t, "l.toml", "", strings.Replace(text, "SOURCE", source, 1), 0o600)
		if mistakes != nil {
			t.Fatal(mistakes.All[0])
		}
		if a := pairs[0].Source; a.HasPassword != has || (a.AuthUser != "") != has {
			t.Errorf("%s: password %v, auth user %q", source, a.HasPassword, a.AuthUser)
		}
	}
}
