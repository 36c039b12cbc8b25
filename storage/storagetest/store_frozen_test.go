package storagetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// What waits for a slot is bounded, apart from what others send.
func TestParkedIsBounded(t *testing.T) {
	f, _ := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) { o.Queue, o.CommittersPerShard = 50, 1 })
	a, b, c := f.userOn(0, 1), f.userOn(0, 2), f.userOn(0, 3)
	f.setSlot(0, storage.SlotRow{Slot: b.Slot(), State: storage.SlotFrozen, Epoch: 2})
	var waiting []<-chan sent
	refused := 0
	for i := 0; refused < 20; i++ {
		w := start(f.s, message(a, b, fmt.Sprint(i)))
		f.send(message(a, c, "others go on"))
		if len(w) == 0 {
			waiting = append(waiting, w)
		} else if r := <-w; !errors.Is(r.err, storage.ErrBusy) {
			t.Fatalf("send %d: %+v, %v", i, r.Appended, r.err)
		} else {
			refused++
		}
		if i > 200 {
			t.Fatal("no send is ever refused")
		}
	}
	f.setSlot(0, storage.SlotRow{Slot: b.Slot(), State: storage.SlotOwned, Epoch: 3})
	for i, w := range waiting {
		if r, err := f.result(w); err != nil || r.Rev != uint64(i+1) {
			t.Errorf("send %d: %+v, %v", i, r, err)
		}
	}
	if len(waiting) < 50 {
		t.Errorf("only %d waited", len(waiting))
	}
}

// What waits for a slot for too long is refused, in order, and only that.
func TestFrozenForTooLong(t *testing.T) {
	f, _ := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) {
		o.CommitTimeout, o.CommittersPerShard = 300*time.Millisecond, 1
	})
	a, b, c := f.userOn(0, 1), f.userOn(0, 2), f.userOn(0, 3)
	f.setSlot(0, storage.SlotRow{Slot: b.Slot(), State: storage.SlotFrozen, Epoch: 2})
	var waiting []<-chan sent
	for i := range 20 {
		waiting = append(waiting, start(f.s, message(a, b, fmt.Sprint(i))))
	}
	f.send(message(a, c, "others go on"))
	for _, w := range waiting {
		if r, err := f.result(w); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	f.send(message(a, c, "and on"))
	f.setSlot(0, storage.SlotRow{Slot: b.Slot(), State: storage.SlotOwned, Epoch: 3})
	if r := f.send(message(a, b, "again")); r.Rev != 1 {
		t.Errorf("rev %d: something that was refused is there", r.Rev)
	}
}

// Everything is answered by Close, wherever a move has brought it.
func TestCloseDuringMove(t *testing.T) {
	for i := range 30 {
		f, _ := newFaultFix(t, 2, MemOptions{Delay: time.Duration(i%3) * time.Millisecond}, nil)
		us := f.users(4)
		var open []<-chan sent
		slot := us[0].Slot()
		f.setSlot(0, storage.SlotRow{Slot: slot, State: storage.SlotFrozen, Epoch: 2})
		for n := range 40 {
			for _, u := range us {
				open = append(open, start(f.s, message(us[0], u, fmt.Sprint(n))), start(f.s, message(u, us[3], fmt.Sprint(n))))
			}
		}
		moved := make(chan struct{})
		go func() {
			defer close(moved)
			f.setSlot(1, storage.SlotRow{Slot: slot, State: storage.SlotOwned, Epoch: 3})
		}()
		if i%2 == 0 {
			<-moved
		}
		closed := make(chan error, 1)
		go func() { closed <- f.s.Close() }()
		for _, c := range open {
			_, _ = f.result(c) // fails the test if there is none
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		<-moved
	}
}
