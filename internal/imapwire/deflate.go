package imapwire

import (
	"bufio"
	"io"
	"net"

	"github.com/klauspost/compress/flate"
)

// Compression says when to compress the connection (RFC 4978).
type Compression int

// Where a line is fast, packing costs the server more time than it saves.
const (
	Auto   Compression = iota // unless the server is on this machine or this network
	Always                    // where the server can
)

// useful reports whether compression may make the connection faster.
func (z Compression) useful(remote net.Addr) bool {
	if z == Always {
		return true
	}
	tcp, ok := remote.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback() && !tcp.IP.IsPrivate() && !tcp.IP.IsLinkLocalUnicast()
}

// deflate compresses the connection in both directions. What the server has
// sent since it agreed is compressed, also what lies in br already.
func (c *Conn) deflate() error {
	w, err := flate.NewWriter(c.Conn, flate.DefaultCompression)
	if err != nil {
		return err
	}
	c.w = &flushed{w}
	c.br = bufio.NewReaderSize(flate.NewReader(c.br), readAhead)
	return nil
}

// flushed sends every Write at once.
type flushed struct{ *flate.Writer }

func (f *flushed) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.Flush()
	}
	return n, err
}

// Compressed reports whether the connection is compressed.
func (c *Conn) Compressed() bool { return c.w != io.Writer(c.Conn) }
