package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"mailstow/internal/report"
	"mailstow/mailbox"
)

// jsonLines writes one JSON object a line. Fields are added, not renamed,
// while "v" is 1.
type jsonLines struct {
	enc  *json.Encoder
	run  string
	last time.Time // of the last progress
	log  bool      // each line has its time
	file io.Closer // of a log
	mu   sync.Mutex
}

type object map[string]any

// escaping writes lines of JSON in which no character is raw that a terminal, or
// the eye, could be misled by.
type escaping struct{ w io.Writer }

func (e escaping) Write(line []byte) (int, error) {
	var b strings.Builder
	for _, r := range string(line) {
		if r == '\n' || isPlain(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	_, err := io.WriteString(e.w, b.String())
	return len(line), err
}

func newJSONLines(w io.Writer) *jsonLines {
	enc := json.NewEncoder(escaping{w})
	enc.SetEscapeHTML(false)
	return &jsonLines{enc: enc}
}

func (j *jsonLines) write(kind string, o object) {
	o["v"], o["type"] = 1, kind
	if j.log {
		o["time"] = time.Now().UTC().Format(time.RFC3339Nano)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.enc.Encode(o)
}

// runID names a run that begins now.
func runID(now time.Time) string {
	return fmt.Sprintf("%s-%04x", now.UTC().Format("20060102T150405Z"), rand.N(1<<16))
}

func (j *jsonLines) start(run, command string, accounts []*account, dry bool, now time.Time) {
	j.run = run
	names := []string{}
	for _, a := range accounts {
		names = append(names, a.name)
	}
	j.write("start", object{"time": stamp(now), "run": j.run, "command": command, "version": version(), "accounts": names, "dry_run": dry})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// folderFields names a mailbox. One that is not UTF-8 also comes as it is.
func folderFields(o object, name mailbox.Name) object {
	o["folder"] = name.String()
	if !utf8.ValidString(name.String()) {
		o["folder_raw"] = base64.StdEncoding.EncodeToString([]byte(name.String()))
	}
	return o
}

func (j *jsonLines) event(a *account, e report.Event, t *tick, verbose, quiet bool) {
	o := object{"account": a.name}
	switch e := e.(type) {
	case report.Planned:
		if e.Back {
			return
		}
		o["server"], o["folders"], o["messages"], o["new_messages"], o["new_bytes"] = a.endpoint.Addr, e.Mailboxes, e.Messages, e.New, e.NewOctets
		j.write("account_start", o)
	case report.MessageArrived:
		if !quiet && time.Since(j.last) >= time.Second {
			j.last = time.Now()
			j.progress(o, t)
		}
	case report.MessageStored:
		if verbose {
			o["action"], o["bytes"] = "stored", e.Size
			if e.Recognised || e.Linked {
				o["action"] = "linked"
			}
			if e.SHA256 != "" {
				o["sha256"] = e.SHA256
			}
			j.write("message", withID(folderFields(o, e.Mailbox), e.ID))
		}
	case report.MessageRemoved:
		j.removed(o, e)
	case report.MessageFailed:
		o["action"], o["bytes"], o["reason"] = "failed", e.Size, e.Reason
		j.write("message", withID(folderFields(o, e.Mailbox), e.ID))
	case report.MailboxFailed:
		o["code"], o["message"], o["permanent"] = "fetch_failed", e.Reason, false
		j.write("error", folderFields(o, e.Mailbox))
	case report.MailboxDone:
		o["role"], o["path"], o["uidvalidity"] = e.Role, e.Path, e.UIDValidity
		o["on_server"], o["listed"], o["in_archive"], o["archived"] = e.OnServer, e.Listed, e.InArchive, e.Archived()
		o["new"], o["bytes_new"], o["linked"], o["recognised"], o["removed_locally"] = e.New, e.Octets, e.Linked, e.Again, e.Removed
		o["flags_updated"], o["failed"], o["missing"] = e.Flags, e.Failed, max(e.Missing(), 0)
		o["excluded"], o["unchanged"] = e.Excluded, e.Unchanged
		if e.Skipped != "" {
			o["skipped"] = e.Skipped
		}
		j.write("folder", folderFields(o, e.Mailbox))
	case report.Slowed:
		o["code"], o["message"], o["server"], o["retry_after"] = "throttled", "the server is busy", e.Err.Error(), stamp(time.Now().Add(e.Wait))
		j.write("warning", o)
	case report.Blocked:
		o["code"], o["message"], o["messages"] = "cannot_be_stored", e.Reason, e.Messages
		j.write("warning", folderFields(o, e.Mailbox))
	case report.FewerConnections:
		o["code"], o["message"], o["server"] = "too_many_connections", "the server bears no more connections", e.Err.Error()
		j.write("warning", o)
	case report.Short:
		o["code"], o["message"] = "size_differs", fmt.Sprintf("%d messages came twice in the same octets, fewer than announced", e.Messages)
		j.write("warning", folderFields(o, e.Mailbox))
	case report.Renamed:
		o["code"], o["message"], o["was"] = "renamed", "the mailbox has another name; its folder was moved along", e.Was
		j.write("warning", folderFields(o, e.Mailbox))
	case report.Rebuilt:
		o["code"], o["message"], o["uidvalidity_was"], o["uidvalidity"] = "uidvalidity_changed", fmt.Sprintf("recognised %d, new %d", e.Recognised, e.Download), e.Was, e.Is
		j.write("warning", folderFields(o, e.Mailbox))
	case report.Nameless:
		o["code"], o["message"] = "no_uidl", fmt.Sprintf("%d of %d messages have no unique-id", e.Messages, e.Of)
		j.write("warning", folderFields(o, e.Mailbox))
	}
}

func withID(o object, id mailbox.ID) object {
	if uid, ok := uidOf(id); ok {
		o["uid"] = uid
	} else {
		o["uidl"] = string(id)
	}
	return o
}

func (j *jsonLines) progress(o object, t *tick) {
	rate := float64(t.doneOctets) / max(time.Since(t.started).Seconds(), 0.001)
	o["folder"], o["messages_done"], o["messages_total"] = t.mailbox, t.done, t.total.New
	o["bytes_done"], o["bytes_total"], o["bytes_per_second"], o["failed"] = t.doneOctets, t.total.NewOctets, int64(rate), t.failed
	o["eta_seconds"] = int(float64(max(t.total.NewOctets-t.doneOctets, 0)) / max(rate, 1))
	j.write("progress", o)
}

func (j *jsonLines) warning(a *account, text string) {
	j.write("warning", object{"account": a.name, "code": "warning", "message": text})
}

// failedJSON is the output of a command that could not begin.
func failedJSON(w io.Writer, p problem) {
	j := newJSONLines(w)
	j.problem(object{}, p)
	j.write("summary", object{"time": stamp(time.Now()), "result": "failed", "exit_code": p.status})
}

// problem writes an error; o says what it concerns.
func (j *jsonLines) problem(o object, p problem) {
	o["code"], o["message"] = p.code, p.what
	o["permanent"] = p.status == exitLogin || p.status == exitConfig
	for key, text := range map[string]string{"server": p.server, "why": p.why, "hint": p.do} {
		if text != "" {
			o[key] = text
		}
	}
	if len(p.details) > 0 {
		o["details"] = p.details
	}
	j.write("error", o)
}

func (j *jsonLines) accountEnd(r *outcome) {
	if r.problem != nil {
		j.problem(object{"account": r.account.name}, *r.problem)
	}
	sum := r.result.Sum()
	o := object{
		"account": r.account.name, "result": r.word(), "new": sum.New, "bytes_new": sum.Octets, "linked": sum.Linked, "recognised": sum.Again, "failed": sum.Failed,
		"excluded": sum.Excluded, "in_archive": sum.InArchive, "on_server": sum.OnServer, "missing": r.result.Missing(), "seconds": seconds(r.result.Duration),
	}
	if r.problem != nil {
		o["reason"] = r.problem.code
	}
	j.write("account_end", o)
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func (j *jsonLines) summary(outcomes []outcome, status int, d time.Duration) {
	o := object{"time": stamp(time.Now()), "run": j.run, "exit_code": status, "seconds": seconds(d), "ok": 0, "paused": 0, "incomplete": 0, "failed": 0, "skipped": 0, "interrupted": 0}
	news, bytes, missing := 0, int64(0), 0
	for i := range outcomes {
		sum := outcomes[i].result.Sum()
		news, bytes, missing = news+sum.New, bytes+sum.Octets, missing+outcomes[i].result.Missing()
		o[outcomes[i].word()] = o[outcomes[i].word()].(int) + 1
	}
	o["new"], o["bytes_new"], o["missing"] = news, bytes, missing
	o["result"] = "ok"
	switch {
	case status == exitIncomplete:
		o["result"] = "incomplete"
	case status == exitLater && o["paused"] != 0:
		o["result"] = "paused"
	case status != exitOK:
		o["result"] = "failed"
	}
	j.write("summary", o)
}
