package imapwire

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"unicode/utf16"
)

// names holds the mailbox names that go-imap cannot read or would not send
// back as they came. The library gets a stand-in for each.
type names struct {
	mu       sync.Mutex
	random   string
	standIns map[string]string // raw name -> stand-in
	raw      map[string]string // stand-in -> raw name
}

// show returns the name to show the library for a server's raw name.
func (n *names) show(raw string) string {
	if survives(raw) {
		return raw
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.raw == nil {
		var b [8]byte
		rand.Read(b[:])
		n.random = hex.EncodeToString(b[:])
		n.raw, n.standIns = map[string]string{}, map[string]string{}
	}
	s, ok := n.standIns[raw]
	if !ok {
		s = fmt.Sprintf("mailstow-%s-%d", n.random, len(n.raw))
		n.standIns[raw], n.raw[s] = s, raw
	}
	return s
}

// restore puts raw names into a command in place of their stand-ins.
func (n *names) restore(command []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.raw == nil || !bytes.Contains(command, []byte("mailstow-"+n.random)) {
		return command
	}
	for s, raw := range n.raw {
		command = bytes.ReplaceAll(command, []byte(quote(s)), []byte(quote(raw)))
	}
	return command
}

// Raw returns the server's spelling of a mailbox that go-imap names. decoded
// says that go-imap's name is the readable form of it, and no stand-in.
func (c *Conn) Raw(shown string) (raw string, decoded bool) {
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	if raw, ok := c.names.raw[shown]; ok {
		return raw, false
	}
	return encodeUTF7(shown), true
}

// Shown returns what go-imap is to call the mailbox with the server's
// spelling, on this connection.
func (c *Conn) Shown(raw string) string {
	shown := c.names.show(raw)
	if shown == raw {
		shown, _ = decodeUTF7(raw)
	}
	return shown
}

// survives reports whether go-imap reads a raw name and sends the same octets
// when it names the mailbox again: canonical modified UTF-7.
func survives(raw string) bool {
	name, ok := decodeUTF7(raw)
	return ok && raw != "" && encodeUTF7(name) == raw
}

var mUTF7 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding).Strict()

// decodeUTF7 reads modified UTF-7 (RFC 3501 section 5.1.3).
func decodeUTF7(raw string) (name string, ok bool) {
	var b strings.Builder
	for raw != "" {
		c := raw[0]
		switch {
		case c < ' ' || c > '~':
			return "", false
		case c != '&':
			b.WriteByte(c)
			raw = raw[1:]
			continue
		}
		shift, rest, closed := strings.Cut(raw[1:], "-")
		if !closed {
			return "", false
		}
		raw = rest
		if shift == "" {
			b.WriteByte('&')
			continue
		}
		octets, err := mUTF7.DecodeString(shift)
		if err != nil || len(octets)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(octets)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(octets[2*i:])
		}
		b.WriteString(string(utf16.Decode(units)))
	}
	return b.String(), true
}

// encodeUTF7 writes a name in modified UTF-7.
func encodeUTF7(name string) string {
	var b strings.Builder
	var shifted []rune
	flush := func() {
		if len(shifted) == 0 {
			return
		}
		var octets []byte
		for _, u := range utf16.Encode(shifted) {
			octets = binary.BigEndian.AppendUint16(octets, u)
		}
		b.WriteString("&" + mUTF7.EncodeToString(octets) + "-")
		shifted = nil
	}
	for _, r := range name {
		if r < ' ' || r > '~' {
			shifted = append(shifted, r)
			continue
		}
		flush()
		b.WriteRune(r)
		if r == '&' {
			b.WriteByte('-')
		}
	}
	flush()
	return b.String()
}
