package backup

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"mailstow/mailbox"
)

// stagers write small messages into the archive while the line brings the
// next ones. They belong to one Fetch.
type stagers struct {
	group errgroup.Group
	store func(mailbox.Message, io.Reader) (done bool, err error)

	mu      sync.Mutex
	settled map[mailbox.ID]bool // about which nothing more is to be done
	err     error               // the first one
}

// maxStagers is how many messages of one Fetch are written at the same time.
const maxStagers = 2

// small messages wait in memory until they are written.
const small = 64 << 10

var buffers = sync.Pool{New: func() any { return new([small]byte) }}

func newStagers(store func(mailbox.Message, io.Reader) (bool, error)) *stagers {
	s := &stagers{store: store, settled: map[mailbox.ID]bool{}}
	s.group.SetLimit(maxStagers)
	return s
}

// take stores a message, or sees to it that it will be. It returns why one
// could not be.
func (s *stagers) take(m mailbox.Message, content *bounded) error {
	b := buffers.Get().(*[small]byte)
	n, err := io.ReadFull(content, b[:])
	switch {
	case content.err != nil:
		buffers.Put(b)
		return content.err
	case err == nil: // there may be more
		defer buffers.Put(b)
		err := s.settle(m, io.MultiReader(bytes.NewReader(b[:n]), content))
		return cmp.Or(content.err, err)
	}
	s.group.Go(func() error {
		defer buffers.Put(b)
		return s.settle(m, bytes.NewReader(b[:n]))
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *stagers) settle(m mailbox.Message, content io.Reader) error {
	done, err := s.store(m, content)
	s.mu.Lock()
	defer s.mu.Unlock()
	if done {
		s.settled[m.ID] = true
	}
	s.err = cmp.Or(s.err, err)
	return err
}

// wait returns when everything that was taken is stored, or could not be.
func (s *stagers) wait() error { return s.group.Wait() }

// fetchSome fetches messages and returns those that are still to be fetched.
// An error of the archive comes before those of the line.
func (r *run) fetchSome(ctx context.Context, src Source, p *plan, msgs []mailbox.Message) (left []mailbox.Message, err error) {
	s := newStagers(func(m mailbox.Message, content io.Reader) (bool, error) {
		done, err := r.store(ctx, p, src.Protocol(), m, content)
		if done {
			r.crew.arrived()
		}
		return done, err
	})
	err = src.Fetch(ctx, p.Mailbox, msgs, func(m mailbox.Message, _ int64, content io.Reader) error {
		return s.take(m, &bounded{r: content, left: bound(m.Size), moving: r.crew.moving})
	})
	if failed := s.wait(); failed != nil {
		err = failed
	}
	for _, m := range msgs {
		if !s.settled[m.ID] {
			left = append(left, m)
		}
	}
	return left, err
}
