package chat

import (
	"context"
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

// fold notes that the user's device has a conversation up to a conv_seq. s.mu
// is held.
func (s *session) fold(m mark) {
	x := s.extra()
	if x.dirty == nil {
		x.dirty = make(map[storage.ConvKey]uint64, 1)
	}
	x.dirty[m.conv] = max(x.dirty[m.conv], m.convSeq)
}

// marking says where a session is with the flusher. The flusher's lock guards
// it, not the session's.
type marking struct {
	state markState
	again bool // more came since the write began
}

type markState uint8

const (
	marksIdle    markState = iota
	marksQueued            // waits for a worker
	marksWriting           // a worker has it
	marksCooling           // was written less than MarksEvery ago
)

// markFlusher writes delivered marks, at most once per MarksEvery and session:
// the first soon, so that a person sees «delivered» at once, the next after the
// pause. One goroutine paces all sessions, and for each storage shard a few
// workers write, so that one that hangs holds up nobody else's. Where they fall
// behind, marks coalesce for longer, and nothing queues up.
type markFlusher struct {
	c       *Chat
	wake    chan struct{}
	idle    chan struct{} // closed when closing and all is written
	workers sync.WaitGroup

	mu      sync.Mutex
	lanes   map[storage.ShardID]*markLane
	cooling []cooling // due ascending
	open    int       // queued or being written
	closing bool
}

// markLane is the sessions of one shard that have something to write, and how
// many workers do so.
type markLane struct {
	queued []*session
	busy   int
}

type cooling struct {
	s   *session
	due time.Time
}

const (
	// markWorkers is how many sessions of a shard are written at once.
	markWorkers = 8
	// markBatch is the most conversations of one write.
	markBatch = 100
	// markTimeout bounds one write, marksGrace all that remain at Close.
	markTimeout = 5 * time.Second
	marksGrace  = 5 * time.Second
)

func newMarkFlusher(c *Chat) *markFlusher {
	return &markFlusher{
		c: c, wake: make(chan struct{}, 1), idle: make(chan struct{}), lanes: make(map[storage.ShardID]*markLane),
	}
}

// add queues a session that has something to write. s.mu may be held.
func (m *markFlusher) add(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.c.ctx.Err() != nil: // closed
	case s.marking.state != marksIdle:
		s.marking.again = true
	default:
		m.queue(s)
	}
}

// queue gives a session to the workers of its shard. m.mu is held.
func (m *markFlusher) queue(s *session) {
	s.marking = marking{state: marksQueued}
	m.open++
	id, _ := m.c.store.ShardOf(s.id.user.Slot()) // without an owner the write fails, and is tried again
	l := m.lanes[id]
	if l == nil {
		l = new(markLane)
		m.lanes[id] = l
	}
	l.queued = append(l.queued, s)
	if l.busy < markWorkers {
		l.busy++
		m.workers.Go(func() { m.work(l) })
	}
}

func (m *markFlusher) work(l *markLane) {
	for s := m.next(l); s != nil; s = m.next(l) {
		m.c.writeMarks(s)
		m.written(s)
	}
}

// next returns a lane's next session; nil: the worker ends.
func (m *markFlusher) next(l *markLane) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(l.queued) == 0 || m.c.ctx.Err() != nil {
		l.busy--
		return nil
	}
	s := l.queued[0]
	l.queued[0] = nil
	if l.queued = l.queued[1:]; len(l.queued) == 0 {
		l.queued = nil
	}
	s.marking = marking{state: marksWriting}
	return s
}

func (m *markFlusher) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run gives sessions to the workers again as their pause is over.
func (m *markFlusher) run() {
	defer m.c.work.Done()
	defer m.workers.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(m.due(time.Now()))
		select {
		case <-m.wake:
		case <-timer.C:
		case <-m.c.ctx.Done():
			return
		}
	}
}

// due ends the pauses that are over, and returns the time until the next one is.
func (m *markFlusher) due(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.cooling) > 0 && (m.closing || !m.cooling[0].due.After(now)) {
		s := m.cooling[0].s
		m.cooling[0].s = nil
		m.cooling = m.cooling[1:]
		again := s.marking.again
		s.marking = marking{}
		if again {
			m.queue(s)
		}
	}
	if m.closing && m.open == 0 && m.idle != nil {
		close(m.idle)
		m.idle = nil
	}
	if len(m.cooling) == 0 {
		return time.Hour
	}
	return max(m.cooling[0].due.Sub(now), time.Millisecond)
}

func (m *markFlusher) written(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
	s.marking.state = marksCooling
	m.cooling = append(m.cooling, cooling{s, time.Now().Add(m.c.opt.MarksEvery)})
	if m.closing || len(m.cooling) == 1 {
		m.poke() // the pause of run is from before
	}
}

// stop writes what waits, for marksGrace at most.
func (m *markFlusher) stop() {
	m.mu.Lock()
	idle := m.idle
	m.closing = true
	m.mu.Unlock()
	if idle == nil {
		return
	}
	m.poke()
	select {
	case <-idle:
	case <-time.After(marksGrace):
		m.c.log.Warn().Msg("delivered marks could not be written before the end; the next logins catch up")
	}
}

// spare reports whether marks wait because the user's shard has enough to do.
func (m *markFlusher) spare(user storage.UserID) bool {
	m.mu.Lock()
	closing := m.closing
	m.mu.Unlock()
	return !closing && m.c.shed(shedReceipts, user)
}

// writeMarks writes what one session has acknowledged, unless its shard is to be
// spared: then the marks coalesce until the next turn, and those of a session
// that has ended are found again at the device's next Hello.
func (c *Chat) writeMarks(s *session) {
	if c.marks.spare(s.id.user) {
		c.metrics.markSpared.Inc()
		c.marksLeft(s, nil)
		return
	}
	s.mu.Lock()
	dirty, acked := s.takeDirty(), s.flow.acked
	// An own message means no mark; its cursor is worth a write at the end only.
	idle := len(dirty) == 0 && !(s.closed && s.unstored)
	s.mu.Unlock()
	if idle {
		return
	}
	if err := c.storeMarks(c.ctx, s.id, dirty, acked); err != nil {
		c.marksFailed(s, dirty, err)
		return
	}
	s.mu.Lock()
	if s.flow.acked == acked {
		s.unstored = false
	}
	s.mu.Unlock()
}

// marksFailed keeps the marks of a session that lives for the next write.
// Those of a closed one are found again at the device's next Hello.
func (c *Chat) marksFailed(s *session, marks map[storage.ConvKey]uint64, err error) {
	c.metrics.markFailures.Inc()
	c.often.Debug().Err(err).Int64("user", int64(s.id.user)).Msg("delivered marks not written")
	c.marksLeft(s, marks)
}

// marksLeft puts marks back, and a session that lives into the queue.
func (c *Chat) marksLeft(s *session, marks map[storage.ConvKey]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for conv, seq := range marks {
		s.fold(mark{conv, seq})
	}
	c.marks.add(s)
}

// storeMarks raises the delivered marks of a user and the cursor of the device,
// then tells the other sides. The cursor goes last: it vouches for the marks. With
// it goes when the device was last seen, which a login by token does not write.
func (c *Chat) storeMarks(ctx context.Context, id member, marks map[storage.ConvKey]uint64, acked uint64) error {
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	keys := make([]storage.UserConvKey, 0, len(marks))
	for conv := range marks {
		keys = append(keys, storage.UserConvKey{User: id.user, Conv: conv})
	}
	for len(keys) > markBatch {
		if err := c.raiseMarks(ctx, id, keys[:markBatch], marks, 0); err != nil {
			return err
		}
		keys = keys[markBatch:]
	}
	return c.raiseMarks(ctx, id, keys, marks, acked)
}

func (c *Chat) raiseMarks(ctx context.Context, id member, keys []storage.UserConvKey, marks map[storage.ConvKey]uint64, acked uint64) error {
	reads := storage.Reads{UserConvs: keys}
	if acked > 0 {
		reads.DevicesOf = []storage.UserID{id.user}
	}
	var raised []storage.UserConv
	err := c.store.Update(ctx, reads, func(tx *storage.Tx) error {
		raised = raised[:0] // the plan may run again
		for _, key := range keys {
			uc := tx.UserConv(key)
			seq := min(marks[key.Conv], uc.Head)
			if !uc.Found || seq <= uc.Delivered {
				continue
			}
			uc.Delivered = seq
			tx.PutUserConv(uc)
			raised = append(raised, uc)
		}
		if acked == 0 {
			return nil
		}
		if dev := deviceOf(tx.Devices(id.user), id.device); dev != nil && acked > dev.AckedSeq {
			moved := *dev
			moved.AckedSeq, moved.LastSeen = acked, tx.Now()
			tx.PutDevice(moved)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.metrics.markWrites.Inc()
	c.hintDelivered(ctx, raised)
	return nil
}

// hintDelivered tells the senders; whoever misses it pulls the marks.
func (c *Chat) hintDelivered(ctx context.Context, raised []storage.UserConv) {
	hints := make([]router.Hint, 0, len(raised))
	for i := range raised {
		uc := &raised[i]
		frame, err := proto.AppendFrame(nil, &proto.Frame{Body: &proto.Frame_Hint{Hint: &proto.Hint{
			Body: &proto.Hint_Delivered{Delivered: &proto.DeliveredHint{
				Conversation: uc.Key.Conv[:], UserId: int64(uc.Key.User), ConvSeq: uc.Delivered,
			}},
		}}})
		if err != nil {
			c.log.Error().Err(err).Msg("a delivered hint cannot be encoded")
			continue
		}
		hints = append(hints, router.Hint{User: int64(uc.Key.Conv.Peer(uc.Key.User)), Frame: frame})
	}
	if len(hints) > 0 {
		c.router.Hint(ctx, hints)
	}
}

// catchUpEvents bounds the events that a Hello reads again for their marks: the
// newest ones, since a mark covers all before it.
const catchUpEvents = 1000

// catchUpMarks writes the marks of events that the device has by its own word
// (the cursor in its Hello), and that were not written when it left.
func (c *Chat) catchUpMarks(ctx context.Context, s *session, from, to uint64) {
	if to-from > catchUpEvents {
		from = to - catchUpEvents
	}
	marks := make(map[storage.ConvKey]uint64)
	for from < to {
		page, err := c.store.Sync(ctx, s.id.user, from, int(min(maxSyncEvents, to-from)), pageBytes)
		if err != nil || len(page.Rows) == 0 {
			return // the next Hello tries again: the cursor was not written
		}
		for i := range page.Rows {
			if m := markOf(&page.Rows[i].Entry, s.id.user); m.convSeq != 0 {
				marks[m.conv] = max(marks[m.conv], m.convSeq)
			}
		}
		from = page.Rows[len(page.Rows)-1].Seq
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for conv, seq := range marks {
		s.fold(mark{conv, seq})
	}
	if len(marks) > 0 {
		c.marks.add(s)
	}
}
