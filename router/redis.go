package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/rs/zerolog"
)

// RedisOptions configures a Redis directory.
type RedisOptions struct {
	// Client is one of DialRedis. The directory owns it and closes it.
	Client redis.UniversalClient
	// Node is this node for good; Incarnation this run, rising with each start.
	Node, Incarnation uint64
	// Addr is where peers reach this node, host:port without spaces. A node
	// without peer links has none.
	Addr string
	// Prefix begins every key; default "hermod".
	Prefix string
	// Buckets is how many hashes share the entries: a power of two up to 2^24,
	// the same on all nodes of a fleet. A bucket is small up to 100 devices,
	// so the default of 65,536 is for up to 4 million devices online.
	Buckets int
	// Timeout bounds every request to Redis; default 250 ms. Mostly an Attach is
	// one request; three failures in a row, and nobody waits any more.
	Timeout time.Duration
	// LeaseTTL is how long a node that is silent counts as alive, default 10 s;
	// Renew is how often it renews, default 3 s.
	LeaseTTL, Renew time.Duration
	// Reassert is how often everything is registered again, in case Redis has
	// lost a part without anybody's noticing; default 10 min.
	Reassert time.Duration
	// Rate is the most entries a second that are registered anew; default
	// 10,000.
	Rate int
	// Now gives the provisional attach numbers while Redis is away.
	Now     func() time.Time
	Log     zerolog.Logger
	Metrics prometheus.Registerer
}

// maxBuckets keeps what remains of a user id beside its bucket at 40 bits.
const maxBuckets = 1 << 24

func (o *RedisOptions) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Timeout, 250*time.Millisecond)
	def(&o.LeaseTTL, 10*time.Second)
	def(&o.Renew, 3*time.Second)
	def(&o.Reassert, 10*time.Minute)
	if o.Buckets == 0 {
		o.Buckets = 1 << 16
	}
	if o.Rate == 0 {
		o.Rate = 10_000
	}
	if o.Prefix == "" {
		o.Prefix = "hermod"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Validate names the first option that cannot work; zeros that have a default
// can.
func (o *RedisOptions) Validate() error {
	c := *o
	c.defaults()
	switch {
	case c.Client == nil:
		return errors.New("router: RedisOptions.Client is missing")
	case !obeysDeadlines(c.Client):
		return errors.New("router: RedisOptions.Client ignores deadlines, so a Redis that hangs would block logins; make it with DialRedis")
	case c.Node == 0:
		return errors.New("router: RedisOptions.Node is 0")
	case !validAddr(c.Addr):
		return fmt.Errorf("router: RedisOptions.Addr %q has spaces, control characters or more than %d bytes", c.Addr, maxAddr)
	case c.Buckets < 1 || c.Buckets > maxBuckets || c.Buckets&(c.Buckets-1) != 0:
		return fmt.Errorf("router: RedisOptions.Buckets is %d; it is a power of two up to %d", c.Buckets, maxBuckets)
	case c.Timeout < 0 || c.Renew < 0 || c.Reassert < 0 || c.Rate < 0:
		return errors.New("router: RedisOptions has a negative time or rate")
	case c.LeaseTTL < 2*c.Renew:
		return fmt.Errorf("router: RedisOptions.LeaseTTL %v is below two Renew of %v: one lost renewal would lose the lease", c.LeaseTTL, c.Renew)
	case c.Metrics == nil:
		return errors.New("router: RedisOptions.Metrics is missing")
	}
	return nil
}

func obeysDeadlines(c redis.UniversalClient) bool {
	switch c := c.(type) {
	case *redis.Client:
		return c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		return c.Options().ContextTimeoutEnabled
	}
	return false
}

// DialRedis returns a client for a Redis directory: a single server, Sentinel
// (MasterName) or Cluster (several Addrs). It sets what the directory relies
// on and leaves addresses, credentials, TLS, pool size and time-outs alone;
// those that are 0 become 250 ms. It connects when first used.
//
// Retries are off: a script that was cut off may have run, the directory knows
// how to find out, and a retry would only make a login wait longer.
func DialRedis(o redis.UniversalOptions) redis.UniversalClient {
	const most = 250 * time.Millisecond
	o.ContextTimeoutEnabled = true
	o.MaxRetries, o.DialerRetries = -1, 1
	for _, d := range []*time.Duration{&o.DialTimeout, &o.ReadTimeout, &o.WriteTimeout, &o.PoolTimeout} {
		if *d == 0 {
			*d = most
		}
	}
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewUniversalClient(&o)
}

// Redis is the directory of a fleet. It implements Directory, Fleet and
// Rejoiner; see the package documentation for how it works and what it does
// when Redis is away.
type Redis struct {
	opt     RedisOptions
	layout  layout
	self    tag
	scripts scripts
	metrics redisMetrics
	breaker breaker
	often   zerolog.Logger // a few lines a second
	onLoser atomic.Pointer[func(int64, Slot, Ref, bool)]

	// mirror has the connections of this node: what is registered anew after a
	// loss, and what answers while Redis does not.
	mirror *Memory
	// skew is Redis's clock minus ours in microseconds, as of the last renewal.
	skew atomic.Int64
	// losses counts the times when Redis turned out to have forgotten us.
	losses atomic.Uint64
	// asks counts the calls of Again, for what is not in the mirror yet.
	asks atomic.Uint64

	members members
	owed    owed

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup
}

// NewRedis takes this node's lease and starts keeping it. A Redis that does not
// answer is no error: the directory works for this node's own connections and
// joins the fleet when Redis is back.
func NewRedis(opt RedisOptions) (*Redis, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt.defaults()
	r := &Redis{
		opt: opt, layout: newLayout(opt.Prefix, opt.Buckets), self: tagOf(Run{opt.Node, opt.Incarnation}),
		scripts: newScripts(), metrics: newRedisMetrics(opt.Metrics),
	}
	r.often = opt.Log.Sample(&zerolog.BurstSampler{Burst: 3, Period: time.Second})
	r.mirror = NewMemory(r.now)
	r.owed.init()
	r.members.init(Member{Node: opt.Node, Incarnation: opt.Incarnation, Addr: opt.Addr})
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.renew()
	r.work.Go(r.keepLease)
	r.work.Go(r.keepRegistered)
	return r, nil
}

// now is Redis's clock as far as it is known.
func (r *Redis) now() time.Time {
	return r.opt.Now().Add(time.Duration(r.skew.Load()) * time.Microsecond)
}

// OnLoser implements Rejoiner.
func (r *Redis) OnLoser(kick func(user int64, slot Slot, loser Ref, newLogin bool)) {
	r.onLoser.Store(&kick)
}

// tell sends away a loser that no Attach reports.
func (r *Redis) tell(user int64, slot Slot, loser Ref, newLogin bool) {
	if kick := r.onLoser.Load(); kick != nil && loser != (Ref{}) {
		(*kick)(user, slot, loser, newLogin)
	}
}

// Up reports whether Redis answers, as far as is known.
func (r *Redis) Up() bool { return !r.breaker.isOpen() }

// Close gives the lease back, which makes every entry of this node stale, and
// closes the client.
func (r *Redis) Close() error {
	r.stop()
	r.work.Wait()
	if r.Up() {
		ctx, cancel := context.WithTimeout(context.Background(), r.opt.Timeout)
		defer cancel()
		if err := r.scripts.release.Run(ctx, r.opt.Client, []string{r.layout.nodes}, r.opt.Node, r.opt.Incarnation).Err(); err != nil {
			r.opt.Log.Warn().Err(err).Msg("directory: lease not given back; it runs out by itself")
		}
	}
	return errors.Join(r.mirror.Close(), r.opt.Client.Close())
}
