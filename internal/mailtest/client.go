package mailtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const commandTimeout = time.Minute

// Refused is the answer of a server to a command that it did not carry out, from NO or BAD on.
type Refused string

func (r Refused) Error() string { return "refused: " + string(r) }

// Client is a plain IMAP connection, logged in, that changes nothing in what it sends and gets. For one goroutine.
type Client struct {
	server *Server
	user   string
	conn   net.Conn
	r      *bufio.Reader
	tag    int
}

// Login opens a connection, which ends with Close, or with the test.
func (s *Server) Login(t testing.TB, user string) *Client {
	t.Helper()
	c, err := s.login(user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Append stores a message over a connection of its own; see [Client.Append].
func (s *Server) Append(user, mailbox string, msg []byte, date time.Time, flags ...string) error {
	c, err := s.login(user)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Append(mailbox, msg, date, flags...)
}

func (s *Server) login(user string) (*Client, error) {
	conn, err := net.Dial("tcp", s.IMAP)
	if err != nil {
		return nil, err
	}
	c := &Client{server: s, user: user, conn: conn, r: bufio.NewReader(conn)}
	c.conn.SetDeadline(time.Now().Add(commandTimeout))
	if _, err = c.response(); err == nil { // the greeting
		_, err = c.Command("LOGIN " + quote(user) + " " + quote(s.Password(user)))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: login of %s: %w", s.Name, user, err)
	}
	return c, nil
}

// Close ends the connection; it may be called twice.
func (c *Client) Close() { c.conn.Close() }

// Append stores exactly these octets as a message with APPEND, and creates the mailbox when there is none. The mailbox
// is named as the server names it: with its prefix, in modified UTF-7. No date is given when it is zero. The error is a
// [Refused] when the server does not take the message or the mailbox.
func (c *Client) Append(mailbox string, msg []byte, date time.Time, flags ...string) error {
	err := c.append(mailbox, msg, date, flags)
	if refused, ok := err.(Refused); !ok || !strings.Contains(string(refused), "[TRYCREATE]") {
		return err
	}
	if _, err := c.Command("CREATE " + quote(mailbox)); err != nil {
		return err
	}
	return c.append(mailbox, msg, date, flags)
}

func (c *Client) append(mailbox string, msg []byte, date time.Time, flags []string) error {
	line := "APPEND " + quote(mailbox)
	if len(flags) > 0 {
		line += " (" + strings.Join(flags, " ") + ")"
	}
	if !date.IsZero() {
		line += date.Format(` "_2-Jan-2006 15:04:05 -0700"`)
	}
	line += fmt.Sprintf(" {%d}", len(msg))
	_, err := c.exchange(line, append(msg[:len(msg):len(msg)], "\r\n"...))
	return err
}

// Command sends one line and waits for the end of the answer. It gives the untagged responses, in the order they came,
// without the line end but with literals as they are; a [Refused] when the server says NO or BAD.
func (c *Client) Command(line string) (untagged []string, err error) {
	responses, err := c.exchange(line, nil)
	for _, r := range responses {
		untagged = append(untagged, r.whole)
	}
	return untagged, err
}

// Bodies gives every message of a mailbox by its UID, exactly as BODY.PEEK[] has it. It uses a new connection and
// EXAMINE, so it neither changes the mailbox nor the state of this client.
func (c *Client) Bodies(mailbox string) (map[uint32][]byte, error) {
	own, err := c.server.login(c.user)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	untagged, err := own.Command("EXAMINE " + quote(mailbox))
	if err != nil {
		return nil, err
	}
	bodies := map[uint32][]byte{}
	for _, u := range untagged {
		if u == "* 0 EXISTS" { // some servers refuse to fetch nothing
			return bodies, nil
		}
	}
	responses, err := own.exchange("UID FETCH 1:* (UID BODY.PEEK[])", nil)
	if err != nil {
		return nil, err
	}
	for _, r := range responses {
		if uid, body, ok := r.body(); ok {
			bodies[uid] = body
		}
	}
	return bodies, nil
}

// exchange sends a line, and what follows it once the server asks for more, and reads up to the end of the answer.
func (c *Client) exchange(line string, more []byte) (untagged []response, err error) {
	c.tag++
	tag := fmt.Sprintf("m%d ", c.tag)
	c.conn.SetDeadline(time.Now().Add(commandTimeout))
	if _, err := io.WriteString(c.conn, tag+line+"\r\n"); err != nil {
		return nil, err
	}
	for {
		r, err := c.response()
		if err != nil {
			return untagged, fmt.Errorf("%.60q: %w", line, err)
		}
		result, tagged := strings.CutPrefix(r.whole, tag)
		switch {
		case tagged && strings.HasPrefix(result, "OK"):
			return untagged, nil
		case tagged:
			return untagged, Refused(result)
		case !strings.HasPrefix(r.whole, "+"):
			untagged = append(untagged, r)
		case more == nil:
			return untagged, fmt.Errorf("%.60q: the server asks for more: %s", line, r.whole)
		default:
			if _, err := c.conn.Write(more); err != nil {
				return untagged, err
			}
			more = nil
		}
	}
}

// response is one response of a server.
type response struct {
	whole    string   // without the last line end
	outline  string   // the same without the octets of literals
	literals [][]byte // these octets
}

var literalSize = regexp.MustCompile(`\{(\d+)\}$`)

func (c *Client) response() (r response, err error) {
	var whole, outline strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return r, err
		}
		text := strings.TrimRight(line, "\r\n")
		outline.WriteString(text)
		size := literalSize.FindStringSubmatch(text)
		if size == nil {
			whole.WriteString(text)
			r.whole, r.outline = whole.String(), outline.String()
			return r, nil
		}
		n, err := strconv.Atoi(size[1])
		if err != nil {
			return r, err
		}
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			return r, err
		}
		whole.WriteString(line)
		whole.Write(literal)
		r.literals = append(r.literals, literal)
	}
}

var (
	fetchedUID    = regexp.MustCompile(`^\* \d+ FETCH \(.*\bUID (\d+)`)
	fetchedString = regexp.MustCompile(`BODY\[\] "((?:[^"\\]|\\.)*)"`)
)

// body gives the message that a FETCH response has, if it has one.
func (r response) body() (uid uint32, body []byte, ok bool) {
	m := fetchedUID.FindStringSubmatch(r.outline)
	if m == nil || !strings.Contains(r.outline, "BODY[]") {
		return 0, nil, false
	}
	n, err := strconv.ParseUint(m[1], 10, 32)
	if err != nil {
		return 0, nil, false
	}
	if len(r.literals) > 0 {
		return uint32(n), r.literals[0], true
	}
	if s := fetchedString.FindStringSubmatch(r.outline); s != nil {
		body = []byte(unescape.Replace(s[1]))
	}
	return uint32(n), body, true
}

var (
	escape   = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	unescape = strings.NewReplacer(`\\`, `\`, `\"`, `"`)
)

func quote(s string) string { return `"` + escape.Replace(s) + `"` }

// AppendAll stores n messages, without waiting for one to be stored before the next is sent where the server can do
// so (LITERAL+, RFC 7888). The mailbox must be there.
func (c *Client) AppendAll(mailbox string, n int, message func(i int) (msg []byte, date time.Time)) error {
	caps, err := c.Command("CAPABILITY")
	if err != nil {
		return err
	}
	if !strings.Contains(strings.Join(caps, " "), "LITERAL+") {
		for i := range n {
			msg, date := message(i)
			if err := c.Append(mailbox, msg, date); err != nil {
				return err
			}
		}
		return nil
	}
	sent := make(chan error, 1)
	go func() {
		w := bufio.NewWriterSize(c.conn, 1<<20)
		for i := range n {
			msg, date := message(i)
			fmt.Fprintf(w, "p%d APPEND %s%s {%d+}\r\n%s\r\n", i, quote(mailbox), date.Format(` "_2-Jan-2006 15:04:05 -0700"`), len(msg), msg)
		}
		sent <- w.Flush()
	}()
	for i := 0; i < n; {
		if i%100 == 0 {
			c.conn.SetDeadline(time.Now().Add(commandTimeout))
		}
		r, err := c.response()
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(r.whole, fmt.Sprintf("p%d OK", i)):
			i++
		case strings.HasPrefix(r.whole, "p"):
			return Refused(r.whole)
		}
	}
	return <-sent
}
