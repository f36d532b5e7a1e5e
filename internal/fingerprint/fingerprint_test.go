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

func foreign(s string) *Writer {
	w := NewForeignWriter()
	w.Write([]byte(s))
	return w
}

const message = "From: a@example.org\r\nSubject: one\r\n two\r\n\r\nbody\r\n"

// The same message comes back with other line ends from another tool's
// archive. If it were not recognised, thousands would be downloaded again.
func TestCopiesWithOtherLineEndsMatch(t *testing.T) {
	server := ReadHeader([]byte("From: a@example.org\r\nSubject: one\r\n two\r\n\r\n"))
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
	header := ReadHeader([]byte(message))
	whole, cut := of(message).Print(), of(strings.TrimSuffix(message, "\r\n")).Print()
	for _, size := range []int64{int64(len(message)), int64(len(message)) - 2} {
		if !whole.Matches(size, header) || !cut.Matches(size, header) {
			t.Errorf("size %d: terminated %v, unterminated %v; want both", size, whole.Matches(size, header), cut.Matches(size, header))
		}
	}
	if whole.Matches(int64(len(message))+1, header) {
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
		if p.Matches(p.Size, ReadHeader([]byte(header))) {
			t.Errorf("matches header %q", header)
		}
	}
}

func TestHeaderIsTheSameWithoutTheBlankLine(t *testing.T) {
	a := ReadHeader([]byte("A: b\r\nC: d\r\n\r\n"))
	for _, block := range []string{"A: b\r\nC: d\r\n", "A: b\r\nC: d", "A: b\nC: d\n\n"} {
		if got := ReadHeader([]byte(block)); got.Sum != a.Sum || got.Rewritten != a.Rewritten {
			t.Errorf("%q has another digest", block)
		}
	}
}

// getmail folds fields anew, moves or makes up a Return-Path, and adds fields.
// What it stored must be found on the server all the same, and nothing else.
func TestCopiesOfGetmailMatch(t *testing.T) {
	const rest = "Subject: a subject of more than seventy-eight characters, which getmail folds in another place\r\nTo:  b@example.org\r\n\r\nbody\r\n"
	const copied = "Subject: a subject of more than seventy-eight characters, which getmail folds\n in another place\nTo: b@example.org\n"
	const received = "Received: from 127.0.0.1 (127.0.0.1:143) by host with IMAP4\n getmail6 msgid:INBOX/1/1; 24 Nov 2026 20:00:00 -0000\n"
	const own = "X-getmail-retrieved-from-mailbox: INBOX\n"
	for _, server := range []string{rest, "Return-Path: <a@example.org>\r\n" + rest, "Received: by x\r\nReturn-Path:\r\n <a@example.org>\r\n" + rest} {
		top, kept := "Return-Path: <unknown>\n", ""
		if strings.Contains(server, "Return-Path") {
			top = "Return-Path: <a@example.org>\n"
		}
		if strings.HasPrefix(server, "Received") {
			kept = "Received: by x\n"
		}
		for name, as := range map[string]string{
			"IMAP": top + "Delivered-To: unknown\n" + received + kept + copied + own,
			"IMAP, neither delivered_to nor received": top + kept + copied + own,
			"IMAP, multidrop":                         top + "Delivered-To: b@example.org\n" + received + kept + copied + own,
			"POP3":                                    top + "Delivered-To: unknown\n" + received + kept + copied,
			"POP3, no delivered_to":                   top + received + kept + copied,
			"POP3, no received":                       top + "Delivered-To: unknown\n" + kept + copied,
		} {
			p := foreign(as + "\nbody\n").Print()
			header := ReadHeader([]byte(strings.TrimSuffix(server, "body\r\n")))
			for _, size := range []int{len(server), len(server) - 2} {
				if !p.Matches(int64(size), header) {
					t.Errorf("%s of %q: %+v does not match size %d", name, server, p, size)
				}
			}
			if p.Matches(int64(len(server))+1, header) {
				t.Errorf("%s of %q: matches a body of another size", name, server)
			}
			if p.Matches(int64(len(server)), ReadHeader([]byte(strings.Replace(server, "b@", "c@", 1)))) {
				t.Errorf("%s of %q: matches another header", name, server)
			}
		}
	}
	// What the sender of a mail chooses must not make it another one.
	evil := "Return-Path: <e@example.net>\r\nReceived: from x by y with POP3 getmail6; now\r\nSubject: s\r\n\r\n"
	if p := of(evil + "body\r\n").Print(); p.Rewritten || p.Matches(p.Size, ReadHeader([]byte(strings.Replace(evil, "now", "nox", 1)))) {
		t.Errorf("a downloaded mail is compared as if getmail had stored it: %+v", p)
	}
	for _, other := range []string{"Subject: pay 10 00\r\n", "Subject: pay 100 0\r\n", "Subject: pay 1000\r\n", "Subject: pay\r\nX: 100 0\r\n"} {
		p := foreign("Subject: pay 10 00\n" + own + "\nbody\n").Print()
		if h := ReadHeader([]byte(other + "\r\n")); p.Matches(h.Octets+6, h) != (other == "Subject: pay 10 00\r\n") {
			t.Errorf("%q is held to be the same", other)
		}
	}
	for name, ordinary := range map[string]string{
		"fetched by getmail before it was sent": "Received: by y\nReceived: by x\nReturn-Path: <c@example.org>\n" + received + copied,
		"delivered":                             "Return-Path: <a@example.org>\nDelivered-To: b@example.org\nReceived: by x\n" + copied,
		"sent by a host that calls itself so":   "Return-Path: <a@example.org>\nReceived: from getmail (evil.example.net)\n by mx with ESMTP id 1; now\n" + copied,
	} {
		if foreign(ordinary + "\nbody\n").Print().Rewritten {
			t.Errorf("%s: held to be a copy of getmail", name)
		}
	}
}

func TestFieldsOfStrangeHeaders(t *testing.T) {
	f := of("no colon here\r\nDATE: Tue, 14 Mar 2023 09:26:53 +0100\r\nsubject:=?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n aus =?latin1?b?S/ZsbiE=?=\r\n" +
		"Message-ID:\r\n <a@b>\r\nReceived: from x by y;\r\n\tTue, 14 Mar 2023 09:00:00 +0000\r\nSubject: second\r\n\r\nSubject: body\r\n").Fields()
	if want := time.Date(2023, 3, 14, 8, 26, 53, 0, time.UTC); !f.Date.Equal(want) {
		t.Errorf("date = %v, want %v", f.Date, want)
	}
	if !strings.HasPrefix(f.Subject, "Grüße") || f.MessageID != "<a@b>" || !strings.Contains(f.received, "09:00:00") {
		t.Errorf("fields = %+v", f)
	}
}

// A print must not depend on how the network cut the message into pieces.
func FuzzPrintDoesNotDependOnThePieces(f *testing.F) {
	f.Add([]byte(message), uint8(3))
	f.Add([]byte("X-TUID: a\n\r\r\n\n\r"), uint8(1))
	f.Add([]byte("Return-Path: <unknown>\nDelivered-To: unknown\nReceived: by x with POP3\n getmail6; now\r\nA: b\nX-getmail-retrieved-from-mailbox: c\n d\n\nbody"), uint8(2))
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
		w.Reset()
		w.Write(msg)
		if got := w.Print(); got != whole {
			t.Errorf("%q after a reset: %+v, want %+v", msg, got, whole)
		}
		w.Fields()
	})
}
