package maildir

import (
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"
)

// syncers bounds how many fsyncs run at once: enough for a journal to put
// them into one commit.
const syncers = 16

// worthSyncAll is the number of files from which one sync of the whole file
// system, which also writes what other programs have dirtied, is cheaper than
// a sync a file.
const worthSyncAll = 16

// syncDirs makes the entries of directories durable.
func syncDirs(paths []string) error {
	var g errgroup.Group
	g.SetLimit(syncers)
	for _, p := range paths {
		g.Go(func() error { return syncDir(p) })
	}
	return g.Wait()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func kernelVersion(release string) (major, minor int) {
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major, minor
}
