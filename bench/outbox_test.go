package bench

import (
	"slices"
	"testing"
	"time"
)

// writeAll writes what may be written and returns the counters.
func writeAll(o *outbox, limit int, id *uint64, at time.Duration) (list []uint64, resumed bool) {
	for {
		counter, m, resume, ok := o.take(limit)
		if !ok {
			return list, resumed
		}
		if resume && len(list) > 0 {
			resumed = false // only the first may
			return list, resumed
		}
		resumed = resumed || resume
		m.written = true
		*id++
		o.wrote(*id, counter, at)
		list = append(list, counter)
	}
}

func TestOutbox(t *testing.T) {
	o := &outbox{base: 1}
	var id uint64 = 1
	for range 5 {
		o.push(0)
	}
	if got, resume := writeAll(o, 3, &id, 0); !slices.Equal(got, []uint64{1, 2, 3}) || resume {
		t.Fatalf("wrote %v %v", got, resume)
	}
	// Answers out of order; an unknown one.
	if c, ok := o.land(3, 1); !ok || c != 2 {
		t.Fatal(c, ok)
	}
	o.settle(2)
	if _, ok := o.land(3, 1); ok {
		t.Fatal("landed twice")
	}
	if got, _ := writeAll(o, 3, &id, 0); !slices.Equal(got, []uint64{4}) {
		t.Fatalf("wrote %v", got)
	}
	// 1 is refused: nothing is written until 3 and 4 are answered and the wait
	// is over, then 1, 3 and 4 go again under new ids, and 5 behind them.
	if c, _ := o.land(2, 10); c != 1 {
		t.Fatal(c)
	}
	o.hold(10, 50)
	o.release(time.Hour)
	if got, _ := writeAll(o, 3, &id, 0); got != nil {
		t.Fatalf("wrote %v while held", got)
	}
	for _, r := range []uint64{4, 5} {
		if _, ok := o.land(r, 11); !ok {
			t.Fatal(r)
		}
		o.hold(11, 0)
	}
	o.release(minHold)
	if !o.held {
		t.Fatal("released too early")
	}
	o.release(time.Hour)
	if got, resume := writeAll(o, 10, &id, 0); !slices.Equal(got, []uint64{1, 3, 4, 5}) || !resume || id != 9 {
		t.Fatalf("wrote %v, resume %v, up to id %d", got, resume, id)
	}
	// A new connection: all again, without resume_order.
	o.rewind(0)
	id = 1
	if got, resume := writeAll(o, 10, &id, 0); !slices.Equal(got, []uint64{1, 3, 4, 5}) || resume {
		t.Fatalf("wrote %v, resume %v", got, resume)
	}
	if !o.stuck(answerTimeout+1) || o.stuck(answerTimeout) {
		t.Fatal("stuck")
	}
	o.push(0)
	if n := o.dropUnwritten(); n != 1 {
		t.Fatalf("dropped %d", n)
	}
	for _, r := range []uint64{2, 3, 4, 5} {
		c, ok := o.land(r, 0)
		if !ok {
			t.Fatal(r)
		}
		o.settle(c)
	}
	if len(o.msgs) != 0 || o.base != 6 || o.stuck(time.Hour) {
		t.Fatalf("%+v", o)
	}
}
