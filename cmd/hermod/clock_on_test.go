//go:build torture

package main

import (
	"testing"
	"time"
)

func TestSteppedClock(t *testing.T) {
	for _, by := range []time.Duration{0, time.Second, -time.Second, 90 * time.Minute, -90 * time.Minute, 10 * 365 * 24 * time.Hour} {
		now := time.Now()
		got := stepped(now, by)
		if wall := got.UnixNano() - now.UnixNano(); wall != int64(by) {
			t.Errorf("stepped by %v: the time of day is %v later", by, time.Duration(wall))
		}
		if d := got.Sub(now); d != 0 {
			t.Errorf("stepped by %v: %v have passed", by, d)
		}
	}
}
