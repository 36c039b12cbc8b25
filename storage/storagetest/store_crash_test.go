package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// Context is context.Context, for short.
type Context = context.Context

// The recipient's shard is down, then up; meanwhile the sender's node restarts.
// Sends go on, and everything arrives once.
func TestTargetDown(t *testing.T) {
	f, mems := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) {
		o.BlockStale, o.CommitTimeout = time.Hour, 100*time.Millisecond
	})
	a, b := f.pairOn(0, 1)
	f.send(message(a, b, "00"))
	f.waitHead(b, 1)
	f.waitTasks(1)
	mems[1].SetDown(fmt.Errorf("gone: %w", storage.ErrBusy))
	want := []string{"00"}
	for i := 1; i <= 30; i++ {
		body := fmt.Sprintf("%02d", i)
		f.send(message(a, b, body)) // what is known of b is young enough
		want = append(want, body)
	}
	if ts, err := mems[0].Tasks(f.ctx(), 1, nil, 10); err != nil || len(ts) != 1 || ts[0].NextRev != 2 || ts[0].ToRev != 31 {
		t.Errorf("tasks while the target is down: %+v, %v", ts, err)
	}
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	mems[1].SetDown(nil)
	f.opt.Incarnation++
	f.s = f.store(f.opt) // a new incarnation finds the old one's task
	f.waitHead(b, 31)
	f.waitTasks(1)
	for _, u := range []storage.UserID{a, b} {
		rows := f.inbox(u)
		f.contiguous(u, rows)
		f.ordered(u, rows)
		if !slices.Equal(bodies(rows), want) {
			t.Errorf("inbox of %d: %q", u, bodies(rows))
		}
	}
}

// Nobody knows whether an unknown recipient on a shard that is down blocks the
// sender: the send waits to be tried again.
func TestUnknownRecipientDown(t *testing.T) {
	f, mems := newFaultFix(t, 2, MemOptions{}, nil)
	a, b := f.pairOn(0, 1)
	mems[1].SetDown(fmt.Errorf("gone: %w", storage.ErrBusy))
	f.wantErr(message(a, b, "x"), storage.ErrUnavailable)
	f.send(message(a, a, "x"))
	mems[1].SetDown(nil)
	f.send(message(a, b, "x"))
	f.waitTasks(1)
}

// Power cuts at any moment: what was acknowledged is there, what was not is
// there once after a retry, no seq means two things.
func TestPowerCuts(t *testing.T) {
	f, mems := newFaultFix(t, 2, MemOptions{Delay: 300 * time.Microsecond}, func(o *storage.Options) {
		o.CommitTimeout = 50 * time.Millisecond
	})
	us := f.users(4)
	var all []storage.Append
	acked := map[[16]byte]storage.Appended{}
	told := map[storage.UserID]map[uint64]string{}
	for round := range 8 {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 120 {
			m := message(us[i%4], us[(i/4+i+1)%4], fmt.Sprintf("%d/%03d", round, i))
			all = append(all, m)
			wg.Add(1)
			f.s.Append(m, func(r storage.Appended, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					acked[m.SendID] = r
				}
				wg.Done()
			})
		}
		time.Sleep(time.Duration(round) * 150 * time.Microsecond)
		next := []*Mem{mems[0].Crash(), mems[1].Crash()}
		wg.Wait()
		if err := f.s.Close(); err != nil {
			t.Fatal(err)
		}
		for i, m := range mems {
			_ = m.Close()
			mems[i] = next[i]
			f.shards[i] = next[i]
		}
		f.noSeqTwice(told)
		f.opt.Incarnation++
		f.s = f.store(f.opt)
	}
	for _, m := range all {
		r := f.send(m)
		if was, ok := acked[m.SendID]; ok && (!r.Duplicate || r.Rev != was.Rev || r.Time != was.Time || r.ConvSeq != was.ConvSeq) {
			t.Errorf("acknowledged %+v, the retry says %+v", was, r)
		}
	}
	f.waitTasks(1)
	total := 0
	for _, u := range us {
		rows := f.inbox(u)
		f.contiguous(u, rows)
		seen := map[string]int{}
		for _, r := range rows {
			seen[string(r.Entry.Body)]++
		}
		for _, m := range all {
			want := 0
			if m.Conv.Has(u) {
				want = 1
			}
			if n := seen[string(m.Body)]; n != want {
				t.Errorf("user %d has %q %d times, want %d", u, m.Body, n, want)
			}
			total += want
		}
	}
	if len(acked) == 0 || len(acked) == len(all) {
		t.Errorf("%d of %d acknowledged: the cuts hit nothing", len(acked), len(all))
	}
}

// noSeqTwice checks that what was delivered before a cut has not got another
// meaning: deliveries follow durability.
func (f *storeFix) noSeqTwice(told map[storage.UserID]map[uint64]string) {
	f.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for u, ds := range f.delivered {
		if told[u] == nil {
			told[u] = map[uint64]string{}
		}
		for _, d := range ds {
			if was, ok := told[u][d.Seq]; ok && was != string(d.Entry.Body) {
				f.Errorf("seq %d of user %d was %q, now %q", d.Seq, u, was, d.Entry.Body)
			}
			told[u][d.Seq] = string(d.Entry.Body)
		}
	}
	clear(f.delivered)
}

// Two nodes on the same shards: one order, everything once.
func TestTwoNodes(t *testing.T) {
	f, _ := newFaultFix(t, 2, MemOptions{Delay: 100 * time.Microsecond}, nil)
	o := quick(2)
	second := f.store(o)
	us := f.users(4)
	var wg sync.WaitGroup
	for n, s := range []*storage.Store{f.s, second} {
		for _, a := range us {
			for _, b := range us {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for i := range 10 {
						m := message(a, b, fmt.Sprintf("%d>%d from %d: %02d", a, b, n, i))
						if _, err := f.result(start(s, m)); err != nil {
							t.Error(err)
						}
					}
				}()
			}
		}
	}
	wg.Wait()
	f.waitTasks(1, 2)
	total := uint64(2 * 10 * (2*len(us) - 1))
	for _, u := range us {
		f.waitHead(u, total)
		rows := f.inbox(u)
		f.contiguous(u, rows)
		seen := map[string]bool{}
		for _, r := range rows {
			if seen[string(r.Entry.Body)] {
				t.Errorf("twice: %q", r.Entry.Body)
			}
			seen[string(r.Entry.Body)] = true
		}
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

// Close answers what is queued, and everything after it with ErrClosed, even
// while a shard is down.
func TestClose(t *testing.T) {
	for _, down := range []bool{false, true} {
		f, mems := newFaultFix(t, 2, MemOptions{Delay: time.Millisecond}, nil)
		us := f.users(4)
		if down {
			mems[0].SetDown(fmt.Errorf("gone: %w", storage.ErrBusy))
		}
		var cs []<-chan sent
		for i := range 500 {
			cs = append(cs, start(f.s, message(us[i%4], us[i%3], "x")))
		}
		began := time.Now()
		if err := f.s.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("Close took %v", took)
		}
		for _, c := range cs {
			select {
			case r := <-c:
				if r.err != nil && !errors.Is(r.err, storage.ErrClosed) && !errors.Is(r.err, storage.ErrUnavailable) {
					t.Errorf("answered at Close: %v", r.err)
				}
			default:
				t.Fatal("Close returned before all were answered")
			}
		}
		f.wantErr(message(us[0], us[0], "late"), storage.ErrClosed)
		if _, err := f.s.Sync(f.ctx(), us[0], 0, 1, 0); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("Sync after Close: %v", err)
		}
		if err := f.s.Go(us[0].Slot(), func(Context) {}); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("Go after Close: %v", err)
		}
		mems[0].SetDown(nil)
	}
}

// Open refuses what does not belong together.
func TestOpenRefuses(t *testing.T) {
	open := func(claim bool, shards ...storage.Shard) error {
		o := quick(1)
		o.ClaimSlots, o.Shards = claim, shards
		s, err := storage.Open(t.Context(), o)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	closed := func(m *Mem) *Mem {
		t.Cleanup(func() { _ = m.Close() })
		return m
	}
	one, two, other := closed(NewMem(1, MemOptions{})), closed(NewMem(2, MemOptions{})), closed(NewMem(2, MemOptions{}))
	for _, tt := range []struct {
		name  string
		err   error
		wants bool
	}{
		{"no claim on an empty installation", open(false, one, two), false},
		{"a claim", open(true, one, two), true},
		{"again, without", open(false, two, one), true},
		{"a shard is missing", open(true, one), false},
		{"two shards with one name", open(true, two, other), false},
		{"no shards", open(true), false},
		{"another installation", open(true, other), true},
		{"shards of two installations", open(true, one, other), false},
	} {
		if (tt.err == nil) != tt.wants {
			t.Errorf("%s: %v", tt.name, tt.err)
		}
	}
}
