package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// lateShard, once armed, leaves the outcome of one commit open and refuses the
// next.
type lateShard struct {
	storage.Shard
	mu      sync.Mutex
	armed   bool
	open    func(error) // done of the commit that is left open
	refused bool
}

func (s *lateShard) Commit(ctx context.Context, l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.armed && s.open == nil:
		s.open = done
		return nil
	case s.armed && !s.refused:
		s.refused = true
		return fmt.Errorf("not now: %w", storage.ErrBusy)
	}
	return s.Shard.Commit(ctx, l, plan, done)
}

func (s *lateShard) at(f func() bool) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return f()
	}
}

// A batch that failed is not tried again before the one ahead of it has landed:
// that one may fail too, and comes first.
func TestFailedBatchWaitsForTheOneAhead(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	late := &lateShard{Shard: NewMem(1, MemOptions{})}
	f := &storeFix{T: t, delivered: map[storage.UserID][]storage.Delivery{}, opt: quick(1)}
	f.opt.Deliver = f.deliver
	f.opt.CommittersPerShard, f.opt.SweepPause = 1, time.Hour
	f.envs = []ShardEnv{{Open: func(testing.TB) storage.Shard { return late }}}
	f.open()
	t.Cleanup(func() {
		f.close()
		goleak.VerifyNone(t, leaks)
	})
	us := f.users(2)
	late.at(func() bool { late.armed = true; return true })()
	first := start(f.s, message(us[0], us[1], "first"))
	f.wait("the first batch is on its way", late.at(func() bool { return late.open != nil }))
	second := start(f.s, message(us[0], us[1], "second"))
	f.wait("the second batch was refused", late.at(func() bool { return late.refused }))
	time.Sleep(30 * time.Millisecond) // what is wrong here would come at once
	if len(second) > 0 {
		t.Error("the second was answered while the first was open")
	}
	late.open(fmt.Errorf("lost: %w", storage.ErrUnknown))
	for _, c := range []<-chan sent{first, second} {
		if _, err := f.result(c); err != nil {
			t.Error(err)
		}
	}
	if got := bodies(f.inbox(us[1])); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("inbox: %q", got)
	}
}

// Sends that wait for a look at their recipient keep their order when the
// queue behind has no room: once one is refused, so are those behind it.
func TestWaitingSendsDoNotOvertake(t *testing.T) {
	f, mems := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) {
		o.CommittersPerShard, o.MaxFlying, o.Queue, o.Readers, o.SweepPause = 1, 1, 1, 1, time.Hour
	})
	a, b := f.pairOn(0, 1)
	look := make(chan struct{})
	if err := f.s.Go(b.Slot(), func(context.Context) { <-look }); err != nil {
		t.Fatal(err)
	}
	release := mems[0].Hold()
	commits := mems[0].Commits()
	flying := start(f.s, message(a, a, "flying"))
	f.wait("one is on its way", func() bool { return mems[0].Commits() == commits+1 })
	queued := start(f.s, message(a, a, "queued"))

	outcome := make(chan error, 2)
	f.s.Append(message(a, b, "first"), func(_ storage.Appended, err error) {
		outcome <- err
		release() // now there is room
		for _, c := range []<-chan sent{flying, queued} {
			if _, err := f.result(c); err != nil {
				t.Error(err)
			}
		}
	})
	f.s.Append(message(a, b, "second"), func(_ storage.Appended, err error) { outcome <- err })
	close(look)
	for _, body := range []string{"first", "second"} {
		if err := <-outcome; !errors.Is(err, storage.ErrBusy) {
			t.Errorf("%s: %v, want %v", body, err, storage.ErrBusy)
		}
	}
	f.send(message(a, b, "again"))
	f.waitTasks(1)
}

// Whose caller no longer wants it in line is refused, wherever that shows: at
// once, or when a look at a far recipient is over. Those behind it go on.
func TestNotStillInLine(t *testing.T) {
	f, _ := newFaultFix(t, 2, MemOptions{}, nil)
	farA, farB := f.pairOn(0, 1)
	nearA, nearB := f.pairOn(0, 0)
	for _, c := range []struct {
		what string
		a, b storage.UserID
		asks int // how many times the answer is yes, before it is no
	}{
		{"far, not looked at yet", farA, farB, 0},
		{"far, refused after the look", farB, farA, 1},
		{"far, known", farA, farB, 0},
		{"near", nearA, nearB, 0},
	} {
		late := message(c.a, c.b, "late")
		asks := c.asks
		late.Still = func() bool { asks--; return asks >= 0 }
		first, second := start(f.s, late), start(f.s, message(c.a, c.b, "behind"))
		if _, err := f.result(first); !errors.Is(err, storage.ErrBusy) {
			t.Errorf("%s: %v", c.what, err)
		}
		if _, err := f.result(second); err != nil {
			t.Errorf("%s: the one behind: %v", c.what, err)
		}
		late.Still = func() bool { return true }
		if _, err := f.try(late); err != nil {
			t.Errorf("%s, sent again: %v", c.what, err)
		}
	}
}
