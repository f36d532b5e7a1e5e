package mailtest

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

// HangUp at the end of a scripted answer ends the connection behind it.
const HangUp = "\x00hang up\x00"

// Script starts a server on loopback that says greeting, and then to each line what answer returns for it.
// It serves any number of connections until the test ends, and returns its host:port.
func Script(t testing.TB, greeting string, answer func(line string) string) string {
	t.Helper()
	return Serve(t, func(conn net.Conn) { follow(conn, greeting, answer) })
}

// Serve calls serve for each connection to a port of loopback until the test ends, and closes it afterwards.
// It returns the host:port.
func Serve(t testing.TB, serve func(conn net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return ln.Addr().String()
}

func follow(conn net.Conn, greeting string, answer func(line string) string) {
	fmt.Fprint(conn, greeting)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		text, ended := strings.CutSuffix(answer(lines.Text()), HangUp)
		fmt.Fprint(conn, text)
		if ended {
			return
		}
	}
}
