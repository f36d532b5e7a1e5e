package fingerprint

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func of(s string) *Writer {
	w := NewWriter()
	w.Write([]byte(s))
	return w
}

const message = "From: a@example.org\r\nSubject: one\r\n two\r\n\r\nbody\r\n"

// The same message comes back with other line ends from another tool's
// archive. If it were not recognised, thousands would be downloaded again.
func TestCopiesWithOtherLineEndsMatch(t *testing.T) {
	server := HeaderSum([]byte("From: a@example.org\r\nSubject: one\r\n two\r\n\r\n"))
	for name, copied := range map[string]string{
		"as sent":          message,
		"LF":               strings.ReplaceAll(message, "\r\n", "\n"),
		"mbsync":           strings.ReplaceAll(strings.Replace(message, "Subject", "X-TUID: abcdefghijkl\r\nSubject", 1), "\r\n", "\n"),
		"mbsync, at first": "X-TUID: abcdefghijkl\r\n" + message,
		"mbsync, at last":  strings.Replace(message, "\r\n\r\n", "\r\nX-TUID: abcdefghijkl\r\n\r\n", 1),
	} {
		p := of(copied).Print()
		if !p.Matches(int64(len(message)), server) {
			t.Errorf("%s: %+v does not match size %d", name, p, len(message))
		}
	}
}

func TestSizeCountsAnUnterminatedLastLineBothWays(t *testing.T) {
	whole, cut := of(message).Print(), of(strings.TrimSuffix(message, "\r\n")).Print()
	for _, size := range []int64{int64(len(message)), int64(len(message)) - 2} {
		if !whole.SizeMatches(size) || !cut.SizeMatches(size) {
			t.Errorf("size %d: terminated %v, unterminated %v; want both", size, whole.SizeMatches(size), cut.SizeMatches(size))
		}
	}
	if whole.SizeMatches(int64(len(message)) + 1) {
		t.Error("matches a size that is one octet off")
	}
}

func TestOtherHeadersDoNotMatch(t *testing.T) {
	p := of(message).Print()
	for _, header := range []string{
		"From: a@example.org\r\nSubject: one\r\n  two\r\n\r\n",
		"From: a@example.org\r\n\r\n",
		"From: a@example.org\r\nSubject: one\r\n two\r\nX: y\r\n\r\n",
	} {
		if p.Matches(p.Size, HeaderSum([]byte(header))) {
			t.Errorf("matches header %q", header)
		}
	}
}

func TestHeaderSumIsTheSameWithoutTheBlankLine(t *testing.T) {
	a := HeaderSum([]byte("A: b\r\nC: d\r\n\r\n"))
	for _, block := range []string{"A: b\r\nC: d\r\n", "A: b\r\nC: d", "A: b\nC: d\n\n"} {
		if HeaderSum([]byte(block)) != a {
			t.Errorf("%q has another digest", block)
		}
	}
}

func TestFieldsOfStrangeHeaders(t *testing.T) {
	f := of("no colon here\r\nDATE: Tue, 14 Mar 2023 09:26:53 +0100\r\nsubject:=?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n aus =?latin1?b?S/ZsbiE=?=\r\n" +
		"Message-ID:\r\n <a@b>\r\nReceived: from x by y;\r\n\tTue, 14 Mar 2023 09:00:00 +0000\r\nSubject: second\r\n\r\nSubject: body\r\n").Fields()
	if want := time.Date(2023, 3, 14, 8, 26, 53, 0, time.UTC); !f.Date.Equal(want) {
		t.Errorf("date = %v, want %v", f.Date, want)
	}
	if !strings.HasPrefix(f.Subject, "Grüße") || f.MessageID != "<a@b>" || f.Received().Hour() != 9 {
		t.Errorf("fields = %+v", f)
	}
}

// A print must not depend on how the network cut the message into pieces.
func FuzzPrintDoesNotDependOnThePieces(f *testing.F) {
	f.Add([]byte(message), uint8(3))
	f.Add([]byte("X-TUID: a\n\r\r\n\n\r"), uint8(1))
	f.Add([]byte(strings.Repeat("long", 3000)+"\r\nX-TUID: b\r\n\r\nbody\n"), uint8(200))
	f.Fuzz(func(t *testing.T, msg []byte, step uint8) {
		whole := of(string(msg)).Print()
		w := NewWriter()
		for b := bytes.NewBuffer(msg); b.Len() > 0; {
			w.Write(b.Next(int(step) + 1))
		}
		if got := w.Print(); got != whole {
			t.Errorf("%q in pieces of %d: %+v, want %+v", msg, int(step)+1, got, whole)
		}
		w.Fields()
	})
}
