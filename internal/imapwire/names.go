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

// RawName returns the server's spelling of a mailbox that go-imap named.
// repaired says that it is not what the library believes it to be: neither
// modified UTF-7 nor anything else that was decoded.
func (c *Conn) RawName(shown string) (raw string, repaired bool) {
	c.names.mu.Lock()
	defer c.names.mu.Unlock()
	raw, repaired = c.names.raw[shown]
	return raw, repaired
}

// survives reports whether go-imap reads a raw name and sends the same octets
// when it names the mailbox again: printable ASCII, in canonical modified
// UTF-7 (RFC 3501 section 5.1.3).
func survives(raw string) bool {
	if raw == "" {
		return false
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] < ' ' || raw[i] > '~' {
			return false
		}
	}
	for rest := raw; ; {
		i := strings.IndexByte(rest, '&')
		if i < 0 {
			return true
		}
		shift, after, ok := strings.Cut(rest[i+1:], "-")
		if !ok || shift != "" && (!canonicalShift(shift) || strings.HasPrefix(after, "&") && !strings.HasPrefix(after, "&-")) {
			return false
		}
		rest = after
	}
}

var mUTF7 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding).Strict()

// canonicalShift reports whether s is what an encoder makes of some text that
// is not ASCII.
func canonicalShift(s string) bool {
	b, err := mUTF7.DecodeString(s)
	if err != nil || len(b)%2 != 0 {
		return false
	}
	for i := 0; i < len(b); i += 2 {
		u := rune(binary.BigEndian.Uint16(b[i:]))
		switch {
		case utf16.IsSurrogate(u):
			if i+4 > len(b) || utf16.DecodeRune(u, rune(binary.BigEndian.Uint16(b[i+2:]))) == '\uFFFD' {
				return false
			}
			i += 2
		case u >= ' ' && u <= '~':
			return false
		}
	}
	return true
}
