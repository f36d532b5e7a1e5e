package imapconn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailstow/mailbox"
)

// Examine selects a mailbox, read-only, to be watched with [Conn.Idle].
func (c *Conn) Examine(ctx context.Context, m mailbox.Mailbox) error {
	sel, err := c.examine(m)
	if err != nil {
		return err
	}
	if _, err = sel.wait(ctx); err == nil {
		c.wire.Changed() // what is told now is how the mailbox stands
	}
	return err
}

// Idle waits until the server tells of a change in the selected mailbox, but
// not longer than most (RFC 2177). A server without IDLE is an
// [errors.ErrUnsupported].
func (c *Conn) Idle(ctx context.Context, most time.Duration) error {
	if !c.wire.HasCap("IDLE") {
		return fmt.Errorf("IDLE: %w", errors.ErrUnsupported)
	}
	cmd, err := c.client.Idle()
	if err != nil {
		return c.explain(ctx, err)
	}
	late := time.NewTimer(most)
	defer late.Stop()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended: // the connection is lost
		if err = c.explain(ctx, err); err == nil {
			err = errors.New("the server ends IDLE")
		}
		return err
	case <-c.wire.Change():
	case <-late.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := cmd.Close(); err != nil {
		return c.explain(ctx, err)
	}
	return c.explain(ctx, <-ended)
}
