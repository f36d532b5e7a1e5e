package monitor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"mailstow/internal/replace"
)

// Metrics are the figures of accounts, by the name of the metric and of the
// account, as a file for node_exporter has them.
type Metrics map[string]map[string]float64

// help are the metrics, and what they say.
var help = []struct{ name, text string }{
	{"mailstow_last_success_timestamp_seconds", "When the last good backup ended: it left nothing out, or stopped at a limit and goes on."},
	{"mailstow_last_run_timestamp_seconds", "When the last run ended."},
	{"mailstow_last_run_exit_code", "How it ended; 0 is good."},
	{"mailstow_last_run_duration_seconds", "How long it took."},
	{"mailstow_archive_messages", "Messages in the archive."},
	{"mailstow_archive_bytes", "Their octets."},
	{"mailstow_missing_messages", "Messages on the server that are not in the archive."},
	{"mailstow_failed_messages", "Messages that could not be fetched."},
	{"mailstow_quota_used_bytes", "What the account's mail takes on the server."},
	{"mailstow_quota_limit_bytes", "What it may take."},
}

// Set gives an account a figure.
func (m Metrics) Set(name, account string, value float64) {
	if m[name] == nil {
		m[name] = map[string]float64{}
	}
	m[name][account] = value
}

// Keep drops what is said of other accounts than these.
func (m Metrics) Keep(accounts []string) {
	for _, figures := range m {
		maps.DeleteFunc(figures, func(account string, _ float64) bool { return !slices.Contains(accounts, account) })
	}
}

// ReadMetrics returns what a file says that was written by [Metrics.Write]; nothing
// if there is none.
func ReadMetrics(path string) (Metrics, error) {
	m := Metrics{}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		name, rest, ok := strings.Cut(lines.Text(), `{account="`)
		account, text, closed := strings.Cut(rest, `"} `)
		value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if ok && closed && err == nil {
			m.Set(name, unquote.Replace(account), value)
		}
	}
	return m, nil
}

var (
	quote   = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	unquote = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n")
)

// Write writes the figures in the place of a file, at once, so that nobody reads
// a part of them. Others can read it: node_exporter is another user.
func (m Metrics) Write(path string) error {
	var b bytes.Buffer
	for _, h := range help {
		if len(m[h.name]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", h.name, h.text, h.name)
		var accounts []string
		for account := range m[h.name] {
			accounts = append(accounts, account)
		}
		slices.Sort(accounts)
		for _, account := range accounts {
			fmt.Fprintf(&b, "%s{account=\"%s\"} %s\n", h.name, quote.Replace(account), strconv.FormatFloat(m[h.name][account], 'f', -1, 64))
		}
	}
	return replace.File(path, b.Bytes(), 0o644)
}
