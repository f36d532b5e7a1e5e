package maildir

import (
	"os"

	"golang.org/x/sys/unix"
)

// journalling lists the file systems on which one syncfs makes every file
// written before durable, and reports a failed write. Others (FUSE among
// them, where it does not reach the disk) get an fsync a file.
var journalling = map[int64]bool{
	unix.EXT4_SUPER_MAGIC:  true,
	unix.XFS_SUPER_MAGIC:   true,
	unix.BTRFS_SUPER_MAGIC: true,
	unix.F2FS_SUPER_MAGIC:  true,
	unix.TMPFS_MAGIC:       true,
}

// canSyncAll reports whether [syncAll] does what it promises for dir. The
// kernel reports failed writes through it since version 5.8.
func canSyncAll(dir string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil || !journalling[int64(fs.Type)] {
		return false
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	major, minor := kernelVersion(unix.ByteSliceToString(u.Release[:]))
	return major > 5 || major == 5 && minor >= 8
}

// syncAll makes everything that was written to the file system of dir
// durable. Its error covers what was written since dir was opened.
func syncAll(dir *os.File) error {
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir.Name(), Err: err}
	}
	return nil
}

// dropCached has what follows read from the disk, as far as the file is synced.
// Where that is not possible it is read from memory.
func dropCached(f *os.File) { unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
