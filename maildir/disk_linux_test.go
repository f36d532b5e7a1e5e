package maildir

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestFullDiskLeavesTheArchiveWhole(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=600k"); err != nil {
		t.Skip("no tmpfs can be mounted here: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	a := open(t, filepath.Join(dir, "a"))
	in := from(t, a)
	store(t, in, inbox, 1, text(1), text(2))
	b := in.Begin()
	err := add(t, b, inbox, msg(3), io.LimitReader(endless{}, 2<<20))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error = %v, want ENOSPC", err)
	}
	if err := b.Discard(); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir, "a/INBOX/*/*"); len(got) != 2 {
		t.Errorf("%d files, want 2", len(got))
	}
	if v := verify(t, a); v.Damaged() || v.Messages != 2 {
		t.Errorf("verify = %+v", v)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte("x"), len(p))), nil }
