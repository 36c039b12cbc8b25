package router

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// A pool of go-redis that could not dial tries once a second, and notices
	// only then that it was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// farDirectory is a directory that several nodes share: its look-ups may be
// held up or fail.
type farDirectory struct {
	*Memory
	gate chan struct{} // a look-up takes one; closed: none waits

	mu      sync.Mutex
	err     error
	asked   [][]int64
	onLoser func(int64, Slot, Ref, bool)
	again   []userSlot
}

func newFar() *farDirectory {
	return &farDirectory{Memory: NewMemory(time.Now), gate: make(chan struct{})}
}

func (d *farDirectory) Members(context.Context) ([]Member, error) { return nil, nil }

func (d *farDirectory) OnLoser(kick func(int64, Slot, Ref, bool)) { d.onLoser = kick }

func (d *farDirectory) Again(user int64, slot Slot) { d.again = append(d.again, userSlot{user, slot}) }

func (d *farDirectory) Lookup(ctx context.Context, users []int64, dst []Route) ([]Route, error) {
	select {
	case <-d.gate:
	case <-ctx.Done():
		return dst, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.asked) < 1000 {
		d.asked = append(d.asked, slices.Clone(users))
	}
	if d.err != nil {
		return dst, d.err
	}
	return d.Memory.Lookup(ctx, users, dst)
}

func (d *farDirectory) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// wire is a Peers that writes down what it gets.
type wire struct {
	mu      sync.Mutex
	calls   int
	sent    map[Run][]Forwarded
	kicks   []kick
	kicked  []Run
	discard bool
}

func (w *wire) Forward(to Run, batch []Forwarded) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if w.discard {
		return
	}
	if w.sent == nil {
		w.sent = map[Run][]Forwarded{}
	}
	for _, f := range batch {
		f.Routes = slices.Clone(f.Routes)
		w.sent[to] = append(w.sent[to], f)
	}
}

func (w *wire) Kick(to Run, at Place, newLogin bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kicked = append(w.kicked, to)
	w.kicks = append(w.kicks, kick{at.User, at.Slot, at.Conn, newLogin})
}

func (w *wire) seqs(to Run, user int64) (out []uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.sent[to] {
		if f.User == user {
			out = append(out, f.Seq)
		}
	}
	return out
}

func newFleetRouter(t testing.TB, d Directory, change func(*Options)) (*Router, *table, *wire) {
	t.Helper()
	opt := Options{Node: 1, Incarnation: 2, Directory: d, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()}
	if change != nil {
		change(&opt)
	}
	r, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	l, w := &table{has: map[int64]uint64{}}, &wire{}
	r.SetLocal(l)
	r.SetPeers(w)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, l, w
}

func place(t testing.TB, d Directory, user int64, slot Slot, ref Ref) {
	t.Helper()
	if _, err := d.Attach(context.Background(), user, slot, Entry{Ref: ref, LoginEpoch: 1}); err != nil {
		t.Fatal(err)
	}
}

var node2, node3 = Run{Node: 2, Incarnation: 5}, Run{Node: 3, Incarnation: 1}

func (r Run) conn(c uint64) Ref { return Ref{Node: r.Node, Incarnation: r.Incarnation, Conn: c} }
