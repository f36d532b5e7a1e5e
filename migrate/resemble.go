package migrate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"mailstow/internal/fingerprint"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// resemble finds messages that the server has changed, among those of which it
// is not known whether they have been stored: without it they would be stored
// again. One is found by all of its fields and the size of its body, or by a
// header or a Message-ID that no other has.
func (r *run) resemble(ctx context.Context, d Destination, p *plan, strange []mailbox.Message, free []fingerprint.Candidate, claimed map[int64]bool) error {
	doubtful := map[int64]bool{}
	for _, c := range slices.Concat(p.unanswered, p.untold) {
		doubtful[c.Message] = true
	}
	// What an earlier run has sent is not known, or the index was lost.
	anything := r.pass == 0 && (r.Unsettled || len(p.live) == len(claimed))
	sought := slices.DeleteFunc(slices.Clone(free), func(c fingerprint.Candidate) bool {
		return claimed[c.Message] || !anything && !doubtful[c.Message]
	})
	come := slices.DeleteFunc(slices.Clone(strange), func(m mailbox.Message) bool {
		return p.live[m.ID] || !anything && p.before[m.ID]
	})
	if len(sought) == 0 || len(come) == 0 {
		p.unanswered = nil
		return nil
	}
	both, err := r.alikeTo(ctx, sought)
	if err != nil {
		return err
	}
	there, err := both.read(ctx, d, p, come)
	if err != nil { // if it is refused, nothing can be said of the mailbox
		return err
	}
	batch := r.archive.Begin()
	for _, exact := range []bool{true, false} {
		for _, m := range come {
			s, read := there[m.ID]
			if !read || p.live[m.ID] {
				continue
			}
			for _, c := range both.byID[s.id] {
				if claimed[c.Message] || exact && !r.isWithin(ctx, c, s.body, s.fields) || !exact && !both.sole(c, s) {
					continue
				}
				claimed[c.Message], p.live[m.ID] = true, true
				batch.Form(c.Message, formThere(m, s.header), changedThere)
				if err := batch.Claim(ctx, p.box, m, c.Message, false); err != nil {
					return archiveFailed(err)
				}
				break
			}
		}
	}
	if err := r.keep(ctx, batch); err != nil {
		return err
	}
	p.unanswered = nil
	return nil
}

// alike are messages on both sides that may be the same, and how often there is
// what may tell them apart.
type alike struct {
	byID         map[string][]fingerprint.Candidate // the archive's, by Message-ID
	strangers    map[string]int                     // by Message-ID
	ours, theirs map[fingerprint.Sum]int            // by the header's digest
}

// alikeTo makes one of the archive's messages.
func (r *run) alikeTo(ctx context.Context, sought []fingerprint.Candidate) (a alike, err error) {
	a = alike{map[string][]fingerprint.Candidate{}, map[string]int{}, map[fingerprint.Sum]int{}, map[fingerprint.Sum]int{}}
	for _, c := range sought {
		about, err := r.archive.Describe(ctx, c.Message)
		if err != nil {
			return a, retry.Permanent(err)
		}
		id := idOf(about.MessageID)
		a.byID[id] = append(a.byID[id], c)
		a.ours[c.Header]++
	}
	return a, nil
}

// read returns those of the server's messages that have the Message-ID of one
// of the archive's: most of what others have put there is none of ours.
func (a alike) read(ctx context.Context, d Destination, p *plan, come []mailbox.Message) (there map[mailbox.ID]stranger, err error) {
	there = map[mailbox.ID]stranger{}
	return there, d.Headers(ctx, p.box, come, func(m mailbox.Message, header []byte) error {
		fields, err := readFields(bufio.NewReader(bytes.NewReader(header)))
		if err != nil {
			return err
		}
		s := stranger{fingerprint.ReadHeader(header), m.Size - int64(len(header)), fields, idOf(field(fields, "Message-ID"))}
		if len(a.byID[s.id]) > 0 {
			there[m.ID] = s
			a.strangers[s.id]++
			a.theirs[s.header.Sum]++
		}
		return nil
	})
}

// sole reports whether a message and a stranger have a header, or a Message-ID,
// that no other has on either side.
func (a alike) sole(c fingerprint.Candidate, s stranger) bool {
	header := c.Header == s.header.Sum && a.theirs[c.Header] == 1 && a.ours[c.Header] == 1
	return header || s.id != "" && a.strangers[s.id] == 1 && len(a.byID[s.id]) == 1
}

// stranger is a message of the server that the archive does not know.
type stranger struct {
	header fingerprint.Header
	body   int64 // octets, if the size is true
	fields [][]byte
	id     string
}

// idOf is a Message-ID without its brackets.
func idOf(field string) string { return strings.Trim(strings.TrimSpace(field), "<>") }

// ownFields returns the fields of a message of the archive, and the octets of
// its body.
func (r *run) ownFields(ctx context.Context, c fingerprint.Candidate) (fields [][]byte, body int64, err error) {
	content, err := r.archive.Open(ctx, c.Message)
	if err != nil {
		return nil, 0, err
	}
	defer content.Close()
	fields, err = readFields(bufio.NewReader(io.LimitReader(content.Content, content.Size)))
	body = content.Size
	for _, f := range fields {
		body -= int64(len(f))
	}
	return fields, body, err
}

// isWithin reports whether a message has a body of this size, and all its
// fields are among others.
func (r *run) isWithin(ctx context.Context, c fingerprint.Candidate, body int64, fields [][]byte) bool {
	own, size, err := r.ownFields(ctx, c)
	return err == nil && (body == size || body == size+2) && among(own, fields)
}

// isSame reports whether a header is of a message, however it was changed: by
// its Message-ID or, if it has none, by its Date, or From and Subject. It is of
// one that cannot be read: nothing can be said.
func (r *run) isSame(ctx context.Context, c fingerprint.Candidate, header []byte) (bool, error) {
	there, err := readFields(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return false, err
	}
	own, _, err := r.ownFields(ctx, c)
	if err != nil {
		return true, nil
	}
	for _, name := range []string{"Message-ID", "Date"} {
		if value := field(own, name); value != "" {
			return field(there, name) == value, nil
		}
	}
	return field(own, "From")+field(own, "Subject") == field(there, "From")+field(there, "Subject"), nil
}

// field returns the value of the first field with a name, without the blanks
// around it; "" if there is none.
func field(fields [][]byte, name string) string {
	for _, f := range fields {
		if n, value, ok := strings.Cut(string(f), ":"); ok && strings.EqualFold(strings.TrimSpace(n), name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// among reports whether fields are all among others, in this order.
func among(fields, others [][]byte) bool {
	for _, f := range others {
		if len(fields) > 0 && bytes.Equal(f, fields[0]) {
			fields = fields[1:]
		}
	}
	return len(fields) == 0
}

// maxFields bounds the octets of a header that is compared field by field.
const maxFields = 4 << 20

// readFields reads a header with the line that ends it, and returns its fields
// with their line ends.
func readFields(r *bufio.Reader) (fields [][]byte, err error) {
	for size := 0; size < maxFields; {
		line, err := r.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		if err != nil && err != io.EOF && !long {
			return nil, err
		}
		size += len(line)
		goesOn := len(line) > 0 && (line[0] == ' ' || line[0] == '\t') && len(fields) > 0
		if !goesOn && len(line) > 0 {
			fields = append(fields, nil)
		}
		if len(line) > 0 {
			fields[len(fields)-1] = append(fields[len(fields)-1], line...)
		}
		for long { // the rest of the line
			line, err = r.ReadSlice('\n')
			long = errors.Is(err, bufio.ErrBufferFull)
			if err != nil && err != io.EOF && !long {
				return nil, err
			}
			size += len(line)
			fields[len(fields)-1] = append(fields[len(fields)-1], line...)
		}
		if err == io.EOF || len(bytes.TrimRight(fields[len(fields)-1], "\r\n")) == 0 {
			return fields, nil
		}
	}
	return fields, nil
}
