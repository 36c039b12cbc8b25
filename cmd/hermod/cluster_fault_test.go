package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench/fault"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// TestClusterFaults strikes and heals every fault of a cluster once, on its
// first target, with two people writing to each other meanwhile: whatever was,
// afterwards what they write arrives, in order and once.
func TestClusterFaults(t *testing.T) {
	r := startCluster(t, func(o *cluster.Options) {
		o.Links = true
		o.Nodes, o.Shards, o.Databases = 2, 2, 1
		o.Settings = append(o.Settings, "HERMOD_DRAIN_WINDOW=1s", "HERMOD_DRAIN_TIMEOUT=2s")
	})
	pool := client.NewPool()
	var people []*person
	for i, name := range []string{"anna", "bert"} {
		people = append(people, newPersonAt(t, r, pool, i, name))
	}
	stop, sent := make(chan struct{}), 0
	var work sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); work.Wait() })
	defer end() // also when a fault fails the test
	work.Go(func() { _, sent = people[0].flood(t, people[1].c.UserID(), 4, stop) })
	r.talksTLS()
	var ran []string
	for _, f := range r.Faults() {
		if f.Unable != nil && f.Unable() != nil {
			t.Logf("%s: not run: %v", f.Name, f.Unable())
			continue
		}
		if f.Name == "" || f.About == "" || len(f.Targets) == 0 || slices.Contains(ran, f.Name) {
			t.Errorf("%+v", f)
		}
		ran = append(ran, f.Name)
		r.strike(f)
		before := len(people[1].received())
		eventually(t, 60*time.Second, "messages after "+f.Name, func() bool { return len(people[1].received()) > before+10 })
	}
	end()
	t.Logf("%v: all is answered", r.age())
	eventually(t, 60*time.Second, "all messages", func() bool { return len(people[1].received()) >= sent })
	t.Logf("%v: all has arrived", r.age())
	checkOrder(t, "bert", people[1].received(), sent)
	t.Logf("%d messages through %s", sent, strings.Join(ran, ", "))
}

// strike lets a fault happen for half a second.
func (r *fleetRig) strike(f fault.Fault) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	heal, err := f.Strike(ctx, f.Targets[0])
	r.must(err)
	struck := time.Since(begin)
	time.Sleep(min(f.Most, 500*time.Millisecond)) // how long it lasts
	r.must(heal(ctx))
	r.t.Logf("%v: %s on %s: struck in %v, healed after %v", r.age(), f.Name, f.Targets[0], struck.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	if _, err := f.Strike(ctx, "nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		r.t.Errorf("%s on nobody: %v", f.Name, err)
	}
}

// newPersonAt registers somebody who knows all nodes, the i-th first.
func newPersonAt(t *testing.T, r *fleetRig, pool *client.Pool, i int, name string) *person {
	t.Helper()
	p := &person{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addrs := r.addrs()
	c, err := client.Dial(ctx, client.Options{
		Endpoints:   append(slices.Clone(addrs[i:]), addrs[:i]...),
		TLS:         r.tls(),
		Pool:        pool,
		Device:      client.Device{Slot: proto.DeviceSlot_DEVICE_SLOT_PHONE, Platform: "test"},
		Credentials: client.Credentials{Name: name, Password: "correct horse battery", Register: true},
		OnEvents:    p.apply,
		BackoffBase: 20 * time.Millisecond,
		BackoffMax:  200 * time.Millisecond,
	})
	r.must(err)
	p.c = c
	t.Cleanup(func() { _ = c.Close() })
	return p
}
