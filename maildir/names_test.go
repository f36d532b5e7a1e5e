package maildir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailstow/mailbox"
)

func TestPathsOfMailboxes(t *testing.T) {
	for _, tt := range []struct {
		elems []string
		want  string
	}{
		{[]string{"INBOX"}, "INBOX"},
		{[]string{"Archive", "2024"}, "Archive/2024"},
		{[]string{"Отправленные"}, "Отправленные"},
		{[]string{"A/B"}, "A%2FB"},
		{[]string{"100%"}, "100%25"},
		{[]string{"..", "..", "x"}, "%2E%2E/%2E%2E/x"},
		{[]string{".hidden"}, "%2Ehidden"},
		{[]string{"."}, "%2E"},
		{[]string{""}, "%"},
		{[]string{"a", "", "b"}, "a/%/b"},
		{[]string{"cur"}, "%63ur"},
		{[]string{"INBOX", "New"}, "INBOX/%4Eew"},
		{[]string{"INBOX", "dovecot-keywords"}, "INBOX/%64ovecot-keywords"},
		{[]string{"end. "}, "end%2E%20"},
		{[]string{"a b"}, "a b"},
		{[]string{"tab\tnl\n"}, "tab%09nl%0A"},
		{[]string{"nul\x00"}, "nul%00"},
		{[]string{"caf\xe9"}, "caf%E9"},
		{[]string{"\u0085"}, "%C2%85"},
	} {
		name := mailbox.NewName(tt.elems...)
		if got := PathOf(name); got != tt.want {
			t.Errorf("path of %q = %q, want %q", tt.elems, got, tt.want)
		}
		if got := nameOfPath(tt.want); got != name {
			t.Errorf("name of %q = %q, want %q", tt.want, got.Elems(), tt.elems)
		}
	}
}

func TestLongNamesAreCutAndStayApart(t *testing.T) {
	long := strings.Repeat("ж", 200)
	for _, pair := range [][2]mailbox.Name{
		{mailbox.NewName(long + "1"), mailbox.NewName(long + "2")},
		{mailbox.NewName(strings.Repeat("%", 300) + "1"), mailbox.NewName(strings.Repeat("%", 300) + "2")},
		{mailbox.NewName(strings.Split(strings.Repeat("level/", 400)+"1", "/")...), mailbox.NewName(strings.Split(strings.Repeat("level/", 400)+"2", "/")...)},
	} {
		a, b := PathOf(pair[0]), PathOf(pair[1])
		if a == b {
			t.Errorf("two names have the path %q", a)
		}
		for _, p := range []string{a, b} {
			if err := os.MkdirAll(filepath.Join(t.TempDir(), p, "cur"), 0o700); err != nil {
				t.Errorf("%q cannot be made: %v", p, err)
			}
		}
	}
}

// No name that a server sends may lead out of the archive, into a Maildir's
// own directories, or to where another name leads.
func FuzzPathsAreSafeAndReversible(f *testing.F) {
	f.Add("../../x", "cur")
	f.Add("a\x00b", "%2E")
	f.Add(".mailstow", "TMP")
	f.Add("~", " ")
	f.Add(strings.Repeat("é", 130), "%=")
	f.Fuzz(func(t *testing.T, a, b string) {
		name := mailbox.NewName(a, b)
		p := PathOf(name)
		for _, part := range strings.Split(p, "/") {
			if part == "" || part[0] == '.' || len(part) > 255 || strings.ContainsAny(part, "\x00\n") || strings.TrimRight(part, " .") != part {
				t.Errorf("path of (%q, %q) = %q", a, b, p)
			}
			switch strings.ToLower(part) {
			case "cur", "new", "tmp", keywordsFile:
				t.Errorf("path of (%q, %q) = %q", a, b, p)
			}
		}
		if !filepath.IsLocal(p) {
			t.Errorf("path of (%q, %q) = %q leads out", a, b, p)
		}
		if !strings.Contains(p, "%=") && nameOfPath(p) != name {
			t.Errorf("%q gives %q back, want (%q, %q)", p, nameOfPath(p).Elems(), a, b)
		}
	})
}
