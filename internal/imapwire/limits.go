package imapwire

import (
	"strconv"
	"strings"
)

// Quota is a limit that the server has set, and what is used of it (RFC 9208).
type Quota struct {
	Resource    string // STORAGE, in units of 1024 octets, or MESSAGE
	Used, Limit int64
}

// Quotas returns what the server has said of its limits since it was asked last.
func (c *Conn) Quotas() []Quota {
	c.mu.Lock()
	defer c.mu.Unlock()
	said := c.quotas
	c.quotas = nil
	return said
}

// Rights returns the rights that the server has said the user has in a mailbox
// with this spelling (RFC 4314).
func (c *Conn) Rights(wire string) (rights string, told bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rights, told = c.rights[wire]
	return rights, told
}

// learnQuota reads the answer to GETQUOTAROOT: the root's name, and triples in
// parentheses.
func (c *Conn) learnQuota(args string) {
	i := strings.LastIndexByte(args, '(')
	if i < 0 {
		return
	}
	f := firstFields(strings.TrimSuffix(strings.TrimRight(args[i+1:], " "), ")"), maxFlags)
	for ; len(f) >= 3; f = f[3:] {
		used, err1 := strconv.ParseInt(f[1], 10, 53)
		limit, err2 := strconv.ParseInt(f[2], 10, 53)
		if err1 != nil || err2 != nil || used < 0 || limit <= 0 {
			continue // some say 0 for no limit
		}
		c.mu.Lock()
		c.quotas = append(c.quotas, Quota{strings.ToUpper(f[0]), used, limit})
		c.mu.Unlock()
	}
}

// learnRights reads the answer to MYRIGHTS: a mailbox, and letters.
func (c *Conn) learnRights(line []byte) {
	s := &scanner{conn: c, line: line, pos: len("* MYRIGHTS")}
	name, err1 := s.value()
	rights, err2 := s.value()
	if err1 != nil || err2 != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rights[unquote(name)] = unquote(rights)
}
