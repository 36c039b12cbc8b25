package main

import (
	"testing"
	"time"
)

// TestClusterLosesNothing is the promise of a fleet: three nodes, four shards
// on two MariaDB servers, Redis, TLS on every connection; 200 users over all
// nodes write to each other while parts of it die. Whatever was acknowledged is
// afterwards in every recipient's inbox, once, in one order (I1 to I9).
func TestClusterLosesNothing(t *testing.T) {
	cl := startCluster(t)
	const users = 200
	cr := newCrowd(t, users, 5, cl.addrs(), cl.tls(t))
	for _, phase := range []struct {
		name  string
		load  time.Duration
		fault func()
		// late is how long what was acknowledged may take to arrive at last.
		late time.Duration
	}{
		{"a node is killed and started again", 30 * time.Second, func() {
			time.Sleep(8 * time.Second)
			cl.Nodes[1].Kill()
			time.Sleep(7 * time.Second)
			cl.startNode(1)
		}, 20 * time.Second},
		{"Redis is flushed", 8 * time.Second, func() {
			time.Sleep(3 * time.Second)
			cl.flush()
		}, 20 * time.Second},
		{"a database is stopped for 10 s", 16 * time.Second, func() {
			time.Sleep(2 * time.Second)
			cl.outage(cl.Databases[0], 10*time.Second)
		}, 30 * time.Second},
	} {
		before, _ := cr.totals()
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			cr.talk(400*time.Millisecond, stop)
		}()
		end := time.After(phase.load)
		phase.fault()
		<-end
		close(stop)
		<-done
		after, failed := cr.totals()
		t.Logf("%s: %d messages acknowledged, %d given up so far", phase.name, after-before, failed)
		if after-before < users*5 {
			t.Errorf("%s: only %d messages were acknowledged", phase.name, after-before)
		}
		cr.arrived(phase.late)
		if t.Failed() {
			t.Fatalf("after: %s", phase.name)
		}
	}
	cr.check()                                                                                                // I1 to I6, I8
	eventually(t, 30*time.Second, "one session a device (I7)", func() bool { return cl.sessions() == users }) // 30 s after healing
	eventually(t, 30*time.Second, "no deliveries owed (I9)", func() bool { return cl.tasks() == 0 })
	if n := cl.metric("hermod_peer_received_total"); n < float64(users) {
		t.Errorf("%v events came from other nodes", n)
	}
}
