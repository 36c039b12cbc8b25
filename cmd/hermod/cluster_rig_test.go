package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/cluster"
)

// fleetRig is a cluster under test.
type fleetRig struct {
	*cluster.Cluster
	t     *testing.T
	begun time.Time
}

// age is how long the cluster exists.
func (r *fleetRig) age() time.Duration { return time.Since(r.begun).Round(100 * time.Millisecond) }

// startCluster starts three nodes, four shards and Redis, with TLS everywhere,
// and ends them with the test.
func startCluster(t *testing.T, change ...func(*cluster.Options)) *fleetRig {
	t.Helper()
	server, err := serverBinary()
	if err != nil {
		t.Fatal(err)
	}
	tool, err := toolBinary()
	if err != nil {
		t.Fatal(err)
	}
	o := cluster.Options{
		Binary: server, TLS: true,
		Init: func(ctx context.Context, file string) error {
			out, err := exec.CommandContext(ctx, tool, "shards", "init", "--config", file).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		},
		Settings: []string{
			"HERMOD_AUTH_ARGON2_MEMORY_KIB=64", "HERMOD_AUTH_ARGON2_TIME=1", "HERMOD_STORAGE_FREE_RESERVE_MIB=64",
		},
	}
	for _, f := range change {
		f(&o)
	}
	begin := time.Now()
	c, err := cluster.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r := &fleetRig{Cluster: c, t: t, begun: begin}
	t.Logf("%v: the cluster is up", r.age())
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Nodes {
				t.Logf("%s: %s", n.Name, n.LogTail(6000))
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// addrs are the nodes' listeners for clients.
func (r *fleetRig) addrs() (out []string) {
	for _, n := range r.Nodes {
		out = append(out, n.Addr)
	}
	return out
}

// tls trusts the cluster's CA.
func (r *fleetRig) tls() *tls.Config {
	r.t.Helper()
	pem, err := os.ReadFile(r.CA.Cert)
	r.must(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		r.t.Fatal("no CA")
	}
	return &tls.Config{RootCAs: pool}
}

func (r *fleetRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// talksTLS shows that the nodes talk to the databases through TLS.
func (r *fleetRig) talksTLS() {
	r.t.Helper()
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
