package client

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func TestPoolRingsInTime(t *testing.T) {
	p := NewPool()
	var wg sync.WaitGroup
	var mu sync.Mutex
	late := map[time.Duration]time.Duration{}
	alarms := make([]*alarm, 500)
	for i := range alarms {
		wg.Add(1)
		at := p.now() + rand.N(300*time.Millisecond)
		alarms[i] = &alarm{ring: func() {
			mu.Lock()
			late[at] = p.now() - at
			mu.Unlock()
			wg.Done()
		}}
		p.wake(alarms[i], at+time.Hour)
		p.wake(alarms[i], at) // sooner
		p.wake(alarms[i], at+time.Minute)
	}
	wg.Wait()
	for at, d := range late {
		if d < 0 || d > 2*time.Second {
			t.Fatalf("the alarm for %v rang %v late", at, d)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count != 0 {
		t.Fatalf("%d alarms stay", p.count)
	}
}

func TestPoolBeyondOneRound(t *testing.T) {
	p := NewPool()
	p.start = p.start.Add(-time.Hour) // it has been running for long
	far, near, rang := &alarm{}, &alarm{}, make(chan string, 2)
	far.ring = func() { rang <- "far" }
	near.ring = func() { rang <- "near" }
	now := p.now()
	p.wake(far, now+wheelSlots*wheelTick+2*wheelTick) // the same slot, a round later
	p.wake(near, now+2*wheelTick)
	if got := <-rang; got != "near" {
		t.Fatal(got)
	}
	select {
	case got := <-rang:
		t.Fatal(got, " rang a round too early")
	case <-time.After(5 * wheelTick):
	}
	p.cancel(far)
	p.cancel(far)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count != 0 {
		t.Fatal(p.count)
	}
}

func TestPoolRestsAndWakes(t *testing.T) {
	p := NewPool()
	rang := make(chan bool)
	a := &alarm{ring: func() { rang <- true }}
	for range 3 {
		p.wake(a, p.now()+wheelTick)
		<-rang
		eventually(t, "the wheel rests", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return !p.armed })
	}
}
