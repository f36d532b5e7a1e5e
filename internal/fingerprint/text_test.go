package fingerprint_test

import (
	"strings"
	"testing"

	"mailstow/internal/fingerprint"
)

func textOf(s string, foreign bool, piece int) fingerprint.Sum {
	t := fingerprint.NewText(foreign)
	for len(s) > 0 {
		n := min(piece, len(s))
		t.Write([]byte(s[:n]))
		s = s[n:]
	}
	return t.Sum()
}

func TestTextIsTheSameWithoutAFinalLineEnd(t *testing.T) {
	for _, c := range []struct {
		a, b    string
		foreign bool
		same    bool
	}{
		{"a: b\r\n\r\nbody\r\n", "a: b\r\n\r\nbody", false, true},
		{"a: b\r\n\r\nbody\r\n\r\n", "a: b\r\n\r\nbody", false, false},
		{"a: b\r\n\r\nbody\r", "a: b\r\n\r\nbody", false, false},
		{"a: b\n\nbody\n", "a: b\r\n\r\nbody\r\n", false, false},
		{"a: b\n\nbody\n", "a: b\r\n\r\nbody\r\n", true, true},
		{"a: b\n\nbody", "a: b\r\n\r\nbody\r\n", true, true},
		{"a: b\nX-TUID: 123456789012\n\nbody\n", "a: b\r\n\r\nbody\r\n", true, true},
		{"a: b\r\nX-TUID: 123456789012\r\n\r\nbody\r\n", "a: b\r\n\r\nbody\r\n", false, false},
		{"a: b\n\nX-TUID: 1\nbody\n", "a: b\n\nbody\n", true, false},
		{"a: b\n\nbo\rdy\n", "a: b\n\nbody\n", true, false},
		{"", "\r\n", false, true},
		{strings.Repeat("x", 9000) + "\n\nb", strings.Repeat("x", 9000) + "\r\n\r\nb\r\n", true, true},
		{strings.Repeat("x", 9000) + "\n\nb", strings.Repeat("x", 9001) + "\r\n\r\nb\r\n", true, false},
	} {
		for _, piece := range []int{1, 2, 3, 1 << 20} {
			if same := textOf(c.a, c.foreign, piece) == textOf(c.b, c.foreign, 1<<20); same != c.same {
				t.Errorf("%.40q and %.40q in pieces of %d, foreign %v: same is %v", c.a, c.b, piece, c.foreign, same)
			}
		}
	}
}

// However octets are cut into pieces, the digest is that of the whole.
func FuzzTextDoesNotDependOnPieces(f *testing.F) {
	f.Add("a: b\r\nX-TUID: 1\r\n c\r\n\r\n\r\r\n", true, 3)
	f.Add("\n\r", false, 1)
	f.Fuzz(func(t *testing.T, s string, foreign bool, piece int) {
		if piece < 1 {
			return
		}
		if textOf(s, foreign, piece) != textOf(s, foreign, len(s)+1) {
			t.Errorf("pieces of %d change the digest of %q", piece, s)
		}
		if !foreign && strings.HasSuffix(s, "x") && textOf(s, false, 7) != textOf(s+"\r\n", false, 7) {
			t.Errorf("a final line end changes the digest of %q", s)
		}
	})
}
