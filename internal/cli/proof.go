package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailstow/migrate"
)

// proof is how an archive and a server compare at the end of a run.
type proof struct {
	account *account // the server's
	dir     string   // the archive's
	command string
	result  migrate.Result
	problem *problem // nil if all is well
	dry     bool
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
	o := outcome{account: r.account, problem: r.problem}
	return o.word()
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
	switch {
	case r.dry:
		fmt.Fprintf(w, "%s: would store %s, %s, and change nothing else; %s of %s there already\n", name, messages(t.Sent), octets(t.SentOctets), count(t.Before+t.Recognised), count(t.Archived))
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
		case t.Renamed:
			fmt.Fprintf(w, "  %s%s   the server cannot have that name; --map chooses another\n", show(t.Folder.String()), to)
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
		j.write("folder", folderObject(r.account.name, t))
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
		"too_large": len(t.TooLarge), "altered": len(t.Altered), "differing": len(t.Differ), "missing": r.result.Missing(), "seconds": seconds(r.result.Duration),
	}
	if r.problem != nil {
		o["reason"] = r.problem.code
	}
	return o
}

// write writes the report into a directory: for people, for spreadsheets, and
// for scripts.
func (r *proof) write(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var summary, folders, missing, whole bytes.Buffer
	fmt.Fprintf(&summary, "mailstow %s, %s\narchive  %s\nserver   %s\n\n", r.command, local(time.Now()), show(r.dir), show(r.account.source()))
	r.show(&summary, true)
	if r.problem != nil {
		fmt.Fprintln(&summary)
		r.problem.print(&summary)
	}
	f := csv.NewWriter(&folders)
	f.Write([]string{"account", "folder", "mailbox", "archived", "there", "missing", "excluded", "too_large", "differs", "altered", "on_server", "proof", "remark"})
	m := csv.NewWriter(&missing)
	m.Write([]string{"account", "folder", "state", "date", "from", "subject", "message_id", "size", "reason", "file"})
	list := []object{}
	perFolder := []object{}
	for _, t := range r.result.Tallies {
		remark := t.Reason
		if t.Skipped != "" {
			remark = "left out: " + t.Skipped
		}
		n := strconv.Itoa
		f.Write([]string{r.account.name, cell(t.Folder.String()), cell(t.Mailbox.String()), n(t.Archived), n(t.There()), n(t.Left()), n(t.Excluded), n(len(t.TooLarge)), n(len(t.Differ)), n(len(t.Altered)), n(t.OnServer), level(t), cell(remark)})
		perFolder = append(perFolder, folderObject(r.account.name, t))
		for _, s := range states(t) {
			for _, x := range s.all {
				date := ""
				if !x.Date.IsZero() {
					date = stamp(x.Date)
				}
				m.Write([]string{r.account.name, cell(t.Folder.String()), s.name, date, cell(x.From), cell(x.Subject), cell(x.MessageID), strconv.FormatInt(x.Size, 10), cell(x.Text), cell(x.File)})
				o := messageObject(r.account.name, actions[s.name], t, x)
				o["state"] = s.name
				list = append(list, o)
			}
		}
	}
	f.Flush()
	m.Flush()
	all := r.object()
	all["v"], all["time"], all["command"], all["archive"], all["server"], all["folders"], all["messages"] = 1, stamp(time.Now()), r.command, r.dir, r.account.source(), perFolder, list
	enc := json.NewEncoder(&whole)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := errors.Join(f.Error(), m.Error(), enc.Encode(all))
	for _, file := range []struct {
		name    string
		content []byte
	}{{"summary.txt", summary.Bytes()}, {"folders.csv", folders.Bytes()}, {"missing.csv", missing.Bytes()}, {"proof.json", whole.Bytes()}} {
		err = errors.Join(err, replace(filepath.Join(dir, file.name), file.content))
	}
	return err
}

// replace writes a file that appears whole or not at all.
func replace(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// cell is a text of a stranger in a spreadsheet, where it must not be a formula.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
