package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// What renewScript answers about this run's lease.
const (
	leaseHeld       = 1
	leaseTaken      = 2
	leaseSuperseded = 3
)

// keepLease renews until Close. It is also what finds out that Redis is back:
// while Redis is away it asks every second, if renewals are not more frequent
// anyway.
func (r *Redis) keepLease() {
	t := time.NewTimer(r.opt.Renew)
	defer t.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-t.C:
		}
		r.renew()
		next := r.opt.Renew
		if !r.Up() {
			next = min(next, time.Second)
		}
		t.Reset(next)
	}
}

// renew extends the lease and sees to what was lost.
func (r *Redis) renew() {
	r.members.asking.Lock()
	err := r.ask(r.ctx)
	r.members.asking.Unlock()
	if err == nil {
		r.owed.poke()
	} else if r.ctx.Err() == nil {
		r.often.Warn().Err(err).Msg("directory: lease not renewed")
	}
}

// ask renews the lease and takes what Redis says about all of them. asking is
// held, so that answers are taken in their order. What comes of a lease that
// was lost is decided here, since whoever asks first takes it again.
func (r *Redis) ask(ctx context.Context) error {
	held := 0
	err := r.request(ctx, opRenew, func(ctx context.Context) error {
		var reply []any
		reply, err := r.scripts.renew.Run(ctx, r.opt.Client, []string{r.layout.nodes},
			r.opt.Node, r.opt.Incarnation, r.opt.LeaseTTL.Microseconds(), r.opt.Buckets, r.opt.Addr).Slice()
		if err != nil {
			return err
		}
		var now int64
		var fields []string
		if held, now, fields, err = parseRenewal(reply); err != nil {
			return err
		}
		r.skew.Store(now - r.opt.Now().UnixMicro())
		r.setMembers(fields)
		return nil
	})
	if err != nil {
		return err
	}
	switch held {
	case leaseTaken:
		if r.losses.Add(1) > 1 { // the first one is the start
			r.metrics.losses.Inc()
			r.opt.Log.Warn().Msg("directory: our lease was gone; registering all connections anew")
		}
		r.owed.all()
	case leaseSuperseded:
		r.often.Error().Uint64("node", r.opt.Node).
			Msg("directory: another process runs as this node, started later; nobody finds this one's users. Stop one of the two, and never copy a data folder to another node")
	}
	return nil
}

// parseRenewal decodes renewScript's answer.
func parseRenewal(reply []any) (held int, now int64, fields []string, err error) {
	if len(reply) < 2 {
		return 0, 0, nil, errors.New("router: renewal answered in fewer than two parts")
	}
	h, ok1 := reply[0].(int64)
	now, ok2 := reply[1].(int64)
	if !ok1 || !ok2 || h < leaseHeld || h > leaseSuperseded {
		return 0, 0, nil, fmt.Errorf("router: renewal answered %T %T", reply[0], reply[1])
	}
	for _, f := range reply[2:] {
		s, ok := f.(string)
		if !ok {
			return 0, 0, nil, fmt.Errorf("router: renewal answered a %T for a lease", f)
		}
		fields = append(fields, s)
	}
	return int(h), now, fields, nil
}

// request does one exchange with Redis: bounded in time, measured, and counted
// by the breaker. Its error is about Redis or the caller's context.
func (r *Redis) request(ctx context.Context, op string, do func(context.Context) error) error {
	begin := time.Now()
	short, cancel := context.WithTimeout(ctx, r.opt.Timeout)
	err := do(short)
	cancel()
	r.metrics.seconds.WithLabelValues(op).Observe(time.Since(begin).Seconds())
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	if err != nil && ctx.Err() == nil {
		r.metrics.failed.WithLabelValues(op).Inc()
	}
	if r.breaker.result(ctx, err) {
		if err != nil {
			r.opt.Log.Error().Err(err).Msg("directory: Redis does not answer; logins and local delivery go on, other nodes' users read storage")
		} else {
			r.opt.Log.Info().Msg("directory: Redis answers again")
		}
	}
	up := 1.0
	if !r.Up() {
		up = 0
	}
	r.metrics.up.Set(up)
	return err
}
