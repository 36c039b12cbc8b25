package peer

import (
	"context"
	"crypto/x509"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/router"
)

// Links is this node's end of all links (router.Peers).
type Links struct {
	opt      Options
	log      zerolog.Logger
	often    zerolog.Logger // a few lines a second
	metrics  metrics
	identity atomic.Pointer[Identity]

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup
	wake chan struct{} // ask the Fleet now

	mu      sync.RWMutex
	links   map[uint64]*link    // by node: what this node has dialled
	inbound map[uint64]*inbound // by node: what has dialled this node
}

const (
	// maxLinks bounds the nodes of a fleet. Every one has a link to every other.
	maxLinks = 1024
	// minLook is the shortest pause between two questions to the Fleet.
	minLook = 100 * time.Millisecond
	// lookTimeout bounds one.
	lookTimeout = 2 * time.Second
)

// Start listens, and dials every other member of the fleet. It returns at once;
// links come and go by themselves.
func Start(opt Options) (*Links, error) {
	if err := opt.Validate(); err != nil {
		if opt.Listener != nil {
			_ = opt.Listener.Close()
		}
		return nil, err
	}
	opt.defaults()
	ls := &Links{
		opt: opt, log: opt.Log, metrics: newMetrics(opt.Metrics),
		often:   opt.Log.Sample(&zerolog.BurstSampler{Burst: 5, Period: time.Second}),
		wake:    make(chan struct{}, 1),
		links:   make(map[uint64]*link),
		inbound: make(map[uint64]*inbound),
	}
	ls.identity.Store(&opt.Identity)
	ls.ctx, ls.stop = context.WithCancel(context.Background())
	ls.work.Go(ls.accept)
	ls.work.Go(ls.watch)
	return ls, nil
}

// Addr is where this node listens for others.
func (ls *Links) Addr() net.Addr { return ls.opt.Listener.Addr() }

// SetIdentity takes over new certificates, or keeps the old and says why. Links
// to nodes that the new authorities vouch for stay as they are; all others end
// at once, in both directions: a node that was expelled by a change of the
// authority must not stay for as long as its connections last.
func (ls *Links) SetIdentity(id Identity) error {
	if err := id.Check(ls.opt.Node, time.Now()); err != nil {
		return err
	}
	ls.identity.Store(&id) // before the look: who greets meanwhile looks after it is there
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	for _, in := range ls.inbound {
		ls.distrust(in.raw, in.chain, in.hello.run.Node, x509.ExtKeyUsageClientAuth)
	}
	for _, l := range ls.links {
		l.mu.Lock()
		if l.conn != nil {
			ls.distrust(l.conn, l.chain, l.node, x509.ExtKeyUsageServerAuth)
		}
		l.mu.Unlock()
	}
	return nil
}

// distrust ends a connection whose certificates no longer prove the node, and
// reports whether it did.
func (ls *Links) distrust(conn net.Conn, chain []*x509.Certificate, node uint64, usage x509.ExtKeyUsage) bool {
	err := ls.identity.Load().prove(chain, node, usage, time.Now())
	if err == nil {
		return false
	}
	ls.log.Warn().Err(err).Uint64("node", node).Msg("the node's certificate is no longer trusted; its connection ends")
	_ = conn.Close()
	return true
}

// Forward implements router.Peers.
func (ls *Links) Forward(to router.Run, batch []router.Forwarded) {
	l := ls.link(to.Node)
	if l == nil {
		ls.metrics.drop(dropUnknown, len(batch))
		return
	}
	l.forward(to, batch)
}

// Kick implements router.Peers. It is told again after every interruption until
// that run of the node is known to have read it.
func (ls *Links) Kick(to router.Run, at router.Place, newLogin bool) {
	l := ls.link(to.Node)
	if l == nil {
		ls.metrics.drop(dropUnknown, 1)
		return
	}
	l.kick(to, kick{at, newLogin})
}

// link returns the link to a node. One that the directory names may be newer
// than this node's last look at the members, so a missing link is made.
func (ls *Links) link(node uint64) *link {
	ls.mu.RLock()
	l := ls.links[node]
	ls.mu.RUnlock()
	if l == nil && node != ls.opt.Node {
		l = ls.meet(node)
		ls.look()
	}
	return l
}

// meet makes the link to a node, nil if there are too many.
func (ls *Links) meet(node uint64) *link {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.links[node]; l != nil {
		return l
	}
	if len(ls.links) >= maxLinks || ls.ctx.Err() != nil {
		return nil
	}
	l := newLink(ls, node)
	ls.links[node] = l
	ls.work.Go(l.serve)
	return l
}

// look has the Fleet asked soon.
func (ls *Links) look() {
	select {
	case ls.wake <- struct{}{}:
	default:
	}
}

// watch follows the members of the fleet.
func (ls *Links) watch() {
	for {
		ls.compare()
		if !ls.sleep(minLook, nil) || !ls.sleep(jitter(ls.opt.MembersEvery)-minLook, ls.wake) {
			return
		}
	}
}

// compare asks the Fleet once. Where it does not answer, links stay as they
// are; so do those that work and whose node it does not list.
func (ls *Links) compare() {
	ctx, cancel := context.WithTimeout(ls.ctx, lookTimeout)
	defer cancel()
	members, err := ls.opt.Fleet.Members(ctx)
	if err != nil {
		if ls.ctx.Err() == nil {
			ls.often.Warn().Err(err).Msg("the directory does not say which nodes there are; links stay as they are")
		}
		return
	}
	for _, m := range members {
		if m.Node == ls.opt.Node || m.Node == 0 {
			continue
		}
		if l := ls.meet(m.Node); l != nil {
			l.listed(m)
		}
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for node, l := range ls.links {
		if l.forgotten() {
			delete(ls.links, node)
			l.stop()
			ls.log.Info().Uint64("node", node).Msg("node has left the fleet")
		}
	}
}

// sleep reports false when Links close meanwhile. early ends it.
func (ls *Links) sleep(d time.Duration, early <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-early:
		return true
	case <-ls.ctx.Done():
		return false
	}
}

// jitter spreads d by half of it to both sides.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d+1)
}

// Close ends all links and waits for what they are doing.
func (ls *Links) Close() error {
	ls.stop()
	ls.mu.Lock() // nobody is in meet any more
	err := ls.opt.Listener.Close()
	ls.mu.Unlock()
	ls.work.Wait()
	return err
}
