package conn

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/proto"
)

// slowTick is how often output that waits for the kernel is looked at.
const slowTick = 10 * time.Millisecond

// Server is a running edge.
type Server struct {
	opts      Options
	log       zerolog.Logger
	listeners []bound
	metrics   *metrics
	limits    atomic.Pointer[Limits]
	began     time.Time
	tick      time.Duration

	queue     *runQueue
	workers   sync.WaitGroup
	buffers   buffers
	mailboxes mailboxes
	guard     guard

	nextID   atomic.Uint64
	open     atomic.Int64 // connections that passed the guard and are not closed
	loggedIn atomic.Int64

	tlsConfig  atomic.Pointer[tls.Config]
	shaking    atomic.Int64   // handshakes that hold a place
	handshakes sync.WaitGroup // their goroutines
	compute    chan struct{}  // a token per handshake that computes
	peek       tlsPeek

	eng      gnet.Engine
	gnetLog  *gnetLog
	booted   chan struct{}
	bootOnce sync.Once
	done     chan struct{} // the engine has ended
	err      error         // why, valid after done

	loopsMu sync.RWMutex
	loops   map[gnet.EventLoop]*loop

	drain     atomic.Pointer[draining]
	stopping  atomic.Bool // nothing new is taken; the engine ends
	closing   atomic.Bool // Close was called
	closeOnce sync.Once
}

// draining is what everybody is told from Drain on.
type draining struct{ goAway []byte }

// Start listens and serves. It returns when every address is open, or why one
// is not.
func Start(opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, log: opts.Log, began: opts.Now(), queue: newRunQueue(),
		booted: make(chan struct{}), done: make(chan struct{}), compute: make(chan struct{}, opts.Loops),
		loops: make(map[gnet.EventLoop]*loop), gnetLog: &gnetLog{log: opts.Log},
		guard: guard{peers: make(map[uint64]peer)}, peek: newTLSPeek(),
	}
	s.limits.Store(&opts.Limits)
	s.tick = tickFor(opts.Limits)
	var start [8]byte
	_, _ = rand.Read(start[:])
	s.nextID.Store(binary.BigEndian.Uint64(start[:]) >> 1)
	for _, l := range opts.Listeners {
		if l.Mode == TLS {
			s.tlsConfig.Store(hardened(l.TLS))
		}
	}
	var release func()
	var err error
	if s.listeners, release, err = bind(opts.Listeners); err != nil {
		return nil, err
	}
	defer release()
	if s.metrics, err = newMetrics(s); err != nil {
		return nil, fmt.Errorf("conn: metrics: %w", err)
	}
	if err := s.boot(); err != nil {
		s.metrics.close()
		return nil, err
	}
	for range opts.Workers {
		s.workers.Add(1)
		go s.work()
	}
	return s, nil
}

// tickFor makes the wheel as fine as the shortest limit asks for.
func tickFor(l Limits) time.Duration {
	short := min(l.FirstByte, l.Login, l.PartialFrame, l.MinHeartbeat, l.OutboxStall, l.CloseGrace)
	return min(max(short/8, 2*time.Millisecond), 100*time.Millisecond)
}

func (s *Server) boot() error {
	addrs := make([]string, len(s.listeners))
	for i, b := range s.listeners {
		addrs[i] = b.gnetAddr()
	}
	go func() {
		defer close(s.done)
		s.err = gnet.Rotate(&engine{s}, addrs,
			gnet.WithNumEventLoop(s.opts.Loops),
			gnet.WithReusePort(true), // one accept at a time per loop, and OnOpen at once: see doc.go
			gnet.WithReuseAddr(true), // restart while old connections are in TIME_WAIT
			gnet.WithTicker(true),
			gnet.WithLogger(s.gnetLog),
		)
		if s.err == nil && !s.closing.Load() {
			s.err = errEngine // gnet logs why and returns nil
		}
	}()
	select {
	case <-s.booted:
		return nil
	case <-s.done:
		return fmt.Errorf("conn: %w", s.err)
	}
}

var errEngine = errors.New("conn: the network engine has stopped by itself; the log says why")

// elapsed is the time since Start in milliseconds.
func (s *Server) elapsed() int64 { return s.opts.Now().Sub(s.began).Milliseconds() }

func (s *Server) clock() stamp { return stamp(s.elapsed()) }

// loopOf finds our side of a gnet loop, which shows itself with its first
// connection.
func (s *Server) loopOf(gc gnet.Conn) *loop {
	el := gc.EventLoop()
	s.loopsMu.RLock()
	l := s.loops[el]
	s.loopsMu.RUnlock()
	if l != nil {
		return l
	}
	s.loopsMu.Lock()
	defer s.loopsMu.Unlock()
	if l = s.loops[el]; l == nil {
		l = &loop{srv: s, el: el, gnet: newGnetPeek(gc), dead: s.stopping.Load()}
		l.wheel.tick = max(s.tick.Milliseconds(), 1)
		l.wheel.now = s.elapsed()
		s.loops[el] = l
	}
	return l
}

func (s *Server) allLoops() []*loop {
	s.loopsMu.RLock()
	defer s.loopsMu.RUnlock()
	all := make([]*loop, 0, len(s.loops))
	for _, l := range s.loops {
		all = append(all, l)
	}
	return all
}

// left counts a connection out.
func (s *Server) left(c *Conn, reason Reason) {
	s.metrics.closed[reason].Inc()
	s.open.Add(-1)
	if c.heartbeat.Load() != 0 {
		s.loggedIn.Add(-1)
	}
	if c.counted {
		s.guard.leave(c.RemoteIP())
	}
}

func (s *Server) outboxBytes() (n int64) {
	for _, l := range s.allLoops() {
		n += l.pending.Load()
	}
	return n
}

// panicked notes a panic that was caught.
func (s *Server) panicked(p any, c *Conn) {
	s.metrics.panics.Inc()
	e := s.log.Error().Interface("panic", p).Bytes("stack", debug.Stack())
	if c != nil {
		e = e.Uint64("conn", c.id)
	}
	e.Msg("panic caught: the connection is closed, the server goes on")
}

// Addrs returns the addresses in the order of Options.Listeners, with their
// real ports.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, b := range s.listeners {
		addrs[i] = b.addr
	}
	return addrs
}

// Conns is the number of open connections, logged in or not.
func (s *Server) Conns() int { return int(s.open.Load()) }

// Done is closed when the engine has ended, by Close or by a failure of its
// own; Err tells which.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err is nil until Done is closed, and after a Close.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Each calls f for every connection that is logged in at about this time. f
// runs on the caller's goroutine and may take its time; a connection may have
// closed meanwhile. Not to be called from Handler.Refuse, which is on a loop.
func (s *Server) Each(f func(*Conn)) {
	for _, c := range s.collect(func(c *Conn) bool { return c.s.phase == phaseLive }) {
		f(c)
	}
}

// collect gathers the connections that want is true for. want runs on the
// loops.
func (s *Server) collect(want func(*Conn) bool) []*Conn {
	var all []*Conn
	for _, l := range s.allLoops() {
		found := make(chan []*Conn, 1)
		if !l.post(func() {
			var some []*Conn
			l.wheel.each(func(c *Conn) {
				if want(c) {
					some = append(some, c)
				}
			})
			found <- some
		}) {
			continue
		}
		select {
		case some := <-found:
			all = append(all, some...)
		case <-s.done:
		}
	}
	return all
}

// Reload changes what can be changed while running: the limits (a zero field
// takes its default), from the next time each is looked at, and the certificates (nil: keep), from the next
// handshake. On an error everything stays as it was.
func (s *Server) Reload(certs *tls.Config, limits Limits) error {
	if err := limits.Validate(); err != nil {
		return err
	}
	if certs != nil {
		if err := (Listener{Addr: "127.0.0.1:0", Mode: TLS, TLS: certs}).validate(); err != nil {
			return fmt.Errorf("conn: %w", err)
		}
		s.tlsConfig.Store(hardened(certs))
	}
	limits = limits.withDefaults()
	s.limits.Store(&limits)
	return nil
}

// Drain asks everybody to reconnect elsewhere within window (GoAway; who is
// logging in learns it behind the Welcome), turns new connections and those
// that have not said Hello away with DRAINING, and waits until all are gone.
// When ctx is over the rest are closed with DRAINING, and its error is
// returned. The server can only be closed afterwards.
func (s *Server) Drain(ctx context.Context, window time.Duration) error {
	frame, err := proto.AppendFrame(nil, &proto.Frame{Body: &proto.Frame_GoAway{GoAway: &proto.GoAway{
		Reason: proto.GoAwayReason_GO_AWAY_REASON_DRAINING, WindowMs: uint32(window.Milliseconds()),
	}}})
	if err != nil {
		return err
	}
	s.drain.Store(&draining{goAway: frame})
	var silent []*Conn // appended to on one loop at a time
	live := s.collect(func(c *Conn) bool {
		if c.s.phase == phaseHello {
			silent = append(silent, c)
		}
		return c.tellDrain()
	})
	for _, c := range silent {
		c.Close(ReasonDraining, proto.Errorf(proto.ErrorCode_ERROR_CODE_DRAINING, ""))
	}
	for _, c := range live {
		_ = c.SendBytes(frame)
	}
	if s.empty(ctx) {
		return nil
	}
	for _, c := range s.collect(func(*Conn) bool { return true }) {
		c.Close(ReasonDraining, proto.Errorf(proto.ErrorCode_ERROR_CODE_DRAINING, ""))
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.limits.Load().CloseGrace)
	defer cancel()
	s.empty(grace)
	return ctx.Err()
}

// empty waits until no connection is left, or ctx is over.
func (s *Server) empty(ctx context.Context) bool {
	tick := time.NewTicker(slowTick)
	defer tick.Stop()
	for s.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-s.done:
			return true
		case <-tick.C:
		}
	}
	return true
}

// Close closes every connection and returns when nothing of the server is
// left: no goroutine, no descriptor, no metric. The Handler's Closed has been
// called for all.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.closing.Store(true)
		s.stopping.Store(true)
		// Stop polls twice a second for the end; we have a channel for that.
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.eng.Stop(over)
		<-s.done
		s.handshakes.Wait()
		s.queue.close()
		s.workers.Wait()
		s.metrics.close()
		s.gnetLog.off.Store(true)
	})
	return s.err
}
