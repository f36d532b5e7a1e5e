package imapwire

import "testing"

// go-imap must be shown a name only if it names the same mailbox with it: on
// this connection and on any other.
func FuzzNamesOfMailboxesComeBack(f *testing.F) {
	for _, s := range []string{"INBOX", "R&-D", "Entw&APw-rfe", "&ZTZO9nux-", "R&D", "&Jjo-&Jjo-", "&AGE-", "\xff\xfe", "tab\t", "&2D3eAA-", "&2D0-", "a&-b&-", "&", "&-", "Entw\u00fcrfe", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		one, other := &Conn{}, &Conn{}
		shown := one.Shown(raw)
		if got, _ := one.Raw(shown); got != raw {
			t.Errorf("%q is shown as %q, which means %q", raw, shown, got)
		}
		again := other.Shown(raw)
		if got, _ := other.Raw(again); got != raw {
			t.Errorf("%q, never listed, is shown as %q, which means %q", raw, again, got)
		}
	})
}
