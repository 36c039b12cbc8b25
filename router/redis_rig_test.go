package router

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/bench/local"
)

// fleet is nodes that share a Redis.
type fleet struct {
	t      testing.TB
	server *local.Redis
	// commands that any node sent, if it was asked to note them.
	noted *noted
}

func newFleet(t testing.TB, opt local.RedisOptions) *fleet {
	return &fleet{t: t, server: local.TestRedis(t, opt)}
}

// client returns a patient client: a loaded machine is no Redis that is down.
func (f *fleet) client(cluster bool, timeout time.Duration) redis.UniversalClient {
	c := DialRedis(redis.UniversalOptions{
		Addrs: []string{f.server.Addr()}, Password: f.server.Password(), IsClusterMode: cluster,
		DialTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
	})
	if f.noted != nil {
		c.AddHook(f.noted)
	}
	return c
}

// options of a node that renews often.
func (f *fleet) options(node, incarnation uint64) RedisOptions {
	return RedisOptions{
		Client: f.client(false, 5*time.Second), Node: node, Incarnation: incarnation, Addr: "node.example:5190",
		Timeout: 5 * time.Second, LeaseTTL: time.Minute, Renew: 20 * time.Millisecond,
		Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(),
	}
}

// node is a directory, and who was told to go outside of an Attach.
type node struct {
	*Redis
	t   testing.TB
	log *syncBuffer

	mu   sync.Mutex
	told []kick
}

// start starts a node; change may change its options.
func (f *fleet) start(id, incarnation uint64, change ...func(*RedisOptions)) *node {
	f.t.Helper()
	n := &node{t: f.t, log: &syncBuffer{}}
	opt := f.options(id, incarnation)
	opt.Log = zerolog.New(n.log)
	for _, c := range change {
		c(&opt)
	}
	d, err := NewRedis(opt)
	if err != nil {
		f.t.Fatal(err)
	}
	n.Redis = d
	d.OnLoser(func(user int64, slot Slot, loser Ref, newLogin bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.told = append(n.told, kick{user, slot, loser.Conn, newLogin})
	})
	f.t.Cleanup(func() { _ = d.Close() })
	return n
}

// impatient notices soon that Redis is away.
func impatient(f *fleet) func(*RedisOptions) {
	return func(o *RedisOptions) {
		_ = o.Client.Close()
		o.Client = f.client(false, 250*time.Millisecond)
		o.Timeout = 250 * time.Millisecond
	}
}

func (n *node) toldOf() []kick {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.told)
}

func (n *node) ref(conn uint64) Ref { return Ref{n.opt.Node, n.opt.Incarnation, conn} }

func (n *node) attach(user int64, slot Slot, conn, epoch uint64) Attached {
	n.t.Helper()
	a, err := n.Attach(context.Background(), user, slot, Entry{Ref: n.ref(conn), LoginEpoch: epoch})
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

func (n *node) detach(user int64, slot Slot, conn uint64) {
	n.t.Helper()
	if err := n.Detach(context.Background(), user, slot, n.ref(conn)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) routes(users ...int64) []Route {
	n.t.Helper()
	rs, err := n.Lookup(context.Background(), users, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return rs
}

// sees waits until the node finds the user at exactly these connections.
func (n *node) sees(user int64, want ...Ref) {
	n.t.Helper()
	var got []Ref
	eventually(n.t, func() bool {
		got = nil
		for _, r := range n.routes(user) {
			got = append(got, r.Ref)
		}
		return slices.Equal(got, want)
	}, func() any { return [2][]Ref{got, want} })
}

// eventually waits for a condition, and shows what the state is if it never
// comes true.
func eventually(t testing.TB, ok func() bool, state func() any) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %v", state())
		}
	}
}

// do runs a command in the server.
func (f *fleet) do(args ...any) any {
	f.t.Helper()
	v, err := f.server.Do(context.Background(), args...)
	if err != nil {
		f.t.Fatalf("%v: %v", args, err)
	}
	return v
}

// noLeaks waits for goroutines to end. The client's pool looks once a second
// whether it is closed, if its server went away.
func noLeaks(t testing.TB) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if err = goleak.Find(); err == nil {
			return
		}
	}
	t.Error(err)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// noted is a hook that notes the commands that were sent.
type noted struct {
	mu   sync.Mutex
	cmds [][]any
	// before, if set, is called with each single command before it is sent.
	before atomic.Pointer[func(redis.Cmder)]
}

func (n *noted) note(c redis.Cmder) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmds = append(n.cmds, c.Args())
}

func (n *noted) DialHook(next redis.DialHook) redis.DialHook { return next }

func (n *noted) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		n.note(cmd)
		if f := n.before.Load(); f != nil {
			(*f)(cmd)
		}
		return next(ctx, cmd)
	}
}

func (n *noted) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, c := range cmds {
			n.note(c)
		}
		return next(ctx, cmds)
	}
}
