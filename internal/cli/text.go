package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"mailstow/mailbox"
)

// progress draws one line over and over.
type progress struct {
	w     io.Writer
	last  time.Time
	drawn int // columns of the line that stands there
}

// draw shows how far an account has come, at most ten times a second.
func (p *progress) draw(name string, t *tick) {
	if time.Since(p.last) < 100*time.Millisecond || t.total.New == 0 {
		return
	}
	p.last = time.Now()
	line := t.line(name)
	fmt.Fprint(p.w, "\r"+line+strings.Repeat(" ", max(p.drawn-width(line), 0)))
	p.drawn = width(line)
}

// line says how far an account has come.
func (t *tick) line(name string) string {
	elapsed := time.Since(t.started)
	rate := float64(t.doneOctets) / max(elapsed.Seconds(), 0.001)
	part := float64(t.doneOctets) / max(float64(t.total.NewOctets), 1)
	left := "-"
	if part > 0 && part <= 1 {
		left = clock(time.Duration(float64(elapsed) * (1 - part) / part))
	}
	line := fmt.Sprintf("[%s]  %s  %5.1f%%  %s / %s   %s / %s   %s/s   ETA %s   %s", clock(elapsed), show(name), min(100*part, 100),
		count(t.done), count(t.total.New), octets(t.doneOctets), octets(t.total.NewOctets), octets(int64(rate)), left, show(t.mailbox))
	if t.failed > 0 {
		line += fmt.Sprintf("   %s failed", count(t.failed))
	}
	return line
}

func (p *progress) clear() {
	if p.drawn > 0 {
		fmt.Fprint(p.w, "\r"+strings.Repeat(" ", p.drawn)+"\r")
		p.drawn = 0
	}
}

// showOne shows the outcome of the only account.
func showOne(w io.Writer, r *outcome) {
	if r.problem != nil && len(r.result.Tallies) == 0 {
		return // the error has said it all
	}
	sum := r.result.Sum()
	var news []string
	if sum.New > 0 {
		news = append(news, fmt.Sprintf("%s, %s in %s", strings.Replace(messages(sum.New), " ", " new ", 1), octets(sum.Octets), clock(r.result.Duration)))
	}
	if sum.Linked > 0 {
		news = append(news, fmt.Sprintf("%s of them the same as in another folder, downloaded once", count(sum.Linked)))
	}
	if sum.Again > 0 {
		news = append(news, fmt.Sprintf("%s recognised", count(sum.Again)))
	}
	if sum.Flags > 0 {
		news = append(news, fmt.Sprintf("flags of %s brought in step", messages(sum.Flags)))
	}
	if len(news) == 0 {
		news = append(news, "nothing new")
	}
	skipped := 0
	for _, t := range r.result.Tallies {
		if t.Skipped != "" {
			skipped++
		}
	}
	if skipped > 0 {
		news = append(news, fmt.Sprintf("%s not wanted", folders(skipped)))
	}
	if sum.Excluded > 0 {
		news = append(news, fmt.Sprintf("%s not wanted", messages(sum.Excluded)))
	}
	if sum.Removed > 0 {
		news = append(news, fmt.Sprintf("%s left out that you removed from the archive", count(sum.Removed)))
	}
	fmt.Fprintf(w, "%s   %s   %s\n", show(r.account.name), r.word(), strings.Join(news, "; "))
	state := "every message written, flushed and hashed"
	if n := r.result.Missing(); n > 0 {
		state = fmt.Sprintf("%s still missing", count(n))
	} else if r.problem != nil {
		state = "not everything could be checked"
	}
	held := fmt.Sprintf("%s, %s", folders(len(r.result.Tallies)), messages(sum.InArchive))
	if r.account.protocol == mailbox.POP3 { // it may have more, from IMAP
		held = "looked at " + held
	}
	fmt.Fprintf(w, "  archive   %s   %s, %s\n", show(r.dir), held, state)
	if r.found.Rebuilt {
		fmt.Fprintln(w, "  index     was missing or damaged, and has been made again from the files")
	}
	if n := r.found.Adopted; n > 0 && !r.found.Rebuilt {
		fmt.Fprintf(w, "  found     %s in the archive that the index did not know\n", messages(n))
	}
	if n := r.found.Removed; n > 0 && !r.refetched {
		fmt.Fprintf(w, "  removed   %s gone from the archive; the server's copy is not fetched again\n", messages(n))
	} else if n > sum.New {
		fmt.Fprintf(w, "  removed   %s gone from the archive, of which not all have come again\n", messages(n))
	}
}

// showAll shows the outcomes of several accounts.
func showAll(w io.Writer, outcomes []outcome) {
	t := table{head: []string{"account", "result", ">new", ">size", ">in archive", ">on server", ">missing"}}
	for i := range outcomes {
		r := &outcomes[i]
		if len(r.result.Tallies) == 0 {
			t.add(show(r.account.name), r.word(), "-", "-", "-", "-", "-")
			continue
		}
		sum := r.result.Sum()
		t.add(show(r.account.name), r.word(), count(sum.New), octets(sum.Octets), count(sum.InArchive), count(sum.OnServer), count(r.result.Missing()))
	}
	fmt.Fprint(w, t.String())
	fmt.Fprintf(w, "\n%s.\n", tallyWords(outcomes))
}

// outcomeWords are what [outcome.word] returns.
var outcomeWords = []string{"ok", "paused", "skipped", "incomplete", "interrupted", "failed"}

// tallyWords counts outcomes: "2 ok, 1 incomplete".
func tallyWords(outcomes []outcome) string {
	n := map[string]int{}
	for i := range outcomes {
		n[outcomes[i].word()]++
	}
	var words []string
	for _, word := range outcomeWords {
		if n[word] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[word], word))
		}
	}
	return strings.Join(words, ", ")
}

// showPlan shows what a dry run found.
func showPlan(w io.Writer, r *outcome) {
	if len(r.result.Tallies) == 0 {
		return
	}
	wanted, wantedOctets := 0, int64(0)
	t := table{head: []string{"folder", ">on server", ">in archive", ">would copy", ">size"}}
	for _, m := range r.result.Tallies {
		if m.Skipped != "" {
			t.add(show(m.Mailbox.String()), "", "", "skipped: "+show(m.Skipped), "")
			continue
		}
		if m.Reason != "" {
			t.add(show(m.Mailbox.String()), "-", "-", "cannot be read", "")
			continue
		}
		wanted += m.New
		wantedOctets += m.Octets
		t.add(show(m.Mailbox.String()), count(m.OnServer), count(m.Kept+m.Again), count(m.New), octets(m.Octets))
	}
	fmt.Fprintf(w, "%s: would copy %s, %s, and change nothing on the server\n", show(r.account.name), messages(wanted), octets(wantedOctets))
	for line := range strings.Lines(t.String()) {
		fmt.Fprint(w, "  "+line)
	}
	fmt.Fprintln(w, "Nothing was written.")
}
