package storage

import (
	"context"
	"testing"
	"time"
)

// Pages get smaller while they take long, and larger again; after each there is
// a rest as long, but for those that were nothing.
func TestPace(t *testing.T) {
	p := newPace(500)
	canceled, cancel := context.WithCancel(t.Context())
	cancel() // the rests end at once
	for i, tt := range []struct {
		took time.Duration
		want int
	}{
		{7 * time.Millisecond, 500}, {time.Millisecond, 500}, {11 * time.Millisecond, 250}, {time.Hour, 125}, {7 * time.Millisecond, 125},
		{time.Hour, 62}, {time.Hour, 31}, {time.Hour, 25}, {time.Hour, 25}, {0, 32}, {0, 41},
	} {
		if p.rest(canceled, tt.took); p.rows != tt.want {
			t.Errorf("page %d, which took %v: %d rows follow, want %d", i, tt.took, p.rows, tt.want)
		}
	}
	for range 20 {
		p.rest(t.Context(), 0)
	}
	if p.rows != 500 {
		t.Errorf("%d rows after many quick pages, want 500", p.rows)
	}
	small := newPace(10)
	if small.rest(canceled, time.Hour); small.rows != 10 {
		t.Errorf("%d rows where ten are the most", small.rows)
	}
	for took, least := range map[time.Duration]time.Duration{30 * time.Millisecond: 30 * time.Millisecond, 100 * time.Microsecond: 0} {
		began := time.Now()
		p.rest(t.Context(), took)
		if rested := time.Since(began); rested < least || least == 0 && rested > 20*time.Millisecond {
			t.Errorf("after %v a rest of %v", took, rested)
		}
	}
}
