// Package demo runs mail servers with sample mail on loopback, so that
// mailstow can be tried without an account.
package demo

import (
	"bytes"
	"io"
	"log"
	"net"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// The login of the sample account.
const (
	User     = "demo"
	Password = "demo"
)

// Servers are an IMAP and a POP3 server for the sample account, and the IMAP
// server of another provider, where the account is empty.
type Servers struct {
	IMAP, POP3, Other string // host:port on loopback

	imap []*imapserver.Server
	pop3 *POP3Server
}

// Start starts the servers. The POP3 server has the INBOX of the other.
func Start() (*Servers, error) {
	user := imapmemserver.NewUser(User, Password)
	for _, b := range boxes {
		var options *imap.CreateOptions
		if b.use != "" {
			options = &imap.CreateOptions{SpecialUse: []imap.MailboxAttr{b.use}}
		}
		if err := user.Create(b.name, options); err != nil {
			return nil, err
		}
	}
	var inbox []string
	for _, s := range samples() {
		options := &imap.AppendOptions{Flags: s.flags, Time: s.date}
		if _, err := user.Append(s.mailbox, literal{bytes.NewReader([]byte(s.text))}, options); err != nil {
			return nil, err
		}
		if s.mailbox == "INBOX" {
			inbox = append(inbox, s.text)
		}
	}
	s := &Servers{pop3: &POP3Server{User: User, Password: Password, Messages: inbox}}
	var err error
	if s.IMAP, err = s.serveIMAP(user); err != nil {
		return nil, err
	}
	empty := imapmemserver.NewUser(User, Password)
	if err = empty.Create("INBOX", nil); err == nil {
		s.Other, err = s.serveIMAP(empty)
	}
	if err == nil {
		s.POP3, err = s.pop3.Start()
	}
	if err != nil {
		s.closeIMAP()
		return nil, err
	}
	return s, nil
}

func (s *Servers) serveIMAP(user *imapmemserver.User) (addr string, err error) {
	mem := imapmemserver.New()
	mem.AddUser(user)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return mem.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapSpecialUse: {}, imap.CapListExtended: {}},
		InsecureAuth: true,
		Logger:       log.New(io.Discard, "", 0),
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.imap = append(s.imap, server)
	go server.Serve(ln)
	return ln.Addr().String(), nil
}

// Close stops the servers.
func (s *Servers) Close() {
	s.closeIMAP()
	s.pop3.Close()
}

func (s *Servers) closeIMAP() {
	for _, server := range s.imap {
		server.Close()
	}
}

type literal struct{ *bytes.Reader }

func (l literal) Size() int64 { return int64(l.Len()) }
