package trim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// aSlice is how many messages are removed by one command, or in one session.
const aSlice = 200

// removeAll removes what was chosen, mailbox by mailbox.
func (r *run) removeAll(ctx context.Context) error {
	for _, f := range r.folders {
		if len(f.chosen) == 0 {
			continue
		}
		r.sink.Report(report.MailboxStarted{Mailbox: f.Mailbox})
		if err := r.remove(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// remove removes what was chosen of a mailbox, in slices. After a lost
// connection it goes on with what is still there.
func (r *run) remove(ctx context.Context, f *folder) error {
	alone := r.protocol == mailbox.IMAP // if something else goes with it, it is seen with one message
	for rest := f.chosen; len(rest) > 0; alone = false {
		n := min(aSlice, len(rest))
		err := r.do(ctx, func(s Session) error { return r.removeSlice(ctx, s, f, rest[:n], alone) })
		switch {
		case err == nil:
		case errors.Is(err, errStop):
			return nil
		case errors.Is(err, mailbox.ErrRebuilt):
			f.Why = err.Error()
			return nil
		case r.refused(err) && !retry.IsPermanent(err):
			f.Refused = err.Error()
			return nil
		default:
			return err
		}
		if !alone {
			rest = rest[n:]
		}
	}
	return nil
}

// removeSlice proves once more that some messages can go, and removes them or,
// alone, the first of them.
func (r *run) removeSlice(ctx context.Context, s Session, f *folder, slice []*candidate, alone bool) error {
	slice, err := r.hold(ctx, s, f, slice)
	if err != nil || len(slice) == 0 {
		return err
	}
	var doubts []Remark
	odd, err := r.otherHeaders(ctx, s, f, slice)
	if err == nil {
		doubts, err = r.compareSome(ctx, f, odd)
	}
	switch {
	case err != nil:
		return err
	case len(doubts) > 0:
		f.leave(doubts)
		return errStop
	case r.conn != s: // what was held was another session's
		return errors.New("the connection was lost")
	}
	if r.protocol == mailbox.IMAP { // what was flagged in the meantime stays
		if slice, err = r.hold(ctx, s, f, slice); err != nil || len(slice) == 0 {
			return err
		}
	}
	switch doubts, err := r.readBack(ctx, slice, nil); { // the last thing before the server is told
	case err != nil:
		return err
	case len(doubts) > 0:
		f.leave(doubts)
		return errStop
	}
	if alone && len(f.asked) == 0 {
		slice = slice[:1]
	} else if alone { // it has been told already, over a connection that was lost
		if slice = slices.DeleteFunc(slice, func(c *candidate) bool { return !f.asked[c.msg.ID] }); len(slice) == 0 {
			return nil
		}
	}
	if err := r.doom(f, slice); err != nil {
		return &ArchiveError{err}
	}
	if err := r.order(ctx, s, f, slice); err != nil {
		return err
	}
	return r.readAgain(ctx, f, slice)
}

// readAgain reads messages that the server has just removed. If the archive is
// what the server serves, or another program follows the server, they are gone
// from it too.
func (r *run) readAgain(ctx context.Context, f *folder, slice []*candidate) error {
	doubts, err := r.readBack(ctx, slice, nil)
	if err != nil || len(doubts) == 0 {
		return err
	}
	for i := range doubts {
		doubts[i].Gone = true
	}
	f.leave(doubts)
	return errStop
}

// hold opens the mailbox and returns those of the messages that are still there
// as they were listed.
func (r *run) hold(ctx context.Context, s Session, f *folder, slice []*candidate) ([]*candidate, error) {
	var ids []mailbox.ID
	if r.protocol == mailbox.POP3 { // a session tells of all that there is
		for _, m := range f.listed {
			ids = append(ids, m.ID)
		}
	} else {
		for _, c := range slice {
			ids = append(ids, c.msg.ID)
		}
	}
	held, err := s.Hold(ctx, f.box, ids)
	if err != nil {
		return nil, err
	}
	now := make(map[mailbox.ID]mailbox.Message, len(held))
	for _, m := range held {
		now[m.ID] = m
	}
	if r.protocol == mailbox.POP3 && f.lostMore(now) {
		return nil, errStop
	}
	for id := range now {
		if why, told := f.said[id]; told && why == "" {
			return nil, errStop // it is still there, whatever the server said
		}
	}
	var still []*candidate
	var doubts []Remark
	for _, c := range slice {
		m, there := now[c.msg.ID]
		switch {
		case !there:
			if !f.asked[c.msg.ID] {
				f.went[c.msg.ID] = true
			}
		case m.Size != c.msg.Size || !m.InternalDate.Equal(c.msg.InternalDate):
			doubts = append(doubts, Remark{ID: m.ID, Size: c.copy.Size, Text: fmt.Sprintf("it was another message when it was listed (%d octets then, %d now)", c.msg.Size, m.Size)})
		case r.keeps(&candidate{msg: m, copy: c.copy, folder: f, arrived: c.arrived, ours: c.ours || f.asked[m.ID]}, false) != "":
			f.went[c.msg.ID] = true // somebody has flagged it, say
		default:
			still = append(still, c)
		}
	}
	f.Meanwhile = len(f.went)
	if len(doubts) > 0 {
		f.leave(doubts)
		return nil, errStop
	}
	return still, nil
}

// lostMore reports whether the mailbox has lost, since the session before, what
// that was not told to remove.
func (f *folder) lostMore(now map[mailbox.ID]mailbox.Message) bool {
	for id := range f.here {
		if _, there := now[id]; !there && !f.asked[id] {
			f.Why = more
			return true
		}
	}
	f.here = make(map[mailbox.ID]bool, len(now))
	for id := range now {
		f.here[id] = true
	}
	return false
}

// more says that the server is not to be trusted with another command.
const more = "the mailbox has lost more messages than it was told to"

// doom puts messages on the list of what this run removes, once each.
func (r *run) doom(f *folder, slice []*candidate) error {
	var doomed []Doomed
	for _, c := range slice {
		if !f.doomed[c.msg.ID] {
			doomed = append(doomed, Doomed{Message: c.msg, Copy: c.copy})
		}
	}
	if len(doomed) == 0 {
		return nil
	}
	if err := r.archive.Doom(f.box, doomed); err != nil {
		return err
	}
	for _, d := range doomed {
		f.doomed[d.Message.ID] = true
	}
	return nil
}

// order has the server remove messages, and notes what it says. It stops at a
// server that does anything else.
func (r *run) order(ctx context.Context, s Session, f *folder, slice []*candidate) error {
	var ids []mailbox.ID
	for _, c := range slice {
		ids = append(ids, c.msg.ID)
		f.asked[c.msg.ID] = true
		if r.protocol == mailbox.IMAP {
			f.marks[c.msg.ID] = true
		}
	}
	trash := ""
	if r.trash != nil {
		trash = r.trash.Wire
	}
	removal, err := s.Remove(ctx, f.box, ids, trash)
	if removal.Over {
		r.hangUp(false)
		r.wait = removal.Wait
	}
	if err != nil {
		return err
	}
	noted := r.archive.Became(context.WithoutCancel(ctx), f.box, ids, removal.Left, removal.Unmarked)
	maps.Copy(f.said, removal.Left)
	for _, id := range removal.Done {
		f.said[id] = ""
		delete(f.went, id)
		delete(f.marks, id)
	}
	if removal.Unmarked {
		for id := range removal.Left {
			delete(f.marks, id)
		}
	}
	f.Meanwhile = len(f.went)
	for _, c := range slice {
		if why, told := f.said[c.msg.ID]; told && why == "" {
			f.Removed, f.RemovedOctets = f.Removed+1, f.RemovedOctets+max(c.msg.Size, 0)
			r.sink.Report(f.removed(c, false))
		}
	}
	switch {
	case noted != nil:
		return archiveFailed(ctx, noted)
	case removal.More:
		f.Why = more
		return errStop
	case len(removal.Left) > 0:
		return errStop
	}
	return nil
}

// removed is the news that a message is gone, or would be.
func (f *folder) removed(c *candidate, would bool) report.MessageRemoved {
	return report.MessageRemoved{Would: would, Mailbox: f.Mailbox, ID: c.msg.ID, Size: c.msg.Size, Copy: c.copy.Folder + "/" + c.copy.Key}
}

// lookAgain lists the mailboxes in which something was to be removed, to see
// what is gone and what is not.
func (r *run) lookAgain(ctx context.Context) error {
	for _, f := range r.folders {
		if len(f.asked) == 0 {
			continue
		}
		var l mailbox.Listing
		err := r.do(ctx, func(s Session) (err error) {
			l, err = s.List(ctx, f.box, mailbox.State{}, false)
			return err
		})
		if err != nil {
			return fmt.Errorf("it could not be seen what was removed from %s: %w", f.Mailbox, err)
		}
		if err := r.compare(ctx, f, l); err != nil {
			return err
		}
	}
	return r.measureAgain(ctx)
}

// compare compares a mailbox with what was to become of it.
func (r *run) compare(ctx context.Context, f *folder, l mailbox.Listing) error {
	if l.UIDValidity != f.stood.UIDValidity {
		f.Why = "it cannot be seen what is gone: " + mailbox.ErrRebuilt.Error()
		return nil
	}
	if l.Exists != len(l.Messages) {
		f.Why = cmp.Or(f.Why, fmt.Sprintf("it cannot be seen what is gone: the server counts %d messages and names %d", l.Exists, len(l.Messages)))
		return nil
	}
	f.Removed, f.RemovedOctets = 0, 0
	there := map[mailbox.ID]bool{}
	for _, m := range l.Messages {
		there[m.ID] = true
	}
	var others []int64    // archived copies of what nobody asked to be removed
	var news []mailbox.ID // of which something else was noted, or nothing
	left := map[mailbox.ID]string{}
	for _, m := range f.listed {
		said, noted := f.said[m.ID]
		switch {
		case f.asked[m.ID] && there[m.ID]:
			left[m.ID] = cmp.Or(said, "it is still there")
			f.Left = append(f.Left, Remark{ID: m.ID, Size: m.Size, Text: left[m.ID]})
			if said == "" {
				news = append(news, m.ID)
				if r.protocol == mailbox.IMAP {
					f.marks[m.ID] = true
				}
			}
		case f.asked[m.ID]:
			f.Removed++
			f.RemovedOctets += max(m.Size, 0)
			delete(f.marks, m.ID)
			if !noted || said != "" {
				news = append(news, m.ID)
			}
		case !there[m.ID] && !m.Transient:
			f.Others++
			if c := f.copies[m.ID]; c.Message != 0 && !c.Removed {
				others = append(others, c.Message)
			}
		}
	}
	if len(others) > 0 {
		doubts, err := r.archive.ReadBack(ctx, others, func(int64) {})
		if err != nil {
			return archiveFailed(ctx, err)
		}
		f.OthersArchived = len(others) - len(doubts)
	}
	if len(news) > 0 {
		if err := r.archive.Became(ctx, f.box, news, left, false); err != nil {
			return archiveFailed(ctx, err)
		}
	}
	return nil
}

// takingBack is how long it may take to take marks back when the run is to end
// at once.
const takingBack = 10 * time.Second

// takeBack takes mailstow's marks as deleted from whatever stays, however the run
// ends: any other program would remove what is marked.
func (r *run) takeBack(ctx context.Context) {
	if r.DryRun || r.protocol == mailbox.POP3 { // a session that does not end in QUIT has deleted nothing
		return
	}
	if ctx.Err() != nil {
		r.hangUp(false)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), takingBack)
		defer cancel()
	}
	for _, f := range r.folders {
		if f.StillMarked = len(f.marks); f.StillMarked == 0 {
			continue
		}
		if ids, err := r.unmark(ctx, f); err == nil {
			f.StillMarked = 0
			why := map[mailbox.ID]string{}
			for _, id := range ids {
				why[id] = "it stays"
			}
			r.archive.Became(ctx, f.box, ids, why, true) // else the next run does it again
		}
	}
}

// unmark takes marks back in a mailbox, and returns the messages that have none
// now.
func (r *run) unmark(ctx context.Context, f *folder) (ids []mailbox.ID, err error) {
	err = r.do(ctx, func(s Session) error {
		held, err := s.Hold(ctx, f.box, slices.Collect(maps.Keys(f.marks)))
		if err != nil {
			return err
		}
		ids = nil
		for _, m := range held {
			ids = append(ids, m.ID)
		}
		if len(ids) == 0 {
			return nil
		}
		return s.Unmark(ctx, f.box, ids)
	})
	if errors.Is(err, mailbox.ErrRebuilt) { // none of them is there any more
		return nil, nil
	}
	return ids, err
}

// measureAgain asks how much is used now.
func (r *run) measureAgain(ctx context.Context) error {
	return r.do(ctx, func(s Session) error {
		u, err := s.Usage(ctx, r.stores(r.plan.Labels))
		if err == nil {
			r.after, r.looked = &u, true
		}
		return err
	})
}
