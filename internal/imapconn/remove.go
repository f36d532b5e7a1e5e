package imapconn

import (
	"context"
	"errors"
	"slices"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// Ways returns how the server can remove messages.
func (c *Conn) Ways() mailbox.Ways {
	return mailbox.Ways{Exactly: c.wire.HasCap("UIDPLUS"), Move: c.wire.HasCap("MOVE"), Labels: c.wire.HasCap("X-GM-EXT-1")}
}

// Usage asks how much room there is for the user's mail, and how much of it the
// mailboxes take.
func (c *Conn) Usage(ctx context.Context, boxes []mailbox.Mailbox) (u mailbox.Usage, err error) {
	if c.wire.HasCap("QUOTA") {
		_, err := c.client.GetQuotaRoot("INBOX").Wait() // the answer goes to the wire
		if err = c.explain(ctx, err); err != nil && !retry.IsRefused(err) {
			return u, err
		}
		var l mailbox.Limits
		c.readQuotas(&l)
		u.Used, u.Quota = l.Used, l.Quota
	}
	items := &imap.StatusOptions{NumMessages: true, Size: c.wire.HasCap("STATUS=SIZE") || c.wire.HasCap("IMAP4rev2")}
	if !items.Size {
		u.Sizes = -1
	}
	for some := range slices.Chunk(boxes, statusInFlight) {
		var asked []*imapclient.StatusCommand
		for _, m := range some {
			if sendable(m) {
				asked = append(asked, c.client.Status(c.wire.Shown(m.Wire), items))
			}
		}
		for _, cmd := range asked {
			data, err := cmd.Wait()
			if err = c.explain(ctx, err); err != nil && !retry.IsRefused(err) {
				return u, err
			}
			if err == nil && data.NumMessages != nil {
				u.Messages += int(*data.NumMessages)
			}
			switch {
			case err != nil || data.Size == nil:
				u.Sizes = -1
			case u.Sizes >= 0:
				u.Sizes += *data.Size
			}
		}
	}
	return u, nil
}

// Hold selects a mailbox so that messages can be removed from it, and returns
// those of the messages that it has, as they are now. The server's answers to
// [Conn.Headers] and [Conn.Fetch] are of the same selection until another
// mailbox is asked for.
func (c *Conn) Hold(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID) ([]mailbox.Message, error) {
	sel, err := c.choose(m, false)
	if err != nil {
		return nil, err
	}
	data, err := sel.wait(ctx)
	if err != nil {
		return nil, err
	}
	asked, err := inMailbox(ids, data.UIDValidity)
	if err != nil {
		sel.failed.Store(true)
		return nil, err
	}
	var now []mailbox.Message
	err = c.eachOf(ctx, asked, full, func(b *imapclient.FetchMessageBuffer) {
		now = append(now, c.message(ctx, sel, b))
	})
	return now, err
}

// inMailbox makes messages of IDs, which must be of a mailbox with this
// UIDVALIDITY.
func inMailbox(ids []mailbox.ID, validity uint32) ([]mailbox.Message, error) {
	var msgs []mailbox.Message
	for _, id := range ids {
		if v, _, err := parseID(id); err != nil || v != validity {
			return nil, mailbox.ErrRebuilt
		}
		msgs = append(msgs, mailbox.Message{ID: id})
	}
	return msgs, nil
}

// eachOf calls f once for each of the messages that the server tells of.
func (c *Conn) eachOf(ctx context.Context, msgs []mailbox.Message, items *imap.FetchOptions, f func(*imapclient.FetchMessageBuffer)) error {
	due := map[imap.UID]bool{}
	for _, msg := range msgs {
		_, uid, _ := parseID(msg.ID)
		due[uid] = true
	}
	for set := range uidSets(msgs, c.most(maxPerCommand)) {
		err := c.each(ctx, set, items, func(b *imapclient.FetchMessageBuffer) {
			if due[b.UID] && (!items.RFC822Size || !b.InternalDate.IsZero()) { // in between there may be news of flags alone
				delete(due, b.UID)
				f(b)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Remove removes messages from the mailbox that [Conn.Hold] has selected: it
// moves them into trash or, if trash is "", has just these expunged (RFC 4315
// section 2.1). What the server keeps is not marked as deleted afterwards. After
// an error that is not a refusal it is not known what has been done.
func (c *Conn) Remove(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID, trash string) (r mailbox.Removal, err error) {
	msgs, validity, err := c.held(ctx, m, ids)
	ways := c.Ways()
	switch {
	case err != nil:
		return r, err
	case trash == "" && !ways.Exactly:
		return r, retry.Refused(errors.New("the server cannot remove just the messages that are named (UIDPLUS)"))
	case trash != "" && !ways.Move: // the library would copy and expunge
		return r, retry.Refused(errors.New("the server cannot move messages (MOVE)"))
	}
	before := c.wire.Exists()
	if trash != "" {
		err = c.move(ctx, msgs, trash)
	} else {
		err = c.expunge(ctx, msgs)
	}
	if err != nil && !retry.IsRefused(err) {
		return r, err
	}
	after := c.wire.Exists()
	why := "the server says yes, and keeps it"
	if err != nil {
		why = err.Error()
	}
	r.Left = map[mailbox.ID]string{}
	err = c.eachOf(ctx, msgs, brief, func(b *imapclient.FetchMessageBuffer) {
		r.Left[formatID(validity, b.UID)] = why
	})
	if err != nil {
		return mailbox.Removal{}, err
	}
	var left []mailbox.Message
	for _, id := range ids {
		if r.Left[id] == "" {
			r.Done = append(r.Done, id)
		} else {
			left = append(left, mailbox.Message{ID: id})
		}
	}
	r.More = after < before-len(r.Done)
	if trash == "" && len(left) > 0 {
		err = c.mark(ctx, left, imap.StoreFlagsDel)
	}
	r.Unmarked = err == nil
	if retry.IsRefused(err) {
		err = nil
	}
	return r, err
}

// Unmark takes \Deleted from messages of the mailbox that [Conn.Hold] has selected.
func (c *Conn) Unmark(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID) error {
	msgs, _, err := c.held(ctx, m, ids)
	if err != nil {
		return err
	}
	return c.mark(ctx, msgs, imap.StoreFlagsDel)
}

// held returns messages of the mailbox that [Conn.Hold] has selected, and its
// UIDVALIDITY.
func (c *Conn) held(ctx context.Context, m mailbox.Mailbox, ids []mailbox.ID) ([]mailbox.Message, uint32, error) {
	sel := c.selected
	if sel == nil || sel.wire != m.Wire || sel.readOnly {
		return nil, 0, errors.New("the mailbox is not selected")
	}
	data, err := sel.wait(ctx)
	if err != nil {
		return nil, 0, err
	}
	msgs, err := inMailbox(ids, data.UIDValidity)
	return msgs, data.UIDValidity, err
}

func (c *Conn) move(ctx context.Context, msgs []mailbox.Message, trash string) error {
	for set := range uidSets(msgs, c.most(maxPerCommand)) {
		if _, err := c.client.Move(set, c.wire.Shown(trash)).Wait(); err != nil {
			return c.explain(ctx, err)
		}
	}
	return nil
}

// expunge marks messages and has them expunged, if all could be marked.
func (c *Conn) expunge(ctx context.Context, msgs []mailbox.Message) error {
	if err := c.mark(ctx, msgs, imap.StoreFlagsAdd); err != nil {
		return err
	}
	for set := range uidSets(msgs, c.most(maxPerCommand)) {
		if err := c.client.UIDExpunge(set).Close(); err != nil {
			return c.explain(ctx, err)
		}
	}
	return nil
}

// mark gives messages \Deleted, or takes it from them.
func (c *Conn) mark(ctx context.Context, msgs []mailbox.Message, op imap.StoreFlagsOp) error {
	for set := range uidSets(msgs, c.most(maxPerCommand)) {
		if err := c.store(ctx, set, op, imap.FlagDeleted); err != nil {
			return err
		}
	}
	return nil
}

// store gives messages flags, or takes flags from them.
func (c *Conn) store(ctx context.Context, set imap.UIDSet, op imap.StoreFlagsOp, flags ...imap.Flag) error {
	return c.explain(ctx, c.client.Store(set, &imap.StoreFlags{Op: op, Silent: true, Flags: flags}, nil).Close())
}
