package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// fleetParts is what nodes in this process share: one database with one shard,
// Redis, and certificates.
type fleetParts struct {
	t     *testing.T
	dir   string
	db    *local.MariaDB
	redis *local.Redis
}

func newFleetParts(t *testing.T) *fleetParts {
	t.Helper()
	f := &fleetParts{t: t, dir: t.TempDir(), db: local.TestMariaDB(t, local.MariaDBOptions{}), redis: local.TestRedis(t, local.RedisOptions{})}
	f.must(f.db.CreateDatabase(t.Context(), "one"))
	f.write("dsn", f.db.DSN("one"))
	f.write("redis", f.redis.Password())
	_, err := cluster.MakeCA(cluster.CertOptions{Dir: f.dir, Life: 1000 * time.Hour})
	f.must(err)
	return f
}

func (f *fleetParts) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleetParts) write(name, text string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	f.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// config is the configuration of a node with that number; nodes of one number
// have one certificate, and their folders are their own.
func (f *fleetParts) config(node uint64) config.Config {
	f.t.Helper()
	cfg := testConfig(f.t)
	port, err := local.FreePort()
	f.must(err)
	pair, err := cluster.MakeCert(cluster.CertOptions{Dir: f.dir, Name: "node", Node: node, Life: 900 * time.Hour, Replace: true})
	f.must(err)
	own := f.t.TempDir() // a later certificate must not replace this one
	for _, file := range []*string{&pair.Cert, &pair.Key} {
		b, err := os.ReadFile(*file)
		f.must(err)
		*file = filepath.Join(own, filepath.Base(*file))
		f.must(os.WriteFile(*file, b, 0o600))
	}
	cfg.Cluster = config.ClusterConfig{
		Listen: (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String(),
		CA:     filepath.Join(f.dir, cluster.CACert), Cert: pair.Cert, Key: pair.Key,
	}
	cfg.Auth.KeysDir = filepath.Join(f.dir, "keys")
	cfg.Redis.Addrs, cfg.Redis.PasswordFile = []string{f.redis.Addr()}, filepath.Join(f.dir, "redis")
	cfg.Storage.Shards = []config.ShardConfig{{ID: 1, DSNFile: filepath.Join(f.dir, "dsn")}}
	return cfg
}

// tool runs hermodctl on a configuration.
func (f *fleetParts) tool(cfg config.Config, args ...string) (string, error) {
	f.t.Helper()
	bin, err := toolBinary()
	f.must(err)
	var text bytes.Buffer
	cfg.Explain(&text)
	file := f.write("hermod.toml", text.String())
	out, err := exec.CommandContext(f.t.Context(), bin, append(args, "--config", file)...).CombinedOutput()
	return string(out), err
}

// refused wants a start to fail with all the words.
func (f *fleetParts) refused(cfg config.Config, words ...string) {
	f.t.Helper()
	s, err := Start(cfg, zerolog.Nop())
	if err == nil {
		_ = s.Close()
		f.t.Fatalf("started, want an error with %q", words)
	}
	wantError(f.t, err, words...)
	if strings.Contains(err.Error(), f.redis.Password()) {
		f.t.Errorf("a password is shown: %v", err)
	}
}

// TestFleetStart: what an operator meets on the way to a first cluster, and
// what a node says that cannot start.
func TestFleetStart(t *testing.T) {
	f := newFleetParts(t)
	cfg := f.config(7)

	// A database that nobody has prepared is no new installation by accident.
	f.refused(cfg, "no shard owns any slot", "hermodctl shards init")
	for range 2 {
		out, err := f.tool(cfg, "shards", "init")
		if err != nil || !strings.Contains(out, "4096") {
			t.Fatalf("shards init: %v\n%s", err, out)
		}
	}
	a := serveConfig(t, cfg)
	if !strings.Contains(a.log.String(), "copy the folder to all other nodes") {
		t.Error("a new signing key goes unnoticed")
	}
	if got := a.data.node; got.ID != 7 || got.Incarnation < 1_000_000 {
		t.Errorf("node %+v, want the certificate's number and a count that no earlier run can have had", got)
	}

	// The same node twice, on another machine.
	eventually(t, 10*time.Second, "the note of the first", func() bool { return a.hasNote() })
	f.refused(f.config(7), "node 7 already runs", a.cfg.Cluster.Listen, "of its own")
	// The same machine twice.
	again := cfg
	again.Cluster.Listen = f.config(7).Cluster.Listen
	f.refused(again, "another hermod runs on this data")
	// A folder of another node.
	stranger := f.config(8)
	other := serveConfig(t, stranger)
	other.stop()
	wrong := f.config(9)
	wrong.Data.Dir = stranger.Data.Dir
	f.refused(wrong, "is node 8's", "for node 9", "--node 8")
	// A node that believes to be alone.
	alone := f.config(10)
	alone.Cluster, alone.Redis = config.ClusterConfig{}, config.Default().Redis
	f.refused(alone, "node 7 works on this shard", "[cluster] and [redis]")

	// A database that does not answer, or not to us.
	down := f.config(11)
	down.Storage.Shards[0].DSNFile = f.write("down", "u:geheim@tcp(127.0.0.1:1)/one")
	f.refused(down, "shard 1", "connection refused")
	denied := f.config(11)
	denied.Storage.Shards[0].DSNFile = f.write("denied", "u:geheim@tcp("+f.db.Addr()+")/one")
	f.refused(denied, "shard 1", "Access denied")

	out, err := f.tool(cfg, "shards", "check")
	if err != nil || !strings.Contains(out, "shard 1 ("+f.db.Addr()+"/one)") {
		t.Errorf("shards check: %v\n%s", err, out)
	}
	out, err = f.tool(down, "shards", "check")
	if err == nil || !strings.Contains(out, "error    shard 1 (127.0.0.1:1/one)") || strings.Contains(out, "geheim") {
		t.Errorf("shards check of one that is down: %v\n%s", err, out)
	}
	if out, err = f.tool(down, "shards", "status"); err == nil || !strings.Contains(out, "see below") {
		t.Errorf("shards status of one that is down: %v\n%s", err, out)
	}
	out, err = f.tool(cfg, "shards", "status")
	if err != nil || !strings.Contains(out, "MariaDB") || !strings.Contains(out, " nodes ") {
		t.Errorf("shards status: %v\n%s", err, out)
	}
}

func (n *node) hasNote() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, err := n.fleet.notes.read(ctx, n.data.node.ID)
	return err == nil && st != nil
}

// TestFleetOfTwo: what is shown of two nodes, messages and kicks between them,
// and all of it while Redis is away and when it is back.
func TestFleetOfTwo(t *testing.T) {
	f := newFleetParts(t)
	cfg := f.config(1)
	if out, err := f.tool(cfg, "shards", "init"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a, b := serveConfig(t, cfg), serveConfig(t, f.config(2))
	meet := func() {
		t.Helper()
		eventually(t, 10*time.Second, "both see each other", func() bool {
			for _, n := range []*node{a, b} {
				st := n.status(t.Context())
				if len(st.Nodes) != 2 || st.Nodes[1].Silent || len(st.Nodes[0].Links) != 1 || !st.Nodes[0].Links[0].Up {
					return false
				}
			}
			return true
		})
	}
	meet()
	ann, ben := join(t, a.addr, "ann"), join(t, b.addr, "ben")
	ann.say(t, ben.c.UserID(), "hello over there")
	eventually(t, 10*time.Second, "a push through the link", func() bool { return len(ben.received()) == 1 })
	if b.metric("hermod_peer_received_total") == 0 {
		t.Error("it did not come through the link")
	}

	// A newer login of the same slot, on the other node: the older one goes.
	next := join(t, b.addr, "ann", withPassword(proto.DeviceSlot_DEVICE_SLOT_PHONE))
	ended(t, "ann's old phone, on the other node", ann.c, client.ErrKicked)
	_, err := f.redis.Do(t.Context(), "FLUSHALL")
	f.must(err)
	ann = join(t, a.addr, "ann", withPassword(proto.DeviceSlot_DEVICE_SLOT_PHONE))
	ended(t, "the newer phone, after a flush", next.c, client.ErrKicked)
	meet()

	out, err := exec.Command(must(toolBinary()), "cluster", "status", "--admin", a.admin.addr().String()).CombinedOutput()
	for _, want := range []string{"mysql   " + f.db.Addr() + "/one", "4096", "1 of 1", "ok (asked)", "2 nodes, Redis: ok", a.cfg.Cluster.Listen, b.cfg.Cluster.Listen} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("cluster status (%v) without %q:\n%s", err, want, out)
		}
	}

	// Redis away: nobody is turned away, and a node starts.
	f.redis.Kill()
	cid := join(t, a.addr, "cid")
	cid.say(t, ann.c.UserID(), "on the same node")
	eventually(t, 10*time.Second, "a push within the node", func() bool { return len(ann.received()) == 1 })
	eventually(t, 10*time.Second, "/readyz knows", func() bool {
		status, body := a.get("/readyz")
		return status == 200 && strings.Contains(body, "Redis does not answer")
	})
	c := serveConfig(t, f.config(3))
	dan := join(t, c.addr, "dan")
	cid.say(t, dan.c.UserID(), "one day")
	f.must(f.redis.Start(t.Context()))
	eventually(t, 30*time.Second, "the third has joined", func() bool { return len(a.status(t.Context()).Nodes) == 3 })
	// Registered again, all of them: a message finds its way within a second or
	// so, where the audit would take up to 40.
	for i, p := range []*person{ann, ben, dan} {
		before := len(p.received())
		deadline := time.Now().Add(20 * time.Second)
		for len(p.received()) == before {
			if time.Now().After(deadline) {
				t.Fatalf("%d: nothing arrives after Redis came back", i)
			}
			cid.say(t, p.c.UserID(), "are you back?")
			time.Sleep(100 * time.Millisecond)
		}
	}

	// New certificates under a running fleet; a bad one is refused.
	renewed := a.cfg
	if !a.Reload(renewed) || strings.Contains(a.log.String(), "reload: what failed") {
		t.Error("the same certificate is refused")
	}
	renewed.Cluster.Cert, renewed.Cluster.Key = b.cfg.Cluster.Cert, b.cfg.Cluster.Key
	a.Reload(renewed)
	if !strings.Contains(a.log.String(), "reload: what failed") {
		t.Error("another node's certificate is taken")
	}
}

// must is for what cannot fail in a test that got so far.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
