package monitor_test

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailstow/internal/monitor"
)

func TestPingsJoinTheStartToTheEnd(t *testing.T) {
	var got []string
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.String()+" "+string(body))
		w.WriteHeader(status)
	}))
	defer s.Close()
	c := monitor.Check{URL: s.URL + "/secret-uuid", Run: "r1"}
	ctx, cancel := context.WithCancel(t.Context())
	if err := c.Start(ctx); err != nil {
		t.Error(err)
	}
	cancel() // an interrupted run is told of, too
	if err := c.End(ctx, 3, "one missing"); err != nil {
		t.Error(err)
	}
	if strings.Join(got, "|") != "POST /secret-uuid/start?rid=r1 |POST /secret-uuid/3?rid=r1 one missing" {
		t.Errorf("got %q", got)
	}
	status = http.StatusNotFound
	if err := c.Start(t.Context()); err == nil || strings.Contains(err.Error(), "secret-uuid") || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
	s.Close()
	for _, u := range []string{s.URL + "/secret-uuid", "secret-uuid", "https://%zz/secret-uuid"} {
		if err := (monitor.Check{URL: u}).Start(t.Context()); err == nil || strings.Contains(err.Error(), "secret-uuid") {
			t.Errorf("%s: %v", u, err)
		}
	}
}

func TestMetricsAreWrittenAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mailstow.prom")
	m, err := monitor.ReadMetrics(path)
	if err != nil || len(m) > 0 {
		t.Fatal(m, err)
	}
	m.Set("mailstow_archive_messages", "work", 21902)
	m.Set("mailstow_archive_messages", `a"b\c`, 1)
	m.Set("mailstow_last_success_timestamp_seconds", "work", 1763712345.5)
	for range 2 {
		if err := m.Write(path); err != nil {
			t.Fatal(err)
		}
		again, err := monitor.ReadMetrics(path)
		if err != nil || !maps.Equal(again["mailstow_archive_messages"], m["mailstow_archive_messages"]) || again["mailstow_last_success_timestamp_seconds"]["work"] != 1763712345.5 {
			t.Errorf("%v, %v", again, err)
		}
		m = again
	}
	b, err := os.ReadFile(path)
	want := "# HELP mailstow_last_success_timestamp_seconds When the last good backup ended: it left nothing out, or stopped at a limit and goes on.\n# TYPE mailstow_last_success_timestamp_seconds gauge\nmailstow_last_success_timestamp_seconds{account=\"work\"} 1763712345.5\n"
	if err != nil || !strings.HasPrefix(string(b), want) {
		t.Errorf("%s, %v", b, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o644 {
		t.Error(fi, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestSystemdHears(t *testing.T) {
	monitor.Systemd("").Ready() // nobody is there
	monitor.Systemd("/none").Ready()
	path := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := monitor.Systemd(path)
	s.Ready()
	s.Status("work 12%")
	s.Stopping()
	b := make([]byte, 100)
	for _, want := range []string{"READY=1", "STATUS=work 12%", "STOPPING=1"} {
		if n, err := conn.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("%q, %v; want %q", b[:n], err, want)
		}
	}
}
