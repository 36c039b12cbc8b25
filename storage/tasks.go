package storage

import (
	"errors"
	"sync"
	"time"
)

// tasks are the deliveries to other shards that this node owes (R4). The task
// rows are the truth; what is here only says what to look at, so it may forget
// (TaskMemory) and be told twice: taskLoop reads the rows again, and the
// target skips what it has.
type tasks struct {
	s      *Store
	mu     sync.Mutex
	lanes  map[laneKey]*lane
	closed bool
}

type laneKey struct {
	home   int // index in Store.shards
	target ShardID
}

// A lane drains the tasks from one shard to another. Its goroutine lives as
// long as there is something to do. One lane per pair, so that a target that
// is down holds up nobody else.
//
// A task says where its recipient was when it was made. That only sorts it:
// entries are read where the conversation is, and delivered where the recipient
// is. A lane leaves alone what is on the move (R5), and hands tasks on that
// travelled to another shard with their conversations.
type lane struct {
	s      *Store
	home   *shard
	target ShardID

	mu    sync.Mutex
	spans map[ConvKey]*span
	order []ConvKey // what is not being worked on, oldest first
	busy  bool
}

// span is what is known of one task.
type span struct {
	next, to uint64
	working  bool
}

const (
	// laneBatch is how many tasks a lane works on at once; the committers
	// make transactions of them.
	laneBatch = 256
	// spanRevs and spanBytes bound what one task delivers in one go.
	spanRevs, spanBytes = 64, 256 << 10
	// taskPage is how many task rows are read at a time.
	taskPage = 1000
)

func (t *tasks) init(s *Store) { t.s, t.lanes = s, map[laneKey]*lane{} }

// add tells of a task that is durable at its home and this node's to deliver.
func (t *tasks) add(home *shard, task Task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	k := laneKey{home: home.idx, target: task.Key.Target}
	l := t.lanes[k]
	if l == nil {
		l = &lane{s: t.s, home: home, target: task.Key.Target, spans: map[ConvKey]*span{}}
		t.lanes[k] = l
	}
	if l.add(task) {
		t.s.loops.Add(1)
		go l.run()
	}
}

// close starts no more lanes; those that run stop by themselves.
func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
}

// open counts the tasks of a home shard, for metrics.
func (t *tasks) open(home *shard) (n float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, l := range t.lanes {
		if k.home == home.idx {
			l.mu.Lock()
			n += float64(len(l.spans))
			l.mu.Unlock()
		}
	}
	return n
}

// add reports whether the lane must be started.
func (l *lane) add(t Task) (start bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sp := l.spans[t.Key.Conv]; sp != nil {
		sp.to = max(sp.to, t.ToRev)
		if !sp.working {
			sp.next = min(sp.next, t.NextRev)
		}
		return false
	}
	if len(l.spans) >= l.s.opt.TaskMemory {
		return false // its row stays; taskLoop finds it again
	}
	l.spans[t.Key.Conv] = &span{next: t.NextRev, to: t.ToRev}
	l.order = append(l.order, t.Key.Conv)
	start = !l.busy
	l.busy = true
	return start
}

func (l *lane) run() {
	defer l.s.loops.Done()
	pause := l.s.opt.RetryMin
	for {
		jobs, over := l.take()
		if over {
			return
		}
		if len(jobs) > 0 && l.work(jobs) {
			pause = l.s.opt.RetryMin
			continue
		}
		if len(jobs) > 0 {
			l.home.metrics.taskFails.Inc()
		} else { // all of them are on the move
			pause = min(pause, slotPollMax)
		}
		sleep(l.s.closing, jitter(pause))
		pause = min(2*pause, l.s.opt.RetryMax)
	}
}

// job is one turn of a task.
type job struct {
	key     TaskKey
	next    uint64
	to      uint64
	entries []Entry
	left    Task // what the home still wants, Found false: nothing
	err     error
}

// take returns the oldest tasks that can be worked on; none and over: the lane
// has ended.
func (l *lane) take() (jobs []*job, over bool) {
	m := l.s.slots.Load()
	l.mu.Lock()
	if l.s.isClosing() || len(l.order) == 0 {
		l.busy = false
		l.mu.Unlock()
		return nil, true
	}
	var strays []Task
	left := l.order[:0]
	for _, k := range l.order {
		sp, home := l.spans[k], m.owner[k.Slot()]
		switch {
		case m.frozen[k.Slot()], m.frozen[k.Other().Slot()], len(jobs) == laneBatch:
			left = append(left, k)
		case home >= 0 && int(home) != l.home.idx:
			strays = append(strays, Task{Key: TaskKey{Conv: k, Target: l.target}, NextRev: sp.next, ToRev: sp.to})
			delete(l.spans, k)
		default:
			sp.working = true
			jobs = append(jobs, &job{key: TaskKey{Conv: k, Target: l.target}, next: sp.next, to: sp.to})
		}
	}
	clear(l.order[len(left):])
	l.order = left
	l.mu.Unlock()
	for _, t := range strays {
		l.s.tasks.add(l.s.shards[m.owner[t.Key.Conv.Slot()]], t)
	}
	return jobs, false
}

// work reads the entries at home, commits them at the target, and only when
// that is durable tells the home. It reports whether the target did its part.
func (l *lane) work(jobs []*job) (ok bool) {
	l.read(jobs)
	var wg sync.WaitGroup
	for _, j := range jobs {
		if j.err == nil && len(j.entries) > 0 {
			wg.Add(1)
			l.s.enqueue(newDeliverOp(j, wg.Done))
		}
	}
	wg.Wait()
	for _, j := range jobs {
		if j.err == nil {
			wg.Add(1)
			l.s.enqueue(newCompleteOp(l, j, wg.Done))
		}
	}
	wg.Wait()
	return l.put(jobs)
}

// read fetches what the jobs are to deliver. It is durable: whoever adds a
// task has seen its commit done.
func (l *lane) read(jobs []*job) {
	ctx, cancel := l.s.timeout()
	defer cancel()
	at := make([]int, len(jobs))
	for i := range at {
		at[i] = i
	}
	l.s.spread(ctx, false, at, func(i int) Slot { return jobs[i].key.Conv.Slot() }, func(sn Snap, at []int) (err error) {
		for _, i := range at {
			j := jobs[i]
			to := min(j.to, j.next+spanRevs-1)
			if j.entries, err = sn.Entries(j.key.Conv, j.next, to, spanRevs, spanBytes, false); err != nil {
				return err
			}
		}
		return nil
	}, func(at []int, err error) {
		for _, i := range at {
			jobs[i].err = err
		}
	})
}

// put takes jobs back: done, to go on, or to be tried again.
func (l *lane) put(jobs []*job) (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok = true
	for _, j := range jobs {
		k := j.key.Conv
		sp := l.spans[k]
		sp.working = false
		var missing *missingRevs
		switch {
		case errors.As(j.err, &missing):
			sp.next = missing.from
		case errors.Is(j.err, ErrNoUser), errors.Is(j.err, ErrInvalid), errors.Is(j.err, ErrCorrupt):
			// Trying at once would not help, and would hold up the others.
			l.s.log.Error().Err(j.err).Stringer("conversation", k).Uint64("rev", j.next).
				Msg("a task cannot be delivered; it stays, and is tried again at the next scan")
			delete(l.spans, k)
			continue
		case j.err != nil:
			ok = false
		case !j.left.Found && sp.to <= j.to:
			l.home.metrics.drained.Inc()
			delete(l.spans, k)
			continue
		default:
			sp.next = j.entriesEnd()
			if j.left.Found {
				sp.to = max(sp.to, j.left.ToRev)
			}
		}
		l.order = append(l.order, k)
	}
	return ok
}

// entriesEnd is the rev after the last one that was delivered.
func (j *job) entriesEnd() uint64 {
	if n := len(j.entries); n > 0 {
		return j.entries[n-1].Rev + 1
	}
	return j.next
}

// taskLoop takes up this node's tasks, also those of an earlier incarnation,
// at once and then every TaskRescan.
func (s *Store) taskLoop(home *shard) {
	for {
		if err := s.scanTasks(home, s.opt.Node, func(ts []Task) {
			for _, t := range ts {
				s.tasks.add(home, t)
			}
		}); err != nil && !s.isClosing() {
			s.log.Warn().Err(err).Uint32("shard", uint32(home.ID())).Msg("reading this node's tasks")
		}
		if s.rest(s.opt.TaskRescan) {
			return
		}
	}
}

// scanTasks pages through the tasks of a node. What each gets is durable (R1).
func (s *Store) scanTasks(home *shard, owner NodeID, each func([]Task)) error {
	var after *TaskKey
	for !s.isClosing() {
		ctx, cancel := s.timeout()
		ts, err := home.Tasks(ctx, owner, after, taskPage)
		if err == nil && len(ts) > 0 {
			err = home.barrier.wait(ctx, s, home)
		}
		cancel()
		if err != nil {
			return err
		}
		each(ts)
		if len(ts) < taskPage {
			return nil
		}
		after = &ts[len(ts)-1].Key
	}
	return nil
}

// rest sleeps for about d, and reports whether the store is closing.
func (s *Store) rest(d time.Duration) (closing bool) {
	sleep(s.closing, jitter(d))
	return s.isClosing()
}
