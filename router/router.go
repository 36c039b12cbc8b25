package router

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

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
	// Neither is ever changed after it was handed to Deliver.
	Event, OriginEvent []byte
}

// Hint is a framed event that is shown now or never, to the user's foreground
// devices.
type Hint struct {
	User  int64
	Frame []byte
}

// Local is the sessions of this node. No method may block, or keep its slice or
// the bytes in it.
type Local interface {
	// Push hands over deliveries, each user's in seq order. It passes over users
	// without a session here, and returns how many others there were.
	Push([]Delivery) (found int)
	Hint([]Hint)
	// Kick ends one connection: the slot is another's. newLogin tells a newer
	// login of the slot from a newer connection of the same device.
	Kick(user int64, slot Slot, conn uint64, newLogin bool)
	// Has reports whether the connection is here and the user's. A session is
	// here before it is attached, and attached no longer than it is here.
	Has(user int64, conn uint64) bool
}

// Options configures a Router.
type Options struct {
	// Node is this node for good, Incarnation this run of it.
	Node, Incarnation uint64
	Directory         Directory
	// QueueBytes and QueueEvents bound what waits for a look-up in a Fleet's
	// directory: 32 MiB and 65,536 unless set. Beyond, it is dropped.
	QueueBytes, QueueEvents int
	// LookupTimeout bounds one look-up there, 1 s unless set.
	LookupTimeout time.Duration
	Log           zerolog.Logger
	Metrics       prometheus.Registerer
}

const (
	defaultQueueBytes    = 32 << 20
	defaultQueueEvents   = 1 << 16
	defaultLookupTimeout = time.Second
)

// Validate names the first option that cannot work.
func (o *Options) Validate() error {
	switch {
	case o.Node == 0:
		return errors.New("router: Options.Node is 0")
	case o.Directory == nil:
		return errors.New("router: Options.Directory is missing")
	case o.QueueBytes < 0 || o.QueueEvents < 0 || o.LookupTimeout < 0:
		return errors.New("router: Options.QueueBytes, QueueEvents and LookupTimeout may not be negative")
	case o.Metrics == nil:
		return errors.New("router: Options.Metrics is missing")
	}
	return nil
}

func (o *Options) defaults() {
	if o.QueueBytes == 0 {
		o.QueueBytes = defaultQueueBytes
	}
	if o.QueueEvents == 0 {
		o.QueueEvents = defaultQueueEvents
	}
	if o.LookupTimeout == 0 {
		o.LookupTimeout = defaultLookupTimeout
	}
}

// Router delivers to users wherever they are attached.
type Router struct {
	opt     Options
	often   zerolog.Logger // a few lines a second
	metrics metrics
	remote  bool // the directory's Lookup takes a round trip

	local atomic.Pointer[Local]
	peers atomic.Pointer[Peers]

	finders sync.Pool // *finder
	lanes   []*lane   // of a remote directory
	stale   chan staleRoute
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// New returns a Router; SetLocal comes before the first Attach. The Router owns
// Options.Directory and closes it.
func New(opt Options) (*Router, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt.defaults()
	r := &Router{opt: opt, metrics: newMetrics(opt.Metrics), stale: make(chan staleRoute, maxStale)}
	r.often = opt.Log.Sample(&zerolog.BurstSampler{Burst: 3, Period: time.Second})
	r.finders.New = func() any { return newFinder() }
	if d, ok := opt.Directory.(Rejoiner); ok {
		d.OnLoser(r.kick)
	}
	_, r.remote = opt.Directory.(Fleet)
	r.ctx, r.stop = context.WithCancel(context.Background())
	if r.remote {
		for range laneCount {
			r.lanes = append(r.lanes, newLane(&r.opt))
		}
	}
	return r, nil
}

// SetLocal joins the sessions of this node. It exists because they in turn
// need the Router. What comes before it finds nobody here.
func (r *Router) SetLocal(l Local) { r.local.Store(&l) }

// SetPeers joins the links to other nodes, which in turn need the Router as
// their Receiver. It is called once; without, the node is alone and never looks
// anybody up.
func (r *Router) SetPeers(p Peers) {
	r.peers.Store(&p)
	for _, l := range r.lanes {
		r.work.Go(func() { r.runLane(l) })
	}
	r.work.Go(r.forget)
}

func (r *Router) ref(conn uint64) Ref {
	return Ref{Node: r.opt.Node, Incarnation: r.opt.Incarnation, Conn: conn}
}

// Attach registers this node's connection for a device slot and sends away the
// connection that had it. If Attached.Lost, the caller's own has to go instead.
func (r *Router) Attach(ctx context.Context, user int64, slot Slot, conn, loginEpoch uint64) (Attached, error) {
	return r.attach(ctx, user, slot, Entry{Ref: r.ref(conn), LoginEpoch: loginEpoch})
}

// Rejoin is Attach for a connection that the directory did not answer for when
// it came: at, in µs, is when that was. It takes nothing from whoever came later.
func (r *Router) Rejoin(ctx context.Context, user int64, slot Slot, conn, loginEpoch, at uint64) (Attached, error) {
	return r.attach(ctx, user, slot, Entry{Ref: r.ref(conn), LoginEpoch: loginEpoch, AttachNo: at})
}

func (r *Router) attach(ctx context.Context, user int64, slot Slot, e Entry) (Attached, error) {
	a, err := r.opt.Directory.Attach(ctx, user, slot, e)
	if err != nil {
		r.metrics.drop(dropAttach, 1)
		return a, err
	}
	if !a.Lost && a.Loser != (Ref{}) {
		r.kick(user, slot, a.Loser, a.NewLogin)
	}
	return a, nil
}

// kick tells the loser's node. An earlier run of this node cannot hold a
// connection any more; peers find that out of other nodes.
func (r *Router) kick(user int64, slot Slot, loser Ref, newLogin bool) {
	if loser.Node == r.opt.Node {
		if l := r.local.Load(); l != nil && loser.Incarnation == r.opt.Incarnation {
			(*l).Kick(user, slot, loser.Conn, newLogin)
		}
		return
	}
	p := r.peers.Load()
	if p == nil {
		r.metrics.drop(dropKick, 1)
		return
	}
	(*p).Kick(loser.Run(), Place{User: user, Slot: slot, Conn: loser.Conn}, newLogin)
}

// Detach removes the connection's entry, if the slot is still its own.
func (r *Router) Detach(ctx context.Context, user int64, slot Slot, conn uint64) error {
	return r.opt.Directory.Detach(ctx, user, slot, r.ref(conn))
}

// Online returns where a user is attached.
func (r *Router) Online(ctx context.Context, user int64) ([]Route, error) {
	return r.opt.Directory.Lookup(ctx, []int64{user}, nil)
}

// Deliver pushes a batch: to the sessions of this node before it returns, to
// other nodes in its own time. It does not wait for the network, and nothing is
// retried: who is not reached reads storage. The slice is the caller's again.
func (r *Router) Deliver(ctx context.Context, ds []Delivery) {
	found := 0
	if l := r.local.Load(); l != nil {
		found = (*l).Push(ds)
		r.metrics.deliveries.Add(float64(found))
	}
	switch {
	case r.peers.Load() == nil:
		r.metrics.offline.Add(float64(len(ds) - found))
	case r.remote:
		r.enqueueDeliveries(ds)
	default:
		f := r.finders.Get().(*finder)
		for i := range ds {
			f.items = append(f.items, item{user: ds[i].User, seq: ds[i].Seq, event: ds[i].Event})
		}
		r.route(ctx, f, f.items)
		f.items = f.reset(f.items)
		r.finders.Put(f)
	}
}

// Hint sends what is shown now or never.
func (r *Router) Hint(ctx context.Context, hs []Hint) {
	if l := r.local.Load(); l != nil {
		(*l).Hint(hs)
	}
	switch {
	case r.peers.Load() == nil:
	case r.remote:
		r.enqueueHints(hs)
	default:
		f := r.finders.Get().(*finder)
		for i := range hs {
			f.items = append(f.items, item{user: hs[i].User, event: hs[i].Frame, hint: true})
		}
		r.route(ctx, f, f.items)
		f.items = f.reset(f.items)
		r.finders.Put(f)
	}
}

// Close stops what is under way and closes the directory. What waited for a
// look-up is dropped.
func (r *Router) Close() error {
	r.stop()
	r.work.Wait()
	return r.opt.Directory.Close()
}
