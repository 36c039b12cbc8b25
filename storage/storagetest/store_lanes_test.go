package storagetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hermod-im/hermod/storage"
)

// counted returns the sum of a Store's counter over all shards.
func counted(t *testing.T, reg *prometheus.Registry, name string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "hermod_storage_"+name {
			for _, m := range f.Metric {
				n += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
			return n
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// A delivery to another shard takes what the commit at home has at hand, and a
// talk that goes on tells its home once it has ended: two commits a message.
func TestDeliveryCostsOneCommit(t *testing.T) {
	reg := prometheus.NewRegistry()
	f, mems := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) {
		o.Metrics, o.TaskLinger, o.TaskRescan, o.SweepPause = reg, 200*time.Millisecond, time.Hour, time.Hour
	})
	a, b := f.pairOn(0, 1)
	dels := 0 // by the shard's own goroutines, one at a time
	mems[0].SetFault(func(_ int, w *storage.Writes) Fault {
		dels += len(w.DelTasks)
		return Fault{}
	})
	before := mems[1].Commits()
	const n = 50
	for i := range n {
		f.send(message(a, b, fmt.Sprint(i)))
		f.waitHead(b, uint64(i+1))
	}
	f.waitTasks(1)
	mems[0].SetFault(nil)
	if got := mems[1].Commits() - before; got > n+n/10 {
		t.Errorf("%d commits for %d deliveries", got, n)
	}
	if dels > n/5 {
		t.Errorf("the home was told %d times of %d messages", dels, n)
	}
	if got := counted(t, reg, "task_reads_total"); got != 0 {
		t.Errorf("%v deliveries read what was at hand", got)
	}
	f.wait("nothing is kept", func() bool {
		return counted(t, reg, "tasks_open") == 0 && counted(t, reg, "task_bytes") == 0
	})
	f.contiguous(b, f.inbox(b))
}

// What waits for a shard that is down is bounded in bytes; the rest is read
// again when the shard is back. Nothing is lost, and order holds.
func TestDeliveriesInHandAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	f, mems := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) { o.Metrics = reg })
	a, b := f.pairOn(0, 1)
	c, d := f.userOn(0, 1), f.userOn(1, 1)
	for storage.PairKey(c, d).Home() != c {
		c = f.userOn(0, int(c&0xffff)+1)
	}
	for _, u := range []storage.UserID{b, d} { // asks the other shard, and remembers
		f.send(message(map[storage.UserID]storage.UserID{b: a, d: c}[u], u, "0"))
		f.waitHead(u, 1)
	}
	mems[1].SetDown(fmt.Errorf("gone: %w", storage.ErrBusy))
	const n = 400
	body := strings.Repeat("x", 32<<10)
	for i := range n {
		f.send(message(a, b, fmt.Sprintf("%03d%s", i, body)))
		f.send(message(c, d, fmt.Sprintf("%03d%s", i, body)))
		if got := counted(t, reg, "task_bytes"); got > 8<<20 {
			t.Fatalf("%v bytes in hand", got)
		}
	}
	mems[1].SetDown(nil)
	for _, u := range []storage.UserID{b, d} {
		f.waitHead(u, n+1)
		rows := f.inbox(u)
		f.contiguous(u, rows)
		f.ordered(u, rows)
		for i, r := range rows[1:] {
			if want := fmt.Sprintf("%03d%s", i, body); !bytes.Equal(r.Entry.Body, []byte(want)) {
				t.Fatalf("row %d of %d is not message %d", r.Seq, u, i)
			}
		}
	}
	if counted(t, reg, "task_reads_total") == 0 {
		t.Error("nothing was read again: the test shows nothing")
	}
	f.waitTasks(1)
	f.wait("nothing is kept", func() bool { return counted(t, reg, "task_bytes") == 0 })
}

// A task that is done but whose row lingers at one node holds up nobody: what
// another node adds to the conversation is that node's to deliver, at once.
func TestLingeringTaskHoldsUpNobody(t *testing.T) {
	f, _ := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) { o.TaskLinger, o.TaskRescan = time.Hour, time.Hour })
	a, b := f.pairOn(0, 1)
	o := f.opt
	o.Node = 2
	second := f.store(o)
	want := []string{}
	for i := range 20 { // in turns, as two people talk at two nodes
		node, m := f.s, message(a, b, fmt.Sprint(i))
		if i%2 == 1 {
			node, m = second, message(b, a, fmt.Sprint(i))
		}
		if _, err := f.result(start(node, m)); err != nil {
			t.Fatal(err)
		}
		f.waitHead(b, uint64(i+1))
		want = append(want, fmt.Sprint(i))
	}
	if n := f.countTasks(1, 2); n != 1 {
		t.Errorf("%d tasks linger, want the one", n)
	}
	if got := bodies(f.inbox(b)); !slices.Equal(got, want) {
		t.Errorf("inbox is %q", got)
	}
	// Closing leaves nothing behind.
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if n := f.countTasks(2); n != 0 {
		t.Errorf("%d tasks of a node that was closed", n)
	}
}

// Entries that come before those at hand are read at home: another node has
// committed them, and died before it delivered them.
func TestDeliveryFindsWhatIsMissing(t *testing.T) {
	reg := prometheus.NewRegistry()
	f, _ := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) { o.Metrics, o.TaskRescan = reg, time.Hour })
	a, b := f.pairOn(0, 1)
	last := f.send(message(a, b, "1"))
	f.waitHead(b, 1)
	f.waitTasks(1)
	f.ghostEntries(storage.PairKey(a, b), a, last, 2, 200)
	f.send(message(a, b, "201"))
	f.waitHead(b, 201)
	rows := f.inbox(b)
	f.contiguous(b, rows)
	for i, r := range rows {
		if r.Entry.Rev != uint64(i+1) {
			t.Fatalf("row %d is rev %d", i+1, r.Entry.Rev)
		}
	}
	f.waitTasks(1, ghost)
	if got := counted(t, reg, "task_reads_total"); got < 200/64 || got > 10 {
		t.Errorf("%v reads for 199 entries", got)
	}
}
