package storage

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// testBreaker is a breaker on a clock that stands still.
func testBreaker() (b *breaker, pass func(time.Duration)) {
	now := time.Unix(1000, 0)
	b = &breaker{opt: breakerOptions{
		shard: 3, part: "reads", after: 2 * time.Second, long: time.Second, min: 500 * time.Millisecond, max: 5 * time.Second,
		now: func() time.Time { return now }, log: zerolog.Nop(),
	}}
	return b, func(d time.Duration) { now = now.Add(d) }
}

func TestBreakerOpens(t *testing.T) {
	unreachable := fmt.Errorf("connection refused: %w", ErrBusy)
	late := context.DeadlineExceeded
	type call struct {
		at   time.Duration // of the end
		took time.Duration
		err  error
	}
	const s, ms = time.Second, time.Millisecond
	for name, tt := range map[string]struct {
		calls []call
		open  bool
	}{
		"nothing":                       {nil, false},
		"one failure":                   {[]call{{0, 0, unreachable}}, false},
		"failures for too short":        {[]call{{0, 0, unreachable}, {1900 * ms, 0, unreachable}}, false},
		"failures for long":             {[]call{{0, 0, unreachable}, {s, 0, unreachable}, {2 * s, 0, unreachable}}, true},
		"unknown outcomes for long":     {[]call{{0, 0, ErrUnknown}, {2 * s, 0, ErrUnknown}}, true},
		"one that took long":            {[]call{{5 * s, 5 * s, late}}, true},
		"in a hurry":                    {[]call{{s, 100 * ms, late}, {5 * s, 100 * ms, late}}, false},
		"given up by the caller":        {[]call{{9 * s, 9 * s, context.Canceled}}, false},
		"the store closes":              {[]call{{9 * s, 9 * s, ErrClosed}}, false},
		"answers in between":            {[]call{{0, 0, unreachable}, {s, 0, nil}, {2 * s, 0, unreachable}}, false},
		"others answered meanwhile":     {[]call{{s, 0, nil}, {5 * s, 5 * s, late}}, false},
		"answered, then long silence":   {[]call{{s, 0, nil}, {6 * s, 4900 * ms, late}}, true},
		"a refusal is an answer":        {[]call{{0, 0, unreachable}, {s, 0, ErrSlotMoved}, {2 * s, 0, unreachable}}, false},
		"a full disk is no silence":     {[]call{{0, 0, ErrFull}, {9 * s, 0, ErrFull}}, false},
		"a bad row is no silence":       {[]call{{0, 0, errors.New("cursed")}, {9 * s, 0, errors.New("cursed")}}, false},
		"an answer closes":              {[]call{{0, 0, unreachable}, {2 * s, 0, unreachable}, {3 * s, 0, nil}}, false},
		"the oldest failing call tells": {[]call{{3 * s, 500 * ms, unreachable}, {3 * s, 3 * s, late}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b, pass := testBreaker()
			begun := map[int]attempt{}
			for at := time.Duration(0); at <= 10*s; at += 100 * ms {
				for i, c := range tt.calls {
					if c.at-c.took == at {
						begun[i] = b.begin()
					}
				}
				for i, c := range tt.calls {
					if c.at == at {
						b.end(begun[i], c.err)
					}
				}
				pass(100 * ms)
			}
			if b.open() != tt.open {
				t.Errorf("open is %v", b.open())
			}
		})
	}
}

// While it is open one call per pause finds out, and all others are told when
// to come again.
func TestBreakerLetsOneThrough(t *testing.T) {
	b, pass := testBreaker()
	b.stuck(5 * time.Second)
	var got []int
	for range 40 {
		n := 0
		for range 10 {
			err := b.admit()
			if err == nil {
				n++
				continue
			}
			if wait := RetryAfter(fmt.Errorf("wrapped: %w", err)); !errors.Is(err, ErrUnavailable) || wait < b.opt.min/2 || wait > b.opt.max {
				t.Fatalf("refused with %v, after %v", err, wait)
			}
			if b.refused() == nil || b.given() == nil {
				t.Fatal("refused, and would not be")
			}
		}
		got = append(got, n)
		pass(500 * time.Millisecond)
	}
	// The pauses are 0.5, 1, 2, 4, 5, 5 s.
	want := map[int]bool{1: true, 3: true, 7: true, 15: true, 25: true, 35: true}
	for i, n := range got {
		if n > 1 || (n == 1) != want[i] {
			t.Errorf("after %d × 0.5 s %d calls passed", i, n)
		}
	}
	b.end(b.begin(), nil)
	if b.open() || b.admit() != nil || b.refused() != nil || b.given() != nil {
		t.Error("it stays open after an answer")
	}
	if RetryAfter(ErrUnavailable) != 0 || RetryAfter(nil) != 0 {
		t.Error("a wait out of nothing")
	}
}
