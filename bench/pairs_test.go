package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testPairs is a short run against f.
func testPairs(f *fakeServer) PairsConfig {
	return PairsConfig{
		Target: Target{Addr: f.addr, PID: os.Getpid()},
		Pairs:  3, Rate: 300, Size: 64, InFlight: 8,
		Warmup: 200 * time.Millisecond, Duration: 500 * time.Millisecond, Drain: 5 * time.Second,
	}
}

func runPairs(t *testing.T, cfg PairsConfig) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	rep, err := Pairs(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func mustBeOK(t *testing.T, rep *Report) {
	t.Helper()
	if !rep.OK {
		t.Fatalf("not OK: %v\n%v", rep.Problems, rep.Pairs.Verification.Examples)
	}
}

func TestPairsOpenLoop(t *testing.T) {
	for _, both := range []bool{false, true} {
		f := newFake(t)
		cfg := testPairs(f)
		cfg.BothWays = both
		rep := runPairs(t, cfg)
		mustBeOK(t, rep)
		v := rep.Pairs.Verification
		if want := uint64(210); v.Sent != want || v.Acked != want || v.Received != want || v.Unsent != 0 {
			t.Errorf("300/s for 0.7 s: %d sent, %d acked, %d received", v.Sent, v.Acked, v.Received)
		}
		if want := int64(150); rep.Pairs.Ack.Count != want || rep.Pairs.Delivery.Count != want || rep.Pairs.Lag.Count != want {
			t.Errorf("measured %d acks, %d deliveries, %d lags; want %d", rep.Pairs.Ack.Count, rep.Pairs.Delivery.Count, rep.Pairs.Lag.Count, want)
		}
		if rep.Server.RSSBefore == 0 || rep.Server.RSSPeak < rep.Server.RSSBefore || rep.Server.CPUPerMessage <= 0 {
			t.Errorf("server figures: %+v", rep.Server)
		}
		if rep.Server.Durability["DISK"] != 210 {
			t.Errorf("durability: %v", rep.Server.Durability)
		}
	}
}

func TestPairsFlatOut(t *testing.T) {
	f := newFake(t)
	cfg := testPairs(f)
	cfg.Rate, cfg.BothWays, cfg.InFlight = 0, true, 100
	rep := runPairs(t, cfg)
	mustBeOK(t, rep)
	if v := rep.Pairs.Verification; v.Sent < 20 || v.Sent != v.Acked || v.Received != v.Acked {
		t.Errorf("%d sent, %d acked, %d received", v.Sent, v.Acked, v.Received)
	}
	if f.seen.deliveryAcks == 0 {
		t.Error("no delivery acks")
	}
}

func TestPairsOverTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	web.Close()
	f := newFake(t)
	f.kill()
	f.tls = &tls.Config{Certificates: web.TLS.Certificates, NextProtos: []string{"hermod/1"}, MinVersion: tls.VersionTLS13}
	f.listen()
	cfg := testPairs(f)
	if _, err := Pairs(t.Context(), cfg); err == nil {
		t.Error("a plain run against TLS went through")
	}
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	if _, err := Pairs(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	cfg.TLS.RootCAs = x509.NewCertPool()
	cfg.TLS.RootCAs.AddCert(web.Certificate())
	rep := runPairs(t, cfg)
	mustBeOK(t, rep)
	if !rep.Server.TLS || rep.Pairs.Verification.Received != 210 {
		t.Errorf("%+v", rep.Server)
	}
}

// TestPairsCountsFromTheIntendedTime stalls the server: every message that was
// due meanwhile must show the wait, not only the one that met it.
func TestPairsCountsFromTheIntendedTime(t *testing.T) {
	f := newFake(t)
	cfg := testPairs(f)
	cfg.Rate, cfg.Duration, cfg.Warmup = 400, time.Second, 0
	f.faults.stall = func(n int) {
		if n == 100 {
			time.Sleep(400 * time.Millisecond)
		}
	}
	rep := runPairs(t, cfg)
	mustBeOK(t, rep)
	// 160 of 400 were due in the stall and waited for what was left of it: a
	// tenth of all messages for more than 300 ms.
	if p := rep.Pairs; p.Ack.Count != 400 || p.Ack.P90 < 250_000 || p.Delivery.P90 < 250_000 {
		t.Errorf("acks: %v", p.Ack)
	}
}

func TestPairsSurvivesARestart(t *testing.T) {
	for _, rate := range []float64{0, 2000} {
		f := newFake(t)
		cfg := testPairs(f)
		cfg.Rate, cfg.BothWays, cfg.Duration = rate, true, time.Second
		hit := make(chan struct{})
		f.faults.stall = func(n int) {
			if n == 500 {
				close(hit)
			}
		}
		restarted := make(chan struct{})
		go func() {
			defer close(restarted)
			<-hit
			f.kill()
			f.listen()
		}()
		rep := runPairs(t, cfg)
		<-restarted
		mustBeOK(t, rep)
		if c := rep.Pairs.Connections; c.Drops < 6 || c.Logins < 12 {
			t.Errorf("rate %v: %+v", rate, c)
		}
		if v := rep.Pairs.Verification; v.Acked != v.Sent || v.Received != v.Acked {
			t.Errorf("rate %v: %d sent, %d acked, %d received", rate, v.Sent, v.Acked, v.Received)
		}
	}
}

// TestPairsRefusals: retryable refusals are repeated in order (the fake server
// complains about wrong resume_order), final ones are counted.
func TestPairsRefusals(t *testing.T) {
	f := newFake(t)
	cfg := testPairs(f)
	cfg.Rate, cfg.Pairs = 0, 1
	f.faults.refuse = func(n int) *proto.Fault {
		switch {
		case n%100 == 50:
			return proto.Errorf(proto.ErrorCode_ERROR_CODE_UNAVAILABLE, "").WithRetry(10 * time.Millisecond)
		case n == 33:
			return proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED, "")
		}
		return nil
	}
	rep := runPairs(t, cfg)
	mustBeOK(t, rep)
	v := rep.Pairs.Verification
	if v.Refused != 1 || v.Resent == 0 || v.Acked != v.Sent-1 {
		t.Errorf("%+v", v)
	}
	if f.seen.resumes == 0 || rep.Errors["UNAVAILABLE"] == 0 || rep.Errors["NOT_ALLOWED"] != 1 {
		t.Errorf("resumes %d, errors %v", f.seen.resumes, rep.Errors)
	}
}

// nth calls fn for the n-th row of each second user, the receivers.
func nth(n int, fn func(u *fakeUser, ev *proto.Event) ([]*proto.Event, bool)) func(*fakeUser, *proto.Event) ([]*proto.Event, bool) {
	count := make(map[int64]int)
	return func(u *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
		if ev.GetActorId() == u.id {
			return []*proto.Event{ev}, true
		}
		count[u.id]++
		if count[u.id] == n {
			return fn(u, ev)
		}
		return []*proto.Event{ev}, true
	}
}

func TestPairsFindsBrokenPromises(t *testing.T) {
	type row = []*proto.Event
	var kept *proto.Event
	cases := map[string]struct {
		store func(*fakeUser, *proto.Event) ([]*proto.Event, bool)
		want  string
	}{
		"lost": {nth(20, func(*fakeUser, *proto.Event) ([]*proto.Event, bool) { return nil, false }), "lost"},
		"duplicated": {nth(20, func(_ *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
			return row{ev, ev}, true
		}), "duplicated"},
		"reordered": {func() func(*fakeUser, *proto.Event) ([]*proto.Event, bool) {
			hold := nth(20, func(_ *fakeUser, ev *proto.Event) ([]*proto.Event, bool) { kept = ev; return nil, false })
			return func(u *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
				before := kept
				evs, push := hold(u, ev)
				if before != nil && len(evs) == 1 && ev.GetActorId() != u.id {
					evs, kept = append(evs, before), nil
				}
				return evs, push
			}
		}(), "reordered"},
		"corrupted": {nth(20, func(_ *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
			bad := gproto.CloneOf(ev)
			bad.GetMessage().GetContent().GetBody()[40] ^= 1
			return row{bad}, true
		}), "corrupted"},
		"stranger": {nth(20, func(_ *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
			bad := gproto.CloneOf(ev)
			bad.ActorId, bad.ConvSeq = 4711, 0
			return row{bad, ev}, true
		}), "stray"},
		"other place": {nth(20, func(_ *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
			bad := gproto.CloneOf(ev)
			bad.ConvSeq++
			return row{bad}, true
		}), "disagreement"},
		"hole in the inbox": {nth(20, func(u *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
			u.skipped++
			return row{ev}, true
		}), "inbox_gap"},
		"push left out": {nth(20, func(_ *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
			return row{ev}, false
		}), "inbox_gap"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			cfg := testPairs(f)
			cfg.Pairs, cfg.Drain = 1, time.Second
			f.faults.store = c.store
			rep := runPairs(t, cfg)
			if rep.OK || rep.Pairs.Verification.Violations[c.want] == 0 {
				t.Fatalf("want %s; got OK=%v %v %v", c.want, rep.OK, rep.Pairs.Verification.Violations, rep.Problems)
			}
			var text strings.Builder
			if err := rep.WriteSummary(&text); err != nil || !strings.Contains(text.String(), "FAILED") || !strings.Contains(text.String(), c.want) {
				t.Fatalf("summary: %v\n%s", err, text.String())
			}
		})
	}
}

// TestPairsTellsNotPushedFromLost: what is in the storage and was never pushed
// is counted, and is no loss.
func TestPairsTellsNotPushedFromLost(t *testing.T) {
	f := newFake(t)
	cfg := testPairs(f)
	cfg.Pairs, cfg.Drain = 1, time.Second
	count := 0
	f.faults.store = func(u *fakeUser, ev *proto.Event) ([]*proto.Event, bool) {
		if ev.GetActorId() != u.id {
			count++
		}
		return []*proto.Event{ev}, ev.GetActorId() == u.id || count <= 100
	}
	rep := runPairs(t, cfg)
	mustBeOK(t, rep)
	if v := rep.Pairs.Verification; v.NotPushed != v.Received-100 || v.Received != v.Acked || v.NotPushed == 0 {
		t.Errorf("%d not pushed, %d received, %d acked", v.NotPushed, v.Received, v.Acked)
	}
}

// TestPairsServerStaysAway: a server that stays away is not taken for a good one.
func TestPairsServerStaysAway(t *testing.T) {
	f := newFake(t)
	cfg := testPairs(f)
	cfg.Drain, cfg.Verify = 200*time.Millisecond, 300*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	hit := make(chan struct{})
	f.faults.stall = func(n int) {
		if n == 50 {
			close(hit)
		}
	}
	go func() { <-hit; f.kill() }()
	rep, err := Pairs(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if v := rep.Pairs.Verification; rep.OK || v.Unverified != 6 || v.Unanswered+v.Unsent == 0 {
		t.Fatalf("OK=%v without a server: %+v", rep.OK, v)
	}
}

func TestPairsErrors(t *testing.T) {
	f := newFake(t)
	cfg := testPairs(f)
	f.faults.hello = func() *proto.Fault { return proto.Errorf(proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION, "") }
	if _, err := Pairs(t.Context(), cfg); proto.CodeOf(err) != proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION {
		t.Errorf("refused login: %v", err)
	}
	f.kill()
	if _, err := Pairs(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no connection to "+f.addr) {
		t.Errorf("no server: %v", err)
	}
	f.listen()
	ctx, cancel := context.WithCancel(t.Context())
	f.mu.Lock()
	f.faults.hello = nil
	f.faults.stall = func(int) { cancel() }
	f.mu.Unlock()
	if _, err := Pairs(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, bad := range []func(*PairsConfig){
		func(c *PairsConfig) { c.Size = 10 },
		func(c *PairsConfig) { c.Size = maxContentSize + 1 },
		func(c *PairsConfig) { c.Rate = -1 },
		func(c *PairsConfig) { c.Pairs = -1 },
		func(c *PairsConfig) { c.Prefix = "../x" },
		func(c *PairsConfig) { c.Addr = "" },
	} {
		c := testPairs(f)
		bad(&c)
		if _, err := Pairs(t.Context(), c); err == nil {
			t.Errorf("accepted %+v", c)
		}
	}
}
