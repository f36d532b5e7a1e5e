package imapwire_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/imapwire"
	"mailstow/internal/netconn"
)

// scripted is an IMAP server that says what it is told to say.
type scripted struct {
	greeting string            // "" for an ordinary one
	caps     string            // after IMAP4rev1
	answers  map[string]string // by the beginning of a command: what comes back; TAG is replaced
	silent   string            // the beginning of a command that is not answered

	commands chan string // what the client has said
}

// start serves connections on loopback until the test ends.
func (s *scripted) start(t testing.TB) netconn.Endpoint {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s.commands = make(chan string, 1000)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return netconn.Endpoint{Addr: ln.Addr().String(), Security: netconn.Plain, Timeout: 10 * time.Second}
}

func (s *scripted) serve(conn net.Conn) {
	defer conn.Close()
	greeting := s.greeting
	if greeting == "" {
		greeting = "* OK ready\r\n"
	}
	fmt.Fprint(conn, greeting)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		tag, command, _ := strings.Cut(lines.Text(), " ")
		s.commands <- command
		if s.silent != "" && strings.HasPrefix(command, s.silent) {
			continue
		}
		answer := "TAG OK done\r\n"
		if command == "CAPABILITY" {
			answer = "* CAPABILITY IMAP4rev1 " + s.caps + "\r\nTAG OK done\r\n"
		}
		for prefix, a := range s.answers {
			if strings.HasPrefix(command, prefix) {
				answer = a
			}
		}
		answer, hangUp := strings.CutSuffix(answer, "HANGUP")
		fmt.Fprint(conn, strings.ReplaceAll(answer, "TAG", tag))
		if hangUp {
			return
		}
	}
}

// said returns the commands that the server has read so far.
func (s *scripted) said() (all []string) {
	for {
		select {
		case c := <-s.commands:
			all = append(all, c)
		default:
			return all
		}
	}
}

var alice = imapwire.Login{User: "alice", Password: credential.NewSecret("secret")}

func dial(t testing.TB, e netconn.Endpoint) (*imapwire.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := imapwire.Dial(ctx, e, alice)
	t.Cleanup(func() {
		cancel()
		if c != nil {
			c.Close()
		}
	})
	return c, err
}
