package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// TestGrowOutOfEmbedded is what README tells an operator whose one server has
// become too small for its embedded shard: a MariaDB shard is added, and slots
// move there while the server runs and everybody writes. Those who move wait,
// the others hardly notice, and nothing is lost.
func TestGrowOutOfEmbedded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	db := local.TestMariaDB(t, local.MariaDBOptions{})
	if err := db.CreateDatabase(ctx, "hermod_2"); err != nil {
		t.Fatal(err)
	}
	p := newProcess(t)
	p.start()
	talks := newTalks(t, p.addr, 16)
	talks.begin()
	talks.more(20)

	// Now the second shard. Users come again by themselves.
	if code := p.terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	text := fmt.Sprintf("[[storage.shard]]\nid = 1\nengine = 'embedded'\n[[storage.shard]]\nid = 2\ndsn = %q\n", db.DSN("hermod_2"))
	if err := os.WriteFile(filepath.Join(p.dir, "hermod.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(ctx, t, p.dir, "shards", "init")
	p.start()
	talks.more(200) // so much to compare with

	began := time.Now()
	for _, to := range []string{"2", "1", "2"} {
		out := strings.TrimSpace(tool(ctx, t, p.dir, "slots", "move", "--frozen", "--admin", p.admin, "--to", to, talks.slots()))
		t.Log(out[strings.LastIndexByte(out, '\n')+1:])
	}
	talks.compare(began.Add(-2*time.Second), began, time.Now())
	if out := tool(ctx, t, p.dir, "slots", "status", "--admin", p.admin); strings.Contains(out, "wait") || strings.Contains(out, "left over") {
		t.Errorf("after the moves:\n%s", out)
	}

	// What moved is where it is said to be: the server goes by it when it starts.
	p.kill()
	p.start()
	talks.more(20)
	talks.end()
	checkHistory(t, talks.pool, p.addr, talks.all[0].to, talks.all[0].from, talks.all[0].sent)
}

// tool runs hermodctl in a folder, and returns what it says.
func tool(ctx context.Context, t *testing.T, dir string, args ...string) string {
	t.Helper()
	bin, err := toolBinary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("hermodctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// talks are people of whom one half writes to the other, one message at a time.
// The first half of the talks moves.
type talks struct {
	t    *testing.T
	pool *client.Pool
	all  []*talk
	stop chan struct{}
	open sync.WaitGroup
}

type talk struct {
	from, to *person
	sent     int

	mu    sync.Mutex
	waits []wait
}

// wait is how long the acknowledgement of a message took.
type wait struct {
	sent time.Time
	took time.Duration
}

func newTalks(t *testing.T, addr string, n int) *talks {
	ts := &talks{t: t, pool: client.NewPool(), stop: make(chan struct{})}
	for i := range n {
		ts.all = append(ts.all, &talk{
			from: newPerson(t, ts.pool, addr, fmt.Sprintf("from%d", i), proto.DeviceSlot_DEVICE_SLOT_PHONE, true),
			to:   newPerson(t, ts.pool, addr, fmt.Sprintf("to%d", i), proto.DeviceSlot_DEVICE_SLOT_PHONE, true),
		})
	}
	return ts
}

func (ts *talks) begin() {
	for _, k := range ts.all {
		ts.open.Go(func() { k.run(ts.t, ts.stop) })
	}
}

func (k *talk) run(t *testing.T, stop <-chan struct{}) {
	answer := make(chan error, 1)
	for {
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
		id, err := k.from.c.NewSendID()
		if err != nil {
			t.Errorf("send id: %v", err)
			return
		}
		began := time.Now()
		err = k.from.c.SendAsync(id, client.User(k.to.c.UserID()), textContent(strconv.Itoa(k.sent)), func(_ client.Ack, err error) { answer <- err })
		if err == nil {
			err = <-answer
		}
		if err != nil {
			t.Errorf("%s, message %d: %v", k.from.c.Name(), k.sent, err)
			return
		}
		k.sent++
		k.mu.Lock()
		k.waits = append(k.waits, wait{began, time.Since(began)})
		k.mu.Unlock()
	}
}

// more waits until each talk has had n more messages.
func (ts *talks) more(n int) {
	ts.t.Helper()
	want := make([]int, len(ts.all))
	for i, k := range ts.all {
		want[i] = len(k.to.received()) + n
	}
	for i, k := range ts.all {
		eventually(ts.t, time.Minute, k.to.c.Name()+" gets more messages", func() bool { return len(k.to.received()) >= want[i] })
	}
}

// end stops the talks, and looks for every message that was acknowledged.
func (ts *talks) end() {
	ts.t.Helper()
	close(ts.stop)
	ts.open.Wait()
	for _, k := range ts.all {
		who := k.to.c.Name()
		eventually(ts.t, time.Minute, who+" has all messages", func() bool { return len(k.to.received()) >= k.sent })
		checkOrder(ts.t, who, k.to.received(), k.sent)
		checkContiguous(ts.t, who, k.to)
	}
}

// slots are those of everybody who moves, as hermodctl takes them.
func (ts *talks) slots() string {
	var out []string
	for _, k := range ts.all[:len(ts.all)/2] {
		out = append(out, fmt.Sprint(k.from.c.UserID()>>51), fmt.Sprint(k.to.c.UserID()>>51))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ",")
}

// moveSlack is for a machine that does other things, too.
const moveSlack = 50 * time.Millisecond

// compare holds how long those who stay had to wait between began and ended
// against how long between before and began.
func (ts *talks) compare(before, began, ended time.Time) {
	ts.t.Helper()
	quiet, busy := ts.took(before, began), ts.took(began, ended)
	if len(quiet) < 200 || len(busy) < 200 {
		ts.t.Errorf("%d and %d messages are too few to tell", len(quiet), len(busy))
		return
	}
	rank := func(ds []time.Duration, percent int) time.Duration {
		return ds[len(ds)*percent/100].Round(10 * time.Microsecond)
	}
	was, is := rank(quiet, 99), rank(busy, 99)
	ts.t.Logf("p50 and p99 of those who stay: %v and %v before, %v and %v for the %v of the moves",
		rank(quiet, 50), was, rank(busy, 50), is, ended.Sub(began).Round(time.Millisecond))
	if is > 2*was+moveSlack {
		ts.t.Errorf("the p99 of those who stay went from %v to %v", was, is)
	}
}

func (ts *talks) took(from, to time.Time) (out []time.Duration) {
	for _, k := range ts.all[len(ts.all)/2:] {
		k.mu.Lock()
		for _, w := range k.waits {
			if w.sent.After(from) && w.sent.Before(to) {
				out = append(out, w.took)
			}
		}
		k.mu.Unlock()
	}
	slices.Sort(out)
	return out
}
