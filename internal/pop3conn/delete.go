package pop3conn

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// Ways returns that just the messages that are named are removed.
func (c *Conn) Ways() mailbox.Ways { return mailbox.Ways{Exactly: true} }

// Usage adds up what the server lists; POP3 has no quota.
func (c *Conn) Usage(ctx context.Context, _ []mailbox.Mailbox) (mailbox.Usage, error) {
	l, err := c.List(ctx, mailbox.Mailbox{}, mailbox.State{}, true)
	u := mailbox.Usage{Messages: l.Exists}
	for _, m := range l.Messages {
		if m.Size < 0 || u.Sizes < 0 {
			u.Sizes = -1
			continue
		}
		u.Sizes += m.Size
	}
	if len(l.Messages) != l.Exists {
		u.Sizes = -1
	}
	return u, err
}

// Hold lists the messages for this session, and returns those of them that
// there are. One without a lasting name is not among them.
func (c *Conn) Hold(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID) ([]mailbox.Message, error) {
	l, err := c.List(ctx, m, mailbox.State{}, true)
	if err != nil {
		return nil, err
	}
	asked := make(map[mailbox.ID]bool, len(ids))
	for _, id := range ids {
		asked[id] = true
	}
	return slices.DeleteFunc(l.Messages, func(m mailbox.Message) bool { return m.Transient || !asked[m.ID] }), nil
}

// Remove removes messages that [Conn.Hold] has returned, and ends the session:
// what a session deletes happens at its end or, if it is cut, not at all
// (RFC 1939 section 6). After an error it is not known which.
func (c *Conn) Remove(ctx context.Context, _ mailbox.Mailbox, ids []mailbox.ID, trash string) (mailbox.Removal, error) {
	r := mailbox.Removal{Over: true, Left: map[mailbox.ID]string{}, Wait: c.wire.LoginDelay()}
	if trash != "" {
		return r, retry.Refused(errors.New("POP3 has no trash"))
	}
	defer c.hangUp()
	q := c.questions()
	var here []mailbox.ID
	for _, id := range ids {
		n, ok := c.numbers[id]
		if !ok {
			return r, errors.New("the mailbox has not been listed in this session")
		}
		here = append(here, id)
		q.lines = append(q.lines, fmt.Sprintf("DELE %d", n))
	}
	var accepted []mailbox.ID
	for _, id := range here {
		_, err := q.next(ctx)
		switch {
		case retry.IsRefused(err):
			r.Left[id] = err.Error()
		case err != nil:
			return r, err
		default:
			accepted = append(accepted, id)
		}
	}
	if _, err := c.ask(ctx, "QUIT"); err != nil {
		err = fmt.Errorf("the server did not confirm the end of the session: %w", err)
		return r, lost{err}
	}
	r.Done, r.Unmarked = accepted, true
	return r, nil
}

// Unmark does nothing: a session that has not ended in QUIT has deleted nothing.
func (c *Conn) Unmark(context.Context, mailbox.Mailbox, []mailbox.ID) error { return nil }

// lost is an error after which nothing is known of what was done, also if the
// server has said no.
type lost struct{ error }
