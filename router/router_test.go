package router

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
)

type kick struct {
	user     int64
	slot     Slot
	conn     uint64
	newLogin bool
}

// table is a Local that writes down what it gets.
type table struct {
	has    map[int64]uint64 // users and their connections
	pushed []Delivery
	hinted []Hint
	kicked []kick
	calls  int
}

func (l *table) Push(ds []Delivery) (found int) {
	l.calls++
	for i := range ds {
		if _, ok := l.has[ds[i].User]; ok {
			l.pushed = append(l.pushed, ds[i])
			found++
		}
	}
	return found
}

func (l *table) Has(user int64, conn uint64) bool { return l.has[user] == conn }

func (l *table) Hint(hs []Hint) { l.calls++; l.hinted = append(l.hinted, hs...) }
func (l *table) Kick(user int64, slot Slot, conn uint64, newLogin bool) {
	l.kicked = append(l.kicked, kick{user, slot, conn, newLogin})
}

func newRouter(t testing.TB, d Directory) (*Router, *table) {
	r, err := New(Options{Node: 1, Incarnation: 2, Directory: d, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	l := &table{}
	r.SetLocal(l)
	return r, l
}

func TestDeliverReachesSessionsHereInOneCall(t *testing.T) {
	ctx := context.Background()
	d := NewMemory(time.Now)
	r, l := newRouter(t, d)
	l.has = map[int64]uint64{1: 11, 3: 31}
	for user, conn := range l.has {
		if _, err := r.Attach(ctx, user, 1, conn, 1); err != nil {
			t.Fatal(err)
		}
	}
	// A second device of user 1: still one delivery a message.
	if _, err := r.Attach(ctx, 1, 3, 12, 2); err != nil {
		t.Fatal(err)
	}
	// User 4 is attached elsewhere, user 5 to an earlier run of this node.
	_, _ = d.Attach(ctx, 4, 1, Entry{Ref: Ref{Node: 9, Incarnation: 1, Conn: 41}, LoginEpoch: 1})
	_, _ = d.Attach(ctx, 5, 1, Entry{Ref: Ref{Node: 1, Incarnation: 1, Conn: 51}, LoginEpoch: 1})

	r.Deliver(ctx, []Delivery{{User: 1, Seq: 1}, {User: 2, Seq: 1}, {User: 1, Seq: 2}, {User: 4, Seq: 1}, {User: 5, Seq: 1}, {User: 3, Seq: 1}, {User: 1, Seq: 3}})
	var got [][2]uint64
	for _, p := range l.pushed {
		got = append(got, [2]uint64{uint64(p.User), p.Seq})
	}
	if want := [][2]uint64{{1, 1}, {1, 2}, {3, 1}, {1, 3}}; !slices.Equal(got, want) || l.calls != 1 {
		t.Fatalf("pushed %v in %d calls, want %v in one", got, l.calls, want)
	}
	if here, off := testutil.ToFloat64(r.metrics.deliveries), testutil.ToFloat64(r.metrics.offline); here != 4 || off != 3 {
		t.Errorf("%v deliveries and %v offline counted, want 4 and 3", here, off)
	}

	r.Hint(ctx, []Hint{{User: 2}, {User: 3}})
	if len(l.hinted) != 2 {
		t.Errorf("hinted %v, want both: the sessions know who is here", l.hinted)
	}
	if rs, _ := r.Online(ctx, 1); len(rs) != 2 {
		t.Errorf("user 1 is online %d times, want 2", len(rs))
	}
	must(t, r.Detach(ctx, 3, 1, 31))
	if rs, _ := r.Online(ctx, 3); len(rs) != 0 {
		t.Errorf("user 3 has left and is online: %v", rs)
	}
}

func TestAttachKicksTheLoser(t *testing.T) {
	ctx := context.Background()
	d := NewMemory(time.Now)
	r, l := newRouter(t, d)
	attach := func(conn, epoch uint64) Attached {
		a, err := r.Attach(ctx, 1, 1, conn, epoch)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	attach(10, 1)
	attach(11, 1) // the same device again
	attach(12, 2) // a newer login
	if want := []kick{{1, 1, 10, false}, {1, 1, 11, true}}; !slices.Equal(l.kicked, want) {
		t.Fatalf("kicked %+v, want %+v", l.kicked, want)
	}
	if a := attach(13, 1); !a.Lost || !a.NewLogin || len(l.kicked) != 2 {
		t.Fatalf("an old login attached: %+v, kicked %+v", a, l.kicked)
	}
	// What an earlier run of this node left behind has no connection to kick.
	_, _ = d.Attach(ctx, 2, 1, Entry{Ref: Ref{Node: 1, Incarnation: 1, Conn: 10}, LoginEpoch: 1})
	if a, err := r.Attach(ctx, 2, 1, 20, 1); err != nil || a.Lost || len(l.kicked) != 2 {
		t.Fatalf("after an earlier run: %+v %v, kicked %+v", a, err, l.kicked)
	}
}

func TestOptionsValidate(t *testing.T) {
	reg, d := prometheus.NewRegistry(), NewMemory(time.Now)
	for name, opt := range map[string]Options{
		"no node":      {Directory: d, Metrics: reg},
		"no directory": {Node: 1, Metrics: reg},
		"no metrics":   {Node: 1, Directory: d},
		"queue":        {Node: 1, Directory: d, Metrics: reg, QueueBytes: -1},
	} {
		if _, err := New(opt); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	ctx := context.Background()
	r, l := newRouter(b, NewMemory(time.Now))
	ds := make([]Delivery, 128)
	l.has = map[int64]uint64{}
	for i := range ds {
		u := int64(i%64 + 1)
		l.has[u] = uint64(u)
		_, _ = r.Attach(ctx, u, 1, uint64(u), 1)
		ds[i] = Delivery{User: u, Seq: 1}
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Deliver(ctx, ds)
		l.pushed = l.pushed[:0]
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ds)), "ns/delivery")
}
