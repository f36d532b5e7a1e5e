package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"mailstow/internal/report"
	"mailstow/mailbox"
	"mailstow/trim"
)

// keptWords say why messages stay on the server, behind their number.
var keptWords = map[trim.Kept]string{
	trim.NotArchived: "not in the archive yet",
	trim.RemovedHere: "removed from the archive by you",
	trim.Marked:      "marked as deleted by another program",
	trim.Rewritten:   "archived in another form by another program",
	trim.Synced:      "in step with another program (--include-synced)",
	trim.Missized:    "of another size, by the server's word, than what it sends",
	trim.Twin:        "with one archived copy for two",
	trim.Undated:     "without a date",
	trim.Draft:       "drafts",
	trim.Flagged:     "flagged",
	trim.Unread:      "unread",
	trim.Recent:      "too new (--keep-newer-than)",
	trim.TooYoung:    "not old enough",
	trim.TooSmall:    "not large enough",
	trim.NotNeeded:   "newer than the last one needed",
}

// keptBecause lists why messages stay: "38 flagged, 12 unread".
func keptBecause(kept map[trim.Kept]int) string {
	var words []string
	for _, why := range trim.Reasons {
		if n := kept[why]; n > 0 {
			words = append(words, count(n)+" "+keptWords[why])
		}
	}
	return strings.Join(words, ", ")
}

// say tells a person who waits how far it is.
func (o *output) say(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.json == nil && !o.quiet && (o.terminal || o.verbose) {
		if o.progress != nil {
			o.progress.clear()
		}
		fmt.Fprintln(o.p.Stdout, text)
	}
}

// broughtUp tells how the backup before a trim went.
func (o *output) broughtUp(r *outcome) {
	o.mu.Lock()
	delete(o.state, r.account)
	o.mu.Unlock()
	state := "ok, nothing missing"
	if r.problem != nil {
		state = fmt.Sprintf("incomplete, %s missing", count(r.result.Missing()))
	}
	if n := r.result.Sum().New; n > 0 {
		word := "new"
		if o.dryRun {
			word = "would come first"
		}
		state += fmt.Sprintf("; %s %s", messages(n), word)
	}
	o.say(fmt.Sprintf("%s: bringing the archive up to date... %s", show(r.account.name), state))
}

// plan shows what is going to be removed.
func (o *output) plan(t *trimming, p *trim.Plan) {
	t.shown = true
	if unsafe := unsafeIn(p); p.Delete > 0 && unsafe == 0 {
		o.say(fmt.Sprintf("%s: reading back %s... ok, all hashes match", show(t.account.name), strings.Replace(messages(p.Delete), " ", " archived ", 1)))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.state, t.account)
	switch {
	case o.json != nil:
		o.json.plan(t, p)
	case o.quiet || !o.terminal && !o.verbose && !o.dryRun:
	case p.Delete == 0 && p.Goal > 0 && p.Used <= p.Goal && !o.verbose && !o.dryRun:
		fmt.Fprintf(o.p.Stdout, "%s: %s, and that is not more than %s\n", show(t.account.name), of(p.Used, p.Quota), octets(p.Goal))
	default:
		if o.progress != nil {
			o.progress.clear()
		}
		t.showPlan(o.p.Stdout, p, o.dryRun)
	}
}

func unsafeIn(p *trim.Plan) (n int) {
	for _, f := range p.Folders {
		n += len(f.Unsafe)
	}
	return n
}

// of shows how much is used, and the part of the quota that it is.
func of(used, quota int64) string {
	if quota > 0 {
		return fmt.Sprintf("%s used (%d%%)", octets(used), 100*used/quota)
	}
	return octets(used) + " used"
}

// showPlan tells people.
func (t *trimming) showPlan(w io.Writer, p *trim.Plan, dry bool) {
	t.showRoom(w, p)
	for line := range strings.Lines(folderTable(p).String()) {
		fmt.Fprint(w, "  "+line)
	}
	if p.Labels {
		fmt.Fprintf(w, "\n  This server keeps all mail in one place and shows it under labels: what is\n  removed goes to %s, and no longer shows under any label.\n", show(p.Trash.String()))
	}
	if p.Fetched > 0 {
		fmt.Fprintf(w, "\n  The server calls all of these read; %s of them came over POP3, which may be why.\n", count(p.Fetched))
	}
	switch {
	case dry:
		fmt.Fprintln(w, "\nNothing was changed.")
	case p.Delete > 0:
		t.showProof(w, p)
	}
}

// planWord is what a plan does with messages.
func planWord(p *trim.Plan) string {
	if p.ToTrash {
		return "move"
	}
	return "delete"
}

// showRoom shows what is used, what is going to be removed, and what is used
// then.
func (t *trimming) showRoom(w io.Writer, p *trim.Plan) {
	a, o := t.account, t.options
	goal := ""
	if p.Goal > 0 {
		goal = ", oldest first until " + octets(p.Goal)
		if o.Until.Percent > 0 {
			goal = fmt.Sprintf(", oldest first until %g%% of %s", o.Until.Percent, octets(p.Quota))
			if o.Quota > 0 && o.Quota != p.Quota {
				goal += fmt.Sprintf(" (its own quota; not %s)", octets(o.Quota))
			}
		}
	}
	fmt.Fprintf(w, "\nPlan for %s (%s)%s\n", show(a.name), show(a.host), goal)
	if p.Used >= 0 {
		now := of(p.Used, p.Quota)
		if p.By == trim.ByQuota && p.Sizes >= 0 && octets(p.Sizes) != octets(p.Used) {
			now += fmt.Sprintf(" by its quota; its messages are %s", octets(p.Sizes))
		}
		fmt.Fprintf(w, "  %-9s %s, %s\n", "now", now, messages(p.Messages))
	}
	span := ""
	if p.Delete > 0 {
		span = fmt.Sprintf(", %s to %s", day(p.Oldest), day(p.Newest))
	}
	fmt.Fprintf(w, "  %-9s %s, %s%s\n", planWord(p), messages(p.Delete), octets(p.Octets), span)
	switch {
	case p.ToTrash:
		fmt.Fprintf(w, "  %-9s no less until %s is emptied; %s wait there\n", "after", show(p.Trash.String()), octets(p.Waiting))
	case p.Used >= 0:
		fmt.Fprintf(w, "  %-9s %s, %s\n", "after", of(p.After(), p.Quota), messages(p.Messages-p.Delete))
	}
	fmt.Fprintln(w)
}

// folderTable shows what is removed from each folder, and why the rest stays.
func folderTable(p *trim.Plan) *table {
	tab := &table{head: []string{"folder", ">" + planWord(p), ">size", "oldest", "newest", "kept because"}}
	for _, f := range p.Folders {
		kept := keptBecause(f.Kept)
		switch {
		case f.Skipped != "":
			kept = "left out: " + show(f.Skipped)
		case f.Why != "":
			kept = "left alone: " + show(f.Why)
		case f.Refused != "":
			kept = "refused: " + show(f.Refused)
		case len(f.Unsafe) > 0:
			kept = fmt.Sprintf("left alone: %s not safe in the archive", are(len(f.Unsafe)))
		}
		if f.Delete == 0 {
			tab.add(show(f.Mailbox.String()), "-", "-", "-", "-", kept)
			continue
		}
		tab.add(show(f.Mailbox.String()), count(f.Delete), octets(f.Octets), day(f.Oldest), day(f.Newest), kept)
	}
	return tab
}

// showProof says what has been proven, and what it means to go on.
func (t *trimming) showProof(w io.Writer, p *trim.Plan) {
	a := t.account
	fmt.Fprintf(w, "\n  Archived in %s, and read back just now: %s.\n", show(t.dir), messages(p.Delete))
	if p.Compared > 0 {
		fmt.Fprintf(w, "  Downloaded again and compared: %s.\n", messages(p.Compared))
	}
	if !p.ToTrash {
		fmt.Fprint(w, "  After this the archive is their ONLY copy. Is it backed up?")
		if len(t.before) == 0 && a.named {
			fmt.Fprintf(w, "   (config: [accounts.%s.trim] before = \"restic backup ...\")", show(a.name))
		}
		fmt.Fprintln(w)
	}
	if a.protocol == mailbox.POP3 {
		fmt.Fprintln(w, "  POP3: mail cannot be put back on this server.")
	}
}

// trimmed shows how it went with one account.
func (o *output) trimmed(t *trimming) {
	if !t.shown && len(t.result.Folders) > 0 {
		o.plan(t, &t.result.Plan)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.state, t.account)
	if o.progress != nil {
		o.progress.clear()
	}
	if o.json != nil {
		o.json.trimEnd(t)
		return
	}
	if !o.quiet && !o.dryRun {
		t.show(o.p.Stdout, o.terminal || o.verbose)
	}
	for _, f := range t.result.Folders {
		if n := f.OthersArchived; n > 0 && n == f.Others {
			o.line(o.p.Stderr, fmt.Sprintf("mailstow: %s: warning: %s: %s gone that nobody asked to remove, perhaps by another program; the archive has them all", show(t.account.name), show(f.Mailbox.String()), are(n)))
		}
	}
	for _, pr := range t.problems {
		if !pr.passes() || o.terminal || o.verbose {
			pr.print(o.p.Stderr)
		}
	}
}

// show tells people what was done. Without a terminal it is told if there is
// something to tell.
func (t *trimming) show(w io.Writer, waiting bool) {
	r := &t.result
	name := ""
	if !waiting {
		name = show(t.account.name) + ": "
	}
	used := ""
	if r.Measured {
		used = "; " + of(r.UsedNow, r.Quota)
	}
	switch {
	case r.Removed > 0 && r.ToTrash:
		fmt.Fprintf(w, "%smoved %s, %s, to %s; room is made when that is emptied\n", name, messages(r.Removed), octets(r.RemovedOctets), show(r.Trash.String()))
	case r.Removed > 0:
		fmt.Fprintf(w, "%sdeleted %s, %s%s\n", name, messages(r.Removed), octets(r.RemovedOctets), used)
	case waiting && len(t.problems) == 0:
		fmt.Fprintf(w, "%snothing to delete\n", name)
	}
	if !r.Looked && r.Removed > 0 {
		fmt.Fprintln(w, "  by the server's word; it was not asked again")
	}
	meanwhile := 0
	for _, f := range r.Folders {
		meanwhile += f.Meanwhile
	}
	if meanwhile > 0 {
		fmt.Fprintf(w, "  %s changed or went meanwhile, and not deleted\n", were(meanwhile))
	}
	if t.undo != "" {
		fmt.Fprintf(w, "Undo list: %s\n", show(t.undo))
	}
}

// trimsDone ends the output.
func (o *output) trimsDone(all []*trimming, status int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.json == nil {
		return
	}
	s := object{"time": stamp(time.Now()), "run": o.json.run, "exit_code": status, "result": "ok", "seconds": seconds(time.Since(o.started))}
	switch {
	case status == exitIncomplete:
		s["result"] = "incomplete"
	case status != exitOK:
		s["result"] = "failed"
	}
	words, deleted, freed := map[string]int{}, 0, int64(0)
	for _, t := range all {
		words[t.word()]++
		deleted, freed = deleted+t.result.Removed, freed+t.result.RemovedOctets
	}
	for _, w := range outcomeWords {
		s[w] = words[w]
	}
	s["deleted"], s["bytes_deleted"] = deleted, freed
	o.json.write("summary", s)
}

// plan tells scripts.
func (j *jsonLines) plan(t *trimming, p *trim.Plan) {
	var folders []object
	for _, f := range p.Folders {
		o := folderFields(object{"role": f.Role, "on_server": f.OnServer, "delete": f.Delete, "bytes": f.Octets, "kept": f.Kept}, f.Mailbox)
		if f.Skipped != "" {
			o["skipped"] = f.Skipped
		}
		if f.Why != "" {
			o["left_alone"] = f.Why
		}
		folders = append(folders, o)
	}
	o := object{"account": t.account.name, "delete": p.Delete, "bytes": p.Octets, "messages": p.Messages, "kept": p.Kept(), "folders": folders, "to_trash": p.ToTrash, "compared": p.Compared, "over_pop3": p.Fetched}
	if p.Used >= 0 {
		o["usage"], o["usage_by"] = p.Used, p.By
		if !p.ToTrash {
			o["usage_after"] = p.After()
		}
	}
	for key, n := range map[string]int64{"quota": p.Quota, "goal": p.Goal, "sizes": p.Sizes} {
		if n > 0 {
			o[key] = n
		}
	}
	if p.Delete > 0 {
		o["oldest"], o["newest"] = stamp(p.Oldest), stamp(p.Newest)
	}
	j.write("plan", o)
}

// trimEnd tells scripts how it went with one account.
func (j *jsonLines) trimEnd(t *trimming) {
	for _, f := range t.result.Folders {
		for _, r := range f.Left {
			j.write("message", withID(folderFields(object{"account": t.account.name, "action": "failed", "bytes": r.Size, "reason": r.Text}, f.Mailbox), r.ID))
		}
		for _, r := range f.Unsafe {
			j.write("message", withID(folderFields(object{"account": t.account.name, "action": "kept", "bytes": r.Size, "reason": r.Text, "path": r.File}, f.Mailbox), r.ID))
		}
	}
	for _, pr := range t.problems {
		j.problem(object{"account": t.account.name}, *pr)
	}
	r := &t.result
	o := object{"account": t.account.name, "result": t.word(), "deleted": r.Removed, "bytes_deleted": r.RemovedOctets, "looked": r.Looked, "seconds": seconds(r.Duration)}
	if r.Measured {
		o["usage"] = r.UsedNow
	}
	if t.undo != "" {
		o["undo_list"], o["trim_run"] = t.undo, t.run
	}
	if pr := t.worst(); pr != nil {
		o["reason"] = pr.code
	}
	others, archived := 0, 0
	for _, f := range r.Folders {
		others, archived = others+f.Others, archived+f.OthersArchived
	}
	if others > 0 {
		o["others_gone"], o["others_archived"] = others, archived
	}
	j.write("account_end", o)
}

// removed tells scripts of a message that is gone.
func (j *jsonLines) removed(o object, e report.MessageRemoved) {
	o["action"], o["bytes"], o["path"] = "deleted", e.Size, e.Copy
	if e.Would {
		o["action"] = "would_delete"
	}
	j.write("message", withID(folderFields(o, e.Mailbox), e.ID))
}
