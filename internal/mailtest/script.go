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
			go follow(conn, greeting, answer)
		}
	}()
	return ln.Addr().String()
}

func follow(conn net.Conn, greeting string, answer func(line string) string) {
	defer conn.Close()
	fmt.Fprint(conn, greeting)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		text, ended := strings.CutSuffix(answer(lines.Text()), HangUp)
		fmt.Fprint(conn, text)
		if ended {
			return
		}
	}
}
