package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"mailstow/maildir"
)

// statusPairs shows how far each pair of a list has come, without a network.
func (p *program) statusPairs(c *cli.Context) error {
	all, err := p.pairs(c)
	if err != nil {
		return err
	}
	var lines *jsonLines
	if c.Bool("json") {
		lines = newJSONLines(p.Stdout)
	}
	t := table{head: []string{">", "account", "result", ">done", ">size", ">left", "since"}}
	words := map[string]int{}
	var sum maildir.Moved
	status := exitOK
	for i, pr := range all {
		m, err := moved(c, pr)
		if err != nil {
			return fmt.Errorf("%s: %w", pr.destination.name, err)
		}
		word, since, left := movedWord(m)
		words[word]++
		sum.Messages, sum.There, sum.Octets, sum.ThereOctets = sum.Messages+m.Messages, sum.There+m.There, sum.Octets+m.Octets, sum.ThereOctets+m.ThereOctets
		if word != "done" {
			status = exitIncomplete
		}
		if lines != nil {
			o := object{"account": pr.destination.name, "result": word, "archived": m.Messages, "there": m.There, "bytes": m.Octets, "bytes_there": m.ThereOctets}
			if m.Run != nil {
				o["since"], o["reason"] = stamp(m.Run.Started), m.Run.Reason
			}
			lines.write("status", o)
			continue
		}
		t.add(fmt.Sprint(i+1), show(pr.destination.name), word, count(m.There)+" / "+count(m.Messages), octets(m.ThereOctets)+" / "+octets(m.Octets), left, show(since))
	}
	if lines == nil {
		fmt.Fprint(p.Stdout, t.String())
		for _, w := range []string{"done", "running or killed", "paused", "incomplete", maildir.Unsettled, "waiting"} {
			if words[w] > 0 {
				fmt.Fprintf(p.Stdout, "%d %s, ", words[w], w)
			}
		}
		fmt.Fprintf(p.Stdout, "%s / %s\n", count(sum.There), messages(sum.Messages))
	}
	if status != exitOK {
		return &saidError{status}
	}
	return nil
}

// moved returns how far a pair has come.
func moved(c *cli.Context, pr *pair) (m maildir.Moved, err error) {
	err = open(c.Context, place{pr.destination.name, pr.dir}, func(ar *maildir.Archive) (err error) {
		m, err = ar.Moved(c.Context, pr.destination.source())
		return err
	})
	if errors.Is(err, maildir.ErrNone) {
		err = nil
	}
	return m, err
}

// movedWord says how far a pair has come: in a word, since when, and how long
// it will take if a run is at work.
func movedWord(m maildir.Moved) (word, since, left string) {
	r := m.Run
	if r == nil {
		return "waiting", "", "-"
	}
	if r.Ended.IsZero() {
		left = "-"
		if r.NewOctets > 0 {
			left = clock(time.Duration(float64(time.Since(r.Started)) / float64(r.NewOctets) * float64(m.Octets-m.ThereOctets)))
		}
		return "running or killed", local(r.Started), left
	}
	word, since = r.Result, local(r.Ended)
	if r.Reason != "" {
		since += "  " + r.Reason
	}
	switch pull := m.Pull; {
	case word != "ok":
	case pull != nil && pull.Result != "ok":
		word, since = "incomplete", local(pull.Started)+"  source: "+first(pull.Reason, "the pull was killed")
	case m.There < m.Messages:
		word = "incomplete"
	default:
		word = "done"
	}
	return word, since, "-"
}
