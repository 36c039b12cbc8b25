package chat

import (
	"sync"
	"sync/atomic"

	"github.com/hermod-im/hermod/storage"
)

// table finds the sessions of a user. It is sharded, since every delivery asks
// it. Each shard is a hash table chained through the sessions themselves: 8 to
// 16 bytes for each, where a map from user to session took 20 to 40, and a
// lookup allocates nothing.
type table struct {
	shards [tableShards]tableShard
	count  atomic.Int64
}

const (
	tableShards = 256
	// minBuckets is what a shard starts with; a power of two.
	minBuckets = 8
)

type tableShard struct {
	mu      sync.RWMutex
	buckets []*session // a power of two; no fewer than there are sessions
	count   int
	_       [8]byte // shards of their own cache line
}

func newTable() *table {
	t := new(table)
	for i := range t.shards {
		t.shards[i].buckets = make([]*session, minBuckets)
	}
	return t
}

func userHash(u storage.UserID) uint64 { return uint64(u) * 0x9e3779b97f4a7c15 }

// The top 8 bits of the hash choose the shard, those below the bucket.
func (t *table) shard(u storage.UserID) *tableShard { return &t.shards[userHash(u)>>56] }

func (sh *tableShard) bucket(u storage.UserID) **session {
	return &sh.buckets[userHash(u)>>24&uint64(len(sh.buckets)-1)]
}

func (t *table) add(s *session) {
	sh := t.shard(s.id.user)
	sh.mu.Lock()
	if sh.count++; sh.count > len(sh.buckets) {
		sh.grow()
	}
	sh.push(s)
	sh.mu.Unlock()
	t.count.Add(1)
}

func (sh *tableShard) push(s *session) {
	head := sh.bucket(s.id.user)
	s.next, *head = *head, s
}

// grow doubles the buckets. A shard has some thousand sessions of a million, so
// nobody waits long.
func (sh *tableShard) grow() {
	old := sh.buckets
	sh.buckets = make([]*session, 2*len(old))
	for _, s := range old {
		for s != nil {
			next := s.next
			sh.push(s)
			s = next
		}
	}
}

// remove reports whether s was there.
func (t *table) remove(s *session) bool {
	sh := t.shard(s.id.user)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for at := sh.bucket(s.id.user); *at != nil; at = &(*at).next {
		if *at == s {
			*at, s.next = s.next, nil
			sh.count--
			t.count.Add(-1)
			return true
		}
	}
	return false
}

// find appends u's sessions to dst.
func (t *table) find(u storage.UserID, dst []*session) []*session {
	sh := t.shard(u)
	sh.mu.RLock()
	for s := *sh.bucket(u); s != nil; s = s.next {
		if s.id.user == u {
			dst = append(dst, s)
		}
	}
	sh.mu.RUnlock()
	return dst
}

// has reports whether u has the connection.
func (t *table) has(u storage.UserID, connID uint64) bool {
	sh := t.shard(u)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	s := *sh.bucket(u)
	for s != nil && (s.id.user != u || s.conn.ID() != connID) {
		s = s.next
	}
	return s != nil
}

// users appends the users of one shard to dst, each once.
func (t *table) users(shard int, dst []storage.UserID) []storage.UserID {
	sh := &t.shards[shard]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	for _, head := range sh.buckets {
		for s := head; s != nil; s = s.next {
			first := head
			for first.id.user != s.id.user {
				first = first.next
			}
			if first == s {
				dst = append(dst, s.id.user)
			}
		}
	}
	return dst
}
