package replace_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mailstow/internal/replace"
)

func TestReaderFindsTheOldFileOrTheNewOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	text := func(n int) string { return strings.Repeat(fmt.Sprint(n), 100_000) }
	if err := replace.File(path, []byte(text(0)), 0o600); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for n := range 10 { // at the same time, also in one process
		writers.Go(func() {
			if err := replace.File(path, []byte(text(n)), 0o640); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) != 100_000 || string(b) != text(int(b[0]-'0')) {
			t.Fatalf("%d octets, %v", len(b), err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

func TestFailureLeavesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil { // a directory cannot be replaced
		t.Fatal(err)
	}
	if err := replace.File(path, []byte("new"), 0o600); err == nil {
		t.Error("no error")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || !left[0].IsDir() {
		t.Errorf("left %v", left)
	}
}
