package repair_test

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"mailstow/internal/repair"
)

const all = repair.Ends | repair.NULs | repair.Header | repair.Long

func repaired(t testing.TB, text string, s repair.Steps) (string, repair.Steps) {
	t.Helper()
	r := repair.NewReader(iotest.HalfReader(strings.NewReader(text)), s)
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), r.Made()
}

func TestEachRepairDoesJustItsOwn(t *testing.T) {
	long := strings.Repeat("x", 700)
	for _, c := range []struct {
		name, text, want string
		steps            repair.Steps
	}{
		{"LF", "A: 1\n\nb\n", "A: 1\r\n\r\nb\r\n", repair.Ends},
		{"lone CR", "A: 1\r\n\r\na\rb\r\n", "A: 1\r\n\r\na\r\nb\r\n", repair.Ends},
		{"CRs before LF", "A: 1\r\r\n\r\n", "A: 1\r\n\r\n", repair.Ends},
		{"no final line end", "A: 1\r\n\r\nb", "A: 1\r\n\r\nb\r\n", repair.Ends},
		{"CR at the end", "A: 1\r\n\r\nb\r", "A: 1\r\n\r\nb\r\n", repair.Ends},
		{"nothing at all", "", "\r\n", repair.Ends},
		{"NUL", "A: 1\x00\r\n\r\n\x00b\r\n", "A: 1\r\n\r\nb\r\n", repair.NULs},
		{"a line of an mbox", "From a@b Mon\r\nA: 1\r\n\r\n", "X-From-Line: From a@b Mon\r\nA: 1\r\n\r\n", repair.Header},
		{"a line without a colon", "A: 1\r\nsome text\r\nB: 2\r\n\r\n", "A: 1\r\n some text\r\nB: 2\r\n\r\n", repair.Header},
		{"a blank before the colon", "A : 1\r\n\r\n", "\r\nA : 1\r\n\r\n", repair.Header},
		{"a name that is none", "A: 1\r\nB\xc3\xa4: 2\r\n\r\n", "A: 1\r\n B\xc3\xa4: 2\r\n\r\n", repair.Header},
		{"no header", "just text\r\nmore\r\n", "\r\njust text\r\nmore\r\n", repair.Header},
		{"an unfinished line", "A: 1\r\nrest", "A: 1\r\n rest", repair.Header},
		{"a long field", "A: " + long + " " + long + "\r\n\r\n", "A: " + long + "\r\n " + long + "\r\n\r\n", repair.Long},
		{"a long line", "A: 1\r\n\r\n" + long + long + "\r\n", "A: 1\r\n\r\n" + strings.Repeat("x", 998) + "\r\n" + strings.Repeat("x", 402) + "\r\n", repair.Long},
	} {
		got, made := repaired(t, c.text, c.steps)
		if got != c.want || made != c.steps {
			t.Errorf("%s: %q, made %v; want %q", c.name, got, made, c.want)
		}
		if same, made := repaired(t, c.text, all&^c.steps&^repair.Ends); made&c.steps != 0 || len(same) < len(c.text) && c.steps != repair.NULs && !strings.Contains(c.text, "\x00") {
			t.Errorf("%s: other repairs did it: %q", c.name, same)
		}
	}
}

func TestAMessageInOrderStaysAsItIs(t *testing.T) {
	text := "Received: from a\r\n\tby b; Mon\r\nSubject: \xe9\r\nX-Empty:\r\n\r\nbody: \r\nno colon\r\n" + strings.Repeat("y", 998) + "\r\n"
	if got, made := repaired(t, text, all); got != text || made != 0 {
		t.Errorf("%q, made %v", got, made)
	}
}

// What a person reads of a message is there after any repair, and what was
// repaired needs no second one.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"", "\r", "A: 1\n\nb", "From x\nA:1\r\rb\x00\r\n", "a\r\nb: \r\n\r\n", strings.Repeat("z ", 2000), "A:" + strings.Repeat(" ", 3000) + "\r\n"} {
		f.Add(s, uint8(15))
	}
	blank := regexp.MustCompile(`[\s\x00]+`)
	f.Fuzz(func(t *testing.T, text string, steps uint8) {
		s := repair.Steps(steps) & all
		got, made := repaired(t, text, s)
		if made&^s != 0 {
			t.Errorf("made %v of %v", made, s)
		}
		if (made == 0) != (got == text) {
			t.Errorf("%q became %q, made %v", text, got, made)
		}
		left := func(s string) string { return blank.ReplaceAllString(strings.ReplaceAll(s, "X-From-Line:", ""), "") }
		if left(got) != left(text) {
			t.Errorf("%q became %q", text, got)
		}
		if again, made := repaired(t, got, s); again != got {
			t.Errorf("%q became %q, and then %q by %v", text, got, again, made)
		}
		if s == all {
			for line := range bytes.Lines([]byte(got)) {
				if !bytes.HasSuffix(line, []byte("\r\n")) || len(line) > 1000 || bytes.ContainsAny(line[:len(line)-2], "\r\x00") {
					t.Errorf("%q has the line %q", text, line)
				}
			}
		}
	})
}
