package backup

import (
	"context"
	"errors"
	"sync"
	"time"

	"mailstow/internal/report"
)

// writer commits batches while the next one fills: the disk syncs what has
// arrived while the network brings more. There are at most two batches.
type writer struct {
	archive Archive
	sink    report.Sink

	mu    sync.Mutex
	batch Batch
	after []func() // to be called when batch is durable

	jobs chan job
	done chan struct{}
	stop chan struct{} // ends the watch over the batch's age

	failure struct {
		sync.Mutex
		err error // why nothing more can be written
	}
}

type job struct {
	batch Batch
	after []func()
	ended chan struct{} // closed when the batch is committed, or cannot be; nil if nobody waits
}

// newWriter starts a writer. What was handed to it is committed even when ctx
// is cancelled.
func newWriter(ctx context.Context, archive Archive, sink report.Sink) *writer {
	w := &writer{archive: archive, sink: sink, batch: archive.Begin(), jobs: make(chan job), done: make(chan struct{}), stop: make(chan struct{})}
	go w.commitAll(context.WithoutCancel(ctx))
	go w.watch()
	return w
}

func (w *writer) commitAll(ctx context.Context) {
	defer close(w.done)
	for j := range w.jobs {
		w.commit(ctx, j)
		if j.ended != nil {
			close(j.ended)
		}
	}
}

func (w *writer) commit(ctx context.Context, j job) {
	if w.failed() != nil {
		j.batch.Discard()
		return
	}
	if err := j.batch.Commit(ctx); err != nil {
		w.failure.Lock()
		w.failure.err = &ArchiveError{err}
		w.failure.Unlock()
		return
	}
	for _, f := range j.after {
		f()
	}
}

// watch commits a batch that grows old because nothing more arrives, while a
// large message is on its way or the server takes its time.
func (w *writer) watch() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
			w.mu.Lock()
			if w.batch.Full() {
				w.submit(nil)
			}
			w.mu.Unlock()
		}
	}
}

func (w *writer) failed() error {
	w.failure.Lock()
	defer w.failure.Unlock()
	return w.failure.err
}

// change calls f to make changes in the current batch. One call is made at a
// time.
func (w *writer) change(f func(Batch) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.batch.Full() {
		w.submit(nil)
	}
	if err := w.failed(); err != nil {
		return err
	}
	err := f(w.batch)
	if err != nil && !errors.Is(err, context.Canceled) {
		err = &ArchiveError{err}
	}
	return err
}

// then, called by a function that makes changes, has f called when these are
// durable, on another goroutine; calls do not overlap.
func (w *writer) then(f func()) { w.after = append(w.after, f) }

// submit hands the batch over to be committed; ended may be nil. The caller
// holds mu.
func (w *writer) submit(ended chan struct{}) {
	w.jobs <- job{w.batch, w.after, ended}
	w.batch, w.after = w.archive.Begin(), nil
}

// flush returns when everything added so far is durable, or cannot be made so.
func (w *writer) flush() error {
	ended := make(chan struct{})
	w.mu.Lock()
	w.submit(ended)
	w.mu.Unlock()
	<-ended
	return w.failed()
}

// close commits what is left and returns why something could not be written.
func (w *writer) close() error {
	close(w.stop)
	w.mu.Lock()
	w.submit(nil)
	w.mu.Unlock()
	close(w.jobs)
	<-w.done
	return w.failed()
}
