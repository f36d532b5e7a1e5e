package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"mailstow/migrate"
)

// proof is how an archive and a server compare at the end of a run.
type proof struct {
	account *account // the server's
	dir     string   // the archive's
	command string
	result  migrate.Result
	problem *problem // nil if all is well
	pulled  *outcome // of the backup before it, nil if there was none
	dry     bool
	rough   bool // a dry run that cannot tell what is there already
	line    int  // in a list of pairs
}

// damaged says that the archive itself is not whole.
func (r *proof) damaged(dir string) {
	const what = "the archive is damaged"
	if r.problem == nil {
		r.problem = &problem{account: r.account.name, what: what, do: "mailstow verify " + dir, status: exitDamaged, code: "damaged"}
		return
	}
	r.problem.details = append([]string{"archive: it is damaged: mailstow verify " + dir}, r.problem.details...)
}

// unknown says that files of the archive were not compared, as another program
// has put them there since the last run.
func (r *proof) unknown(files int) {
	if files > 0 && r.problem == nil {
		r.problem = &problem{account: r.account.name, what: fmt.Sprintf("%s that another program has put into the archive not compared", were(files)), do: "store them first: mailstow migrate " + r.dir + " ...", status: exitDamaged, code: "incomplete"}
	}
}

// before is the status of the backup before it.
func (r *proof) before() int {
	if r.pulled == nil {
		return exitOK
	}
	return r.pulled.status()
}

// status is the exit status, after a backup or a check that ended with before.
func (r *proof) status(before int) int {
	switch {
	case r.problem == nil:
		return before
	case r.command == "verify" && r.problem.status == exitIncomplete:
		return exitDamaged
	}
	return r.problem.status
}

// sum adds the tallies of wanted folders up.
func (r *proof) sum() (sum migrate.Tally) {
	sum.Unkept = map[string]int{}
	for _, t := range r.result.Tallies {
		if t.Skipped != "" {
			continue
		}
		sum.Archived += t.Archived
		sum.Excluded += t.Excluded
		sum.Before += t.Before
		sum.Recognised += t.Recognised
		sum.Sent += t.Sent
		sum.SentOctets += t.SentOctets
		sum.OnServer += t.OnServer
		sum.ByHeader += t.ByHeader
		sum.Compared += t.Compared
		sum.Redated += t.Redated
		sum.Flagged += t.Flagged
		sum.Missing = append(sum.Missing, t.Missing...)
		sum.TooLarge = append(sum.TooLarge, t.TooLarge...)
		sum.Altered = append(sum.Altered, t.Altered...)
		sum.Differ = append(sum.Differ, t.Differ...)
		for f, n := range t.Unkept {
			sum.Unkept[f] += n
		}
	}
	return sum
}

// word is the outcome in one word.
func (r *proof) word() string {
	if r.problem == nil && r.pulled != nil {
		return r.pulled.word()
	}
	o := outcome{account: r.account, problem: r.problem}
	return o.word()
}

// problems are those of the backup and of what came after.
func (r *proof) problems() (all []*problem) {
	if r.pulled != nil && r.pulled.problem != nil {
		all = append(all, r.pulled.problem)
	}
	if r.problem != nil {
		all = append(all, r.problem)
	}
	return all
}

// news reports whether there is something that a person wants to know also
// where nobody waits for it.
func (r *proof) news() bool {
	t := r.sum()
	return r.command == "verify" || r.problem != nil || t.Sent+t.Recognised+t.Flagged+len(t.TooLarge) > 0
}

// level says in words what shows that the messages are on the server.
func level(t migrate.Tally) string {
	var parts []string
	there := t.There()
	if differ := len(t.Differ); t.Compared+differ > 0 {
		parts = append(parts, count(t.Compared)+" octet by octet")
		if differ > 0 {
			parts = append(parts, count(differ)+" differ")
		}
	} else {
		if n := there - t.ByHeader; n > 0 {
			parts = append(parts, count(n)+" by UID")
		}
		if t.ByHeader > 0 {
			parts = append(parts, count(t.ByHeader)+" by header digest")
		}
	}
	if len(parts) == 0 {
		return "nothing to show"
	}
	return strings.Join(parts, ", ")
}

// show tells people.
func (r *proof) show(w io.Writer, verbose bool) {
	if len(r.result.Tallies) == 0 {
		return
	}
	t := r.sum()
	name := show(r.account.name)
	if r.problem != nil && r.problem.status >= 128 {
		fmt.Fprintf(w, "%s   %s   %s stored, and not yet looked at\n", name, r.word(), were(r.result.Stored))
		return
	}
	switch {
	case r.dry:
		most := ""
		if r.rough {
			most = "at most "
		}
		fmt.Fprintf(w, "%s: would store %s%s, %s, and change nothing else; %s of %s there already\n", name, most, messages(t.Sent), octets(t.SentOctets), count(t.Before+t.Recognised), count(t.Archived))
		if r.rough {
			fmt.Fprintln(w, "  what is not in the archive yet cannot be recognised on the server")
		}
	case r.command == "verify":
		fmt.Fprintf(w, "%s   %s   %s of %s on %s\n", name, r.word(), count(t.There()), messages(t.Archived), show(r.account.host))
	case t.Sent == 0:
		fmt.Fprintf(w, "%s   %s   %s of %s on the server; nothing new\n", name, r.word(), count(t.There()), messages(t.Archived))
	default:
		fmt.Fprintf(w, "%s   %s   %s of %s on the server: %s stored now, %s in %s\n", name, r.word(), count(t.There()), messages(t.Archived), count(t.Sent), octets(t.SentOctets), clock(r.result.Duration))
	}
	remark := func(label, format string, args ...any) {
		fmt.Fprintf(w, "  %-11s"+format+"\n", append([]any{label}, args...)...)
	}
	if t.Recognised > 0 {
		remark("recognised", "%s, not stored again", messages(t.Recognised))
	}
	if !r.dry {
		remark("proof", "%s", level(t))
	}
	if t.Excluded > 0 {
		remark("left out", "%s not wanted", messages(t.Excluded))
	}
	if n := len(t.TooLarge); n > 0 {
		remark("too large", "%s; they are safe in the archive", messages(n))
	}
	if n := len(t.Altered); n > 0 {
		remark("altered", "%s, as the server refuses them as they are: %s; the archive keeps what came", messages(n), kinds(t.Altered))
	}
	if len(t.Unkept) > 0 {
		var lost []string
		for f, n := range t.Unkept {
			lost = append(lost, fmt.Sprintf("%s (%s)", show(f), count(n)))
		}
		slices.Sort(lost)
		remark("flags", "not kept by the server: %s", strings.Join(lost, ", "))
	}
	if t.Flagged > 0 {
		remark("flags", "of %s brought in step", messages(t.Flagged))
	}
	if t.Redated > 0 {
		remark("dates", "the server gave %s another time of arrival", messages(t.Redated))
	}
	r.showFolders(w, verbose)
}

// kinds lists what was done to messages.
func kinds(remarks []migrate.Remark) string {
	n := map[string]int{}
	for _, m := range remarks {
		n[m.Text]++
	}
	var all []string
	for text, k := range n {
		all = append(all, fmt.Sprintf("%s (%s)", text, count(k)))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// renamed tells of new mailboxes that could not be called as their folders.
func (r *proof) renamed() (all []problem) {
	for _, t := range r.result.Tallies {
		if !t.Renamed || !t.Created || t.Reason != "" {
			continue
		}
		made := "it was created"
		if r.dry {
			made = "it would be created"
		}
		all = append(all, problem{
			account: r.account.name, code: "name_not_allowed", what: fmt.Sprintf("folder %q cannot exist on %s", t.Folder, r.account.host), server: t.Refused,
			do: fmt.Sprintf("nothing, %s as %q; choose another name with --map '%s=NAME'", made, t.Mailbox, t.Folder),
		})
	}
	return all
}

// showFolders tells of folders of which there is something to tell.
func (r *proof) showFolders(w io.Writer, verbose bool) {
	for _, t := range r.result.Tallies {
		to := ""
		if t.Skipped == "" && t.Mailbox != t.Folder {
			to = " -> " + show(t.Mailbox.String())
		}
		switch {
		case t.Skipped != "":
			if verbose || r.dry {
				fmt.Fprintf(w, "  %s   left out: %s\n", show(t.Folder.String()), show(t.Skipped))
			}
		case r.dry:
			there := "there is no such mailbox yet"
			if !t.Created {
				there = count(t.Before+t.Recognised) + " there"
			}
			fmt.Fprintf(w, "  %s%s   would store %s, %s; %s\n", show(t.Folder.String()), to, count(t.Sent), octets(t.SentOctets), there)
		case verbose || to != "" || t.Left() > 0:
			fmt.Fprintf(w, "  %s%s   %s of %s\n", show(t.Folder.String()), to, count(t.There()), count(t.Archived))
		}
	}
}

// states are the messages of a folder of which there is something to say.
func states(t migrate.Tally) []struct {
	name string
	all  []migrate.Remark
} {
	return []struct {
		name string
		all  []migrate.Remark
	}{{"missing", t.Missing}, {"too_large", t.TooLarge}, {"differs", t.Differ}, {"altered", t.Altered}}
}

// object is a folder's outcome for scripts.
func folderObject(account string, t migrate.Tally) object {
	o := folderFields(object{"account": account}, t.Folder)
	o["mailbox"], o["archived"], o["there_before"], o["recognised"], o["stored"], o["bytes_stored"] = t.Mailbox.String(), t.Archived, t.Before, t.Recognised, t.Sent, t.SentOctets
	o["there"], o["by_header"], o["compared"], o["on_server"], o["excluded"] = t.There(), t.ByHeader, t.Compared, t.OnServer, t.Excluded
	o["skipped"], o["created"], o["renamed"], o["reason"] = t.Skipped != "", t.Created, t.Renamed, t.Reason
	o["missing"], o["too_large"], o["differing"], o["altered"], o["redated"], o["flags_updated"] = t.Left(), len(t.TooLarge), len(t.Differ), len(t.Altered), t.Redated, t.Flagged
	if len(t.Unkept) > 0 {
		o["flags_not_kept"] = t.Unkept
	}
	return o
}

func messageObject(account, action string, t migrate.Tally, m migrate.Remark) object {
	o := folderFields(object{"account": account, "action": action, "from": m.From, "subject": m.Subject, "message_id": m.MessageID, "bytes": m.Size, "reason": m.Text, "path": m.File}, t.Folder)
	if !m.Date.IsZero() {
		o["date"] = stamp(m.Date)
	}
	return o
}

// actions are what the states of messages are called in JSON lines.
var actions = map[string]string{"missing": "failed", "too_large": "skipped", "differs": "differs", "altered": "altered"}

// json tells scripts.
func (r *proof) json(j *jsonLines) {
	for _, t := range r.result.Tallies {
		o := folderObject(r.account.name, t)
		if r.dry {
			planned(o, t)
		}
		j.write("folder", o)
		for _, s := range states(t) {
			for _, m := range s.all {
				j.write("message", messageObject(r.account.name, actions[s.name], t, m))
			}
		}
	}
	if r.problem != nil {
		j.problem(object{"account": r.account.name}, *r.problem)
	}
	j.write("account_end", r.object())
}

// object is the outcome as a whole, for scripts.
func (r *proof) object() object {
	t := r.sum()
	o := object{
		"account": r.account.name, "result": r.word(), "archived": t.Archived, "there": t.There(), "there_before": t.Before, "recognised": t.Recognised,
		"stored": t.Sent, "bytes_stored": t.SentOctets, "by_header": t.ByHeader, "compared": t.Compared, "excluded": t.Excluded,
		"too_large": len(t.TooLarge), "altered": len(t.Altered), "answered": r.result.Stored, "differing": len(t.Differ), "missing": r.result.Missing(), "seconds": seconds(r.result.Duration),
	}
	for _, pr := range r.problems() {
		o["reason"] = pr.code
	}
	if r.dry {
		planned(o, t)
	}
	return o
}

// planned makes what a dry run has not done what would be done.
func planned(o object, t migrate.Tally) {
	o["would_store"], o["would_store_bytes"], o["there"], o["missing"] = t.Sent, t.SentOctets, t.There()-t.Sent, t.Left()+t.Sent
	delete(o, "stored")
	delete(o, "bytes_stored")
}
