package imapwire_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailstow/internal/imapwire"
	"mailstow/internal/mailtest"
)

// client is go-imap on top of the connection.
func client(t *testing.T, s *scripted) (*imapclient.Client, *imapwire.Conn) {
	t.Helper()
	wire, err := dial(t, s.start(t))
	if err != nil {
		t.Fatal(err)
	}
	c := imapclient.New(wire, nil)
	if err := c.WaitGreeting(); err != nil {
		t.Fatal(err)
	}
	return c, wire
}

// What one strange line does to the library is the end of the connection, and
// of the backup of everything behind it.
func TestLibrarySurvivesStrangeAnswers(t *testing.T) {
	for _, strange := range []string{
		"* XUNKNOWN something\r\n", "* XUNKNOWN {5}\r\na\r\nb\r\n", "* VANISHED 1:4\r\n", "* LSUB () \"/\" x\r\n", "\r\n", "*\r\n", "* \r\n",
		"* OK []\r\n", "* OK [Error=\"x y\"] hm\r\n", "* OK [PERMANENTFLAGS (\\* a]b )] ok\r\n", "* OK [UIDNEXT 99999999999] big\r\n",
		"* OK [UIDVALIDITY 1]\r\n", "* OK\r\n", "* OK a\rb\x1b[2J\r\n", "* 3 EXISTS \r\n", "* 99999999999 EXISTS\r\n", "* FLAGS (a \\Seen OIB-Seen-[Gmail]/All Mail \x80)\r\n",
		"* CAPABILITY IMAP4rev2\r\n", "* OK [CAPABILITY IMAP4rev1 IMAP4rev2] x\r\n", "* 1 FETCH (X-GM-MSGID 12345 FLAGS ())\r\n",
		"* 1 FETCH (UID 1 INTERNALDATE NIL RFC822.SIZE -4 X (a (b \"c)\")) FLAGS (ok \\Seen b]d))\r\n", "* 1 FETCH ()\r\n", "* 1 FETCH\r\n",
		"* 1 FETCH (UID 4 INTERNALDATE \"00-Jan-0000 00:00:00 +0000\" ENVELOPE (NIL {3}\r\na\"b NIL))\r\n", "* ESEARCH\r\n",
	} {
		s := &scripted{answers: map[string]string{"NOOP": strange + "TAG OK done\r\n"}}
		c, wire := client(t, s)
		for range 2 {
			if err := c.Noop().Wait(); err != nil {
				t.Errorf("after %q: %v (%v)", strange, err, wire.Err())
				break
			}
		}
		if c.Caps().Has(imap.CapIMAP4rev2) {
			t.Errorf("after %q the library believes in IMAP4rev2", strange)
		}
	}
}

// fetch returns the bodies that the library gives for UIDs 1:9.
func fetch(c *imapclient.Client) (map[imap.UID]string, error) {
	got := map[imap.UID]string{}
	cmd := c.Fetch(imap.UIDSet{{Start: 1, Stop: 9}}, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{{Peek: true}}})
	for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
		var uid imap.UID
		for item := msg.Next(); item != nil; item = msg.Next() {
			switch item := item.(type) {
			case imapclient.FetchItemDataUID:
				uid = item.UID
			case imapclient.FetchItemDataBodySection:
				if item.Literal != nil {
					b, err := io.ReadAll(item.Literal)
					if err != nil || int64(len(b)) < item.Literal.Size() {
						return got, io.ErrUnexpectedEOF // the library must not be asked for more
					}
					got[uid] = string(b)
				}
			}
		}
	}
	return got, cmd.Close()
}

// go-imap drops a body without an error when its UID comes behind it, or when
// another answer has named the UID before. That mail would be missing.
func TestEveryBodyReachesTheLibrary(t *testing.T) {
	for _, tt := range []struct{ name, answer string }{
		{"UID first", "* 1 FETCH (UID 7 BODY[] {5}\r\nhello)\r\n"},
		{"UID behind the body", "* 1 FETCH (BODY[] {5}\r\nhello UID 7)\r\n"},
		{"flags, body, UID", "* 1 FETCH (FLAGS (\\Seen) BODY[] {5}\r\nhello UID 7 RFC822.SIZE 5)\r\n"},
		{"items behind the body", "* 1 FETCH (UID 7 BODY[] {5}\r\nhello FLAGS (\\Seen) X-THING 3)\r\n"},
		{"flags in an answer before", "* 1 FETCH (UID 7 FLAGS (\\Seen))\r\n* 1 FETCH (UID 7 BODY[] {5}\r\nhello)\r\n"},
		{"UID in an answer before", "* 1 FETCH (UID 7 FLAGS (\\Seen))\r\n* 1 FETCH (BODY[] {5}\r\nhello)\r\n"},
		{"literal8", "* 1 FETCH (UID 7 BODY[] ~{5}\r\nhello)\r\n"},
		{"quoted", "* 1 FETCH (UID 7 BODY[] \"hello\")\r\n"},
		{"origin", "* 1 FETCH (UID 7 BODY[]<0> {5}\r\nhello)\r\n"},
		{"unknown item with a literal", "* 1 FETCH (X-LABELS ({3}\r\na)b \"c\") UID 7 BODY[] {5}\r\nhello)\r\n"},
		{"other news between", "* 4 EXISTS\r\n* XNEWS\r\n* 1 FETCH (UID 7 BODY[] {5}\r\nhello)\r\n* 2 EXPUNGE\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &scripted{answers: map[string]string{"UID FETCH": tt.answer + "TAG OK done\r\n"}}
			c, wire := client(t, s)
			got, err := fetch(c)
			if err != nil || got[7] != "hello" || len(got) != 1 {
				t.Errorf("got %v, %v (%v)", got, err, wire.Err())
			}
		})
	}
}

func TestConnectionLostInsideBodyIsAnError(t *testing.T) {
	for _, answer := range []string{
		"* 1 FETCH (UID 7 BODY[] {50}\r\nhello" + mailtest.HangUp, "* 1 FETCH (BODY[] {50}\r\nhello" + mailtest.HangUp,
		"* 1 FETCH (UID 7 BODY[] {5}\r\nhello" + mailtest.HangUp, "* 1 FETCH (UID 7 BODY[] {5}\r\nhello)\r\n" + mailtest.HangUp,
		"* 1 FETCH (UID 7 BODY[] {18446744073709551617}\r\nhello)\r\nTAG OK\r\n", "* 1 FETCH (UID 7 BODY[] {-1}\r\nhello)\r\nTAG OK\r\n",
	} {
		s := &scripted{answers: map[string]string{"UID FETCH": answer}}
		c, _ := client(t, s)
		if _, err := fetch(c); err == nil {
			t.Errorf("no error after %q", answer)
		}
	}
}

// A literal of another length than announced must not pass for a message:
// octets of the protocol would be in it, or some of its own missing.
func TestLiteralOfAnotherLengthIsAnError(t *testing.T) {
	for _, answer := range []string{
		"* 1 FETCH (UID 7 BODY[] {9}\r\nhello)\r\n* 2 FETCH (UID 8 BODY[] {5}\r\nworld)\r\nTAG OK done\r\n",
		"* 1 FETCH (UID 7 BODY[] {3}\r\nhello)\r\nTAG OK done\r\n",
		"* 1 FETCH (UID 7 BODY[] {0}\r\nhello)\r\nTAG OK done\r\n",
		"* 1 FETCH (UID 7 BODY[] {3}\r\nhel UIX 4)\r\nTAG OK done\r\n",
		"* 1 FETCH (BODY[] {3}\r\nhello x UID 7)\r\nTAG OK done\r\n",
	} {
		s := &scripted{answers: map[string]string{"UID FETCH": answer}}
		c, _ := client(t, s)
		if got, err := fetch(c); err == nil || len(got) != 0 {
			t.Errorf("after %q: got %v, %v", answer, got, err)
		}
	}
}

// A name that the library cannot read would cost the whole listing; one that
// it spells in another way would name another mailbox, or none.
func TestMailboxNamesComeBackAsTheyCame(t *testing.T) {
	for _, name := range []string{
		"Plain", "Entw&APw-rfe", "R&-D", "R&D", "&AGE-", "&Jjo-&Jjo-", "a&Jjo-&-b", "&", "&&", "&APw", "caf\xe9", "übrig", "tab\there", `quo"te`, `back\slash`, "*%", "&2D3dtg-",
	} {
		s := &scripted{answers: map[string]string{"LIST": fmt.Sprintf("* LIST (\\HasNoChildren) \"/\" {%d}\r\n%s\r\n* LIST (\\x y) NIL last\r\nTAG OK done\r\n", len(name), name)}}
		c, wire := client(t, s)
		list, err := c.List("", "*", nil).Collect()
		if err != nil || len(list) != 2 || list[1].Mailbox != "last" {
			t.Errorf("%q: list = %v, %v (%v)", name, list, err, wire.Err())
			continue
		}
		if _, err := c.Select(list[0].Mailbox, &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		want := `EXAMINE "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
		if said := s.said(); !slices.Contains(said, want) {
			t.Errorf("%q: the client said %q, want %q", name, said, want)
		}
		if raw, _ := wire.Raw(list[0].Mailbox); raw != name {
			t.Errorf("%q: raw name %q", name, raw)
		}
	}
}

// A hostile server must not make the program panic, hang or take memory.
func FuzzAnyAnswerIsReadOrRefused(f *testing.F) {
	for _, seed := range []string{
		"* 1 FETCH (BODY[] {5}\r\nhello UID 7)\r\n", "* LIST (a \"b\") \"\\\\\" {3}\r\na\"b (x)\r\n", "* 1 FETCH (X (a {2}\r\n\"( \"b\\\"\") UID 3)\r\n",
		"* OK [UIDNEXT 4] x\r\n+ go\r\nA1 OK [X", "* STATUS {1}\r\nx (MESSAGES 1)\r\n", "* 1 FETCH (UID 1 BODY[] {999999999999}\r\n", "* 1 FETCH (UID 1 BODY[HEADER] \"a\\",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		s := &scripted{answers: map[string]string{"NOOP": answer + mailtest.HangUp}}
		wire, err := dial(t, s.start(t))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(wire, "A1 NOOP\r\n")
		io.Copy(io.Discard, wire)
		if wire.Err() == nil {
			t.Error("the connection has ended, and Err says nothing")
		}
	})
}
