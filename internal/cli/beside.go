package cli

import (
	"errors"
	"sync"

	"mailstow/backup"
	"mailstow/internal/report"
	"mailstow/maildir"
	"mailstow/migrate"
)

// beside is work on an archive that goes on while it is being filled. A nil
// one does nothing.
type beside struct {
	work func(ar *maildir.Archive, filling *migrate.Filling)
	stop func() // ends the work early

	began       bool
	ready, done chan struct{}
	ended       sync.WaitGroup

	once    sync.Once
	planned report.Planned
}

// start begins the work.
func (b *beside) start(ar *maildir.Archive) {
	if b == nil {
		return
	}
	b.began, b.ready, b.done = true, make(chan struct{}), make(chan struct{})
	f := &migrate.Filling{Ready: b.ready, Done: b.done, Coming: func() (int64, int64) { return int64(b.planned.New), b.planned.NewOctets }}
	b.ended.Go(func() { b.work(ar, f) })
}

// hear follows what the backup reports, before the archive is filled.
func (b *beside) hear(e report.Event) {
	if b == nil {
		return
	}
	switch e := e.(type) {
	case report.Planned:
		b.planned = e // before ready is closed, after which it is read
	case report.FoldersReady:
		b.once.Do(func() { close(b.ready) })
	}
}

// wait says how the backup has ended, and returns when the work has.
func (b *beside) wait(err error) {
	if b == nil {
		return
	}
	if errors.As(err, new(*backup.ArchiveError)) {
		b.stop()
	}
	close(b.done)
	b.ended.Wait()
}
