package router

import (
	"context"
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Delivery is one event for one user, after it became durable.
type Delivery struct {
	User int64
	Seq  uint64
	// Origin is the connection on this node that caused it, 0 if unknown.
	Origin uint64
	// Event is the encoded event without its seq, the same bytes for all its
	// recipients; OriginEvent is the shorter one for Origin, nil for the same.
	// Neither is ever changed after it was handed over.
	Event, OriginEvent []byte
}

// Hint is a framed event that is shown now or never, to the user's foreground
// devices.
type Hint struct {
	User  int64
	Frame []byte
}

// Local is the sessions of this node. No method may block or keep its slice.
type Local interface {
	// Push hands over deliveries, each user's in seq order.
	Push([]Delivery)
	Hint([]Hint)
	// Kick ends one connection: the slot is another's. newLogin tells a newer
	// login of the slot from a newer connection of the same device.
	Kick(user int64, slot Slot, conn uint64, newLogin bool)
}

// Options configures a Router.
type Options struct {
	// Node is this node for good, Incarnation this run of it.
	Node, Incarnation uint64
	Directory         Directory
	Log               zerolog.Logger
	Metrics           prometheus.Registerer
}

// Validate names the first option that cannot work.
func (o *Options) Validate() error {
	switch {
	case o.Node == 0:
		return errors.New("router: Options.Node is 0")
	case o.Directory == nil:
		return errors.New("router: Options.Directory is missing")
	case o.Metrics == nil:
		return errors.New("router: Options.Metrics is missing")
	}
	return nil
}

// Router delivers to users wherever they are attached.
type Router struct {
	opt     Options
	local   Local
	scratch sync.Pool // *scratch
	metrics metrics
}

// scratch is what one Deliver or Hint needs; kept so that a batch costs no
// allocation.
type scratch struct {
	users  []int64
	routes []Route
	out    []Delivery
	hints  []Hint
}

// New returns a Router; SetLocal comes before the first call of any other
// method. The Router owns Options.Directory and closes it.
func New(opt Options) (*Router, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	r := &Router{opt: opt, metrics: newMetrics(opt.Metrics)}
	r.scratch.New = func() any { return new(scratch) }
	return r, nil
}

// SetLocal joins the sessions of this node. It exists because they in turn
// need the Router.
func (r *Router) SetLocal(l Local) { r.local = l }

func (r *Router) ref(conn uint64) Ref {
	return Ref{Node: r.opt.Node, Incarnation: r.opt.Incarnation, Conn: conn}
}

// Attach registers this node's connection for a device slot and sends away the
// connection that had it. If Attached.Lost, the caller's own has to go instead.
func (r *Router) Attach(ctx context.Context, user int64, slot Slot, conn, loginEpoch uint64) (Attached, error) {
	a, err := r.opt.Directory.Attach(ctx, user, slot, Entry{Ref: r.ref(conn), LoginEpoch: loginEpoch})
	if err != nil {
		r.metrics.dropped.WithLabelValues("attach").Inc()
		return a, err
	}
	if !a.Lost && a.Loser != (Ref{}) {
		r.kick(user, slot, a)
	}
	return a, nil
}

// kick tells the loser's node. A run of this node that has ended cannot hold
// a connection any more, and another node cannot be told yet: both are counted.
func (r *Router) kick(user int64, slot Slot, a Attached) {
	if a.Loser.Node != r.opt.Node || a.Loser.Incarnation != r.opt.Incarnation {
		r.metrics.dropped.WithLabelValues("kick").Inc()
		return
	}
	r.local.Kick(user, slot, a.Loser.Conn, a.NewLogin)
}

// Detach removes the connection's entry, if the slot is still its own.
func (r *Router) Detach(ctx context.Context, user int64, slot Slot, conn uint64) error {
	return r.opt.Directory.Detach(ctx, user, slot, r.ref(conn))
}

// Online returns where a user is attached.
func (r *Router) Online(ctx context.Context, user int64) ([]Route, error) {
	return r.opt.Directory.Lookup(ctx, []int64{user}, nil)
}

// Deliver pushes a batch. Nobody waits for it and nothing is retried: who is
// not reached reads storage.
func (r *Router) Deliver(ctx context.Context, ds []Delivery) {
	s := r.scratch.Get().(*scratch)
	defer r.release(s)
	for i := range ds {
		s.users = append(s.users, ds[i].User)
	}
	if !r.lookup(ctx, s) {
		return
	}
	at := 0
	for i := range ds {
		var here, found bool
		here, found, at = r.next(s.routes, at, ds[i].User)
		switch {
		case here:
			s.out = append(s.out, ds[i])
		case found:
			r.metrics.dropped.WithLabelValues("elsewhere").Inc()
		}
	}
	r.metrics.deliveries.Add(float64(len(s.out)))
	r.metrics.offline.Add(float64(len(ds) - len(s.out)))
	if len(s.out) > 0 {
		r.local.Push(s.out)
	}
}

// Hint sends what is shown now or never.
func (r *Router) Hint(ctx context.Context, hs []Hint) {
	s := r.scratch.Get().(*scratch)
	defer r.release(s)
	for i := range hs {
		s.users = append(s.users, hs[i].User)
	}
	if !r.lookup(ctx, s) {
		return
	}
	at := 0
	for i := range hs {
		var here bool
		here, _, at = r.next(s.routes, at, hs[i].User)
		if here {
			s.hints = append(s.hints, hs[i])
		}
	}
	if len(s.hints) > 0 {
		r.local.Hint(s.hints)
	}
}

func (r *Router) lookup(ctx context.Context, s *scratch) bool {
	var err error
	s.routes, err = r.opt.Directory.Lookup(ctx, s.users, s.routes[:0])
	if err != nil {
		r.metrics.dropped.WithLabelValues("lookup").Inc()
		r.opt.Log.Warn().Err(err).Int("users", len(s.users)).Msg("directory lookup failed; pushes dropped, sessions will read storage")
		return false
	}
	return true
}

// next walks routes, which follow the order of the users asked for: here, if
// user has a connection on this node; found, if anywhere. A user asked for
// twice is looked up twice, so every delivery has its own run of routes.
func (r *Router) next(routes []Route, at int, user int64) (here, found bool, _ int) {
	slots := 0 // a bit a slot: a second run of the same user begins where one repeats
	for ; at < len(routes) && routes[at].User == user; at++ {
		bit := 1 << routes[at].Slot
		if slots&bit != 0 {
			break
		}
		slots |= bit
		found = true
		here = here || routes[at].Node == r.opt.Node && routes[at].Incarnation == r.opt.Incarnation
	}
	return here, found, at
}

func (r *Router) release(s *scratch) {
	clear(s.out) // do not keep events alive in the pool
	clear(s.hints)
	s.users, s.routes, s.out, s.hints = s.users[:0], s.routes[:0], s.out[:0], s.hints[:0]
	r.scratch.Put(s)
}

// Close closes the directory.
func (r *Router) Close() error { return r.opt.Directory.Close() }

type metrics struct {
	deliveries, offline prometheus.Counter
	dropped             *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		deliveries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hermod_router_deliveries_total", Help: "Events handed to a session table on this node.",
		}),
		offline: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hermod_router_offline_total", Help: "Events for users without a connection on this node.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hermod_router_dropped_total", Help: "What could not be placed, by kind; sessions repair it from storage.",
		}, []string{"kind"}),
	}
	reg.MustRegister(m.deliveries, m.offline, m.dropped)
	return m
}
