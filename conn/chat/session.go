package chat

import (
	"sync"
	"sync/atomic"

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
	slot     uint8
}

// session is a logged-in connection. An idle one is small (asserted in a test):
// what only busy sessions need hangs off pointers that are nil again later.
type session struct {
	conn *conn.Conn
	next *session // of the same user; under its shard's lock
	id   member

	// foreground decides about hints.
	foreground atomic.Bool

	mu       sync.Mutex
	closed   bool
	welcomed bool // the Welcome is in the outbox
	flow     flow // what was sent, what is acknowledged
	// pend holds events of a burst that are not in the outbox yet. Whoever
	// writes events flushes it first, so seq order holds.
	pend   *[]byte
	orders *orders // conversations whose sends wait for resume_order
	busy   *busy
	// dirty is the delivered marks that storage does not know yet; stored is
	// the acknowledged seq that it knows.
	dirty  map[storage.ConvKey]uint64
	stored uint64

	marking marking // under markFlusher.mu
}

func (s *session) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// busy is what the rate rules remember about a session that uses them.
type busy struct {
	syncSecond int64
	syncs      int
	typed      typed
}

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

// table finds the sessions of a user. It is sharded, since every delivery asks
// it; a user's sessions are a list, so that a lookup allocates nothing.
type table struct {
	shards [tableShards]tableShard
	count  atomic.Int64
}

const tableShards = 256

type tableShard struct {
	mu    sync.RWMutex
	users map[storage.UserID]*session
	_     [32]byte // shards of their own cache line
}

func newTable() *table {
	t := new(table)
	for i := range t.shards {
		t.shards[i].users = make(map[storage.UserID]*session)
	}
	return t
}

func (t *table) shard(u storage.UserID) *tableShard {
	return &t.shards[uint64(u)*0x9e3779b97f4a7c15>>56]
}

func (t *table) add(s *session) {
	sh := t.shard(s.id.user)
	sh.mu.Lock()
	s.next = sh.users[s.id.user]
	sh.users[s.id.user] = s
	sh.mu.Unlock()
	t.count.Add(1)
}

// remove reports whether s was there.
func (t *table) remove(s *session) bool {
	sh := t.shard(s.id.user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	var prev *session
	for at := sh.users[s.id.user]; at != nil; prev, at = at, at.next {
		if at != s {
			continue
		}
		switch {
		case prev != nil:
			prev.next = s.next
		case s.next != nil:
			sh.users[s.id.user] = s.next
		default:
			delete(sh.users, s.id.user)
		}
		s.next = nil
		t.count.Add(-1)
		return true
	}
	return false
}

// find appends u's sessions to dst.
func (t *table) find(u storage.UserID, dst []*session) []*session {
	sh := t.shard(u)
	sh.mu.RLock()
	for s := sh.users[u]; s != nil; s = s.next {
		dst = append(dst, s)
	}
	sh.mu.RUnlock()
	return dst
}

// has reports whether u has the connection.
func (t *table) has(u storage.UserID, connID uint64) bool {
	sh := t.shard(u)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	s := sh.users[u]
	for s != nil && s.conn.ID() != connID {
		s = s.next
	}
	return s != nil
}

// users appends the users of one shard to dst.
func (t *table) users(shard int, dst []storage.UserID) []storage.UserID {
	sh := &t.shards[shard]
	sh.mu.RLock()
	for u := range sh.users {
		dst = append(dst, u)
	}
	sh.mu.RUnlock()
	return dst
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
