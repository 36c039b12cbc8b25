package chat

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/proto"
)

func TestPoolIsBounded(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	h, err := newHasher(Argon2{MemoryKiB: 16, Passes: 1, Lanes: 1, Workers: 2, Queue: 3}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	var busy, most, done atomic.Int32
	started := make(chan struct{}, 2)
	job := func() {
		n := busy.Add(1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		select {
		case started <- struct{}{}:
		default:
		}
		<-gate
		busy.Add(-1)
		done.Add(1)
	}
	for range 2 {
		if err := h.submit(job); err != nil {
			t.Fatal(err)
		}
		<-started
	}
	for i := range 3 {
		if err := h.submit(job); err != nil {
			t.Fatalf("queue place %d: %v", i, err)
		}
	}
	fault := proto.AsFault(h.submit(job))
	if fault == nil || fault.Code != proto.ErrorCode_ERROR_CODE_OVERLOADED || !fault.Retryable || fault.RetryAfter < 100*time.Millisecond {
		t.Fatalf("over the queue: %+v, want OVERLOADED with retry_after", fault)
	}
	close(gate)
	h.close()
	if done.Load() != 5 || most.Load() != 2 {
		t.Fatalf("%d jobs done, %d at once; want 5 and 2", done.Load(), most.Load())
	}
	if code := proto.CodeOf(h.submit(job)); code != proto.ErrorCode_ERROR_CODE_DRAINING {
		t.Fatalf("after close: %v", code)
	}
	h.close() // again is harmless
}

func TestPoolSurvivesPanic(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	h, err := newHasher(Argon2{MemoryKiB: 16, Passes: 1, Lanes: 1, Workers: 1, Queue: 4}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	for _, job := range []func(){func() { panic("boom") }, func() { close(done) }} {
		if err := h.submit(job); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	h.close()
}

func TestAuthOptions(t *testing.T) {
	tokens := Tokens{Dir: t.TempDir()}.withDefaults()
	for _, v := range []interface{ Validate() error }{Argon2{}.withDefaults(), tokens, Accounts{}.withDefaults()} {
		if err := v.Validate(); err != nil {
			t.Errorf("defaults: %v", err)
		}
	}
	if tokens.Life != 30*time.Minute {
		t.Errorf("life %v", tokens.Life)
	}
	for what, v := range map[string]interface{ Validate() error }{
		"no key folder":     Tokens{}.withDefaults(),
		"short life":        Tokens{Dir: "x", Life: 14 * time.Minute}.withDefaults(),
		"long life":         Tokens{Dir: "x", Life: 61 * time.Minute}.withDefaults(),
		"leeway":            Tokens{Dir: "x", Leeway: time.Hour}.withDefaults(),
		"memory":            Argon2{MemoryKiB: 2 << 20}.withDefaults(),
		"little memory":     Argon2{MemoryKiB: 7}.withDefaults(),
		"passes":            Argon2{Passes: 65}.withDefaults(),
		"negative workers":  Argon2{Workers: -1}.withDefaults(),
		"negative devices":  Accounts{Devices: -1}.withDefaults(),
		"too many devices":  Accounts{Devices: 201}.withDefaults(),
		"negative register": &Limits{MaxContent: 1, WindowEvents: 1, WindowBytes: 1, MaxInFlight: 1, SyncsPerSecond: 1, MaxIDs: 1, RegistersPerMinute: -1},
	} {
		if v.Validate() == nil {
			t.Errorf("%s is valid", what)
		}
	}
}
