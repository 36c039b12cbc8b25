package mysql

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/storage"
)

// load is senders on a Store over one database of its own, and what they were
// told.
type load struct {
	*testing.T
	db    *local.MariaDB
	shard *Shard
	s     *storage.Store
	users []storage.UserID

	mu    sync.Mutex
	sends []sent
	rows  map[storage.UserID]map[uint64][16]byte // what Deliver said of (user, seq)
	slow  time.Duration                          // the longest that a send took
}

type sent struct {
	m   storage.Append
	r   storage.Appended
	err error
}

func newLoad(t *testing.T, commitTimeout time.Duration) *load {
	l := &load{T: t, db: local.TestMariaDB(t, local.MariaDBOptions{}), rows: map[storage.UserID]map[uint64][16]byte{}}
	ctx := l.ctx()
	if err := l.db.CreateDatabase(ctx, "hermod"); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.shard, err = Open(ctx, Options{ID: 1, DSN: l.db.DSN("hermod"), Timeout: 500 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	l.s, err = storage.Open(ctx, storage.Options{
		Shards: []storage.Shard{l.shard}, Node: 1, Incarnation: 1, ClaimSlots: true, Deliver: l.deliver,
		CommitTimeout: commitTimeout, BreakAfter: 500 * time.Millisecond, StallTimeout: 2 * time.Second, RetryMax: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		u := storage.UserIDIn(storage.Slot(i*500), uint64(i+1))
		err := l.s.Update(ctx, storage.Reads{Users: []storage.UserID{u}}, func(tx *storage.Tx) error { tx.PutUser(tx.User(u)); return nil })
		if err != nil {
			t.Fatal(err)
		}
		l.users = append(l.users, u)
	}
	return l
}

func (l *load) close() {
	l.Helper()
	if err := errors.Join(l.s.Close(), l.shard.Close()); err != nil {
		l.Error(err)
	}
	l.db.Kill() // with the goroutine that watches it
}

func (l *load) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	l.Cleanup(cancel)
	return ctx
}

func (l *load) deliver(ds []storage.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range ds {
		of := l.rows[d.User]
		if of == nil {
			of = map[uint64][16]byte{}
			l.rows[d.User] = of
		}
		if was, ok := of[d.Seq]; ok && was != d.Entry.SendID {
			l.Errorf("seq %d of user %d is %x, and was %x", d.Seq, d.User, d.Entry.SendID, was)
		}
		of[d.Seq] = d.Entry.SendID
	}
}

// send sends m and waits for the answer.
func (l *load) send(m storage.Append) (storage.Appended, error) {
	answer := make(chan sent, 2)
	began := time.Now()
	l.s.Append(m, func(r storage.Appended, err error) { answer <- sent{m, r, err} })
	select {
	case a := <-answer:
		l.mu.Lock()
		l.sends, l.slow = append(l.sends, a), max(l.slow, time.Since(began))
		l.mu.Unlock()
		return a.r, a.err
	case <-time.After(patience):
		l.Error("a send was not answered")
		return storage.Appended{}, storage.ErrUnavailable
	}
}

// start begins n senders, each with a conversation at a time in flight, and
// returns what ends them.
func (l *load) start(n int) (stop func()) {
	var wg sync.WaitGroup
	var end atomic.Bool
	for i := range n {
		wg.Go(func() {
			for j := 0; !end.Load(); j++ {
				from := l.users[i%len(l.users)]
				k := storage.PairKey(from, l.users[(i+1+j%(len(l.users)-1))%len(l.users)])
				m := storage.Append{Conv: k, Sender: from, Kind: 1, Counts: true, SendID: uuid.Must(uuid.NewV7()), Body: fmt.Appendf(nil, "%d/%d", i, j)}
				if _, err := l.send(m); err != nil {
					time.Sleep(5 * time.Millisecond) // as a client would, only shorter
				}
			}
		})
	}
	return func() { end.Store(true); wg.Wait() }
}

// acked is how many sends were.
func (l *load) acked() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.sends {
		if l.sends[i].err == nil {
			n++
		}
	}
	return n
}

// more waits until n more sends were acked.
func (l *load) more(n int) {
	l.Helper()
	want := l.acked() + n
	l.until(fmt.Sprintf("%d more acks", n), func() bool { return l.acked() >= want })
}

func (l *load) until(what string, ok func() bool) {
	l.Helper()
	poll(l, 2*time.Millisecond, what, ok)
}

// check sends everything again and holds the inboxes against the answers.
func (l *load) check() {
	l.Helper()
	l.mu.Lock()
	sends := l.sends
	l.sends = nil
	l.mu.Unlock()
	want := map[storage.UserID]map[[16]byte]uint64{} // send id → rev
	for _, u := range l.users {
		want[u] = map[[16]byte]uint64{}
	}
	var wg sync.WaitGroup
	retries := make([]sent, len(sends))
	for part := range 64 {
		wg.Go(func() {
			for i := part; i < len(sends); i += 64 {
				r, err := l.send(sends[i].m)
				retries[i] = sent{sends[i].m, r, err}
			}
		})
	}
	wg.Wait()
	for i, s := range sends {
		r := retries[i]
		if r.err != nil {
			l.Fatalf("sent again: %v", r.err)
		}
		if s.err == nil && (!r.r.Duplicate || r.r.Rev != s.r.Rev || r.r.ConvSeq != s.r.ConvSeq || r.r.Time != s.r.Time) {
			l.Errorf("acknowledged %+v, the retry says %+v", s.r, r.r)
		}
		for _, u := range []storage.UserID{s.m.Sender, s.m.Conv.Peer(s.m.Sender)} {
			want[u][s.m.SendID] = r.r.Rev
		}
	}
	for _, u := range l.users {
		l.inbox(u, want[u])
	}
}

// inbox checks one: dense, each send once at the rev that was told, and no seq
// that means something else than what was delivered.
func (l *load) inbox(u storage.UserID, want map[[16]byte]uint64) {
	l.Helper()
	next, seen := uint64(1), 0
	for {
		p, err := l.s.Sync(l.ctx(), u, next-1, 200, 0)
		if err != nil {
			l.Fatalf("Sync: %v", err)
		}
		for _, r := range p.Rows {
			id := r.Entry.SendID
			if r.Seq != next {
				l.Fatalf("inbox of %d: seq %d after %d", u, r.Seq, next-1)
			}
			if rev, ok := want[id]; !ok || rev != r.Entry.Rev {
				l.Errorf("inbox of %d: seq %d is %x at rev %d, want rev %d (%v)", u, r.Seq, id, r.Entry.Rev, rev, ok)
			}
			l.mu.Lock()
			if was, ok := l.rows[u][r.Seq]; ok && was != id {
				l.Errorf("inbox of %d: seq %d is %x, and was delivered as %x", u, r.Seq, id, was)
			}
			l.mu.Unlock()
			delete(want, id)
			next, seen = next+1, seen+1
		}
		if len(p.Rows) == 0 {
			break
		}
	}
	if len(want) > 0 || seen == 0 {
		l.Errorf("inbox of %d lacks %d of %d", u, len(want), len(want)+seen)
	}
}

// A database that is killed with -9 again and again has all that was
// acknowledged, and every retry gets the first answer.
func TestKilled(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	l := newLoad(t, 50*time.Millisecond) // shorter than a restart: some sends are in doubt
	stop := l.start(24)
	for range 3 {
		l.more(400)
		l.db.Kill()
		if err := l.db.Start(l.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	l.more(400)
	stop()
	failed := len(l.sends) - l.acked()
	l.check()
	l.close()
	t.Logf("%d sends were in doubt or refused, the slowest answer took %v", failed, l.slow)
	if failed == 0 {
		t.Error("no send met a kill")
	}
	goleak.VerifyNone(t, leaks)
}

// A database that stands still: every call is answered in bounded time, with an
// error that may be tried again, and all goes on when it does.
func TestPaused(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	l := newLoad(t, 2*time.Second)
	stop := l.start(24)
	l.more(200)
	if err := l.db.Pause(); err != nil {
		t.Fatal(err)
	}
	// The signal reaches the server's threads one after the other.
	l.until("it stands still", func() bool { return l.shard.Barrier(context.Background()) != nil })
	l.calls()
	if err := l.db.Continue(); err != nil {
		t.Fatal(err)
	}
	l.more(400)
	stop()
	l.mu.Lock()
	for _, s := range l.sends {
		if s.err != nil && !errors.Is(s.err, storage.ErrUnavailable) && !errors.Is(s.err, storage.ErrBusy) {
			t.Errorf("a send got %v", s.err)
		}
	}
	if l.slow > 8*time.Second { // CommitTimeout, and the round trips around it
		t.Errorf("a send took %v", l.slow)
	}
	l.mu.Unlock()
	l.check()
	l.close()
	goleak.VerifyNone(t, leaks)
}

// calls makes every kind of call on a shard that does not answer.
func (l *load) calls() {
	l.Helper()
	u := l.users[0]
	bg := context.Background()
	var wg sync.WaitGroup
	defer wg.Wait()
	for what, call := range map[string]func() error{
		"View":    func() error { return l.shard.View(bg, nil, func(storage.Snap) error { return nil }) },
		"Barrier": func() error { return l.shard.Barrier(bg) },
		"Tasks":   func() error { _, err := l.shard.Tasks(bg, 1, nil, 1); return err },
		"Lease":   func() error { _, err := l.shard.Lease(bg, 9, 1, time.Second); return err },
		"Commit": func() error {
			done := make(chan error, 1)
			err := l.shard.Commit(bg, &storage.Locks{Users: []storage.UserID{u}},
				func(*storage.Locked) (*storage.Writes, error) { return nil, nil }, func(err error) { done <- err })
			if err != nil {
				return err
			}
			return <-done
		},
	} {
		wg.Go(func() {
			began := time.Now()
			err := call()
			if took := time.Since(began); took > 5*time.Second {
				l.Errorf("%s on a database that stands still took %v", what, took)
			}
			if !errors.Is(err, storage.ErrBusy) && !errors.Is(err, storage.ErrUnknown) {
				l.Errorf("%s on a database that stands still: %v", what, err)
			}
		})
	}
}
