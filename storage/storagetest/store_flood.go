package storagetest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// RunFlood has two nodes append to the same users flat out for so long, each
// with shards of its own on the same databases: env's Open is called twice, so
// it is for engines that several nodes share. Every inbox is contiguous
// afterwards, has every message once, and everybody sees one order. It returns
// how many messages were appended.
func RunFlood(t *testing.T, shards int, d time.Duration, env func(t testing.TB, id storage.ShardID) ShardEnv) int {
	leaks := goleak.IgnoreCurrent()
	f := newStoreFix(t, shards, env, func(o *storage.Options) { o.RetainEvents = 1 << 30 }) // keep all of it
	other := &storeFix{T: t, envs: f.envs, opt: f.opt}
	other.opt.Node = 2
	other.open()
	var stop atomic.Bool
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	n := f.twoNodes(other.s, f.users(6), 1<<30, &stop)
	timer.Stop()
	other.close()
	f.close()
	goleak.VerifyNone(t, leaks)
	return n
}

// twoNodes has users write to each other, and to themselves, at two nodes: each
// pair up to most messages each way, or until stop. It checks what became of
// them, and returns how many there were.
func (f *storeFix) twoNodes(second *storage.Store, us []storage.UserID, most int, stop *atomic.Bool) int {
	f.Helper()
	var wg sync.WaitGroup
	counts := make(map[storage.UserID]*atomic.Int64)
	for _, u := range us {
		counts[u] = new(atomic.Int64)
	}
	for _, a := range us {
		for _, b := range us {
			// Each sender is at one node, as a device is; a conversation at both.
			node := f.s
			if a < b {
				node = second
			}
			wg.Go(func() { f.pipeline(node, a, b, 0, most, stop, counts) })
		}
	}
	wg.Wait()
	f.waitTasks(1, 2)
	order := map[storage.ConvKey][]string{}
	for _, u := range us {
		want := uint64(counts[u].Load())
		f.waitHead(u, want)
		rows := f.inboxBy(u, 1000)
		f.contiguous(u, rows)
		f.oneOrder(u, rows, order)
		if h := f.head(u); h.Seq != want {
			f.Errorf("inbox of %d ends at %d, want %d", u, h.Seq, want)
		}
	}
	sum := 0
	for _, texts := range order {
		sum += len(texts)
	}
	return sum
}
