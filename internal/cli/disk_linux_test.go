package cli

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"mailstow/internal/mailtest"
)

func TestFullDiskIsTold(t *testing.T) {
	s := mailtest.Dovecot(t)
	fill(t, s, "INBOX", ugly())
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=400k"); err != nil {
		t.Skip("no small file system can be made here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	env, to := home(t, s), filepath.Join(disk, "archive")
	size := regexp.MustCompile(`\d+(\.\d+)? (KiB|B) (free|needed)`)
	for _, c := range []struct{ size, want string }{
		{"400k", `mailstow: alice@127.0.0.1: no room in ` + to + `/alice@127.0.0.1: SIZE free, SIZE needed
  do:     make room or move the archive (mv the folder, then archive = "..."); nothing is broken, the next run goes on
`},
		{"560k", `mailstow: alice@127.0.0.1: no room in ` + to + `/alice@127.0.0.1: SIZE free
  why:    WHY: no space left on device
  do:     make room or move the archive (mv the folder, then archive = "..."); nothing is broken, the next run goes on
`},
	} {
		must(t, syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size="+c.size))
		status, out, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to)
		got := regexp.MustCompile(`why:    .*: no space`).ReplaceAllString(size.ReplaceAllString(errs, "SIZE $3"), "why:    WHY: no space")
		if status != exitDisk || got != c.want {
			t.Errorf("%s: status %d\n%s%s\nwant\n%s", c.size, status, out, errs, c.want)
		}
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=40m"); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := mailstow(t, env, "verify", to); status != exitOK {
		t.Errorf("verify: status %d, %s", status, errs)
	}
	if status, _, errs := mailstow(t, env, "backup", address("imap+insecure", s.IMAP), "--to", to); status != exitOK {
		t.Errorf("next run: status %d, %s", status, errs)
	}
	if got := kept(t, filepath.Join(to, "alice@127.0.0.1", "INBOX")); !maps.Equal(got, served(t, s, "INBOX")) {
		t.Errorf("%d files", total(got))
	}
}

// Where the list of what is removed cannot be made durable, nothing is removed.
func TestNothingIsRemovedWithoutRoomForItsList(t *testing.T) {
	s, disk := mailtest.Dovecot(t), t.TempDir()
	put(t, s, "INBOX", old, `\Seen`, several("old", 30)...)
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("no small file system can be made here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	env, to := home(t, s), filepath.Join(disk, "archive")
	url := address("imap+insecure", s.IMAP)
	if status, out, errs := mailstow(t, env, "backup", url, "--to", to); status != exitOK {
		t.Fatalf("backup: status %d\n%s%s", status, out, errs)
	}
	trim := func(want int) {
		t.Helper()
		status, out, errs := mailstow(t, env, "trim", url, "--to", to, "--older-than", "1y", "--yes", "--max-delete", "100%")
		if status != want {
			t.Errorf("status %d, want %d\n%s%s", status, want, out, errs)
		}
	}
	for free := 0; free <= 24; free += 4 { // pages
		file, err := os.Create(filepath.Join(disk, "filler"))
		must(t, err)
		pages := int64(0)
		for page := make([]byte, 4096); err == nil; pages++ {
			_, err = file.Write(page)
		}
		must(t, file.Truncate(max(pages-1-int64(free), 0)*4096))
		file.Close()
		before := len(subjects(t, s, "INBOX"))
		status, out, errs := mailstow(t, env, "trim", url, "--to", to, "--older-than", "1y", "--yes", "--max-delete", "100%")
		if n := len(subjects(t, s, "INBOX")); status != exitDisk && status != exitOK || status == exitOK && n > 0 || n < before && !listedAsGone(t, to, before-n) {
			t.Errorf("%d pages free: status %d, %d of %d are left\n%s%s", free, status, n, before, out, errs)
		}
		must(t, os.Remove(file.Name()))
	}
	if n := len(subjects(t, s, "INBOX")); n > 0 {
		t.Errorf("%d are left although there was room at the end", n)
	}
	put(t, s, "INBOX", old, `\Seen`, several("again", 30)...)
	must(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	before := subjects(t, s, "INBOX")
	trim(exitDisk)
	wantSubjects(t, s, "INBOX", before)
	must(t, syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=40m"))

	// Something else stands where the lists are.
	lists := filepath.Join(to, "alice@127.0.0.1", ".mailstow", "trim")
	must(t, os.RemoveAll(lists))
	must(t, os.WriteFile(lists, nil, 0o600))
	trim(exitDisk)
	wantSubjects(t, s, "INBOX", before)
	must(t, os.Remove(lists))
	trim(exitOK)
	wantSubjects(t, s, "INBOX")
}

// listedAsGone reports whether the undo lists name so many messages.
func listedAsGone(t *testing.T, to string, n int) bool {
	t.Helper()
	lists, err := filepath.Glob(filepath.Join(to, "*", ".mailstow", "trim", "*.jsonl"))
	must(t, err)
	named := 0
	for _, p := range lists {
		b, err := os.ReadFile(p)
		must(t, err)
		named += strings.Count(string(b), `"type":"message"`)
	}
	return named >= n
}

// A config file to which an account cannot be added whole is as it was: half an
// account would stop all others.
func TestConfigFileIsAddedToAsAWhole(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=16k"); err != nil {
		t.Skip("no small file system can be made here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	path := filepath.Join(disk, "config.toml")
	must(t, appendTo(path, "archive = \"x\"\n"))
	if err := appendTo(path, strings.Repeat("[accounts.a]\n", 10_000)); err == nil {
		t.Fatal("it has room for everything")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "archive = \"x\"\n" {
		t.Errorf("%d octets, %v", len(b), err)
	}
	must(t, appendTo(path, "[accounts.a]\n"))
	if b, err := os.ReadFile(path); err != nil || string(b) != "archive = \"x\"\n[accounts.a]\n" {
		t.Errorf("%q, %v", b, err)
	}
}
