package pop3conn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// deletesASession is how many messages are deleted in one session: what a
// session deletes happens at its end or, if it is cut, not at all (RFC 1939
// section 6).
const deletesASession = 200

// Deletion says what became of messages that were to be deleted. One that is
// named nowhere in it is still on the server, as far as is known.
type Deletion struct {
	Done     []mailbox.ID          // the server said yes to the end of the session
	Unlisted []mailbox.ID          // not listed any more, and nobody said why: servers also hide mail
	Refused  map[mailbox.ID]string // what the server said
}

// Delete removes messages from the server, in sessions of their own. It
// returns an error if that could not be tried with all of them; what had been
// done before is true all the same, and so is what a listing after the error
// tells. What the server has no lasting name for is never deleted.
func (s *Server) Delete(ctx context.Context, ids []mailbox.ID) (Deletion, error) {
	d := Deletion{Refused: map[mailbox.ID]string{}}
	seen := map[mailbox.ID]bool{}
	ids = slices.DeleteFunc(slices.Clone(ids), func(id mailbox.ID) bool {
		again := seen[id]
		seen[id] = true
		return again
	})
	var wait time.Duration
	for some := range slices.Chunk(ids, deletesASession) {
		if err := retry.Sleep(ctx, wait); err != nil {
			return d, err
		}
		var err error
		if wait, err = s.deleteSome(ctx, some, &d); err != nil {
			return d, errors.Join(err, s.lookAgain(ctx, wait, some, &d))
		}
	}
	return d, nil
}

// deleteSome deletes messages in one session, and returns how long the server
// wants to be left alone after it.
func (s *Server) deleteSome(ctx context.Context, ids []mailbox.ID, d *Deletion) (wait time.Duration, err error) {
	c, err := s.Dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.hangUp()
	wait = c.wire.LoginDelay()
	l, err := c.List(ctx, mailbox.Mailbox{}, mailbox.State{}, false)
	if err != nil {
		return wait, err
	}
	for _, m := range l.Messages {
		if m.Transient {
			delete(c.numbers, m.ID) // tomorrow's number 5 is another message
		}
	}
	q := c.questions()
	var here, unlisted, accepted []mailbox.ID
	for _, id := range ids {
		if n, ok := c.numbers[id]; ok {
			here = append(here, id)
			q.lines = append(q.lines, fmt.Sprintf("DELE %d", n))
		} else {
			unlisted = append(unlisted, id)
		}
	}
	for _, id := range here {
		_, err := q.next(ctx)
		switch {
		case retry.IsRefused(err):
			d.Refused[id] = err.Error()
		case err != nil:
			return wait, err
		default:
			accepted = append(accepted, id)
		}
	}
	if _, err := c.ask(ctx, "QUIT"); err != nil {
		return wait, fmt.Errorf("the server did not confirm the end of the session: %w", err)
	}
	d.Done, d.Unlisted = append(d.Done, accepted...), append(d.Unlisted, unlisted...)
	return wait, nil
}

// lookAgain finds out what became of messages after a session that ended
// badly.
func (s *Server) lookAgain(ctx context.Context, wait time.Duration, ids []mailbox.ID, d *Deletion) error {
	if err := retry.Sleep(ctx, wait); err != nil {
		return err
	}
	c, err := s.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close(true)
	if _, err := c.List(ctx, mailbox.Mailbox{}, mailbox.State{}, false); err != nil {
		return err
	}
	for _, id := range ids {
		if _, listed := c.numbers[id]; !listed {
			d.Unlisted = append(d.Unlisted, id)
			delete(d.Refused, id)
		}
	}
	return nil
}
