package attack

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
)

// stage is what the attacks of a run share.
type stage struct {
	site   Site
	pace   pace
	shared lazy[*Server]
	fleet  lazy[*Fleet]
	people atomic.Uint32 // addresses given out
	names  atomic.Uint32
	heavy  chan struct{} // of capacity heavyAtOnce
	// links is held for writing while the nodes' links are under attack.
	links sync.RWMutex
}

// heavyAtOnce: each heavy attack keeps a processor busy.
const heavyAtOnce = 2

func newStage(site Site, p pace) *stage {
	return &stage{site: site, pace: p, heavy: make(chan struct{}, heavyAtOnce)}
}

// lazy is made by the first who asks.
type lazy[T any] struct {
	once sync.Once
	v    T
	err  error
}

func (l *lazy[T]) get(make func() (T, error)) (T, error) {
	l.once.Do(func() { l.v, l.err = make() })
	return l.v, l.err
}

// server is the one that most attacks share. ctx is the run's.
func (st *stage) server(ctx context.Context) (*Server, error) {
	return st.shared.get(func() (*Server, error) { return st.site.Serve(ctx, Wish{}) })
}

func (st *stage) cluster(ctx context.Context) (*Fleet, error) {
	return st.fleet.get(func() (*Fleet, error) {
		f, err := st.site.Fleet(ctx)
		if err == nil && len(f.Nodes) < 2 {
			err = errors.New("attack: the Site's fleet has fewer than two nodes")
		}
		return f, err
	})
}

// address is another person's: the next of 127.1.0.1 … 127.254.255.255.
func (st *stage) address() netip.Addr {
	n := st.people.Add(1)
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 127<<24|(1<<16+n)%(254<<16))
	return netip.AddrFrom4(b)
}
