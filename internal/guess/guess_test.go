package guess_test

import (
	"testing"

	"mailstow/internal/guess"
)

func TestNearestIsMeant(t *testing.T) {
	known := []string{"backup", "init", "pop3", "dry-run", "metrics_file", "quiet", "work", "password_command"}
	for word, want := range map[string]string{
		"bakcup": "backup", "dryrun": "dry-run", "metrics": "metrics_file", "pasword_command": "password_command", "int": "init",
		"wrok": "work", "sync": "", "subset": "", "a": "", "": "", "avz": "", "no-verify": "", "edit": "", "quit": "quiet", "exit": "", "dyr-run": "dry-run", "pssword_commnd": "password_command",
	} {
		if got := guess.Nearest(word, known); got != want {
			t.Errorf("%q is taken for %q, want %q", word, got, want)
		}
	}
}
