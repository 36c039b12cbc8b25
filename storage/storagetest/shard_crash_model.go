package storagetest

import (
	"context"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"sync"

	"github.com/hermod-im/hermod/storage"
)

// crashUsers is small, so that everything is contended.
const crashUsers = 6

func crashUser(i int) storage.UserID {
	return storage.UserIDIn(storage.Slot(i*800), uint64(i)*1_000_003+1)
}

// crashModel is what the world outside was told, and what it asked for.
type crashModel struct {
	mu     sync.Mutex
	nextID uint64
	// asked holds every send, acked the results of those that were answered.
	asked map[storage.SendKey]int // body size
	acked map[storage.SendKey]crashAck
	// The newest acknowledged floors and token generations.
	floors, gens map[storage.UserID]uint64
}

type crashAck struct {
	Rev, ConvSeq uint64
	Time         int64
}

func newCrashModel() *crashModel {
	return &crashModel{
		asked: map[storage.SendKey]int{}, acked: map[storage.SendKey]crashAck{},
		floors: map[storage.UserID]uint64{}, gens: map[storage.UserID]uint64{},
	}
}

func (m *crashModel) clone() *crashModel {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &crashModel{
		nextID: m.nextID, asked: maps.Clone(m.asked), acked: maps.Clone(m.acked),
		floors: maps.Clone(m.floors), gens: maps.Clone(m.gens),
	}
}

// newSend makes up a message.
func (m *crashModel) newSend(r *rand.Rand) storage.SendKey {
	a := r.IntN(crashUsers)
	b := (a + 1 + r.IntN(crashUsers-1)) % crashUsers
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nextID++
	k := storage.SendKey{Conv: storage.PairKey(crashUser(a), crashUser(b)), Sender: crashUser(a), SendID: shardSendID(1_700_000_000_000, 0)}
	binary.BigEndian.PutUint64(k.SendID[8:], m.nextID)
	m.asked[k] = r.IntN(3000)
	return k
}

// oldSend picks a message sent before, answered or not.
func (m *crashModel) oldSend(r *rand.Rand) (storage.SendKey, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := r.IntN(len(m.asked) + 1)
	for k := range m.asked {
		if n--; n < 0 {
			return k, true
		}
	}
	return storage.SendKey{}, false
}

func (m *crashModel) size(k storage.SendKey) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[k]
}

// ack records an answer; a second one must be like the first.
func (m *crashModel) ack(k storage.SendKey, a crashAck) (first crashAck, same bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.acked[k]; ok {
		return old, old == a
	}
	m.acked[k] = a
	return a, true
}

func raise(mu *sync.Mutex, m map[storage.UserID]uint64, u storage.UserID, v uint64) {
	mu.Lock()
	defer mu.Unlock()
	m[u] = max(m[u], v)
}

// crashWorkload is a store in miniature, for one goroutine: it sends as a real
// one does.
type crashWorkload struct {
	s       storage.Shard
	told    *crashModel
	fail    func(format string, args ...any)
	pending sync.WaitGroup
}

// settle waits for its dones.
func (w *crashWorkload) settle() { w.pending.Wait() }

func (w *crashWorkload) step(r *rand.Rand) {
	switch n := r.IntN(20); {
	case n == 0:
		w.trim(crashUser(r.IntN(crashUsers)))
	case n == 1:
		w.revoke(crashUser(r.IntN(crashUsers)))
	case n == 2:
		w.settle() // a pause: the log is synced, later cuts find it at rest
	default:
		var keys []storage.SendKey
		for range 1 + r.IntN(8) {
			k := w.told.newSend(r)
			if old, ok := w.told.oldSend(r); ok && r.IntN(4) == 0 {
				k = old
			}
			keys = append(keys, k)
		}
		w.send(keys)
	}
}

// retryAll sends everything again that was ever sent.
func (w *crashWorkload) retryAll() {
	w.told.mu.Lock()
	var keys []storage.SendKey
	for k := range w.told.asked {
		keys = append(keys, k)
	}
	w.told.mu.Unlock()
	for len(keys) > 0 {
		n := min(len(keys), 100)
		w.send(keys[:n:n])
		keys = keys[n:]
	}
	w.settle()
}

func (w *crashWorkload) commit(l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func()) {
	w.pending.Add(1)
	err := w.s.Commit(context.Background(), l, plan, func(err error) {
		defer w.pending.Done()
		if err != nil {
			w.fail("done: %v", err)
			return
		}
		done()
	})
	if err != nil {
		w.pending.Done()
		w.fail("Commit: %v", err)
	}
}

func (w *crashWorkload) send(keys []storage.SendKey) {
	b := newCrashBatch(keys, w.told.size)
	w.commit(&b.locks, b.plan, func() {
		for i, k := range keys {
			if first, same := w.told.ack(k, b.acks[i]); !same {
				w.fail("retry of %v in %v: got %+v, the first time %+v", k.SendID, k.Conv, b.acks[i], first)
			}
		}
	})
}

// trim drops all but the five newest rows of an inbox.
func (w *crashWorkload) trim(u storage.UserID) {
	var floor uint64
	w.commit(&storage.Locks{Users: []storage.UserID{u}}, func(l *storage.Locked) (*storage.Writes, error) {
		h := l.Users[0]
		if h.Seq < h.Floor+5 {
			floor = h.Floor
			return nil, nil
		}
		h.Floor = h.Seq - 5
		if h.Seq%3 == 0 {
			h.Floor = h.Seq
		}
		floor = h.Floor
		return &storage.Writes{Users: []storage.UserHead{h}, Trims: []storage.Trim{{User: u, Floor: floor}}}, nil
	}, func() { raise(&w.told.mu, w.told.floors, u, floor) })
}

func (w *crashWorkload) revoke(u storage.UserID) {
	var gen uint64
	w.commit(&storage.Locks{Users: []storage.UserID{u}}, func(l *storage.Locked) (*storage.Writes, error) {
		h := l.Users[0]
		h.TokenGen++
		gen = h.TokenGen
		return &storage.Writes{Users: []storage.UserHead{h}}, nil
	}, func() { raise(&w.told.mu, w.told.gens, u, gen) })
}

// crashBatch is a transaction of several sends.
type crashBatch struct {
	keys  []storage.SendKey
	sizes []int
	locks storage.Locks
	acks  []crashAck
}

func newCrashBatch(keys []storage.SendKey, size func(storage.SendKey) int) *crashBatch {
	b := &crashBatch{keys: keys, acks: make([]crashAck, len(keys))}
	l := &b.locks
	l.Sends = keys
	for _, k := range keys {
		b.sizes = append(b.sizes, size(k))
		l.Convs = append(l.Convs, k.Conv)
		for _, u := range []storage.UserID{k.Conv.Home(), k.Conv.Other()} {
			l.Users = append(l.Users, u)
			l.UserConvs = append(l.UserConvs, storage.UserConvKey{User: u, Conv: k.Conv})
		}
	}
	return b
}

func (b *crashBatch) plan(l *storage.Locked) (*storage.Writes, error) {
	convs, users := map[storage.ConvKey]storage.ConvHead{}, map[storage.UserID]storage.UserHead{}
	ucs, sends := map[storage.UserConvKey]storage.UserConv{}, map[storage.SendKey]storage.SendRow{}
	for i, s := range l.Sends {
		if s.Found {
			b.acks[i] = crashAck{s.Rev, s.ConvSeq, s.Time}
			continue
		}
		if s, ok := sends[s.Key]; ok {
			b.acks[i] = crashAck{s.Rev, s.ConvSeq, s.Time}
			continue
		}
		c, ok := convs[s.Key.Conv]
		if !ok {
			c = l.Convs[i]
		}
		c.Generation = 7
		c.Rev, c.ConvSeq, c.LastTime = c.Rev+1, c.ConvSeq+1, max(l.Now, c.LastTime+1)
		convs[c.Conv] = c
		b.acks[i] = crashAck{c.Rev, c.ConvSeq, c.LastTime}
		s.Rev, s.ConvSeq, s.Time = c.Rev, c.ConvSeq, c.LastTime
		sends[s.Key] = s
		for j := 2 * i; j < 2*i+2; j++ {
			h, ok := users[l.Users[j].User]
			if !ok {
				h = l.Users[j]
			}
			h.Seq, h.InboxEpoch = h.Seq+1, 1
			users[h.User] = h
			uc := l.UserConvs[j]
			uc.Head, uc.HeadRev, uc.HeadTime = c.ConvSeq, c.Rev, c.LastTime
			ucs[uc.Key] = uc
		}
	}
	return b.writes(l, convs, users, ucs, sends), nil
}

// writes numbers the inbox rows in the order of the batch.
func (b *crashBatch) writes(l *storage.Locked, convs map[storage.ConvKey]storage.ConvHead, users map[storage.UserID]storage.UserHead,
	ucs map[storage.UserConvKey]storage.UserConv, sends map[storage.SendKey]storage.SendRow) *storage.Writes {
	w := &storage.Writes{}
	next := map[storage.UserID]uint64{}
	for _, h := range l.Users {
		next[h.User] = h.Seq
	}
	for i, k := range b.keys {
		s, ok := sends[k]
		if !ok {
			continue
		}
		delete(sends, k)
		w.Sends = append(w.Sends, s)
		e := storage.Entry{Conv: k.Conv, Rev: s.Rev, ConvSeq: s.ConvSeq, Time: s.Time, Sender: k.Sender, Kind: 1, SendID: k.SendID}
		for _, u := range []storage.UserID{k.Conv.Home(), k.Conv.Other()} {
			next[u]++
			w.Inbox = append(w.Inbox, storage.InboxRow{User: u, Seq: next[u], Entry: e})
		}
		e.Body = crashBody(k, b.sizes[i])
		w.Entries = append(w.Entries, e)
	}
	for _, c := range convs {
		w.Convs = append(w.Convs, c)
	}
	for _, h := range users {
		w.Users = append(w.Users, h)
	}
	for _, uc := range ucs {
		w.UserConvs = append(w.UserConvs, uc)
	}
	return w
}

// crashBody is the content of a send: the same for every retry, not compressible
// to nothing, so that logs rotate and tables are flushed.
func crashBody(k storage.SendKey, size int) []byte {
	body := make([]byte, size)
	r := rand.NewPCG(binary.BigEndian.Uint64(k.SendID[8:]), 3)
	for i := 0; i+8 <= size; i += 8 {
		binary.BigEndian.PutUint64(body[i:], r.Uint64())
	}
	return body
}
