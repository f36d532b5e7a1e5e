package imapwire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"mailstow/mailbox"
)

// Uploader stores messages by APPEND (RFC 3501 section 6.3.11), on a connection
// that go-imap does not use: the library waits for the server before each
// message, and loses the connection when one is refused. Several commands may
// be under way. It is used by one goroutine at a time.
type Uploader struct {
	conn *Conn
	out  *bufio.Writer
}

// Uploader takes the connection over.
func (c *Conn) Uploader() *Uploader {
	c.Await(true)
	return &Uploader{c, bufio.NewWriterSize(c.w, 64<<10)}
}

// Many reports whether one command may store several messages: all of them or
// none (MULTIAPPEND, RFC 3502).
func (u *Uploader) Many() bool { return u.conn.HasCap("MULTIAPPEND") }

// Tells reports whether the server says where it stores what (UIDPLUS).
func (u *Uploader) Tells() bool { return u.conn.HasCap("UIDPLUS") }

// Send sends messages for the mailbox with the server's spelling, more than
// one only where [Uploader.Many] says so. The answer is had by
// [Uploader.Answer] with the tag. After an error the connection is of no more
// use.
func (u *Uploader) Send(wire string, msgs []mailbox.Upload) (tag string, err error) {
	if strings.ContainsAny(wire, "\r\n\x00") {
		return "", errors.New("the mailbox's name cannot be sent")
	}
	c := u.conn
	tag = newTag()
	c.sent = append(c.sent, tag)
	fmt.Fprintf(u.out, "%s APPEND %s", tag, quote(wire))
	for _, m := range msgs {
		if len(m.Flags) > 0 {
			fmt.Fprintf(u.out, " (%s)", strings.Join(m.Flags, " "))
		}
		if !m.InternalDate.IsZero() {
			fmt.Fprintf(u.out, ` "%s"`, m.InternalDate.Format("_2-Jan-2006 15:04:05 -0700"))
		}
		invited, err := u.literal(tag, m.Size)
		if err != nil || !invited {
			return tag, err
		}
		n, err := io.Copy(u.out, io.LimitReader(m.Content, m.Size))
		if err == nil && n < m.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			c.Close()
			return "", err
		}
	}
	u.out.WriteString("\r\n")
	return tag, u.out.Flush()
}

// Close says good-bye, and closes the connection.
func (u *Uploader) Close() error {
	fmt.Fprintf(u.out, "%s LOGOUT\r\n", newTag())
	u.out.Flush()
	return u.conn.Close()
}

// literal announces a literal, and waits for the server to ask for it where it
// must. invited is false if the server has answered the command instead.
func (u *Uploader) literal(tag string, size int64) (invited bool, err error) {
	c := u.conn
	if c.HasCap("LITERAL+") || c.HasCap("LITERAL-") && size <= 4096 {
		_, err := fmt.Fprintf(u.out, " {%d+}\r\n", size)
		return true, err
	}
	fmt.Fprintf(u.out, " {%d}\r\n", size)
	if err := u.out.Flush(); err != nil {
		return false, err
	}
	for {
		first, _, err := c.readAnswer()
		if err != nil || first == "+" {
			return err == nil, err
		}
		if first == tag {
			return false, nil
		}
	}
}

// Answer reads the answer to a command: the UIDs of its messages in their
// order, where the server tells them (UIDPLUS, RFC 4315), else none. A refusal
// is marked so, and stores nothing of the command.
func (u *Uploader) Answer(tag string, messages int) (uidValidity uint32, uids []uint32, err error) {
	lines, err := u.conn.answerTo(tag, nil)
	if err != nil || len(lines) == 0 {
		return 0, nil, err
	}
	uidValidity, uids = readAppendUID(lines[len(lines)-1], messages)
	return uidValidity, uids, nil
}

// readAppendUID reads [APPENDUID validity set]. A set that is not of just so
// many messages tells nothing.
func readAppendUID(line string, messages int) (uidValidity uint32, uids []uint32) {
	i := strings.Index(strings.ToUpper(line), "[APPENDUID ")
	if i < 0 {
		return 0, nil
	}
	code, _, ok := strings.Cut(line[i+len("[APPENDUID "):], "]")
	f := strings.Fields(code)
	if !ok || len(f) != 2 {
		return 0, nil
	}
	validity, err := strconv.ParseUint(f[0], 10, 32)
	if err != nil || validity == 0 {
		return 0, nil
	}
	for part := range strings.SplitSeq(f[1], ",") {
		from, to, isRange := strings.Cut(part, ":")
		first, err1 := strconv.ParseUint(from, 10, 32)
		last, err2 := first, error(nil)
		if isRange {
			last, err2 = strconv.ParseUint(to, 10, 32)
		}
		if err1 != nil || err2 != nil || first == 0 || last < first || last-first >= uint64(messages-len(uids)) {
			return 0, nil
		}
		for uid := first; uid <= last; uid++ {
			uids = append(uids, uint32(uid))
		}
	}
	if len(uids) != messages {
		return 0, nil
	}
	return uint32(validity), uids
}
