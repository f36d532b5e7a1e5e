package demo

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
)

// POP3Server is a small POP3 server (RFC 1939) with one account that cannot
// be changed.
type POP3Server struct {
	User, Password string
	Messages       []string // with CRLF line ends

	ln    net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// Start listens on a loopback port and returns its address.
func (s *POP3Server) Start() (addr string, err error) {
	if s.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return "", err
	}
	s.conns = map[net.Conn]bool{}
	s.wg.Go(func() {
		for {
			conn, err := s.ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(conn) })
		}
	})
	return s.ln.Addr().String(), nil
}

// Close stops the server and ends its connections.
func (s *POP3Server) Close() {
	s.ln.Close()
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *POP3Server) serve(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	s.conns[conn] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	session := &pop3Session{server: s, w: textproto.NewWriter(bufio.NewWriter(conn))}
	session.w.PrintfLine("+OK mailstow demo")
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if !session.answer(strings.TrimSpace(lines.Text())) {
			return
		}
	}
}

type pop3Session struct {
	server   *POP3Server
	w        *textproto.Writer
	user     string
	loggedIn bool
}

// answer answers one command and reports whether the session goes on.
func (s *pop3Session) answer(line string) bool {
	command, args, _ := strings.Cut(line, " ")
	command = strings.ToUpper(command)
	switch command {
	case "QUIT":
		s.w.PrintfLine("+OK")
		return false
	case "CAPA":
		s.lines("+OK", "TOP", "UIDL", "USER", "PIPELINING")
	case "USER":
		s.user = args
		s.w.PrintfLine("+OK")
	case "PASS":
		if s.loggedIn = s.user == s.server.User && args == s.server.Password; s.loggedIn {
			s.w.PrintfLine("+OK")
		} else {
			s.w.PrintfLine("-ERR [AUTH] wrong user or password")
		}
	default:
		if !s.loggedIn {
			s.w.PrintfLine("-ERR log in first")
			return true
		}
		s.transaction(command, strings.Fields(args))
	}
	return true
}

func (s *pop3Session) transaction(command string, args []string) {
	all := s.server.Messages
	switch command {
	case "NOOP":
		s.w.PrintfLine("+OK")
	case "STAT":
		total := 0
		for _, m := range all {
			total += len(m)
		}
		s.w.PrintfLine("+OK %d %d", len(all), total)
	case "LIST", "UIDL":
		var list []string
		for i, m := range all {
			value := strconv.Itoa(len(m))
			if command == "UIDL" {
				value = fmt.Sprintf("%x", sha256.Sum256([]byte(m)))[:32]
			}
			list = append(list, fmt.Sprintf("%d %s", i+1, value))
		}
		s.lines("+OK", list...)
	case "RETR", "TOP":
		n := 0
		if len(args) > 0 {
			n, _ = strconv.Atoi(args[0])
		}
		if n < 1 || n > len(all) {
			s.w.PrintfLine("-ERR no such message")
			return
		}
		text := all[n-1]
		if command == "TOP" {
			header, _, _ := strings.Cut(text, "\r\n\r\n")
			text = header + "\r\n\r\n"
		}
		s.lines("+OK", strings.Split(strings.TrimSuffix(text, "\r\n"), "\r\n")...)
	default:
		s.w.PrintfLine("-ERR unknown command")
	}
}

// lines sends a multi-line answer, with dots stuffed.
func (s *pop3Session) lines(status string, lines ...string) {
	s.w.W.WriteString(status + "\r\n")
	for _, l := range lines {
		if strings.HasPrefix(l, ".") {
			l = "." + l
		}
		s.w.W.WriteString(l + "\r\n")
	}
	s.w.PrintfLine(".")
}
