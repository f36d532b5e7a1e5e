// Package netconn opens network connections to mail servers.
//
// Neither go-imap nor go-pop3 takes a context or bounds its waiting, so what
// must hold for every call lives here, in one net.Conn: cancellation, a limit
// on silence, and TLS.
package netconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"mailstow/internal/retry"
)

// Security says how a connection is protected.
type Security int

// The kinds of protection.
const (
	Implicit Security = iota // TLS from the first octet (RFC 8314)
	Upgrade                  // STARTTLS or STLS, required
	Plain                    // none: for loopback, or where the user insists
)

// Endpoint says where a server is and how to talk to it.
type Endpoint struct {
	Addr     string // host:port
	Security Security
	TLS      *tls.Config   // for Implicit and Upgrade; ServerName is set
	Timeout  time.Duration // of connecting, and of silence while an answer is awaited
	OnlyIPv4 bool          // IPv6 is not tried
	Proxy    *url.URL      // of SOCKS5; nil for none

	// Trace is told the lines that go over connections, "C: " or "S: " in front;
	// nil for nobody. It may be called from several goroutines.
	Trace func(line string)

	// Alert is told what the server wants its user to read; nil for nobody. It may
	// be called from several goroutines.
	Alert func(text string)

	Limit *rate.Limiter // of octets a second, for all connections that share it; nil for none
}

// ErrSilent is returned when a server sent nothing, or took nothing, for the
// whole time limit although it was its turn.
var ErrSilent = errors.New("the server is silent")

// GreetingError is a server that does not greet as one of a protocol does.
type GreetingError struct {
	Protocol string // IMAP or POP3
	Greeting string
	Err      error // why there is no greeting; nil if there is one
}

func (e *GreetingError) Error() string {
	if e.Err != nil {
		return "greeting: " + e.Err.Error()
	}
	return fmt.Sprintf("this is no %s server: it greets with %q", e.Protocol, e.Greeting)
}

func (e *GreetingError) Unwrap() error { return e.Err }

// Conn is a connection to a mail server. Its deadlines are its own: those
// that a library sets are ignored, because they bound whole transfers and a
// large message on a slow line takes as long as it takes.
type Conn struct {
	net.Conn // what carries data now: the socket, or TLS on it

	sock  *socket
	stop  func() bool
	trace *trace // nil for none
}

// Dial connects to e and, for [Implicit], does the TLS handshake. The
// connection is closed when ctx ends.
func Dial(ctx context.Context, e Endpoint) (*Conn, error) {
	dialCtx := ctx
	if e.Timeout > 0 {
		var cancel context.CancelFunc
		dialCtx, cancel = context.WithTimeout(ctx, e.Timeout)
		defer cancel()
	}
	network := "tcp"
	if e.OnlyIPv4 {
		network = "tcp4"
	}
	raw, err := e.dial(dialCtx, network)
	if err != nil {
		return nil, err
	}
	sock := &socket{Conn: raw, timeout: e.Timeout, limit: e.Limit, ctx: ctx}
	sock.awaiting = true
	c := &Conn{Conn: sock, sock: sock}
	if e.Trace != nil {
		c.trace = &trace{tell: e.Trace}
	}
	c.stop = context.AfterFunc(ctx, func() { raw.Close() })
	if e.Security == Implicit {
		if err := c.StartTLS(ctx, e.TLS); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// StartTLS does a TLS handshake; from then on TLS carries the data.
func (c *Conn) StartTLS(ctx context.Context, cfg *tls.Config) error {
	t := tls.Client(c.sock, cfg)
	err := t.HandshakeContext(ctx)
	if errors.As(err, new(*tls.CertificateVerificationError)) {
		return retry.Permanent(err)
	}
	if err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.Conn = t
	return nil
}

// TLS returns the version of TLS that carries the data, "" for none.
func (c *Conn) TLS() string {
	if t, ok := c.Conn.(*tls.Conn); ok {
		return tls.VersionName(t.ConnectionState().Version)
	}
	return ""
}

// Await says whether the server owes an answer. While it does not, it may be
// silent for as long as it likes. A new Conn awaits.
func (c *Conn) Await(answer bool) {
	c.sock.mu.Lock()
	defer c.sock.mu.Unlock()
	if c.sock.awaiting != answer {
		c.sock.awaiting = answer
		c.sock.setDeadline()
	}
}

// Within calls f, whose reads end after d with [os.ErrDeadlineExceeded]. The
// connection can be used as before.
func (c *Conn) Within(d time.Duration, f func()) {
	c.sock.mu.Lock()
	c.sock.until = time.Now().Add(d)
	c.sock.mu.Unlock()
	defer func() {
		c.sock.mu.Lock()
		c.sock.until = time.Time{}
		c.sock.setDeadline()
		c.sock.mu.Unlock()
	}()
	f()
}

// SetDeadline does nothing.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// Close closes the connection at once; a Read or Write that waits returns.
func (c *Conn) Close() error {
	c.stop()
	return c.sock.Close()
}

// socket bounds each wait on the network.
type socket struct {
	net.Conn
	timeout time.Duration
	limit   *rate.Limiter
	ctx     context.Context // ends the waiting for the limit

	mu       sync.Mutex // the deadline is that of awaiting
	awaiting bool
	until    time.Time // reads end then; zero for the usual limit
}

// arm sets the limit for the next Read.
func (s *socket) arm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setDeadline()
}

// setDeadline sets the limit also for a Read that waits already. The caller
// holds mu.
func (s *socket) setDeadline() {
	switch {
	case !s.until.IsZero():
		s.Conn.SetReadDeadline(s.until)
	case s.timeout <= 0:
		s.Conn.SetReadDeadline(time.Time{})
	case s.awaiting:
		s.Conn.SetReadDeadline(time.Now().Add(s.timeout))
	default:
		s.Conn.SetReadDeadline(time.Time{})
	}
}

func (s *socket) Read(p []byte) (int, error) {
	if s.limit != nil {
		p = p[:min(len(p), s.limit.Burst())]
	}
	s.arm()
	n, err := s.Conn.Read(p)
	if s.limit != nil && n > 0 {
		s.limit.WaitN(s.ctx, n) // an error is the end of ctx, which the next Read meets
	}
	s.mu.Lock()
	bounded := !s.until.IsZero()
	s.mu.Unlock()
	if bounded {
		return n, err
	}
	return n, s.silence(err)
}

// maxBurst bounds what is read at a time under a limit.
const maxBurst = 64 << 10

// NewLimit returns a limit of so many octets a second.
func NewLimit(perSecond int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(perSecond/4, 1<<10), maxBurst)))
}

func (s *socket) Write(p []byte) (n int, err error) {
	for {
		some := p[n:]
		if s.limit != nil {
			some = some[:min(len(some), s.limit.Burst())]
			if err := s.limit.WaitN(s.ctx, len(some)); err != nil {
				return n, err
			}
		}
		if s.timeout > 0 {
			s.Conn.SetWriteDeadline(time.Now().Add(s.timeout))
		}
		k, err := s.Conn.Write(some)
		if n += k; err != nil || n == len(p) {
			return n, s.silence(err)
		}
	}
}

func (s *socket) silence(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w (nothing for %v)", ErrSilent, s.timeout)
	}
	return err
}
