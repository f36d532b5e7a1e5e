package migrate

import (
	"strings"
	"testing"

	"mailstow/mailbox"
)

func TestFoldersGoByRoleThenByName(t *testing.T) {
	name := mailbox.NewName
	sent := mailbox.Mailbox{Name: name("Sent Items"), Wire: "Sent Items", Role: `\Sent`}
	all := mailbox.Mailbox{Name: name("All"), Wire: "All", Role: `\All`}
	boxes := []mailbox.Mailbox{{Name: name("INBOX"), Wire: "INBOX"}, sent, all}
	for _, tt := range []struct {
		mapping Mapping
		folder  Folder
		shared  bool
		want    mailbox.Name
		there   bool
	}{
		{Mapping{}, Folder{Name: name("Gesendet"), Role: `\Sent`}, false, name("Sent Items"), true},
		{Mapping{NoRoles: true}, Folder{Name: name("Gesendet"), Role: `\Sent`}, false, name("Gesendet"), false},
		{Mapping{}, Folder{Name: name("Papierkorb"), Role: `\Trash`}, false, name("Papierkorb"), false},
		{Mapping{}, Folder{Name: name("Alles"), Role: `\All`}, false, name("Alles"), false}, // mail in it is the server's own choice
		{Mapping{}, Folder{Name: name("INBOX", "Work")}, true, name("Work"), false},
		{Mapping{}, Folder{Name: name("INBOX", "Work")}, false, name("INBOX", "Work"), false},
		{Mapping{}, Folder{Name: name("INBOX")}, true, name("INBOX"), false},
		{Mapping{Under: "Old/Mail"}, Folder{Name: name("INBOX", "Work")}, true, name("Old", "Mail", "Work"), false},
		{Mapping{Under: "Old"}, Folder{Name: name("Gesendet"), Role: `\Sent`}, false, name("Old", "Gesendet"), false},
		{Mapping{Renamed: map[string]string{"Gesendet": "A/B"}}, Folder{Name: name("Gesendet"), Role: `\Sent`}, false, name("A", "B"), false},
	} {
		got, there := tt.mapping.target(tt.folder, boxes, tt.shared)
		if got != tt.want || (there != nil) != tt.there {
			t.Errorf("%+v of %+v: %s, there %v; want %s, %v", tt.folder, tt.mapping, got, there != nil, tt.want, tt.there)
		}
	}
}

// On some servers all folders lie below INBOX: that is the server's way, not
// the user's.
func TestSharedInboxIsSeen(t *testing.T) {
	name := mailbox.NewName
	for _, tt := range []struct {
		folders []Folder
		want    bool
	}{
		{[]Folder{{Name: name("INBOX")}, {Name: name("INBOX", "Work")}}, true},
		{[]Folder{{Name: name("INBOX")}}, false},
		{[]Folder{{Name: name("INBOX")}, {Name: name("INBOX", "Work")}, {Name: name("Sent")}}, false},
	} {
		if got := sharesInbox(tt.folders); got != tt.want {
			t.Errorf("%+v: %v", tt.folders, got)
		}
	}
}

func TestPlainNamesAreTakenEverywhere(t *testing.T) {
	for from, to := range map[string]string{
		"Work/2024":   "Work/2024",
		"Entwürfe":    "Entwürfe",
		"收件箱":         "收件箱",
		"a%b{c}\"d":   "a_b_c__d",
		"~home":       "_home",
		"  x  ":       "x",
		"\xff\xfe":    "_",
		"Re: 100% ^!": "Re_ 100_ __",
		"/":           "_/_",
	} {
		if got := plainer(nameOf(from)).String(); got != to {
			t.Errorf("%q becomes %q, want %q", from, got, to)
		}
	}
	a, b := plainer(nameOf(strings.Repeat("é", 200)+"a")), plainer(nameOf(strings.Repeat("é", 200)+"b"))
	if a == b || len(a.String()) > maxLevel {
		t.Errorf("%v, %v", a, b)
	}
}
