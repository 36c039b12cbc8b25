package main

import (
	"database/sql"
	"testing"
	"time"
)

// TestClusterLosesNothing is the promise of a fleet: three nodes, four shards
// on two MariaDB servers, Redis, TLS on every connection; 200 users over all
// nodes write to each other while parts of it die. Whatever was acknowledged is
// afterwards in every recipient's inbox, once, in one order (I1 to I9).
func TestClusterLosesNothing(t *testing.T) {
	const users = 200
	cl := startCluster(t)
	cr := newCrowd(t, users, 5, cl.addrs(), cl.tls())
	t.Logf("%v: %d users are registered", cl.age(), users)

	cl.phase(cr, "a node is killed and started again", 30*time.Second, func() {
		time.Sleep(8 * time.Second)
		cl.Nodes[1].Kill()
		time.Sleep(7 * time.Second)
		cl.must(cl.Nodes[1].Start(t.Context()))
	})
	cl.phase(cr, "Redis is flushed", 8*time.Second, func() {
		time.Sleep(3 * time.Second)
		_, err := cl.Redis.Do(t.Context(), "FLUSHALL")
		cl.must(err)
	})
	cl.phase(cr, "a database is stopped for 10 s", 16*time.Second, func() {
		time.Sleep(2 * time.Second)
		cl.must(cl.Databases[0].Stop())
		time.Sleep(10 * time.Second)
		cl.must(cl.Databases[0].Start(t.Context()))
	})

	cr.check() // I1 to I6, I8
	t.Logf("%v: every inbox is read", cl.age())
	eventually(t, 30*time.Second, "one session a device (I7)", func() bool { return cl.sessions() == users })
	eventually(t, 30*time.Second, "no deliveries owed (I9)", func() bool { return cl.tasks() == 0 })
	cl.metTheirMatch(users)
}

// late is how long after a fault what was acknowledged may take to arrive at
// last: less than a round of the audit, which would repair almost anything.
const late = 30 * time.Second

// phase has the crowd write for a while, with a fault in the middle, and waits
// until everything has arrived.
func (r *fleetRig) phase(cr *crowd, name string, load time.Duration, fault func()) {
	r.t.Helper()
	before, _ := cr.totals()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		cr.talk(400*time.Millisecond, stop)
	}()
	end := time.After(load)
	fault()
	<-end
	close(stop)
	<-done
	after, failed := cr.totals()
	r.t.Logf("%v: %s: %d messages acknowledged, %d given up so far", r.age(), name, after-before, failed)
	if least := len(cr.people) * int(load/time.Second) / 4; after-before < least {
		r.t.Errorf("%s: %d messages were acknowledged, want %d or more", name, after-before, least)
	}
	cr.arrived(late)
	if r.t.Failed() {
		r.t.FailNow()
	}
	r.t.Logf("%v: all have arrived", r.age())
}

// metTheirMatch shows that the test was one: events went between nodes, tasks
// between shards, and the databases were talked to through TLS.
func (r *fleetRig) metTheirMatch(users int) {
	r.t.Helper()
	if n := r.metric("hermod_peer_received_total"); n < float64(users) {
		r.t.Errorf("%v events came from other nodes", n)
	}
	for i, dsn := range r.ShardDSN[:len(r.Databases)] {
		db, err := sql.Open("mysql", dsn)
		r.must(err)
		var name string
		var accepts int
		r.must(db.QueryRowContext(r.t.Context(), "SHOW GLOBAL STATUS LIKE 'Ssl_finished_accepts'").Scan(&name, &accepts))
		r.must(db.Close())
		if accepts < len(r.Nodes) {
			r.t.Errorf("database %d accepted %d connections with TLS", i+1, accepts)
		}
	}
}
