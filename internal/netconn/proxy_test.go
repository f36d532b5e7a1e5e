package netconn_test

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
)

func TestProxyIsChosenByTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		all, no, addr, want string
		fails               bool
	}{
		{"", "", "imap.example.org:993", "", false},
		{"socks5://h:1080", "", "imap.example.org:993", "socks5://h:1080", false},
		{"socks5h://me:pw@h:1080", "", "imap.example.org:993", "socks5://me:pw@h:1080", false},
		{"socks5://h:1080", "example.com, example.org", "imap.example.org:993", "", false},
		{"socks5://h:1080", "", "localhost:143", "", false},
		{"socks4://h:1080", "", "localhost:143", "", false},
		{"socks://h:1080/", "", "imap.example.org:993", "socks5://h:1080", false}, // as GNOME has it
		{"SOCKS5H://h:1080", "", "imap.example.org:993", "socks5://h:1080", false},
		{"socks5://h:1080", "", "127.0.0.1:143", "", false},
		{"http://h:3128", "", "imap.example.org:993", "", false},
		{"socks4://h:1080", "", "imap.example.org:993", "", true},
		{"socks5://h:pw\x7f", "", "imap.example.org:993", "", true},
	} {
		u, err := netconn.ProxyFor(func(name string) string { return map[string]string{"ALL_PROXY": c.all, "no_proxy": c.no}[name] }, c.addr)
		got := ""
		if u != nil {
			got = u.String()
		}
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}

// socks is a SOCKS5 proxy (RFC 1928) that reaches one server, whatever name it is
// asked for, and tells the names.
func socks(t *testing.T, target string) (addr string, names chan string) {
	t.Helper()
	names = make(chan string, 10)
	return mailtest.Serve(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		head := make([]byte, 2)
		io.ReadFull(in, head)
		io.CopyN(io.Discard, in, int64(head[1]))
		conn.Write([]byte{5, 0}) // nobody has to say who they are
		ask := make([]byte, 5)
		io.ReadFull(in, ask)
		name := make([]byte, int(ask[4])+2)
		io.ReadFull(in, name)
		names <- string(name[:len(name)-2])
		conn.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 0})
		server, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer server.Close()
		go io.Copy(server, in)
		io.Copy(conn, server)
	}), names
}

func TestServerIsReachedOverAProxy(t *testing.T) {
	server := mailtest.Serve(t, func(conn net.Conn) { io.WriteString(conn, "* OK hi\r\n") })
	addr, names := socks(t, server)
	u, err := netconn.ProxyFor(func(name string) string { return map[string]string{"ALL_PROXY": "socks5://" + addr}[name] }, "imap.example.invalid:143")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := netconn.Dial(t.Context(), netconn.Endpoint{Addr: "imap.example.invalid:143", Security: netconn.Plain, Timeout: 5 * time.Second, Proxy: u})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "* OK hi\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	if name := <-names; name != "imap.example.invalid" { // which the proxy looks up
		t.Errorf("the proxy is asked for %q", name)
	}
}
