package credential_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailstow/internal/credential"
)

func TestSecretNeverShows(t *testing.T) {
	s := credential.NewSecret("hunter2")
	type account struct {
		Name   string
		hidden credential.Secret
		Shown  credential.Secret
	}
	a := account{"alice", s, s}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "a", a)
	js, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{
		fmt.Sprint(s), fmt.Sprintf("%#v", s), fmt.Sprintf("%s %q %x", s, s, s),
		fmt.Sprintf("%v %+v %#v", a, a, a), log.String(), string(js),
	} {
		if strings.Contains(got, "hunter2") || strings.Contains(got, "68756e74") {
			t.Errorf("secret leaked: %s", got)
		}
	}
	if s.Reveal() != "hunter2" || a.hidden.Reveal() != "hunter2" {
		t.Error("Reveal does not reveal")
	}
}

func TestPasswordCommand(t *testing.T) {
	for _, tt := range []struct {
		name    string
		command []string
		want    string
		fails   string // part of the error
	}{
		{"first line of the output", credential.Shell("printf 'one\\r\\ntwo\\n'"), "one", ""},
		{"a list runs without a shell", []string{"echo", "$HOME; x"}, "$HOME; x", ""},
		{"nothing printed", credential.Shell("true"), "", "no password"},
		{"a failure shows what it said", credential.Shell("echo agent is locked >&2; exit 3"), "", "agent is locked"},
		{"no such program", []string{"/nonexistent/x", "y"}, "", "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := credential.FromCommand(t.Context(), "password command", tt.command)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("error = %v, want one with %q", err, tt.fails)
				}
			} else if err != nil || s.Reveal() != tt.want {
				t.Errorf("got %q, %v; want %q", s.Reveal(), err, tt.want)
			}
		})
	}
}

func TestPasswordCommandIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := credential.FromCommand(ctx, "password command", credential.Shell("sleep 60")); err == nil {
		t.Error("no error")
	}
}

// A password that every user of the machine can read is no secret.
func TestPasswordFileOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := credential.FromFile(path); err != nil || s.Reveal() != "x" {
		t.Errorf("mode 600: %q, %v", s.Reveal(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := credential.FromFile(path); !errors.Is(err, credential.ErrNotPrivate) {
		t.Errorf("mode 640: %v, want %v", err, credential.ErrNotPrivate)
	}
}
