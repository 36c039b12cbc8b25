package peer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/router"
)

// shared starts a node whose directory is in a real Redis.
func (w *town) shared(server *local.Redis, id, incarnation uint64, hooks ...redis.Hook) *node {
	w.t.Helper()
	ln := listen(w.t)
	client := router.DialRedis(redis.UniversalOptions{Addrs: []string{server.Addr()}, Password: server.Password()})
	for _, h := range hooks {
		client.AddHook(h)
	}
	dir, err := router.NewRedis(router.RedisOptions{
		Client: client,
		Node:   id, Incarnation: incarnation, Addr: ln.Addr().String(),
		Timeout: time.Second, Renew: 50 * time.Millisecond, Now: time.Now,
		Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.run(router.Run{Node: id, Incarnation: incarnation}, ln, dir, dir)
}

// settled waits until the directory has exactly these connections of a user.
func settled(t testing.TB, n *node, user int64, want ...uint64) {
	t.Helper()
	eventually(t, "the directory has the user where the user is", func() bool {
		rs, err := n.router.Online(context.Background(), user)
		var got []uint64
		for _, r := range rs {
			got = append(got, r.Conn)
		}
		return err == nil && slices.Equal(got, want)
	})
}

// Redis dies and comes back empty. Meanwhile sessions on a node get their
// pushes, users log in, and links stay up. Afterwards everything resumes by
// itself: pushes to other nodes, and the kick of whoever lost a slot meanwhile.
func TestRedisAway(t *testing.T) {
	w := newTown(t)
	server := local.TestRedis(t, local.RedisOptions{})
	a, b, c := w.shared(server, 1, 1), w.shared(server, 2, 1), w.shared(server, 3, 1)
	join(t, a, b, c)
	b.attach(t, 7, 1, 71)
	b.attach(t, 8, 1, 81)
	a.deliver(8, 1)
	eventually(t, "a push reaches the other node", func() bool { return slices.Equal(b.home.seqs(8), []uint64{1}) })

	server.Kill()
	began := time.Now()
	b.deliver(8, 2)
	if got := b.home.seqs(8); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("pushed %v here without Redis, want 1 and 2", got)
	}
	a.home.add(7, 72)
	got, err := a.router.Attach(context.Background(), 7, 1, 72, 2) // a newer login
	if err != nil || got.Lost || got.Loser != (router.Ref{}) {
		t.Errorf("a login without Redis: %+v, %v", got, err) // both are live now: nobody can know
	}
	a.deliver(7, 1)
	if got := a.home.seqs(7); !slices.Equal(got, []uint64{1}) {
		t.Errorf("pushed %v to who logged in without Redis, want 1", got)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("all that took %v", d)
	}
	if !a.up(b) || !c.up(a) {
		t.Error("links went down with Redis")
	}

	if err := server.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Both nodes find out, each when it registers its own; twice does no harm.
	eventually(t, "the one who lost is kicked on the other node", func() bool {
		return slices.Contains(b.home.kickedNow(), kicked{7, 1, 71, true})
	})
	for _, k := range append(a.home.kickedNow(), b.home.kickedNow()...) {
		if k != (kicked{7, 1, 71, true}) {
			t.Errorf("kicked %+v, who is not the one who lost", k)
		}
	}
	settled(t, c, 7, 72)
	settled(t, c, 8, 81)
	c.deliver(8, 3)
	c.deliver(7, 2)
	eventually(t, "pushes reach other nodes again", func() bool {
		return slices.Contains(b.home.seqs(8), 3) && slices.Contains(a.home.seqs(7), 2)
	})
}

// Redis forgets everything while it runs.
func TestRedisFlushed(t *testing.T) {
	w := newTown(t)
	server := local.TestRedis(t, local.RedisOptions{})
	a, b := w.shared(server, 1, 1), w.shared(server, 2, 1)
	join(t, a, b)
	for user := int64(1); user <= 50; user++ {
		b.attach(t, user, 1, uint64(user))
	}
	if _, err := server.Do(context.Background(), "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	for user := int64(1); user <= 50; user++ {
		settled(t, a, user, uint64(user))
		a.deliver(user, 1)
	}
	eventually(t, "all get their pushes", func() bool { return b.home.total() == 50 })
	if !a.up(b) || !b.up(a) {
		t.Error("a flush took links down")
	}
}

// A connection whose end Redis was not told of misleads once.
func TestNotHereCleansRedis(t *testing.T) {
	w := newTown(t)
	server := local.TestRedis(t, local.RedisOptions{})
	a, b := w.shared(server, 1, 1), w.shared(server, 2, 1)
	join(t, a, b)
	b.attach(t, 7, 1, 71)
	settled(t, a, 7, 71)
	b.home.lose(7)
	a.deliver(7, 1)
	settled(t, a, 7)
}

// A node's next run takes its users back; what is for the former run goes
// nowhere.
func TestRedisNextRun(t *testing.T) {
	w := newTown(t)
	server := local.TestRedis(t, local.RedisOptions{})
	a, b := w.shared(server, 1, 1), w.shared(server, 2, 1)
	join(t, a, b)
	b.attach(t, 7, 1, 71)
	settled(t, a, 7, 71)
	b.stop()
	b = w.shared(server, 2, 2)
	join(t, a, b)
	settled(t, a, 7)
	b.attach(t, 7, 1, 72)
	settled(t, a, 7, 72)
	a.deliver(7, 1)
	eventually(t, "the next run gets the push", func() bool { return slices.Equal(b.home.seqs(7), []uint64{1}) })
}

// deaf is a hook that does not hear the next answer about a user's bucket.
type deaf struct{ once atomic.Bool }

func (d *deaf) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d *deaf) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if args := cmd.Args(); err == nil && len(args) > 3 && strings.HasPrefix(fmt.Sprint(args[3]), "hermod:u:") && d.once.CompareAndSwap(true, false) {
			cmd.SetErr(context.DeadlineExceeded)
			return cmd.Err()
		}
		return err
	}
}

func (d *deaf) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// The answer that names the loser is lost: it is kicked all the same.
func TestKickOfALoserNobodyNamed(t *testing.T) {
	w := newTown(t)
	server := local.TestRedis(t, local.RedisOptions{})
	d := new(deaf)
	a, b, c := w.shared(server, 1, 1, d), w.shared(server, 2, 1), w.shared(server, 3, 1)
	join(t, a, b, c)
	b.attach(t, 7, 1, 71)
	settled(t, a, 7, 71)
	d.once.Store(true)
	if got := a.attach(t, 7, 1, 72); got.Loser != (router.Ref{}) {
		t.Fatalf("the answer was heard: %+v", got)
	}
	eventually(t, "the loser is kicked", func() bool { return slices.Equal(b.home.kickedNow(), []kicked{{7, 1, 71, false}}) })
	settled(t, c, 7, 72)
	if got := append(a.home.kickedNow(), c.home.kickedNow()...); len(got) != 0 {
		t.Errorf("kicked %+v", got)
	}
}
