package backup

import (
	"context"
	"sync"

	"mailstow/internal/report"
)

// writer commits batches while the next one fills: the disk syncs what has
// arrived while the network brings more. There are at most two batches.
type writer struct {
	archive Archive
	sink    report.Sink

	batch Batch
	after []func() // to be called when batch is durable
	jobs  chan job
	done  chan struct{}

	mu  sync.Mutex
	err error // why nothing more can be written
}

type job struct {
	batch Batch
	after []func()
}

// newWriter starts a writer. What was handed to it is committed even when ctx
// is cancelled.
func newWriter(ctx context.Context, archive Archive, sink report.Sink) *writer {
	w := &writer{archive: archive, sink: sink, batch: archive.Begin(), jobs: make(chan job), done: make(chan struct{})}
	go w.commitAll(context.WithoutCancel(ctx))
	return w
}

func (w *writer) commitAll(ctx context.Context) {
	defer close(w.done)
	for j := range w.jobs {
		if w.failed() != nil {
			j.batch.Discard()
			continue
		}
		if err := j.batch.Commit(ctx); err != nil {
			w.mu.Lock()
			w.err = &ArchiveError{err}
			w.mu.Unlock()
			continue
		}
		for _, f := range j.after {
			f()
		}
	}
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// current returns the batch to add to, a new one if the last is full.
func (w *writer) current() (Batch, error) {
	if w.batch.Full() {
		w.submit()
	}
	return w.batch, w.failed()
}

// change makes changes in the current batch.
func (w *writer) change(f func(Batch) error) error {
	b, err := w.current()
	if err != nil {
		return err
	}
	if err := f(b); err != nil {
		return &ArchiveError{err}
	}
	return nil
}

// then has f called when everything added so far is durable, on another
// goroutine; calls do not overlap.
func (w *writer) then(f func()) { w.after = append(w.after, f) }

func (w *writer) submit() {
	w.jobs <- job{w.batch, w.after}
	w.batch, w.after = w.archive.Begin(), nil
}

// close commits what is left and returns why something could not be written.
func (w *writer) close() error {
	w.submit()
	close(w.jobs)
	<-w.done
	return w.failed()
}
