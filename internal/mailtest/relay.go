package mailtest

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Line is what a connection through a [Relay] suffers.
type Line struct {
	Delay time.Duration // each way
	Cut   int64         // a connection is cut after so many octets from the server; 0 never
	Most  int           // connections at the same time; one more is greeted with BYE; 0 any number

	// Pass is asked about each line of a client before the server gets it. If it
	// returns false the connection is lost, and the server does not get it. Nil
	// passes all.
	Pass func(line string) bool
}

// Relay stands between a client and a server: it slows, cuts and counts.
type Relay struct {
	Line
	Addr string // where it listens, as host:port

	target string
	delay  atomic.Int64 // of connections that begin

	mu       sync.Mutex
	lines    []string // what clients have said
	conns    map[net.Conn]bool
	accepted atomic.Int64
}

// NewRelay starts a relay to a server, which runs until the test ends.
func NewRelay(t testing.TB, target string, line Line) *Relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	r := &Relay{Line: line, Addr: ln.Addr().String(), target: target, conns: map[net.Conn]bool{}}
	r.Hasten(line.Delay)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go r.serve(conn)
		}
	}()
	return r
}

// Connections returns how many there have been.
func (r *Relay) Connections() int { return int(r.accepted.Load()) }

// Said returns the lines that clients have sent since it was called last, without their tags.
func (r *Relay) Said() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

// Hasten gives connections that begin from now on another delay.
func (r *Relay) Hasten(delay time.Duration) { r.delay.Store(int64(delay)) }

// Sever ends all connections.
func (r *Relay) Sever() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		conn.Close()
	}
}

func (r *Relay) serve(client net.Conn) {
	defer client.Close()
	r.accepted.Add(1)
	r.mu.Lock()
	r.conns[client] = true
	full := r.Most > 0 && len(r.conns) > r.Most
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.conns, client)
		r.mu.Unlock()
	}()
	if full {
		io.WriteString(client, "* BYE Maximum number of connections from user+IP exceeded\r\n")
		return
	}
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	delay := time.Duration(r.delay.Load())
	go func() {
		defer server.Close()
		pass(server, &ear{relay: r, from: client}, delay)
	}()
	from := io.Reader(server)
	if r.Cut > 0 {
		from = io.LimitReader(server, r.Cut)
	}
	pass(client, from, delay)
}

// pass passes octets on after the delay.
func pass(to io.Writer, from io.Reader, delay time.Duration) {
	type chunk struct {
		octets []byte
		due    time.Time
	}
	line := make(chan chunk, 4096)
	go func() {
		defer close(line)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if n > 0 {
				line <- chunk{b[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	failed := false
	for c := range line {
		time.Sleep(time.Until(c.due))
		if !failed {
			_, err := to.Write(c.octets)
			failed = err != nil
		}
	}
}

// ear reads what a client says, and hears its lines.
type ear struct {
	relay *Relay
	from  io.Reader
	line  []byte
}

func (e *ear) Read(p []byte) (int, error) {
	n, err := e.from.Read(p)
	for b := range bytes.Lines(p[:n]) {
		e.line = append(e.line, b...)
		if !bytes.HasSuffix(b, []byte("\n")) {
			break
		}
		line := strings.TrimRight(string(e.line), "\r\n")
		e.line = nil
		if e.relay.Pass != nil && !e.relay.Pass(line) {
			return 0, io.ErrClosedPipe
		}
		_, command, ok := strings.Cut(line, " ")
		if !ok {
			continue
		}
		e.relay.mu.Lock()
		e.relay.lines = append(e.relay.lines, command)
		e.relay.mu.Unlock()
	}
	return n, err
}
