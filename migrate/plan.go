package migrate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"mailstow/internal/fingerprint"
	"mailstow/internal/retry"
	"mailstow/mailbox"
)

// plan is what is to be done about one folder.
type plan struct {
	Tally
	path    string
	octets  int64 // in the folder
	box     mailbox.Mailbox
	exists  bool
	missing []fingerprint.Candidate // by the last look
	looked  bool                    // nothing has been sent since
	seen    bool                    // it has been looked at once
	empty   bool                    // then the mailbox held nothing that the archive did not know

	nameRefused error // what the server said to CREATE; nil if it did not refuse

	refuse   map[int64]string // messages that are not to be sent again in this run, and why
	tooLarge map[int64]bool   // of these
	attempts map[int64]*attempt
	alone    map[int64]bool // messages that are not sent with others
	blocked  string         // why nothing is sent into the mailbox; "" if it is
	doubted  int            // the pass in which the server said that the mailbox is not there; 0 for none
	remade   bool           // it was not, and has been made again

	// What was stored since the last look: where the server says it is, or in
	// the order of the answers if it does not say.
	pushed     []pushed
	untold     []fingerprint.Candidate
	unanswered []fingerprint.Candidate // sent, and perhaps stored
	before     map[mailbox.ID]bool     // what the mailbox held at the first look

	held  int                                  // messages of the folder that the mailbox was known to have at the last look
	live  map[mailbox.ID]bool                  // what was known then, and has been recognised
	there map[mailbox.ID]fingerprint.Candidate // in a proof: which message is where
}

// pushed is a message that was stored, in the form that it was sent in.
type pushed struct {
	fingerprint.Candidate
	id mailbox.ID
}

// wanted reports whether there may be something to do for the folder.
func (p *plan) wanted() bool { return p.Skipped == "" && p.Reason == "" }

// toMake reports whether the mailbox is to be made: not for mail that the user
// does not want there.
func (p *plan) toMake() bool {
	return p.wanted() && !p.exists && (p.Excluded == 0 || len(p.missing) > 0)
}

// sendable returns the missing messages that have not been refused.
func (p *plan) sendable() []fingerprint.Candidate {
	if p.blocked != "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(p.missing), func(c fingerprint.Candidate) bool { return p.refuse[c.Message] != "" })
}

// planAll makes the plans, and returns the looker that did it.
func (r *run) planAll(ctx context.Context) (*looker, error) {
	folders, err := r.archive.Folders(ctx)
	if err != nil {
		return nil, retry.Permanent(err)
	}
	first := &looker{run: r}
	r.lookers = append(r.lookers, first)
	return first, first.do(ctx, func(d Destination) error {
		if err := r.plan(ctx, d, folders); err != nil {
			return err
		}
		return r.ask(ctx, d)
	})
}

// plan decides which folder goes into which mailbox.
func (r *run) plan(ctx context.Context, d Destination, folders []Folder) error {
	boxes, err := d.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for from := range r.Mapping.Renamed {
		if !slices.ContainsFunc(folders, func(f Folder) bool { return f.Name.String() == from }) {
			return retry.Permanent(&UnknownFolderError{from})
		}
	}
	r.plans = nil
	shared, taken := sharesInbox(folders), map[string]string{}
	for _, f := range folders {
		p := &plan{Tally: Tally{Folder: f.Name, Archived: f.Messages}, path: f.Path, octets: f.Octets, refuse: map[int64]string{}, tooLarge: map[int64]bool{}, attempts: map[int64]*attempt{}, alone: map[int64]bool{}}
		r.plans = append(r.plans, p)
		if p.Skipped = r.Filter.Skips(mailbox.Mailbox{Name: f.Name, Role: f.Role}); p.Skipped != "" {
			continue
		}
		name, there := r.Mapping.target(f, boxes, shared)
		if there == nil && r.gone(f, boxes) {
			p.Mailbox = name
			p.Reason = fmt.Sprintf("its mailbox has gone, or has another name there: --map '%s=NAME' puts it there, also under the name that it had", f.Name)
			continue
		}
		if there == nil {
			if p.box, p.Renamed, err = d.Spelling(ctx, name); err != nil {
				return err
			}
			if i := slices.IndexFunc(boxes, func(b mailbox.Mailbox) bool { return b.Wire == p.box.Wire }); i >= 0 {
				there = &boxes[i]
			}
		}
		switch {
		case there != nil:
			p.box, p.exists = *there, true
		case slices.Contains(roots, f.Role):
			p.box.Role = f.Role
		}
		p.Mailbox, p.Created = p.box.Name, !p.exists
		if other, ok := taken[p.box.Wire]; ok {
			return retry.Permanent(&CollisionError{Folder: f.Name.String(), Other: other, Mailbox: p.Mailbox.String()})
		}
		taken[p.box.Wire] = f.Name.String()
	}
	return nil
}

// gone reports whether a folder's mailbox was on the server once and is not now.
// To store all of it again is for the user to decide.
func (r *run) gone(f Folder, boxes []mailbox.Mailbox) bool {
	_, renamed := r.Mapping.Renamed[f.Name.String()]
	return !r.Remake && !renamed && f.Placed != "" && r.Mapping.stays() && !slices.ContainsFunc(boxes, func(b mailbox.Mailbox) bool { return b.Wire == f.Placed })
}

// ask finds out what the server takes.
func (r *run) ask(ctx context.Context, d Destination) (err error) {
	var boxes []mailbox.Mailbox
	for _, p := range r.plans {
		if p.wanted() && p.exists {
			boxes = append(boxes, p.box)
		}
	}
	if r.limits, err = d.Limits(ctx, boxes); err != nil {
		return err
	}
	for _, p := range r.plans {
		if rights, denied := r.limits.Denied[p.box.Wire]; denied && p.wanted() && p.exists {
			p.blocked = fmt.Sprintf("you may not store mail in it (rights: %q)", rights)
		}
	}
	return nil
}

// room compares what is to be sent with the room that the server says it has.
func (r *run) room() error {
	messages, octets, fresh := int64(0), int64(0), true
	for _, p := range r.plans {
		if p.wanted() {
			fresh = fresh && p.empty
			for _, c := range p.sendable() {
				messages, octets = messages+1, octets+c.Size
			}
		}
	}
	if fresh { // else some of it may be there
		more, size := r.expected()
		messages, octets = messages+more, octets+size
	}
	if r.MaxOctets > 0 {
		octets = min(octets, r.MaxOctets)
	}
	l := r.limits
	for _, p := range r.plans {
		l.Used += p.SentOctets
	}
	if r.DryRun {
		l.Used = r.limits.Used
	}
	l.UsedMessages += int64(r.stored)
	r.noRoom = true
	switch {
	case r.IgnoreQuota || messages == 0:
	case l.Quota > 0 && octets > l.Quota-l.Used:
		return &RoomError{Need: octets, Free: max(l.Quota-l.Used, 0), Of: "octets"}
	case l.QuotaMessages > 0 && messages > l.QuotaMessages-l.UsedMessages:
		return &RoomError{Need: messages, Free: max(l.QuotaMessages-l.UsedMessages, 0), Of: "messages"}
	}
	r.noRoom = false
	return nil
}

// createAll makes the mailboxes that are not there. One whose name the server
// refuses gets a plainer one.
func (l *looker) createAll(ctx context.Context) error {
	if err := l.create(ctx); err != nil {
		return err
	}
	again := false
	for _, p := range l.plans {
		if p.nameRefused != nil {
			renamed, err := l.rename(ctx, p)
			if err != nil {
				return err
			}
			again = again || renamed
		}
	}
	if !again {
		return nil
	}
	return l.create(ctx)
}

func (l *looker) create(ctx context.Context) error {
	var boxes []mailbox.Mailbox
	for _, p := range l.plans {
		if p.toMake() {
			boxes = append(boxes, p.box)
		}
	}
	if len(boxes) == 0 {
		return nil
	}
	var made map[string]bool
	var refused map[string]error
	err := l.do(ctx, func(d Destination) (err error) {
		made, refused, err = d.Create(ctx, boxes)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range l.plans {
		if !p.toMake() {
			continue
		}
		if err := refused[p.box.Wire]; err != nil {
			p.Reason, p.nameRefused = err.Error(), err
			continue
		}
		p.exists = true
		if made[p.box.Wire] {
			continue
		}
		p.looked, p.seen, p.empty = false, false, false // it was there, perhaps under another spelling
		for _, q := range l.plans {
			if q != p && q.wanted() && strings.EqualFold(q.box.Name.String(), p.box.Name.String()) {
				return retry.Permanent(&CollisionError{Folder: p.Folder.String(), Other: q.Folder.String(), Mailbox: q.Mailbox.String()})
			}
		}
	}
	return nil
}

// rename gives a mailbox whose name is refused a plainer one, and reports
// whether there is one that no other folder has.
func (l *looker) rename(ctx context.Context, p *plan) (renamed bool, err error) {
	refusal := p.nameRefused
	p.nameRefused = nil
	name := plainer(p.box.Name)
	if name == p.box.Name || says(refusal, "NOPERM", "OVERQUOTA", "LIMIT", "UNAVAILABLE") {
		return false, nil
	}
	var box mailbox.Mailbox
	err = l.do(ctx, func(d Destination) (err error) {
		box, _, err = d.Spelling(ctx, name)
		return err
	})
	if err != nil {
		return false, err
	}
	for _, q := range l.plans {
		if q != p && q.box.Wire == box.Wire {
			return false, nil
		}
	}
	box.Role = p.box.Role
	p.box, p.Mailbox, p.Renamed, p.Refused, p.Reason = box, box.Name, true, refusal.Error(), ""
	l.archive.Place(p.box, p.path, l.Mapping.stays())
	return true, nil
}
