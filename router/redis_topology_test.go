package router

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hermod-im/hermod/bench/local"
)

// do runs a command in a server of several.
func do(t testing.TB, server *local.Redis, args ...any) string {
	t.Helper()
	v, err := server.Do(context.Background(), args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return fmt.Sprint(v)
}

// asks polls a server until its answer has all parts.
func asks(t testing.TB, server *local.Redis, parts []string, args ...any) {
	t.Helper()
	var answer string
	eventually(t, func() bool {
		v, err := server.Do(context.Background(), args...)
		answer = fmt.Sprint(v, err)
		for _, p := range parts {
			if !strings.Contains(answer, p) {
				return false
			}
		}
		return true
	}, func() any { return answer })
}

func hostPort(t testing.TB, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// newCluster is a Redis Cluster of two servers, half of the hash slots on each.
func newCluster(t testing.TB) (servers [2]*local.Redis) {
	t.Helper()
	for i := range servers {
		servers[i] = local.TestRedis(t, local.RedisOptions{Password: "of-both", Args: []string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no",
		}})
		do(t, servers[i], "CLUSTER", "SET-CONFIG-EPOCH", i+1)
	}
	do(t, servers[0], "CLUSTER", "ADDSLOTSRANGE", 0, 8191)
	do(t, servers[1], "CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
	host, port := hostPort(t, servers[1].Addr())
	do(t, servers[0], "CLUSTER", "MEET", host, port)
	for _, s := range servers {
		asks(t, s, []string{"cluster_state:ok", "cluster_slots_assigned:16384", "cluster_known_nodes:2"}, "CLUSTER", "INFO")
	}
	return servers
}

// A Cluster of several servers: every user is found, whichever server has the
// bucket; scripts that one of them has forgotten are sent to it again; while one
// is away the other's users are as before, and those of the lost one come back
// with it, though nobody lost a lease.
func TestClusterOfTwo(t *testing.T) {
	servers := newCluster(t)
	f := &fleet{t: t, server: servers[0]}
	change := func(o *RedisOptions) {
		_ = o.Client.Close()
		o.Client = f.client(true, 500*time.Millisecond)
		o.Timeout, o.Reassert = 500*time.Millisecond, 300*time.Millisecond
	}
	a, b := f.start(1, 1, change), f.start(2, 1, change)
	no := a.populate(60)
	a.complete(b, no)
	for _, s := range servers {
		if keys := do(t, s, "DBSIZE"); keys == "0" {
			t.Fatalf("a server has no key: the users are not divided")
		}
	}
	do(t, servers[1], "SCRIPT", "FLUSH")
	for u := int64(1); u <= 60; u++ {
		a.detach(u, 1, uint64(100+u))
		no[u] = a.attach(u, 1, uint64(100+u), 1).AttachNo
	}
	a.complete(b, no)

	// The one without the leases dies, and comes back empty.
	lost := servers[1]
	if do(t, servers[0], "EXISTS", a.layout.nodes) == "0" {
		lost = servers[0]
	}
	lost.Kill()
	began := time.Now()
	found := 0
	for u := range no {
		if len(b.routes(u)) > 0 {
			found++
		}
	}
	if found == 0 || found == len(no) {
		t.Errorf("%d of %d users are found without one of two servers", found, len(no))
	}
	a.attach(1, 1, 777, 1)
	a.attach(2, 1, 777, 1)
	if took := time.Since(began); took > 60*2*time.Second {
		t.Errorf("all that took %v", took)
	}
	if err := lost.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	asks(t, lost, []string{"cluster_state:ok"}, "CLUSTER", "INFO")
	delete(no, 1)
	delete(no, 2)
	a.complete(b, no)
	b.sees(1, a.ref(777))
	b.sees(2, a.ref(777))
}

// A failover by Sentinel: the directory goes on with the replica, by itself.
func TestSentinelFailover(t *testing.T) {
	const password = "of-all"
	master := local.TestRedis(t, local.RedisOptions{Password: password, Args: []string{"--masterauth", password}})
	host, port := hostPort(t, master.Addr())
	replica := local.TestRedis(t, local.RedisOptions{Password: password, Args: []string{"--masterauth", password, "--replicaof", host + " " + port}})
	asks(t, replica, []string{"master_link_status:up"}, "INFO", "replication")
	sentinel := local.TestRedis(t, local.RedisOptions{Password: password, Args: []string{"--sentinel"}})
	do(t, sentinel, "SENTINEL", "MONITOR", "hermod", host, port, 1)
	do(t, sentinel, "SENTINEL", "SET", "hermod", "auth-pass", password, "down-after-milliseconds", 500, "failover-timeout", 3000)
	asks(t, sentinel, []string{"num-slaves:1"}, "SENTINEL", "MASTER", "hermod")

	f := &fleet{t: t, server: replica}
	change := func(o *RedisOptions) {
		_ = o.Client.Close()
		o.Client = DialRedis(redis.UniversalOptions{
			Addrs: []string{sentinel.Addr()}, MasterName: "hermod", Password: password, SentinelPassword: password,
		})
		o.Timeout, o.Reassert = 250*time.Millisecond, 500*time.Millisecond
	}
	a, b := f.start(1, 1, change), f.start(2, 1, change)
	no := a.populate(30)
	a.complete(b, no)
	master.Kill()
	a.attach(1000, 1, 1000, 1) // nobody waits for the failover
	eventually(t, func() bool { return a.Up() && b.Up() }, func() any { return a.log })
	asks(t, replica, []string{"role:master"}, "INFO", "replication")
	a.complete(b, no)
	b.sees(1000, a.ref(1000))
	if r := b.attach(1, 1, 999, 1); r.Loser != a.ref(101) {
		t.Errorf("after the failover: %+v", r)
	}
}
