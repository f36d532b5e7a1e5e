package imapwire_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailstow/internal/imapwire"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// storing is a server that stores what is appended, and answers the nth
// APPEND, from 0, with what answer returns behind its tag; "" for OK. It asks for
// each message where it does not announce LITERAL+.
func storing(t *testing.T, caps string, answer func(n int) string) (addr string, stored func() []string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	kept := make(chan string, 1000)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "* PREAUTH [CAPABILITY IMAP4rev1 %s] hi\r\n", caps)
		literal := regexp.MustCompile(`\{(\d+)(\+?)\}\r\n$`)
		in, n := bufio.NewReader(conn), 0
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			tag, rest, _ := strings.Cut(line, " ")
			if !strings.HasPrefix(rest, "APPEND") {
				fmt.Fprintf(conn, "* CAPABILITY IMAP4rev1 %s\r\n%s OK\r\n", caps, tag)
				continue
			}
			refused := false
			for {
				m := literal.FindStringSubmatch(line)
				if m == nil {
					break
				}
				size, _ := strconv.Atoi(m[1])
				if m[2] == "" {
					if a := answer(n); strings.HasPrefix(a, "NO early") {
						fmt.Fprintf(conn, "%s %s\r\n", tag, a)
						refused = true
						break
					}
					fmt.Fprint(conn, "+ go on\r\n")
				}
				b := make([]byte, size)
				if _, err := io.ReadFull(in, b); err != nil {
					return
				}
				if a := answer(n); a == "" || strings.HasPrefix(a, "OK") {
					kept <- string(b)
				}
				if line, err = in.ReadString('\n'); err != nil {
					return
				}
			}
			if !refused {
				a := answer(n)
				if a == "" {
					a = fmt.Sprintf("OK [APPENDUID 7 %d] done", 100+n)
				}
				fmt.Fprintf(conn, "* 5 EXISTS\r\n%s %s\r\n", tag, a)
			}
			n++
		}
	}()
	return ln.Addr().String(), func() (all []string) {
		for {
			select {
			case s := <-kept:
				all = append(all, s)
			case <-time.After(50 * time.Millisecond):
				return all
			}
		}
	}
}

func upload(text string) []mailbox.Upload {
	return []mailbox.Upload{{Flags: []string{`\Seen`}, InternalDate: time.Unix(0, 0), Size: int64(len(text)), Content: strings.NewReader(text)}}
}

// A refused message costs neither the connection nor the others, whether or
// not the server asks for each.
func TestRefusedUploadHarmsNoOther(t *testing.T) {
	for _, caps := range []string{"", "LITERAL+", "LITERAL-"} {
		for _, no := range []string{"NO [TOOBIG] no", "NO early"} {
			addr, stored := storing(t, caps, func(n int) string {
				if n == 1 {
					return no
				}
				return ""
			})
			c, err := imapwire.Dial(t.Context(), plain(addr), alice, imapwire.Auto)
			if err != nil {
				t.Fatal(err)
			}
			u := c.Uploader()
			var tags []string
			for i := range 3 {
				tag, err := u.Send("INBOX", upload(fmt.Sprintf("message %d\r\n", i)))
				if err != nil {
					t.Fatal(caps, err)
				}
				tags = append(tags, tag)
			}
			for i, tag := range tags {
				validity, uids, err := u.Answer(tag, 1)
				if i == 1 != retry.IsRefused(err) || i != 1 && (validity != 7 || !slices.Equal(uids, []uint32{uint32(100 + i)})) {
					t.Errorf("%q, %q: message %d: %d %d, %v", caps, no, i, validity, uids, err)
				}
			}
			if got := stored(); !slices.Equal(got, []string{"message 0\r\n", "message 2\r\n"}) {
				t.Errorf("%q, %q: stored %q", caps, no, got)
			}
			u.Close()
		}
	}
}

// What a server says of UIDs is believed only if it can be.
func TestStrangeAppendUIDsTellNothing(t *testing.T) {
	for answer, want := range map[string][]uint32{
		"OK [APPENDUID 7 4:6] done": {4, 5, 6}, "OK [appenduid 7 4,9,5] done": {4, 9, 5}, "OK [APPENDUID 7 4:5,8] done": {4, 5, 8},
		"OK done": nil, "OK [APPENDUID 7 4] done": nil, "OK [APPENDUID 7 4:7] done": nil, "OK [APPENDUID 7 1:4294967295] done": nil, "OK [APPENDUID 0 4:6] done": nil,
		"OK [APPENDUID 7 6:4] done": nil, "OK [APPENDUID 7 0:2] done": nil, "OK [APPENDUID 7 a] done": nil, "OK [APPENDUID 7": nil, "OK [APPENDUID 99999999999 4:6]": nil,
	} {
		addr, _ := storing(t, "LITERAL+ MULTIAPPEND", func(int) string { return answer })
		c, err := imapwire.Dial(t.Context(), plain(addr), alice, imapwire.Auto)
		if err != nil {
			t.Fatal(err)
		}
		u := c.Uploader()
		tag, err := u.Send("INBOX", slices.Concat(upload("a"), upload("b"), upload("c")))
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := u.Answer(tag, 3); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %d, %v; want %d", answer, got, err, want)
		}
		u.Close()
	}
}

// A message that turns out shorter than announced must not end as a part of
// the next one.
func TestShortUploadEndsTheConnection(t *testing.T) {
	addr, stored := storing(t, "LITERAL+", func(int) string { return "" })
	c, err := imapwire.Dial(t.Context(), plain(addr), alice, imapwire.Auto)
	if err != nil {
		t.Fatal(err)
	}
	u := c.Uploader()
	short := upload("0123456789")
	short[0].Size = 20
	if _, err := u.Send("INBOX", short); err == nil {
		t.Error("no error")
	}
	if got := stored(); len(got) > 0 {
		t.Errorf("stored %q", got)
	}
}
