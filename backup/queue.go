package backup

import (
	"slices"
	"sync"

	"mailstow/mailbox"
)

// task is a set of messages of one mailbox to be asked for at once.
type task struct {
	*plan
	msgs  []mailbox.Message
	tries int  // how often the connection was lost on this very message
	rests int  // how often the server was left alone for these messages
	again bool // they came in another size than announced
}

// The weight of what one line takes at a time, in octets: much while there is
// much, little towards the end, so that all lines end together.
const (
	overhead  = 4 << 10 // of a message
	minWeight = 1 << 20
	maxWeight = 64 << 20
)

func weightOf(msgs []mailbox.Message) (w int64) {
	for _, m := range msgs {
		w += max(m.Size, 0) + overhead
	}
	return w
}

// queue holds the tasks that wait for a line.
type queue struct {
	lines int // that take from it, at most

	mu     sync.Mutex
	change sync.Cond
	plans  []*plan // that have tasks
	tasks  map[*plan][]task
	busy   map[*plan]int // lines at work for it
	atWork int
	weight int64 // of what waits
	closed bool
}

func newQueue(lines int) *queue {
	q := &queue{lines: max(lines, 1), tasks: map[*plan][]task{}, busy: map[*plan]int{}}
	q.change.L = &q.mu
	return q
}

// add puts tasks of one plan into the queue, before those it has.
func (q *queue) add(p *plan, tasks ...task) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.insert(p, tasks)
}

func (q *queue) insert(p *plan, tasks []task) {
	if len(tasks) == 0 {
		return
	}
	if len(q.tasks[p]) == 0 {
		q.plans = append(q.plans, p)
	}
	for _, t := range tasks {
		q.weight += weightOf(t.msgs)
	}
	q.tasks[p] = slices.Concat(tasks, q.tasks[p])
	p.mu.Lock()
	p.tasks += len(tasks)
	p.mu.Unlock()
	q.change.Broadcast()
}

// next returns something to do, from the mailbox that the line has open if
// there is something, else from one at which no other line is. It waits while
// others may leave something; ok is false when nothing will come.
func (q *queue) next(near *plan) (t task, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.plans) == 0 && q.atWork > 0 && !q.closed {
		q.change.Wait()
	}
	if len(q.plans) == 0 || q.closed {
		return t, false
	}
	p := q.plans[0]
	switch {
	case near != nil && len(q.tasks[near]) > 0:
		p = near
	default:
		for _, other := range q.plans {
			if q.busy[other] < q.busy[p] {
				p = other
			}
		}
	}
	t = q.tasks[p][0]
	if whole, rest := q.split(t); len(rest.msgs) > 0 {
		t, q.tasks[p][0] = whole, rest
		p.mu.Lock()
		p.tasks++
		p.mu.Unlock()
	} else if q.tasks[p] = q.tasks[p][1:]; len(q.tasks[p]) == 0 {
		q.plans = slices.DeleteFunc(q.plans, func(other *plan) bool { return other == p })
	}
	q.weight -= weightOf(t.msgs)
	q.busy[p]++
	q.atWork++
	return t, true
}

// split cuts off what one line should take now.
func (q *queue) split(t task) (head, rest task) {
	limit := min(max(q.weight/int64(2*q.lines), minWeight), maxWeight)
	if weightOf(t.msgs) <= 2*limit { // two questions would cost more than they bring
		return t, task{}
	}
	var w int64
	for i, m := range t.msgs {
		if w += max(m.Size, 0) + overhead; w > limit && i > 0 {
			head, rest = t, t
			head.msgs, rest.msgs = t.msgs[:i:i], t.msgs[i:]
			return head, rest
		}
	}
	return t, task{}
}

// done takes a task back that next gave out, with the tasks that it leaves.
// It reports whether the plan has no more.
func (q *queue) done(t task, left []task) (last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.insert(t.plan, left)
	q.busy[t.plan]--
	q.atWork--
	q.change.Broadcast()
	t.plan.mu.Lock()
	defer t.plan.mu.Unlock()
	t.plan.tasks--
	return t.plan.tasks == 0
}

// drop takes a plan's tasks out of the queue and returns them.
func (q *queue) drop(p *plan) []task {
	q.mu.Lock()
	defer q.mu.Unlock()
	tasks := q.tasks[p]
	delete(q.tasks, p)
	q.plans = slices.DeleteFunc(q.plans, func(other *plan) bool { return other == p })
	for _, t := range tasks {
		q.weight -= weightOf(t.msgs)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks -= len(tasks)
	return tasks
}

// empty reports whether nothing waits.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.plans) == 0
}

// close lets nobody wait any longer.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.change.Broadcast()
}
