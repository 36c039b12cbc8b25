package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hermod-im/hermod/bench/observe"
	"github.com/hermod-im/hermod/conn/client"
)

// Cut is a way in which everybody loses the server at once.
type Cut string

const (
	// CutKill: kill -9, and a new process.
	CutKill Cut = "kill"
	// CutDrain: the server is told to end. It sends everybody GoAway, and a new
	// process takes its place when it is gone.
	CutDrain Cut = "drain"
)

// StormServer is a server that the storm may end and start again, with the
// same data at the same address.
type StormServer interface {
	Addr() string  // host:port for clients
	Admin() string // base URL of its admin HTTP
	Pid() int
	Start(ctx context.Context) error // returns when it takes clients
	Kill()
	Stop() error // drains; returns when it is gone
}

// StormConfig is the reconnect storm.
type StormConfig struct {
	Server StormServer
	// TLS, if not nil, is used for every connection.
	TLS *tls.Config
	// Clients are distinct users, each with one device. Default 15,000.
	Clients int
	// Logins is how many register at a time, before the first cut. Default 64.
	Logins int
	// BackoffMax is the clients' longest pause between two attempts; 0: the
	// default of conn/client.
	BackoffMax time.Duration
	// Cuts come one after the other. Default: a kill, then a drain.
	Cuts []Cut
	// Within is the time, from the cut, in which all have to be back and synced.
	// Default 120 s.
	Within time.Duration
	// Delivery is the time after that in which all that was sent must have
	// arrived: a push that got lost is repaired within 60 s. Default 90 s.
	Delivery time.Duration
	// Progress, if not nil, is called about once a second.
	Progress func(string)
}

// Validate fills in defaults and refuses what cannot be run.
func (c *StormConfig) Validate() error {
	def(&c.Clients, 15_000)
	def(&c.Logins, 64)
	def(&c.Within, 120*time.Second)
	def(&c.Delivery, 90*time.Second)
	if len(c.Cuts) == 0 {
		c.Cuts = []Cut{CutKill, CutDrain}
	}
	if c.Server == nil {
		return errors.New("bench: the storm needs a Server that it may kill")
	}
	for _, cut := range c.Cuts {
		if cut != CutKill && cut != CutDrain {
			return fmt.Errorf("bench: no cut is called %q: there are %s and %s", cut, CutKill, CutDrain)
		}
	}
	if c.Clients < 2 || c.Clients > 1_000_000 || c.Logins < 1 || c.Within <= 0 || c.Delivery <= 0 || c.BackoffMax < 0 {
		return errors.New("bench: a storm has 2 to 1000000 clients, at least one login at a time, and times above 0")
	}
	return nil
}

// storm is one run.
type storm struct {
	cfg     StormConfig
	dial    *dialer
	pool    *client.Pool
	clients []*stormClient
	begin   time.Time
	rep     *StormReport
	// round counts the messages that each has sent to its neighbour.
	round int
	// wrong counts broken promises of order and number.
	wrong atomic.Uint64
}

// Storm logs Clients in, has all of them write, takes the server away while
// they do, and watches them come back by themselves: how long each takes until
// it is online and has all that it missed, and that nothing it sent or was sent
// is missing or there twice. The report is OK if that holds, all were in time,
// and the server hashed no password for it.
func Storm(ctx context.Context, cfg StormConfig) (*StormReport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d, err := newDialer(cfg.Server.Addr(), cfg.TLS, cfg.Clients)
	if err != nil {
		return nil, err
	}
	s := &storm{cfg: cfg, dial: d, pool: client.NewPool(), begin: time.Now(), rep: newStormReport(&cfg)}
	defer s.close()
	if err := s.login(ctx); err != nil {
		return nil, err
	}
	if err := s.countsHashes(ctx); err != nil {
		return nil, err
	}
	for _, cut := range cfg.Cuts {
		if err := s.cut(ctx, cut); err != nil {
			return nil, err
		}
	}
	if n := s.wrong.Load(); n > 0 {
		s.rep.problem("%d events out of order, twice, or never sent", n)
	}
	s.rep.Elapsed = seconds(time.Since(s.begin))
	s.rep.OK = len(s.rep.Problems) == 0
	return s.rep, nil
}

// login registers everybody and waits until all are online and synced.
func (s *storm) login(ctx context.Context) error {
	run := s.begin.UnixNano()
	s.clients = make([]*stormClient, s.cfg.Clients)
	for n := range s.clients {
		s.clients[n] = &stormClient{s: s, n: n, name: fmt.Sprintf("storm%d.%d", run%1e9, n)}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(s.cfg.Logins)
	done := atomic.Int64{}
	for n, c := range s.clients {
		g.Go(func() error {
			if gctx.Err() != nil {
				return gctx.Err()
			}
			if err := c.register(gctx); err != nil {
				return fmt.Errorf("bench: user %d: %w", n, err)
			}
			done.Add(1)
			return nil
		})
		if n%256 == 0 {
			s.say("register: %d of %d", done.Load(), s.cfg.Clients)
		}
	}
	return g.Wait()
}

// countsHashes: what is to stay at 0 afterwards has counted everybody's
// registration, or it would say nothing.
func (s *storm) countsHashes(ctx context.Context) error {
	series, err := observe.Get(ctx, s.cfg.Server.Admin())
	if err != nil {
		return err
	}
	if n, err := s.hashes(series); err != nil || n < uint64(s.cfg.Clients) {
		return cmp.Or(err, fmt.Errorf("bench: %d clients have registered, and the server has counted %d password hashes", s.cfg.Clients, n))
	}
	return nil
}

// cut is one round: everybody writes, the server goes away, everybody comes back.
func (s *storm) cut(ctx context.Context, kind Cut) error {
	res := StormCut{Kind: kind}
	for _, c := range s.clients {
		c.expect(s.round + 1)
	}
	s.round++
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for _, c := range s.clients {
			c.write(s.round)
		}
	}()
	if !sleepFor(ctx, 100*time.Millisecond) { // in the midst of it
		return ctx.Err()
	}
	cutAt := time.Now()
	if kind == CutKill {
		s.cfg.Server.Kill()
	} else {
		if err := s.cfg.Server.Stop(); err != nil {
			return err
		}
	}
	// Who was cut off by a drain has got GoAway; it has to come back all the same.
	gone := time.Now()
	if err := s.cfg.Server.Start(ctx); err != nil {
		return err
	}
	ready := time.Now()
	<-sent
	s.await(ctx, &res, "back", cutAt.Add(s.cfg.Within), func(c *stormClient) bool { return c.backAt(cutAt).After(gone) })
	s.times(&res, cutAt, gone, ready)
	s.await(ctx, &res, "deliver", time.Now().Add(s.cfg.Delivery), func(c *stormClient) bool { return c.complete() })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := s.judge(ctx, &res)
	s.rep.Cuts = append(s.rep.Cuts, res)
	return err
}

// await waits until ok holds for all clients, or the time is over.
func (s *storm) await(ctx context.Context, res *StormCut, what string, until time.Time, ok func(*stormClient) bool) {
	last := time.Time{}
	for left := s.clients; len(left) > 0 && ctx.Err() == nil && time.Now().Before(until); {
		var rest []*stormClient
		for _, c := range left {
			if !ok(c) {
				rest = append(rest, c)
			}
		}
		if left = rest; len(left) == 0 || !sleepFor(ctx, 50*time.Millisecond) {
			return
		}
		if time.Since(last) > time.Second {
			last = time.Now()
			s.say("%s, %s: %d of %d", res.Kind, what, s.cfg.Clients-len(left), s.cfg.Clients)
			if u, err := readProc("/proc/"+strconv.Itoa(s.cfg.Server.Pid()), false); err == nil {
				res.RSSPeak = max(res.RSSPeak, u.RSS)
			}
		}
	}
}

func (s *storm) say(format string, args ...any) {
	if s.cfg.Progress != nil {
		s.cfg.Progress(fmt.Sprintf(format, args...))
	}
}

// close ends all clients; nobody logs out.
func (s *storm) close() {
	var g errgroup.Group
	g.SetLimit(64)
	for _, c := range s.clients {
		g.Go(func() error { c.close(); return nil })
	}
	_ = g.Wait()
}

// sleepFor reports false if ctx ended first.
func sleepFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
