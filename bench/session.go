package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hermod-im/hermod/proto"
)

// sink is what a scenario does with what a session hears. All methods are
// called with the session's mutex held, at is the time since the run began.
type sink interface {
	// up: welcomed; cursor is where the inbox continues, reset whether the
	// events before it cannot be had.
	up(w *proto.Welcome, cursor uint64, reset bool)
	// down: the connection is gone; what was in flight has no answer.
	down()
	// ack answers the send with that id.
	ack(at time.Duration, id uint64, a ackView)
	// refused answers the send with that id.
	refused(at time.Duration, id uint64, f *proto.Fault)
	// event is the next event of the inbox; false: drop the connection, so
	// that the next one continues behind the cursor.
	event(at time.Duration, e eventView) bool
	// burst: all that one read brought was handed over.
	burst(at time.Duration)
	// cursor is the last event of the inbox.
	cursor() uint64
}

// session keeps one user connected: it logs in, reads, heartbeats, and comes
// back with backoff when the connection breaks. One goroutine each (run).
type session struct {
	r    *runner
	acc  *account // of the goroutine in run
	sink sink
	// readSize is the initial read buffer, in bytes.
	readSize int

	// mu guards what follows and the sink. Two sessions of a pair share it.
	mu   *sync.Mutex
	conn net.Conn // nil: not connected
	// out waits to be written; writing: a goroutine is writing, and takes what
	// is added meanwhile.
	out, spare []byte
	writing    bool
	// wroteAt and readAt are the last writes and reads; busySince is when the
	// write in progress began. Times since the run began.
	wroteAt, readAt, busySince time.Duration
	heartbeat                  time.Duration
	userID                     int64
	epoch                      uint64 // of the inbox; 0: no cursor yet
	caughtUp                   bool
	// What the server was told to have arrived; the oldest event beyond it
	// came at unackedAt, and they take unackedBytes.
	deliveryAcked uint64
	unackedBytes  int
	unackedAt     time.Duration
	window        uint64
	beat          time.Duration // heartbeat after so long without a write
	leaveAt       time.Duration // after a GoAway; 0: stay
	offset        time.Duration // server time minus local time
	lastID        uint64        // of requests on this connection
	calls         map[uint64]chan *proto.Frame
	closed        bool
	dead          error // it will not come back
	stats         sessionStats
}

// sessionStats counts what happened to a session's connections.
type sessionStats struct {
	logins, drops, heartbeats, deliveryAcks uint64
}

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = 2 * time.Second
	// writeStall ends a connection whose peer takes no bytes.
	writeStall = 15 * time.Second
	// Delivery acks go out after so many bytes of events, or so long after
	// the first (or after a quarter of the window).
	ackBytes = 32 << 10
	ackAfter = 500 * time.Millisecond
)

// run keeps the session connected until ctx ends or the server says not to
// come back.
func (s *session) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		l, err := s.connect(ctx)
		if err == nil {
			backoff = minBackoff
			s.read(l)
			s.lost()
			if s.ended() {
				return
			}
		} else {
			s.r.errorSeen(err)
			if final(err) {
				s.die(err)
				return
			}
		}
		wait := time.Duration(rand.Int64N(int64(backoff)) + 1)
		var f *proto.Fault
		if errors.As(err, &f) {
			wait = max(wait, f.RetryAfter)
		}
		backoff = min(backoff*2, maxBackoff)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// final reports whether trying again is of no use.
func final(err error) bool {
	var f *proto.Fault
	return errors.As(err, &f) && !f.Retryable
}

func (s *session) connect(ctx context.Context) (*link, error) {
	if err := s.r.logins.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer s.r.logins.Release(1)
	how := loginHow{heartbeat: s.r.heartbeat, now: time.Now}
	s.mu.Lock()
	if s.epoch != 0 {
		how.cursor = &proto.Cursor{Epoch: s.epoch, Seq: s.sink.cursor()}
	}
	s.mu.Unlock()
	l, err := s.r.accounts.login(ctx, s.r.dialer.dial, s.acc, how)
	if err != nil {
		return nil, err
	}
	if !s.welcome(l) {
		l.conn.Close()
		return nil, context.Canceled
	}
	return l, nil
}

// welcome takes over a new connection; false if the session was closed.
func (s *session) welcome(l *link) bool {
	w := l.welcome
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	at := s.r.since()
	s.conn, s.out, s.caughtUp = l.conn, s.out[:0], false
	s.wroteAt, s.readAt = at, at
	s.heartbeat = time.Duration(w.GetLimits().GetHeartbeatSeconds()) * time.Second
	// Up to a tenth early, so that a crowd that came together spreads out.
	s.beat = s.heartbeat - time.Duration(rand.Int64N(int64(s.heartbeat/10)+1))
	s.window = uint64(w.GetLimits().GetEventWindow())
	s.lastID, s.leaveAt = helloID, 0
	s.offset, s.userID = l.offset, w.GetUserId()
	s.stats.logins++
	first, cursor, reset := s.epoch == 0, s.sink.cursor(), false
	if r := w.GetReset_(); r != nil {
		cursor, s.epoch, reset = r.GetResume().GetSeq(), r.GetResume().GetEpoch(), !first
	} else if first {
		cursor, s.epoch = w.GetHead().GetSeq(), w.GetHead().GetEpoch()
	}
	s.deliveryAcked, s.unackedBytes = cursor, 0
	s.sink.up(w, cursor, reset)
	s.flush()
	return true
}

// read hands over what comes until the connection ends.
func (s *session) read(l *link) {
	buf := make([]byte, max(s.readSize, len(l.rest)))
	end := copy(buf, l.rest)
	for {
		start, err := s.serve(buf[:end])
		if err != nil {
			s.r.errorSeen(err)
			return
		}
		end = copy(buf, buf[start:end])
		if end == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
		n, err := l.conn.Read(buf[end:])
		if n == 0 && err != nil {
			return
		}
		end += n
	}
}

// errRepair ends a connection so that the next one continues at the cursor.
var errRepair = errors.New("bench: gap in the inbox, reconnecting")

// serve handles the whole frames in buf and returns how many bytes they took.
func (s *session) serve(buf []byte) (start int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.r.since()
	s.readAt = at
	for err == nil {
		var payload []byte
		var n int
		payload, n, err = proto.Next(buf[start:], proto.MaxFrameSession)
		if err != nil || n == 0 {
			break
		}
		start += n
		if !proto.IsHeartbeat(payload) {
			err = s.frame(at, payload)
		}
	}
	s.sink.burst(at)
	s.ackDelivery(at)
	s.flush()
	return start, err
}

func (s *session) frame(at time.Duration, payload []byte) error {
	v, err := viewFrame(payload)
	if err != nil {
		return err
	}
	switch v.field {
	case fieldSendAck:
		a, err := viewAck(v.body)
		if err == nil {
			s.sink.ack(at, v.id, a)
		}
		return err
	case fieldEvents:
		return s.events(at, v.body)
	}
	var f proto.Frame
	if err := proto.Decode(payload, &f); err != nil {
		return err
	}
	return s.other(at, &f)
}

func (s *session) events(at time.Duration, batch []byte) error {
	if s.unackedBytes == 0 {
		s.unackedAt = at
	}
	s.unackedBytes += len(batch)
	for len(batch) > 0 {
		num, typ, n := protowire.ConsumeTag(batch)
		if n < 0 || num != 1 || typ != protowire.BytesType {
			return errWire
		}
		body, m := protowire.ConsumeBytes(batch[n:])
		if m < 0 {
			return errWire
		}
		batch = batch[n+m:]
		e, err := viewEvent(body)
		if err != nil {
			return err
		}
		if !s.sink.event(at, e) {
			return errRepair
		}
	}
	return nil
}

// other handles the frames that are not one per message.
func (s *session) other(at time.Duration, f *proto.Frame) error {
	switch body := f.GetBody().(type) {
	case *proto.Frame_CaughtUp:
		s.caughtUp = true
		return nil
	case *proto.Frame_GoAway:
		window := time.Duration(body.GoAway.GetWindowMs()) * time.Millisecond
		s.leaveAt = at + time.Duration(rand.Int64N(int64(window)+1))
		return nil
	case *proto.Frame_Hint:
		return nil
	case *proto.Frame_Error:
		fault := proto.FromWire(body.Error)
		if f.GetId() == 0 {
			if !fault.Retryable {
				s.closeWith(fault)
			}
			return fault
		}
		if s.calls[f.GetId()] == nil {
			s.r.errorSeen(fault)
			s.sink.refused(at, f.GetId(), fault)
			return nil
		}
	}
	if c := s.calls[f.GetId()]; c != nil {
		delete(s.calls, f.GetId())
		c <- f // has room for it
	}
	return nil
}

// ackDelivery tells the server how far the inbox was taken over, as seldom as
// the specification lets a client.
func (s *session) ackDelivery(at time.Duration) {
	seq := s.sink.cursor()
	if seq <= s.deliveryAcked || s.conn == nil {
		return
	}
	if seq-s.deliveryAcked < max(1, s.window/4) && s.unackedBytes < ackBytes && at-s.unackedAt < ackAfter {
		return
	}
	s.out = appendDeliveryAck(s.out, seq)
	s.deliveryAcked, s.unackedBytes = seq, 0
	s.stats.deliveryAcks++
}

// flush writes out, with mu held on entry and return but not while it writes.
// Who finds a write going on leaves the bytes to it.
func (s *session) flush() {
	if s.writing {
		return
	}
	s.writing = true
	for len(s.out) > 0 && s.conn != nil {
		conn, buf := s.conn, s.out
		s.out, s.spare = s.spare[:0], nil
		s.busySince = s.r.since()
		s.wroteAt = s.busySince
		s.mu.Unlock()
		_, err := conn.Write(buf)
		s.mu.Lock()
		s.busySince, s.spare = 0, buf[:0]
		if err != nil {
			conn.Close() // the reader notices
			if conn == s.conn {
				break
			}
		}
	}
	s.writing = false
}

// tick is called now and then: heartbeats, late delivery acks, dead peers.
func (s *session) tick(at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return
	}
	if s.busySince != 0 && at-s.busySince > writeStall {
		s.conn.Close()
		return
	}
	if s.leaveAt != 0 && at >= s.leaveAt || s.heartbeat > 0 && at-s.readAt > s.heartbeat*3/2 {
		s.conn.Close()
		return
	}
	if s.heartbeat > 0 && at-s.wroteAt >= s.beat {
		s.out = proto.AppendHeartbeat(s.out)
		s.stats.heartbeats++
	}
	s.ackDelivery(at)
	s.sink.burst(at)
	s.flush()
}

// call sends a request and waits for its answer. Errors of the server are
// *proto.Fault; a lost connection is errDown.
func (s *session) call(ctx context.Context, f *proto.Frame) (*proto.Frame, error) {
	c := make(chan *proto.Frame, 1)
	s.mu.Lock()
	if s.conn == nil {
		s.mu.Unlock()
		return nil, errDown
	}
	id := s.newID()
	f.Id = id
	out, err := proto.AppendFrame(s.out, f)
	if err == nil {
		s.out = out
		if s.calls == nil {
			s.calls = make(map[uint64]chan *proto.Frame)
		}
		s.calls[id] = c
		s.flush()
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case answer := <-c:
		if answer == nil {
			return nil, errDown
		}
		if e := answer.GetError(); e != nil {
			return nil, proto.FromWire(e)
		}
		return answer, nil
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.calls, id)
		s.mu.Unlock()
		return nil, ctx.Err()
	}
}

// newID returns the next request id of this connection, with mu held.
func (s *session) newID() uint64 {
	s.lastID++
	return s.lastID
}

var errDown = errors.New("bench: not connected")

// lost forgets the connection.
func (s *session) lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn.Close()
	s.conn, s.out, s.caughtUp = nil, s.out[:0], false
	if !s.closed {
		s.stats.drops++
	}
	for id, c := range s.calls {
		delete(s.calls, id)
		c <- nil
	}
	s.sink.down()
}

func (s *session) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || s.dead != nil
}

// closeWith notes, with mu held, why the session will not come back.
func (s *session) closeWith(err error) {
	if s.dead == nil && !s.closed {
		s.dead = err
	}
}

func (s *session) die(err error) {
	s.mu.Lock()
	s.closeWith(err)
	s.mu.Unlock()
}

// close ends the session; run returns soon after.
func (s *session) close() {
	s.mu.Lock()
	s.closed = true
	if s.conn != nil {
		s.conn.Close()
	}
	s.mu.Unlock()
}

// ready reports whether the session is connected and caught up.
func (s *session) ready() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil && s.caughtUp, s.dead
}
