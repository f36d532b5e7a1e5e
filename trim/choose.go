package trim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/internal/report"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// folder is a mailbox that is looked at.
type folder struct {
	*Folder
	box    mailbox.Mailbox
	listed []mailbox.Message
	stood  mailbox.State         // when it was listed
	copies map[mailbox.ID]Copy   // of those listed
	chosen []*candidate          // in the order of their IDs on the server
	marked int                   // messages that another program has marked as deleted
	here   map[mailbox.ID]bool   // POP3: what the mailbox had in the session before; nil before the first
	asked  map[mailbox.ID]bool   // that the server was, or may have been, asked to remove
	doomed map[mailbox.ID]bool   // that are on the list
	said   map[mailbox.ID]string // why the server keeps what it was asked to remove, as noted; "" for what is gone
	marks  map[mailbox.ID]bool   // that bear, or may bear, a mark of mailstow as deleted
	went   map[mailbox.ID]bool   // that have changed or gone meanwhile
}

// candidate is a message that may be removed.
type candidate struct {
	msg     mailbox.Message // as it was listed
	copy    Copy
	folder  *folder
	arrived time.Time
	ours    bool             // it is marked as deleted, by an earlier run
	header  *fingerprint.Sum // of the header block as the server sends it alone; nil until that is known
}

// views are mailboxes that show the messages of others.
var views = []string{`\All`, `\Flagged`, `\Important`}

// survey lists the mailboxes and asks how much is used.
func (r *run) survey(ctx context.Context) error {
	var usage mailbox.Usage
	err := r.do(ctx, func(s Session) (err error) {
		if r.boxes, err = s.Mailboxes(ctx); err != nil {
			return err
		}
		usage, err = s.Usage(ctx, r.stores(s.Ways().Labels))
		return err
	})
	if err != nil {
		return err
	}
	ways := r.conn.Ways()
	r.protocol = r.conn.Protocol()
	r.plan.Labels = ways.Labels
	if r.Trash || ways.Labels {
		if r.trash = r.find(`\Trash`); r.trash == nil || !ways.Move {
			return retry.Permanent(ErrNoTrash)
		}
		r.plan.Trash, r.plan.ToTrash = r.trash.Name, true
	} else if !ways.Exactly {
		return retry.Permanent(&NoWayError{Move: ways.Move && r.find(`\Trash`) != nil})
	}
	if r.begun, err = r.archive.Begun(); err != nil {
		return &ArchiveError{err}
	}
	for _, m := range r.boxes {
		f := &folder{Folder: &Folder{Mailbox: m.Name, Role: m.Role, Kept: map[Kept]int{}}, box: m, asked: map[mailbox.ID]bool{}, doomed: map[mailbox.ID]bool{}, said: map[mailbox.ID]string{}, went: map[mailbox.ID]bool{}, marks: map[mailbox.ID]bool{}}
		r.folders = append(r.folders, f)
		if f.Skipped = r.skips(m); f.Skipped == "" || len(r.begun[m.Wire]) > 0 && !r.DryRun {
			if err := r.list(ctx, f); err != nil {
				return err
			}
		}
	}
	return r.measure(ctx, usage)
}

// stores returns the mailboxes that hold the account's messages, each in one.
func (r *run) stores(labels bool) (all []mailbox.Mailbox) {
	for _, m := range r.boxes {
		if labels && slices.Contains([]string{`\All`, `\Trash`, `\Junk`}, m.Role) || !labels && !slices.Contains(views, m.Role) {
			all = append(all, m)
		}
	}
	return all
}

// skips returns why nothing is removed from a mailbox, "" if something may be.
func (r *run) skips(m mailbox.Mailbox) string {
	if why := r.Filter.Skips(m); why != "" {
		return why
	}
	named := len(r.Filter.Folders)+len(r.Filter.Include) > 0
	switch {
	case r.trash != nil && m.Wire == r.trash.Wire:
		return "it is the trash"
	case m.Role == `\Drafts`:
		return "drafts are kept"
	case r.plan.Labels && m.Role != `\All` && !named:
		return `its messages are in \All`
	case !r.plan.Labels && slices.Contains(views, m.Role):
		return "it shows messages of other folders"
	}
	return ""
}

// list lists a mailbox, and finds out what the archive has of it.
func (r *run) list(ctx context.Context, f *folder) error {
	var l mailbox.Listing
	err := r.do(ctx, func(s Session) (err error) {
		l, err = s.List(ctx, f.box, mailbox.State{}, true)
		return err
	})
	switch {
	case retry.IsRefused(err) && f.Skipped != "":
		return nil
	case retry.IsRefused(err):
		f.Refused = err.Error()
		return nil
	case err != nil:
		return err
	}
	for _, m := range l.Messages {
		if has(m.Flags, `\Deleted`) && r.begun[f.box.Wire][m.ID] {
			f.marks[m.ID] = true
		}
	}
	if f.Skipped != "" { // it is listed for its marks alone
		f.stood = l.State
		return nil
	}
	f.OnServer, f.listed, f.stood = max(l.Exists, len(l.Messages)), l.Messages, l.State
	f.Why = r.incomplete(f, l)
	f.copies = make(map[mailbox.ID]Copy, len(l.Messages))
	for _, m := range l.Messages {
		f.copies[m.ID] = Copy{}
	}
	err = r.archive.EachCopy(ctx, f.box, func(id mailbox.ID, c Copy) {
		if _, listed := f.copies[id]; listed && c.Message != 0 {
			f.copies[id] = c
		}
	})
	if err != nil {
		return &ArchiveError{err}
	}
	unknown := 0
	for _, m := range l.Messages {
		if m.Transient || f.copies[m.ID].Message == 0 {
			unknown++
		}
	}
	if came := max(l.Exists-r.archived(f), 0); f.Why == "" && !r.DryRun && 2*(unknown-came) > len(l.Messages) {
		f.Why = "the server gives its messages other names in each session, so that they cannot be told apart"
	}
	return nil
}

// archived returns how many of a mailbox's messages the backup has found in the
// archive, or put there.
func (r *run) archived(f *folder) (n int) {
	for _, t := range r.Backup.Tallies {
		if t.Mailbox == f.Mailbox {
			n = max(n, t.Archived()+t.Removed+t.Excluded)
		}
	}
	return n
}

// incomplete returns why it is not known that all of a mailbox is in the
// archive, "" if it is.
func (r *run) incomplete(f *folder, l mailbox.Listing) string {
	var t *report.Tally
	for i := range r.Backup.Tallies {
		if same := &r.Backup.Tallies[i]; same.Mailbox == f.Mailbox {
			if t == nil || !same.Balanced() || same.Missing() > 0 { // two may differ in their spelling alone
				t = same
			}
		}
	}
	switch {
	case f.OnServer == 0:
	case t == nil || t.Skipped != "":
		return "it was not backed up in this run"
	case t.Reason != "":
		return "its backup failed: " + t.Reason
	case !r.DryRun && (t.Missing() > 0 || t.Failed > 0 || !t.Balanced()):
		return fmt.Sprintf("%d of its %d messages are not in the archive", max(t.Missing(), t.Failed, 1), max(t.OnServer, t.Listed))
	case l.UIDValidity != t.UIDValidity:
		return mailbox.ErrRebuilt.Error()
	case l.Exists != len(l.Messages):
		return fmt.Sprintf("the server counts %d messages and names %d", l.Exists, len(l.Messages))
	}
	return ""
}

// measure finds out how much is used, and how much may be.
func (r *run) measure(ctx context.Context, u mailbox.Usage) error {
	p := &r.plan
	p.Messages, p.Sizes = u.Messages, u.Sizes
	p.Used, p.Quota = -1, cmp.Or(u.Quota, r.Quota)
	switch {
	case u.Quota > 0:
		p.Used, p.By = u.Used, ByQuota
	case u.Sizes >= 0:
		p.Used, p.By = u.Sizes, BySizes
	}
	if !r.Until.set() {
		return nil
	}
	if r.trash != nil {
		l, err := r.sizes(ctx, *r.trash)
		if err != nil {
			return err
		}
		p.Waiting = l
	}
	if p.Used < 0 {
		if err := r.addUp(ctx); err != nil {
			return err
		}
	}
	p.Goal = r.Until.Octets
	if p.Goal == 0 {
		if p.Quota == 0 {
			return retry.Permanent(ErrNoQuota)
		}
		p.Goal = max(int64(r.Until.Percent/100*float64(p.Quota)), 1)
	}
	return nil
}

// addUp adds up the sizes that the server lists, where it does not do that
// itself.
func (r *run) addUp(ctx context.Context) error {
	p := &r.plan
	p.Used, p.By = 0, ByListing
	for _, m := range r.stores(p.Labels) {
		octets, err := r.sizes(ctx, m)
		if err != nil {
			return err
		}
		p.Used += octets
	}
	return nil
}

// sizes adds up what a mailbox lists.
func (r *run) sizes(ctx context.Context, m mailbox.Mailbox) (octets int64, err error) {
	i := slices.IndexFunc(r.folders, func(f *folder) bool { return f.box.Wire == m.Wire })
	listed := r.folders[i].listed
	if r.folders[i].Skipped != "" {
		err = r.do(ctx, func(s Session) error {
			l, err := s.List(ctx, m, mailbox.State{}, true)
			listed = l.Messages
			return err
		})
		if retry.IsRefused(err) {
			r.folders[i].Refused, err = err.Error(), nil
		}
	}
	for _, msg := range listed {
		octets += max(msg.Size, 0)
	}
	return octets, err
}

// choose decides which messages are to go.
func (r *run) choose(ctx context.Context) error {
	if r.OlderThan.IsZero() && r.LargerThan == 0 && !r.Until.set() {
		return retry.Permanent(errors.New("nothing says what is to be removed"))
	}
	var all []*candidate
	for _, f := range r.folders {
		if f.Skipped != "" || f.Why != "" || f.Refused != "" {
			continue
		}
		all = append(all, r.candidates(f)...)
	}
	slices.SortStableFunc(all, func(a, b *candidate) int { return a.arrived.Compare(b.arrived) })
	room := r.plan.Waiting // is free when the trash is emptied
	for _, c := range all {
		if r.plan.Goal > 0 && r.plan.Used-room <= r.plan.Goal {
			c.folder.Kept[NotNeeded]++
			continue
		}
		room += max(c.msg.Size, 0)
		c.folder.chosen = append(c.folder.chosen, c)
	}
	for _, f := range r.folders {
		f.Chosen = len(f.chosen)
		place := make(map[mailbox.ID]int, len(f.listed))
		for i, m := range f.listed {
			place[m.ID] = i
		}
		slices.SortFunc(f.chosen, func(a, b *candidate) int { return cmp.Compare(place[a.msg.ID], place[b.msg.ID]) })
	}
	return ctx.Err()
}

// candidates returns the messages of a mailbox that may go.
func (r *run) candidates(f *folder) (all []*candidate) {
	uses := map[int64]int{}
	for _, m := range f.listed {
		uses[f.copies[m.ID].Message]++
	}
	for _, m := range f.listed {
		c := &candidate{msg: m, copy: f.copies[m.ID], folder: f, ours: f.marks[m.ID]}
		if c.arrived = m.InternalDate; c.arrived.IsZero() && r.protocol == mailbox.POP3 {
			c.arrived = time.Unix(c.copy.Arrived, 0)
		}
		if has(m.Flags, `\Deleted`) && !c.ours {
			f.marked++
		}
		if why := r.keeps(c, uses[c.copy.Message] > 1); why != "" {
			f.Kept[why]++
			continue
		}
		all = append(all, c)
	}
	return all
}

// keeps returns why a message stays, "" if it may go.
func (r *run) keeps(c *candidate, twin bool) Kept {
	flags := c.msg.Flags
	if r.protocol == mailbox.POP3 { // which has none
		flags = c.copy.Flags
	}
	switch {
	case c.copy.Message == 0 || c.msg.Transient:
		return NotArchived
	case c.copy.Removed:
		return RemovedHere
	case has(c.msg.Flags, `\Deleted`) && !c.ours:
		return Marked
	case c.copy.Rewritten:
		return Rewritten
	case c.copy.Synced && !r.Synced:
		return Synced
	case c.missized() && !c.copy.Exact: // as when it was archived
		return Missized
	case twin:
		return Twin
	case c.arrived.Unix() <= 24*60*60: // 1970 stands for no date
		return Undated
	case has(flags, `\Draft`):
		return Draft
	case has(flags, `\Flagged`) && !r.Flagged:
		return Flagged
	case !has(flags, `\Seen`) && !r.Unread && (c.copy.Read || r.protocol == mailbox.IMAP):
		return Unread
	case !c.arrived.Before(r.KeepSince), c.copy.Guessed && r.protocol == mailbox.POP3 && !time.Unix(c.copy.Since, 0).Before(r.KeepSince):
		return Recent
	case !r.OlderThan.IsZero() && !c.arrived.Before(r.OlderThan):
		return TooYoung
	case r.LargerThan > 0 && c.msg.Size <= r.LargerThan:
		return TooSmall
	}
	return ""
}

// missized reports whether the server announces a size that no form of the
// message has. It may have more, or another one, than it sends.
func (c *candidate) missized() bool {
	return !c.copy.HasSize(c.msg.Size) && !slices.Contains(c.copy.FormSizes, c.msg.Size) &&
		!(c.msg.InternalDate.IsZero() && c.msg.Size == c.copy.Size+2) // POP3: a last line without an end counts as if it had one
}

func has(flags []string, flag string) bool {
	return slices.ContainsFunc(flags, func(f string) bool { return strings.EqualFold(f, flag) })
}

// sumUp adds up what is going to be removed.
func (r *run) sumUp() {
	p := &r.plan
	for _, f := range r.folders {
		p.Folders = append(p.Folders, f.Folder)
		for _, c := range f.chosen {
			f.Delete++
			f.Octets += max(c.msg.Size, 0)
			f.Oldest, f.Newest = earlier(f.Oldest, c.arrived), later(f.Newest, c.arrived)
			if c.copy.Fetched && r.protocol == mailbox.IMAP && !r.Unread {
				p.Fetched++
			}
		}
		p.Delete, p.Octets = p.Delete+f.Delete, p.Octets+f.Octets
		if f.Delete > 0 {
			p.Oldest, p.Newest = earlier(p.Oldest, f.Oldest), later(p.Newest, f.Newest)
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
