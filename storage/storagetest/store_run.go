package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// RunStore checks what storage.Store promises, on shards of one engine. env is
// called for each shard of each test, as in RunShard; the shard must have the
// given id. What needs failing shards is tested with Mem, in this package.
func RunStore(t *testing.T, env func(t testing.TB, id storage.ShardID) ShardEnv) {
	tests := []struct {
		name   string
		shards int
		run    func(f *storeFix)
	}{
		{"Order", 1, testOrder},
		{"OrderAcrossShards", 3, testOrder},
		{"Retries", 2, testRetries},
		{"SendIDs", 1, testSendIDs},
		{"Refusals", 2, testRefusals},
		{"Restart", 2, testRestart},
		{"Takeover", 2, testTakeover},
		{"RetentionByCount", 1, testRetentionByCount},
		{"RetentionByAge", 1, testRetentionByAge},
		{"Pages", 2, testPages},
		{"Marks", 2, testMarks},
		{"Update", 1, testUpdate},
		{"UpdateUndo", 1, testUpdateUndo},
		{"Devices", 1, testDevices},
		{"Names", 2, testNames},
		{"Slots", 2, testSlots},
		{"Reads", 3, testReads},
		{"TwoNodes", 2, testTwoNodes},
		{"Move", 3, testMove},
		{"MoveUnderLoad", 3, testMoveUnderLoad},
		{"Frozen", 2, testFrozen},
		{"TasksOfOldPlaces", 3, testTasksOfOldPlaces},
		{"TaskFindsItsSlot", 3, testTaskFindsItsSlot},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			f := newStoreFix(t, tt.shards, env)
			tt.run(f)
			f.close()
			goleak.VerifyNone(t, leaks)
		})
	}
}

// storeFix is a Store under test, its shards, and what it delivered.
type storeFix struct {
	*testing.T
	envs   []ShardEnv
	shards []storage.Shard
	opt    storage.Options
	s      *storage.Store

	mu        sync.Mutex
	delivered map[storage.UserID][]storage.Delivery
}

func newStoreFix(t *testing.T, n int, env func(testing.TB, storage.ShardID) ShardEnv, change ...func(*storage.Options)) *storeFix {
	f := &storeFix{T: t, delivered: map[storage.UserID][]storage.Delivery{}}
	for i := range n {
		f.envs = append(f.envs, env(t, storage.ShardID(i+1)))
	}
	f.opt = quick(1)
	f.opt.Deliver = f.deliver
	for _, c := range change {
		c(&f.opt)
	}
	f.open()
	return f
}

// quick are options that make tests fast, and patient: a disk that syncs
// nothing for some seconds is not what they are about.
func quick(node storage.NodeID) storage.Options {
	return storage.Options{
		Node: node, Incarnation: 1, ClaimSlots: true,
		LeaseTTL: 2 * time.Second, LeaseEvery: 50 * time.Millisecond,
		TaskLinger: 5 * time.Millisecond, TaskRescan: 100 * time.Millisecond, RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond,
		SweepPause: time.Millisecond, SweepEvery: 20 * time.Millisecond,
		CommitTimeout: time.Minute, ReadTimeout: time.Minute, BreakAfter: time.Minute, StallTimeout: time.Minute,
	}
}

func (f *storeFix) open() {
	f.Helper()
	f.shards = nil
	for _, e := range f.envs {
		f.shards = append(f.shards, e.Open(f))
	}
	f.s = f.store(f.opt)
}

// store opens another Store on the same shards.
func (f *storeFix) store(o storage.Options) *storage.Store {
	f.Helper()
	o.Shards = f.shards
	s, err := storage.Open(f.ctx(), o)
	if err != nil {
		f.Fatalf("Open: %v", err)
	}
	return s
}

func (f *storeFix) close() {
	f.Helper()
	if err := f.s.Close(); err != nil {
		f.Errorf("Close: %v", err)
	}
	for _, sh := range f.shards {
		if err := sh.Close(); err != nil {
			f.Errorf("closing shard %d: %v", sh.ID(), err)
		}
	}
}

func (f *storeFix) reopen() {
	f.Helper()
	f.close()
	f.opt.Incarnation++
	f.open()
}

func (f *storeFix) deliver(ds []storage.Delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range ds {
		f.delivered[d.User] = append(f.delivered[d.User], d)
	}
}

func (f *storeFix) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), shardWait)
	f.Cleanup(cancel)
	return ctx
}

// wait polls until ok.
func (f *storeFix) wait(what string, ok func() bool) {
	f.Helper()
	for end := time.Now().Add(shardWait); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.Fatalf("waited in vain: %s", what)
		}
	}
}

// userOn makes the n-th user of a shard (by index; slots are divided evenly).
func (f *storeFix) userOn(shard, n int) storage.UserID {
	f.Helper()
	from, to := shard*storage.Slots/len(f.envs), (shard+1)*storage.Slots/len(f.envs)
	u := storage.UserIDIn(storage.Slot(from+n%(to-from)), uint64(n)+1)
	f.addUser(u)
	return u
}

func (f *storeFix) addUser(u storage.UserID) {
	f.Helper()
	err := f.s.Update(f.ctx(), storage.Reads{Users: []storage.UserID{u}}, func(tx *storage.Tx) error {
		tx.PutUser(tx.User(u))
		return nil
	})
	if err != nil {
		f.Fatalf("making user %d: %v", u, err)
	}
}

// users makes n users, spread over the shards.
func (f *storeFix) users(n int) (us []storage.UserID) {
	f.Helper()
	for i := range n {
		us = append(us, f.userOn(i%len(f.envs), i))
	}
	return us
}

// pairOn returns two users whose conversation's home is on one shard, and the
// other on another.
func (f *storeFix) pairOn(home, other int) (a, b storage.UserID) {
	f.Helper()
	a = f.userOn(home, 1000)
	for n := 1001; ; n++ {
		from := other * storage.Slots / len(f.envs)
		b = storage.UserIDIn(storage.Slot(from+n%100), uint64(n))
		if storage.PairKey(a, b).Home() == a {
			f.addUser(b)
			return a, b
		}
	}
}

type sent struct {
	storage.Appended
	err error
}

// message is a message with a new send id.
func message(from, to storage.UserID, body string) storage.Append {
	k := storage.PairKey(from, to)
	if from == to {
		k = storage.SelfKey(from)
	}
	return storage.Append{
		Conv: k, Sender: from, Kind: 1, Counts: true, SendID: uuid.Must(uuid.NewV7()), Body: []byte(body),
	}
}

// start begins an append.
func start(s *storage.Store, a storage.Append) <-chan sent {
	c := make(chan sent, 2)
	s.Append(a, func(r storage.Appended, err error) { c <- sent{r, err} })
	return c
}

func (f *storeFix) try(a storage.Append) (storage.Appended, error) {
	f.Helper()
	return f.result(start(f.s, a))
}

func (f *storeFix) result(c <-chan sent) (storage.Appended, error) {
	f.Helper()
	select {
	case r := <-c:
		return r.Appended, r.err
	case <-time.After(shardWait):
		f.Fatal("an append was not answered")
		return storage.Appended{}, nil
	}
}

func (f *storeFix) send(a storage.Append) storage.Appended {
	f.Helper()
	r, err := f.try(a)
	if err != nil {
		f.Fatalf("Append: %v", err)
	}
	return r
}

// wantErr appends and expects an error.
func (f *storeFix) wantErr(a storage.Append, want error) {
	f.Helper()
	if r, err := f.try(a); !errors.Is(err, want) {
		f.Errorf("Append answered %+v, %v; want %v", r, err, want)
	}
}

// inbox reads a whole inbox by pages.
func (f *storeFix) inbox(u storage.UserID) []storage.InboxRow { return f.inboxBy(u, 100) }

func (f *storeFix) inboxBy(u storage.UserID, page int) []storage.InboxRow {
	f.Helper()
	var rows []storage.InboxRow
	after := f.head(u).Floor
	for {
		p, err := f.s.Sync(f.ctx(), u, after, page, 0)
		if err != nil {
			f.Fatalf("Sync(%d, %d): %v", u, after, err)
		}
		rows = append(rows, p.Rows...)
		if !p.More(after) {
			return rows
		}
		after = p.Rows[len(p.Rows)-1].Seq
	}
}

func (f *storeFix) head(u storage.UserID) storage.UserHead {
	f.Helper()
	hs, err := f.s.Heads(f.ctx(), []storage.UserID{u})
	if err != nil {
		f.Fatalf("Heads: %v", err)
	}
	return hs[0]
}

// waitHead waits until an inbox has n rows.
func (f *storeFix) waitHead(u storage.UserID, n uint64) {
	f.Helper()
	f.wait(fmt.Sprintf("inbox of %d reaches %d", u, n), func() bool { return f.head(u).Seq >= n })
}

// waitTasks waits until no task of the nodes is left on any shard (I9).
func (f *storeFix) waitTasks(nodes ...storage.NodeID) {
	f.Helper()
	f.wait("tasks drain to none", func() bool { return f.countTasks(nodes...) == 0 })
}

func (f *storeFix) countTasks(nodes ...storage.NodeID) (n int) {
	f.Helper()
	for _, sh := range f.shards {
		for _, node := range nodes {
			ts, err := sh.Tasks(f.ctx(), node, nil, 1<<20)
			if err != nil {
				f.Fatalf("Tasks: %v", err)
			}
			n += len(ts)
		}
	}
	return n
}

// bodies are those of an inbox, in seq order.
func bodies(rows []storage.InboxRow) (bs []string) {
	for _, r := range rows {
		bs = append(bs, string(r.Entry.Body))
	}
	return bs
}

// contiguous checks I2: seqs 1, 2, 3, … after the floor.
func (f *storeFix) contiguous(u storage.UserID, rows []storage.InboxRow) {
	f.Helper()
	h := f.head(u)
	if want := h.Seq - h.Floor; uint64(len(rows)) != want {
		f.Errorf("inbox of %d has %d rows, want %d", u, len(rows), want)
	}
	for i, r := range rows {
		if r.Seq != h.Floor+uint64(i)+1 {
			f.Errorf("inbox of %d: row %d has seq %d", u, i, r.Seq)
		}
	}
}

// ordered checks that what was delivered to u is in seq order, rows and bodies
// as in its inbox.
func (f *storeFix) ordered(u storage.UserID, rows []storage.InboxRow) {
	f.Helper()
	f.mu.Lock()
	ds := slices.Clone(f.delivered[u])
	f.mu.Unlock()
	bySeq := map[uint64]storage.InboxRow{}
	for _, r := range rows {
		bySeq[r.Seq] = r
	}
	for i, d := range ds {
		if i > 0 && d.Seq <= ds[i-1].Seq {
			f.Errorf("user %d got seq %d after %d", u, d.Seq, ds[i-1].Seq)
		}
		r, ok := bySeq[d.Seq]
		if !ok || r.Entry.Rev != d.Entry.Rev || r.Entry.Conv != d.Entry.Conv || string(r.Entry.Body) != string(d.Entry.Body) {
			f.Errorf("user %d was delivered %+v as seq %d, the inbox has %+v", u, d.Entry, d.Seq, r.Entry)
		}
	}
}
