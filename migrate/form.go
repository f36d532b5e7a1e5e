package migrate

import (
	"context"
	"io"
	"strings"
	"time"

	"mailstow/internal/fingerprint"
	"mailstow/internal/repair"
)

// form is how a message is sent. The zero value is as it is.
type form struct {
	again   bool // once more: some refusals pass
	unkeyed bool // without keywords
	undated bool // without its time of arrival
	repairs repair.Steps
}

const allRepairs = repair.Ends | repair.NULs | repair.Header | repair.Long

// forms are tried one after the other on a message that the server refuses.
var forms = [...]form{
	{},
	{again: true},
	{unkeyed: true},
	{undated: true},
	{repairs: repair.Ends},
	{repairs: repair.Ends | repair.NULs},
	{repairs: repair.Ends | repair.NULs | repair.Header},
	{repairs: allRepairs},
	{repairs: allRepairs, unkeyed: true, undated: true},
}

// String says what is done to the message.
func (f form) String() string {
	var done []string
	if f.unkeyed {
		done = append(done, "keywords left out")
	}
	if f.undated {
		done = append(done, "time of arrival left out")
	}
	if f.repairs != 0 {
		done = append(done, f.repairs.String())
	}
	return strings.Join(done, ", ")
}

// attempt is how far a message that is refused has come.
type attempt struct {
	form   int // of forms
	needs  form
	answer string // to the message as it is
}

// formOf returns the form in which a message is to be sent, or was.
func (s *sender) formOf(p *plan, c fingerprint.Candidate) form {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := p.attempts[c.Message]; a != nil {
		return forms[a.form].within(a.needs)
	}
	return form{}
}

// within returns what a form changes in a message in which only so much can be
// changed.
func (f form) within(can form) form {
	return form{f.again, f.unkeyed && can.unkeyed, f.undated && can.undated, f.repairs & can.repairs}
}

// next chooses the next form for a message that is refused. If there is none
// it returns why not: what the server said of the message as it is.
func (s *sender) next(ctx context.Context, p *plan, c fingerprint.Candidate, refusal error) (again bool, why string) {
	s.mu.Lock()
	a := p.attempts[c.Message]
	s.mu.Unlock()
	if a == nil {
		needs, err := s.needs(ctx, c)
		if err != nil {
			return false, err.Error()
		}
		a = &attempt{needs: needs, answer: refusal.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.attempts[c.Message] = a
	for before := forms[a.form].within(a.needs); a.form < len(forms)-1; {
		a.form++
		if now := forms[a.form].within(a.needs); now != before && now != (form{}) {
			return true, ""
		}
	}
	return false, a.answer
}

// needs returns what can be changed in a message.
func (s *sender) needs(ctx context.Context, c fingerprint.Candidate) (needs form, err error) {
	content, err := s.archive.Open(ctx, c.Message)
	if err != nil {
		return needs, err
	}
	defer content.Close()
	needs.unkeyed = len(unkeyed(content.Flags)) < len(content.Flags)
	// Servers know times from 1970 on, some up to 2038 alone.
	needs.undated = content.InternalDate.Year() < 1971 || content.InternalDate.Year() > 2037
	if !s.NoRepair {
		r := content.repaired(allRepairs)
		_, err = io.Copy(io.Discard, r)
		needs.repairs = r.Made()
	}
	return needs, err
}

// unkeyed returns the system flags among flags.
func unkeyed(flags []string) (system []string) {
	for _, f := range flags {
		if strings.HasPrefix(f, `\`) {
			system = append(system, f)
		}
	}
	return system
}

// open opens a message in a form, and makes c's print that of it.
func (s *sender) open(ctx context.Context, c *fingerprint.Candidate, f form) (Content, error) {
	content, err := s.archive.Open(ctx, c.Message)
	if err != nil {
		return content, err
	}
	if f.repairs != 0 {
		w := fingerprint.NewWriter()
		_, err := io.Copy(w, content.repaired(f.repairs))
		content.Close()
		if err != nil {
			return content, err
		}
		if content, err = s.archive.Open(ctx, c.Message); err != nil {
			return content, err
		}
		c.Print = w.Print()
		content.Content = content.repaired(f.repairs)
		content.Size = c.Size
	}
	if f.unkeyed {
		content.Flags = unkeyed(content.Flags)
	}
	if f.undated {
		content.InternalDate = time.Time{}
	}
	return content, nil
}
