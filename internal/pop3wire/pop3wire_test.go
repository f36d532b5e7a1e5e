package pop3wire_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/knadh/go-pop3"

	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/pop3wire"
)

// serve answers each command with what answer returns.
func serve(t testing.TB, greeting string, answer func(command string) string) netconn.Endpoint {
	t.Helper()
	return netconn.Endpoint{Addr: mailtest.Script(t, greeting, answer), Security: netconn.Plain, Timeout: 10 * time.Second}
}

func dial(t testing.TB, e netconn.Endpoint) (*pop3wire.Conn, *pop3.Conn, error) {
	t.Helper()
	wire, err := pop3wire.Dial(t.Context(), e)
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { wire.Close() })
	session, err := pop3.New(pop3.Opt{Dialer: wire.Dialer()}).NewConn()
	return wire, session, err
}

// stuff is what a server that knows its RFC makes of a message.
func stuff(message []byte) string {
	s := strings.ReplaceAll("\r\n"+string(message), "\r\n.", "\r\n..")[2:]
	if s != "" && !strings.HasSuffix(s, "\r\n") {
		s += "\r\n"
	}
	return "+OK\r\n" + s + ".\r\n"
}

func body(t testing.TB, message []byte) []byte {
	t.Helper()
	wire, session, err := dial(t, serve(t, "+OK hi\r\n", func(command string) string {
		if command == "CAPA" {
			return "-ERR what\r\n"
		}
		return stuff(message)
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Send("RETR 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := session.ReadOne(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(wire.Body())
	if err != nil {
		t.Fatal(err)
	}
	if wire.Pending() {
		t.Error("something is left behind the body")
	}
	return got
}

// go-pop3 changes bare line feeds and ends a message at LF.LF: an archive of
// it would not be what the server has.
func FuzzBodyIsExact(f *testing.F) {
	for _, seed := range []string{
		"a\r\nb\r\n", ".\r\n", "..\r\n.a\r\n.\r\n", "a\n.\nb\r\n", "a\n.\r\nb\r\n", "\r\r\n.\r", "a\r", "\n", "", "x\x00\xff\r\n", strings.Repeat("long", 40000) + "\r\n.",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		want := message
		if len(want) > 0 && !bytes.HasSuffix(want, []byte("\r\n")) {
			want = append(bytes.Clone(want), "\r\n"...)
		}
		if got := body(t, message); !bytes.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestConnectionLostInsideBodyIsAnError(t *testing.T) {
	for _, part := range []string{"+OK\r\nhalf", "+OK\r\nline\r\n", "+OK\r\nline\r\n.", "+OK\r\nline\r\n.\r"} {
		calls := 0
		wire, session, err := dial(t, serve(t, "+OK hi\r\n", func(string) string {
			calls++
			switch calls {
			case 1:
				return "-ERR no CAPA\r\n"
			case 2:
				return part
			}
			return mailtest.HangUp
		}))
		if err != nil {
			t.Fatal(err)
		}
		session.Send("RETR 1")
		session.ReadOne()
		session.Send("hang up") // the server does
		if _, err := io.ReadAll(wire.Body()); err != io.ErrUnexpectedEOF {
			t.Errorf("after %q: %v, want %v", part, err, io.ErrUnexpectedEOF)
		}
	}
}

func TestNoLoginWithoutTheTLSThatWasAskedFor(t *testing.T) {
	for name, answer := range map[string]string{
		"refused":              "-ERR no\r\n",
		"plain text behind OK": "+OK go\r\n+OK injected\r\n",
		"plain text for TLS":   "+OK go\r\n",
	} {
		e := serve(t, "+OK hi\r\n", func(command string) string {
			if command == "STLS" {
				return answer
			}
			return "-ERR what\r\n"
		})
		e.Security, e.TLS, e.Timeout = netconn.Upgrade, &tls.Config{ServerName: "localhost"}, 300*time.Millisecond
		if _, _, err := dial(t, e); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestStrangeStatusLinesAreErrors(t *testing.T) {
	for name, answer := range map[string]string{
		"blank": "\r\n", "endless": "+OK " + strings.Repeat("x", 100<<10) + "\r\n", "long": "+OK " + strings.Repeat("x", 10<<10) + "\r\n",
	} {
		_, session, err := dial(t, serve(t, "+OK hi\r\n", func(command string) string {
			if command == "CAPA" {
				return "-ERR what\r\n"
			}
			return answer
		}))
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Noop(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
