package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// idleRun is one run of the idle scenario.
type idleRun struct {
	*runner
	cfg IdleConfig
	res *IdleResult
	// opened is how many sessions were started.
	opened int
}

// idleUser is the sink of a connection on which nothing happens. It counts its
// place in the inbox, so that a message from outside does not disturb.
type idleUser struct{ seq uint64 }

func (u *idleUser) up(_ *proto.Welcome, cursor uint64, _ bool)  { u.seq = cursor }
func (u *idleUser) down()                                       {}
func (u *idleUser) ack(time.Duration, uint64, ackView)          {}
func (u *idleUser) refused(time.Duration, uint64, *proto.Fault) {}
func (u *idleUser) burst(time.Duration)                         {}
func (u *idleUser) cursor() uint64                              { return u.seq }
func (u *idleUser) event(_ time.Duration, e eventView) (ok bool) {
	u.seq = max(u.seq, e.seq)
	return true
}

// Idle runs the idle scenario: To connections of distinct users, logged in,
// caught up and heartbeating, with the server's memory measured at From and
// at To. The report is OK if at both points all connections were up.
func Idle(ctx context.Context, cfg IdleConfig) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r, err := newRunner(ctx, "idle", cfg.Target, cfg.Users, cfg.To)
	if err != nil {
		return nil, err
	}
	i := &idleRun{runner: r, cfg: cfg, res: &IdleResult{From: cfg.From, To: cfg.To}}
	rep, err := i.run(ctx)
	return rep, errors.Join(err, r.stop())
}

func (i *idleRun) run(ctx context.Context) (*Report, error) {
	if err := i.prepare(ctx, i.cfg.To); err != nil {
		return nil, err
	}
	if i.cfg.Warm {
		if err := i.warm(ctx); err != nil {
			return nil, err
		}
	}
	ctx, i.cancel = context.WithCancel(ctx)
	i.heartbeat = i.cfg.Heartbeat
	i.readSize = 256
	if i.report.Users.Registered > i.cfg.To/10 {
		i.note("%d users were registered in this run: the memory that took is in the server's first figures; restart the server and run again", i.report.Users.Registered)
	}
	for n := range i.cfg.To {
		i.newSession(n, new(sync.Mutex), new(idleUser))
	}
	i.report.Idle = i.res
	for _, count := range []int{i.cfg.From, i.cfg.To} {
		if err := i.ramp(ctx, count); err != nil {
			return nil, err
		}
		i.point(ctx, count)
	}
	i.hold(ctx)
	i.perConnection()
	i.res.Connections = i.connections()
	first := i.sessions[0]
	first.mu.Lock()
	i.res.Heartbeat = seconds(first.heartbeat)
	first.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return i.finish(ctx), nil
}

// warm has everybody log in and leave once.
func (i *idleRun) warm(ctx context.Context) error {
	accs := make([]*account, i.cfg.To)
	for n := range accs {
		accs[n] = i.accounts.get(n)
	}
	i.res.Warm = true
	return i.allOnce(ctx, "warm-up", accs)
}

// ramp opens connections, at the pace asked for, until count are up.
func (i *idleRun) ramp(ctx context.Context, count int) error {
	from := i.opened
	i.opened = count
	began := time.Now()
	list := i.sessions[:count]
	i.tickAll(ctx, 250*time.Millisecond, list[from:])
	n, next := 0, from
	lastCheck := time.Time{}
	var dead error
	limit := time.Minute + time.Duration(float64(count-from)/i.cfg.Ramp*float64(time.Second))
	ok := i.watch(ctx, "connect", limit, func() bool {
		due := from + int(time.Since(began).Seconds()*i.cfg.Ramp)
		for ; next < min(due, count); next++ {
			i.start(ctx, list[next])
		}
		if time.Since(lastCheck) > 250*time.Millisecond {
			n, dead = i.connected(list)
			lastCheck = time.Now()
		}
		return dead != nil || n == count
	}, func(p *Progress) { p.Done, p.Total, p.Connected = n, count, n })
	switch {
	case dead != nil:
		return dead
	case ctx.Err() != nil:
		return ctx.Err()
	case !ok:
		return fmt.Errorf("bench: only %d of %d connections came up; the first error was: %w", n, count, i.firstError())
	}
	return nil
}

// steadyBand says when RSS stands still: within so much of itself.
const steadyBand = 0.005

// point waits until the server's memory has stood still for Settle, and notes
// it. A few seconds of standstill prove nothing: a server that returns memory
// when it has been calm for a while does it in one step, after the while.
func (i *idleRun) point(ctx context.Context, count int) {
	began := time.Now()
	var low, high uint64
	since, last := began, time.Time{}
	known := i.probe != nil
	stable := i.watch(ctx, "settle", i.cfg.SettleMax, func() bool {
		now := time.Now()
		if known && now.Sub(last) >= 500*time.Millisecond {
			last = now
			if u, ok := i.sample(ctx, false); ok {
				low, high = min(low, u.RSS), max(high, u.RSS)
				if float64(high-low) > steadyBand*float64(u.RSS) {
					low, high, since = u.RSS, u.RSS, now
				}
			}
		}
		return now.Sub(since) >= i.cfg.Settle
	}, i.fill(count))
	p := IdlePoint{Settled: seconds(time.Since(began)), Stable: stable && known}
	u, ok := i.sample(ctx, i.target.PID != 0)
	if ok {
		p.RSS, p.PSS, p.Anon = u.RSS, u.PSS, u.Anon
	}
	up, dead := i.connected(i.sessions[:count])
	p.Connections = up
	if up != count || dead != nil {
		i.problem("%d of %d connections were up when memory was measured (%v)", up, count, dead)
	}
	if known && !stable {
		i.note("at %d connections the server's memory had not come to rest after %v", count, i.cfg.SettleMax)
	}
	i.res.At = append(i.res.At, p)
}

func (i *idleRun) fill(count int) func(*Progress) {
	return func(p *Progress) {
		p.Connected, _ = i.connected(i.sessions[:count])
		p.Total = count
	}
}

// hold keeps everything as it is and looks at the server's CPU.
func (i *idleRun) hold(ctx context.Context) {
	before, ok1 := i.sample(ctx, false)
	own, began := ownCPU(), time.Now()
	i.watch(ctx, "hold", i.cfg.Hold, func() bool { return false }, i.fill(i.cfg.To))
	wall := time.Since(began)
	i.res.Hold = seconds(wall)
	after, ok2 := i.sample(ctx, false)
	i.report.Tool.CPUPercent = 100 * (ownCPU() - own).Seconds() / wall.Seconds()
	switch {
	case !ok1 || !ok2:
	case before.started != after.started:
		i.report.Server.Restarted = true
		i.problem("the server was restarted in the middle")
	default:
		i.res.IdleCPU = 100 * (after.CPU - before.CPU).Seconds() / wall.Seconds()
		i.report.Server.CPUPercent = i.res.IdleCPU
	}
	if up, dead := i.connected(i.sessions); up != i.cfg.To || dead != nil {
		i.problem("%d of %d connections were up at the end (%v)", up, i.cfg.To, dead)
	}
}

// perConnection divides the growth between the two points.
func (i *idleRun) perConnection() {
	a, b := i.res.At[0], i.res.At[1]
	if a.RSS == 0 || b.RSS == 0 {
		return
	}
	n := float64(b.Connections - a.Connections)
	grown := func(from, to uint64) float64 {
		if from == 0 || n <= 0 {
			return 0
		}
		return (float64(to) - float64(from)) / n
	}
	i.res.BytesPerConnection = grown(a.RSS, b.RSS)
	i.res.PSSPerConnection = grown(a.PSS, b.PSS)
	i.res.AnonPerConnection = grown(a.Anon, b.Anon)
}

// MakeUsers makes the accounts 0 … Count-1 and leaves: so that a server can be
// restarted between the making, which needs memory for passwords, and the
// measuring.
func MakeUsers(ctx context.Context, cfg UsersConfig) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r, err := newRunner(ctx, "users", cfg.Target, cfg.Users, cfg.Users.Logins)
	if err != nil {
		return nil, err
	}
	if err := r.prepare(ctx, cfg.Count); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	rep := r.finish(ctx)
	return rep, r.stop()
}
