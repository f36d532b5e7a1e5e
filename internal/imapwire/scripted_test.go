package imapwire_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"mailstow/internal/credential"
	"mailstow/internal/imapwire"
	"mailstow/internal/mailtest"
	"mailstow/internal/netconn"
	"mailstow/internal/sasl"
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
	s.commands = make(chan string, 1000)
	greeting := s.greeting
	if greeting == "" {
		greeting = "* OK ready\r\n"
	}
	return netconn.Endpoint{Addr: mailtest.Script(t, greeting, s.answer), Security: netconn.Plain, Timeout: 10 * time.Second}
}

func (s *scripted) answer(line string) string {
	tag, command, _ := strings.Cut(line, " ")
	s.commands <- command
	answer := "TAG OK done\r\n"
	switch {
	case s.silent != "" && strings.HasPrefix(command, s.silent):
		time.Sleep(time.Second) // longer than the test waits
		return mailtest.HangUp
	case command == "CAPABILITY":
		answer = "* CAPABILITY IMAP4rev1 " + s.caps + "\r\nTAG OK done\r\n"
	}
	for prefix, a := range s.answers {
		if strings.HasPrefix(command, prefix) {
			answer = a
		}
	}
	return strings.ReplaceAll(answer, "TAG", tag)
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

var alice = sasl.Login{User: "alice", Secret: credential.NewSecret("secret")}

func dial(t testing.TB, e netconn.Endpoint) (*imapwire.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := imapwire.Dial(ctx, e, alice, imapwire.Auto)
	t.Cleanup(func() {
		cancel()
		if c != nil {
			c.Close()
		}
	})
	return c, err
}
