package main

import (
	"testing"
	"time"
)

func TestWorthReturning(t *testing.T) {
	t0 := time.Unix(1000, 0)
	sample := func(seconds int, allocated, live, unused uint64) memorySample {
		return memorySample{t0.Add(time.Duration(seconds) * time.Second), allocated << 20, live << 20, unused << 20}
	}
	was := sample(0, 100, 50, 0)
	for name, c := range map[string]struct {
		is     memorySample
		marked uint64
		want   bool
	}{
		"calm and wasteful":       {sample(10, 101, 50, 40), 50 << 20, true},
		"busy":                    {sample(10, 1000, 50, 40), 50 << 20, false},
		"calm and tidy":           {sample(10, 101, 50, 1), 50 << 20, false},
		"garbage since last time": {sample(10, 101, 50, 1), 20 << 20, true},
		"clock stood":             {sample(0, 100, 50, 40), 0, false},
	} {
		if got := worthReturning(was, c.is, c.marked); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestReadMemory(t *testing.T) {
	m := readMemory(time.Now())
	if m.allocated == 0 || m.live == 0 || m.allocated < m.live {
		t.Errorf("implausible: %+v", m)
	}
}
