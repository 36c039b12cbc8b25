package chat

import (
	"sync"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// member is who a session is for as long as it lives: what is kept of an
// identity. (The rest of it, 200 bytes, is needed for the Welcome only; there
// may be a million idle sessions.)
type member struct {
	user       storage.UserID
	device     [16]byte
	loginEpoch uint64
	// tokenGen is the generation that was checked last; under session.mu.
	tokenGen uint64
}

// session is a logged-in connection. An idle one is small (asserted in a test):
// what only busy sessions need hangs off pointers that are nil again later.
type session struct {
	conn *conn.Conn
	next *session // in the table; under its shard's lock
	id   member

	mu   sync.Mutex
	flow flow // what was sent, what is acknowledged
	// pend holds events of a burst that are not in the outbox yet. Whoever
	// writes events flushes it first, so seq order holds.
	pend *[]byte
	// more is what few sessions need at a time; nil when that is nothing.
	more *more

	closed     bool
	welcomed   bool // the Welcome is in the outbox
	foreground bool // the app is in front: hints are of use
	// unstored: storage does not know yet that flow.acked is acknowledged.
	unstored bool

	slot    uint8   // of the device; never changes
	marking marking // under markFlusher.mu
}

func (s *session) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// more is under session.mu.
type more struct {
	// held is conversations whose sends wait for resume_order.
	held map[storage.ConvKey]hold
	// dirty is the delivered marks that storage does not know yet.
	dirty map[storage.ConvKey]uint64
	busy  *busy
}

// busy is what the rate rules remember about a session that uses them.
type busy struct {
	syncSecond int64
	syncs      int
	typed      typed
}

// extra returns s.more, made if there is none. s.mu is held.
func (s *session) extra() *more {
	if s.more == nil {
		s.more = new(more)
	}
	return s.more
}

// tidy forgets what is empty. s.mu is held.
func (s *session) tidy() {
	if m := s.more; m != nil && m.held == nil && m.dirty == nil && m.busy == nil {
		s.more = nil
	}
}

// rates returns what the rate rules remember, empty at first. s.mu is held.
func (s *session) rates() *busy {
	m := s.extra()
	if m.busy == nil {
		m.busy = new(busy)
	}
	return m.busy
}

// takeDirty returns the delivered marks that storage does not know yet, and
// leaves none. s.mu is held.
func (s *session) takeDirty() map[storage.ConvKey]uint64 {
	if s.more == nil {
		return nil
	}
	dirty := s.more.dirty
	s.more.dirty = nil
	s.tidy()
	return dirty
}

// isDirty reports whether there are such marks. s.mu is held.
func (s *session) isDirty() bool { return s.more != nil && s.more.dirty != nil }

// tokenGen returns the token generation that the session was checked against.
func (s *session) tokenGen() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id.tokenGen
}

// setTokenGen notes that the session's login holds at generation gen.
func (s *session) setTokenGen(gen uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id.tokenGen = max(s.id.tokenGen, gen)
}

// Sessions is how many sessions this node has now.
func (c *Chat) Sessions() int { return int(c.table.count.Load()) }

// sessionsOf returns the sessions that u has on this node now.
func (c *Chat) sessionsOf(u storage.UserID) []*session {
	return c.table.find(u, nil)
}

// closeSession ends a session with a fault that the client gets to see. It may
// be called with any lock but session.mu and table locks free, and repeatedly.
func (c *Chat) closeSession(s *session, fault *proto.Fault) {
	s.conn.Close(reasonOf(fault), fault)
}

func reasonOf(fault *proto.Fault) conn.Reason {
	switch fault.Code {
	case proto.ErrorCode_ERROR_CODE_KICKED:
		return conn.ReasonKicked
	case proto.ErrorCode_ERROR_CODE_REPLACED:
		return conn.ReasonReplaced
	case proto.ErrorCode_ERROR_CODE_REVOKED:
		return conn.ReasonRevoked
	case proto.ErrorCode_ERROR_CODE_RATE_LIMITED:
		return conn.ReasonRateLimited
	case proto.ErrorCode_ERROR_CODE_SLOW_CONSUMER:
		return conn.ReasonSlowConsumer
	}
	if fault.Code < proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED {
		return conn.ReasonProtocol
	}
	return conn.ReasonInternal
}
