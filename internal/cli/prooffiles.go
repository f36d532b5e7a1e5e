package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailstow/internal/replace"
)

// writeReport writes down how archives and servers compare: for people, for
// spreadsheets, and for scripts.
func writeReport(dir, command string, all []*proof) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var summary, whole bytes.Buffer
	accounts := sheet("account", "archive", "server", "archived", "there", "missing", "excluded", "too_large", "differs", "altered", "proof", "result")
	folders := sheet("account", "folder", "mailbox", "archived", "there", "missing", "excluded", "too_large", "differs", "altered", "on_server", "proof", "remark")
	missing := sheet("account", "folder", "state", "date", "from", "subject", "message_id", "size", "reason", "file")
	now, objects := time.Now(), []object{}
	fmt.Fprintf(&summary, "mailstow %s, %s\n", command, local(now))
	for _, r := range all {
		fmt.Fprintf(&summary, "\narchive  %s\nserver   %s\n", show(r.dir), show(r.account.source()))
		r.show(&summary, true)
		for _, pr := range r.problems() {
			pr.print(&summary)
		}
		o, list, perFolder := r.object(), []object{}, []object{}
		t := r.sum()
		accounts.row(r.account.name, r.dir, r.account.source(), t.Archived, t.There(), r.result.Missing(), t.Excluded, len(t.TooLarge), len(t.Differ), len(t.Altered), level(t), r.word())
		for _, t := range r.result.Tallies {
			remark := t.Reason
			if t.Skipped != "" {
				remark = "left out: " + t.Skipped
			}
			folders.row(r.account.name, t.Folder, t.Mailbox, t.Archived, t.There(), t.Left(), t.Excluded, len(t.TooLarge), len(t.Differ), len(t.Altered), t.OnServer, level(t), remark)
			perFolder = append(perFolder, folderObject(r.account.name, t))
			for _, s := range states(t) {
				for _, x := range s.all {
					date := ""
					if !x.Date.IsZero() {
						date = stamp(x.Date)
					}
					missing.row(r.account.name, t.Folder, s.name, date, x.From, x.Subject, x.MessageID, x.Size, x.Text, x.File)
					m := messageObject(r.account.name, actions[s.name], t, x)
					m["state"] = s.name
					list = append(list, m)
				}
			}
		}
		o["archive"], o["server"], o["folders"], o["messages"] = r.dir, r.account.source(), perFolder, list
		objects = append(objects, o)
	}
	enc := json.NewEncoder(&whole)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(object{"v": 1, "time": stamp(now), "command": command, "accounts": objects})
	for _, file := range []struct {
		name    string
		content []byte
	}{
		{"summary.txt", summary.Bytes()}, {"accounts.csv", accounts.bytes()}, {"folders.csv", folders.bytes()},
		{"missing.csv", missing.bytes()}, {"proof.json", whole.Bytes()},
	} {
		err = errors.Join(err, replace.File(filepath.Join(dir, file.name), file.content, 0o600))
	}
	return err
}

// spreadsheet is a CSV file in the making.
type spreadsheet struct {
	b bytes.Buffer
	w *csv.Writer
}

func sheet(head ...string) *spreadsheet {
	s := &spreadsheet{}
	s.w = csv.NewWriter(&s.b)
	s.w.Write(head)
	return s
}

// row adds a line. Texts of strangers must not be formulas.
func (s *spreadsheet) row(cells ...any) {
	var line []string
	for _, c := range cells {
		text := fmt.Sprint(c)
		if _, number := c.(int); !number && text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
			text = "'" + text
		}
		line = append(line, text)
	}
	s.w.Write(line)
}

func (s *spreadsheet) bytes() []byte {
	s.w.Flush()
	return s.b.Bytes()
}
