package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// lessor is a shard that counts the leases that it has given.
type lessor struct {
	storage.Shard
	given atomic.Int32
	delay time.Duration
	fail  error
}

func (l *lessor) Lease(ctx context.Context, node storage.NodeID, incarnation uint64, ttl time.Duration) ([]storage.NodeID, error) {
	time.Sleep(l.delay)
	if l.fail != nil && node != 1 {
		return nil, l.fail
	}
	dead, err := l.Shard.Lease(ctx, node, incarnation, ttl)
	l.given.Add(1)
	return dead, err
}

// newLeaseFix is a Store on two such shards.
func newLeaseFix(t *testing.T, delay time.Duration, fail error) (f *storeFix, ls [2]*lessor) {
	f = &storeFix{T: t, delivered: map[storage.UserID][]storage.Delivery{}, opt: quick(1)}
	f.opt.Deliver, f.opt.ReadTimeout = f.deliver, 2*shardWait
	for i := range ls {
		l := &lessor{Shard: NewMem(storage.ShardID(i+1), MemOptions{}), delay: delay, fail: fail}
		ls[i] = l
		f.envs = append(f.envs, ShardEnv{Open: func(testing.TB) storage.Shard { return l }})
	}
	f.open()
	t.Cleanup(f.close)
	return f, ls
}

// A node has its leases before it owes anything. One that died before the first
// of them would owe it for ever: there is nothing that could run out.
func TestNothingIsOwedWithoutALease(t *testing.T) {
	none := errors.New("no lease today")
	f, ls := newLeaseFix(t, 100*time.Millisecond, none)
	a, b := f.pairOn(0, 1)
	f.send(message(a, b, "owed"))
	for i, l := range ls {
		if l.given.Load() == 0 {
			t.Errorf("a task was made before the lease on shard %d was taken", i+1)
		}
	}
	o := f.opt
	o.Node, o.Shards = 2, f.shards
	if s, err := storage.Open(f.ctx(), o); !errors.Is(err, none) {
		t.Errorf("Open where there is no lease to be had: %v", err)
		if err == nil {
			_ = s.Close()
		}
	}
}

// A long takeover does not cost its node its own lease.
func TestTheLeaseIsKeptDuringATakeover(t *testing.T) {
	f, ls := newLeaseFix(t, 0, nil)
	a, b := f.pairOn(0, 1)
	last := f.send(message(a, b, "first"))
	f.waitHead(b, 1)
	f.waitTasks(1)
	f.ghostEntries(storage.PairKey(a, b), a, last, 2, 3)
	mem := ls[0].Shard.(*Mem)
	release := mem.Hold()
	if _, err := mem.Lease(f.ctx(), ghost, 1, 0); err != nil { // over at once
		t.Fatal(err)
	}
	begun := ls[0].given.Load() // the next one tells of the dead node
	f.wait("the lease is renewed while the takeover waits for the disk", func() bool { return ls[0].given.Load() >= begun+5 })
	release()
	f.waitHead(b, 3)
	if got := bodies(f.inbox(b)); fmt.Sprint(got) != "[first ghost 2 ghost 3]" {
		t.Errorf("inbox is %q", got)
	}
	f.waitTasks(1, ghost)
}
