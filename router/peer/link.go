package peer

import (
	"context"
	"crypto/x509"
	"net"
	"sync"
	"time"

	"github.com/hermod-im/hermod/router"
)

// link is what this node has to say to another, and the connection for it if
// there is one. Each direction of a pair of nodes has its own: nobody has to
// decide which of two that crossed is kept.
//
// What waits is bytes already: encoding on arrival makes the bound exact, and
// nobody's slices are kept.
type link struct {
	ls    *Links
	node  uint64
	ctx   context.Context
	stop  context.CancelFunc
	wake  chan struct{} // there is something to write
	retry chan struct{} // dial now

	mu   sync.Mutex
	addr string     // "": not known yet
	run  router.Run // what waits is for it
	seen time.Time  // when the Fleet listed the node last

	out frames
	// writing and its items are with the connection, not known to be written.
	writing, writingItems int

	// kicks that are not known to have arrived; of them, told were written to
	// this connection. A heartbeat's echo vouches for what was written before.
	kicks       []kick
	told        int
	beat        time.Time // of the heartbeat on its way; zero: none
	beatVouches int
	roundTrip   time.Duration

	conn    net.Conn // nil: down
	chain   []*x509.Certificate
	since   time.Time
	version uint32
	err     error // why it is down
}

// maxKicks bounds the kicks that one node may owe another. Beyond, the oldest
// are left to the audit.
const maxKicks = 4096

func newLink(ls *Links, node uint64) *link {
	l := &link{
		ls: ls, node: node, out: newFrames(), since: time.Now(), seen: time.Now(),
		wake: make(chan struct{}, 1), retry: make(chan struct{}, 1),
	}
	l.ctx, l.stop = context.WithCancel(ls.ctx)
	ls.metrics.up.WithLabelValues(label(node)).Set(0)
	return l
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// listed takes what the Fleet says about the node.
func (l *link) listed(m router.Member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = time.Now()
	run := router.Run{Node: m.Node, Incarnation: m.Incarnation}
	if l.conn == nil && time.Since(l.since) > l.ls.opt.Forget {
		// Whatever was taken for a later run has not been heard of for long: the
		// lease is right, such as after a restore of the node's data.
		l.run.Incarnation = min(l.run.Incarnation, run.Incarnation)
	}
	changed := l.run != run || l.addr != m.Addr
	if l.aim(run) && changed {
		l.addr = m.Addr
		poke(l.retry)
	}
}

// forgotten reports whether the node is gone for good.
func (l *link) forgotten() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn == nil && time.Since(l.seen) > l.ls.opt.Forget
}

// aim turns the link to a run of the node; false: a later one is known. What
// was for an earlier run has lost its meaning with it. l.mu is held.
func (l *link) aim(run router.Run) bool {
	if run.Incarnation <= l.run.Incarnation {
		return run.Incarnation == l.run.Incarnation
	}
	if l.conn != nil {
		_ = l.conn.Close()
	}
	l.ls.metrics.drop(dropRun, l.out.items)
	l.run, l.kicks, l.told = run, nil, 0
	l.out.take(l.out.buf)
	return true
}

func (l *link) forward(to router.Run, batch []router.Forwarded) {
	l.mu.Lock()
	up := l.conn != nil
	switch {
	case !l.aim(to):
		l.mu.Unlock()
		l.ls.metrics.drop(dropRun, len(batch))
		return
	case !up && time.Since(l.since) > l.ls.opt.Grace:
		l.mu.Unlock()
		l.ls.metrics.drop(dropDown, len(batch))
		return
	}
	before := l.out.items
	lost := l.out.forward(to, batch, l.ls.opt.QueueBytes-l.writing, up)
	taken := l.out.items - before
	l.mu.Unlock()
	if taken > 0 {
		poke(l.wake)
		l.ls.metrics.sent.Add(float64(taken))
	}
	l.ls.metrics.lose(lost)
}

func (l *link) kick(to router.Run, k kick) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.aim(to) {
		return // the connection went with its run
	}
	if k.at.Conn == 0 && len(l.kicks) >= maxKicks/2 {
		l.ls.metrics.drop(dropKick, 1) // a question: those that are known come first
		return
	}
	if len(l.kicks) >= maxKicks {
		l.kicks = append(l.kicks[:0], l.kicks[1:]...)
		l.told = max(l.told-1, 0)
		l.beatVouches = max(l.beatVouches-1, 0)
		l.ls.metrics.drop(dropKick, 1)
	}
	l.kicks = append(l.kicks, k)
	l.ls.metrics.kicks.Inc()
	poke(l.wake)
}

// take returns what is to be written now, in place of spare. tick asks for a
// heartbeat, unless one is on its way.
func (l *link) take(spare []byte, tick bool) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.kicks[l.told:] {
		l.out.kick(k)
	}
	l.told = len(l.kicks)
	if l.beat.IsZero() && (tick || l.told > 0) {
		l.out.heartbeat()
		l.beat, l.beatVouches = time.Now(), l.told
	}
	l.writingItems = l.out.items
	buf := l.out.take(spare)
	l.writing = len(buf)
	return buf
}

// wrote gives the room back.
func (l *link) wrote() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ls.metrics.sentBytes.Add(float64(l.writing))
	l.writing, l.writingItems = 0, 0
}

// echoed takes the answer to the heartbeat: the node has read all before it.
func (l *link) echoed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.beat.IsZero() {
		return
	}
	l.roundTrip, l.beat = time.Since(l.beat), time.Time{}
	l.kicks = append(l.kicks[:0], l.kicks[l.beatVouches:]...)
	l.told -= l.beatVouches
	if len(l.kicks) > 0 {
		poke(l.wake)
	}
}

// goUp takes a connection into use.
func (l *link) goUp(conn net.Conn, chain []*x509.Certificate, h hello) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.aim(h.run):
		return errOldRun
	case l.ls.distrust(conn, chain, l.node, x509.ExtKeyUsageServerAuth):
		return errDistrusted
	}
	l.conn, l.chain, l.since, l.version, l.err = conn, chain, time.Now(), h.version, nil
	l.told, l.beat = 0, time.Time{}
	l.ls.metrics.up.WithLabelValues(label(l.node)).Set(1)
	poke(l.wake)
	return nil
}

// goDown notes why there is no connection, and reports whether that is news.
func (l *link) goDown(err error) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	news = l.err == nil || l.err.Error() != err.Error()
	l.err = err
	if l.conn == nil {
		return news
	}
	l.conn, l.chain, l.since = nil, nil, time.Now()
	l.ls.metrics.up.WithLabelValues(label(l.node)).Set(0)
	l.ls.metrics.drop(dropBroken, l.writingItems)
	l.writing, l.writingItems = 0, 0
	return true
}
