package storage

import (
	"sync"
	"sync/atomic"
	"time"
)

// tasks are the deliveries to other shards that this node owes (R4). The task
// rows are the truth; what is here only says what to look at, so it may forget
// (TaskMemory) and be told twice: taskLoop reads the rows again, and the
// target skips what it has.
//
// A delivery begins in the call that completes the commit at home, with the
// entries at hand: nothing is read, and no other goroutine woken. The home is
// told later, of many tasks at once (TaskLinger).
//
// The first design took turns: read the entries of all open tasks, commit them
// at their target, tell the home, begin again. At 500 messages a second every
// message then cost two commits and a barrier beside the two that it needs, and
// waited for other messages' turns to end.
type tasks struct {
	s     *Store
	lanes [][]*lane       // by home and target, by index in Store.shards
	at    map[ShardID]int // index of a target
	told  []chan struct{} // by home: wakes tellLoop
	// carried is how many bytes of entries the lanes have in hand.
	carried atomic.Int64
	// flying is what close waits for: deliveries under way, and what lanes run.
	flying sync.WaitGroup
}

// carryBytes is how much of what is to be delivered is kept in memory, by a
// node. What exceeds it is read again at home when its turn comes.
const carryBytes = 8 << 20

// taskPage is how many task rows are read at a time.
const taskPage = 1000

// owing is a task that a batch has raised, with what the batch has added to it.
type owing struct {
	Task
	entries []Entry
}

func (t *tasks) init(s *Store) {
	t.s, t.at = s, map[ShardID]int{}
	for i, sh := range s.shards {
		t.at[sh.ID()] = i
	}
	for _, home := range s.shards {
		var lanes []*lane
		for range s.shards {
			lanes = append(lanes, &lane{s: s, home: home, spans: map[TaskKey]*span{}})
		}
		t.lanes = append(t.lanes, lanes)
		t.told = append(t.told, make(chan struct{}, 1))
	}
}

// lane returns the lane of a task. A task says where its recipient was when it
// was made; if that shard is gone any lane will do.
func (t *tasks) lane(home *shard, target ShardID) *lane {
	at, ok := t.at[target]
	if !ok {
		at = home.idx
	}
	return t.lanes[home.idx][at]
}

// raise tells of tasks that are durable at their home and this node's to
// deliver.
func (t *tasks) raise(home *shard, ts []owing) {
	for i := range ts {
		t.lane(home, ts[i].Key.Target).add(&ts[i])
	}
	for _, l := range t.lanes[home.idx] {
		l.pump()
	}
}

// close lets nothing new begin; what is under way lands.
func (t *tasks) close() {
	for _, lanes := range t.lanes {
		for _, l := range lanes {
			l.mu.Lock()
			l.closed = true
			l.mu.Unlock()
		}
	}
}

// open counts the tasks of a home shard, for metrics.
func (t *tasks) open(home *shard) (n float64) {
	for _, l := range t.lanes[home.idx] {
		l.mu.Lock()
		n += float64(len(l.spans))
		l.mu.Unlock()
	}
	return n
}

// taskLoop takes up this node's tasks, also those of an earlier incarnation,
// at once and then every TaskRescan.
func (s *Store) taskLoop(home *shard) {
	for {
		if err := s.scanTasks(home, s.opt.Node, func(ts []Task) {
			found := make([]owing, len(ts))
			for i := range ts {
				found[i].Task = ts[i]
			}
			s.tasks.raise(home, found)
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
