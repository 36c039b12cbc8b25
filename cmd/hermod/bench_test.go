package main

import (
	"context"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench"
)

// TestLoadToolSurvivesAKill runs the load tool as an engineer would who wants
// to see what is lost: the server is killed in the middle, started again, and
// the tool's own checker must find every message.
func TestLoadToolSurvivesAKill(t *testing.T) {
	srv := newProcess(t)
	srv.start()
	done := make(chan struct{})
	var rep *bench.Report
	var err error
	acked := make(chan uint64, 1)
	go func() {
		defer close(done)
		rep, err = bench.Pairs(context.Background(), bench.PairsConfig{
			Target: bench.Target{Addr: srv.addr, Progress: func(p bench.Progress) {
				select {
				case acked <- p.Acked:
				default:
				}
			}},
			Users: bench.Users{Prefix: "load", Logins: 4},
			Pairs: 5, BothWays: true, Rate: 400, InFlight: 32, Size: 100,
			Warmup: time.Second, Duration: 6 * time.Second, Drain: 20 * time.Second, Verify: 20 * time.Second,
		})
	}()
	eventually(t, 30*time.Second, "the load runs", func() bool {
		select {
		case n := <-acked:
			return n > 400
		default:
			return false
		}
	})
	srv.kill()
	srv.start()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if !rep.OK {
		t.Fatalf("the run failed: %q", rep.Problems)
	}
	if rep.Errors["DISCONNECTED"] == 0 && len(rep.Errors) == 0 {
		t.Errorf("nobody noticed the kill: errors %v", rep.Errors)
	}
}
