package conn

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// engine is the Server as gnet sees it. gnet calls with several goroutines:
// OnOpen, OnTraffic and OnClose on the connection's loop, OnTick on a ticker
// of its own. gnet recovers nothing, so each of them is guarded.
type engine struct{ srv *Server }

func (e *engine) OnBoot(eng gnet.Engine) gnet.Action {
	e.srv.eng = eng
	return gnet.None
}

// OnShutdown comes after the engine was told to stop and before its loops do.
func (e *engine) OnShutdown(gnet.Engine) {
	e.srv.stopping.Store(true)
	e.srv.loopsMu.Lock()
	for _, l := range e.srv.loops {
		l.end()
	}
	e.srv.loopsMu.Unlock()
	// gnet keeps every engine ever started in a package variable; its only way
	// out is the deprecated Stop. At this moment the listeners are still open,
	// so the name cannot mean another server's engine yet; the context is over, so it
	// does not wait.
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for _, b := range e.srv.listeners {
		//lint:ignore SA1019 it is the only way out, see above
		_ = gnet.Stop(over, b.gnetAddr())
	}
}

// OnTick turns the wheels.
func (e *engine) OnTick() (time.Duration, gnet.Action) {
	s := e.srv
	s.bootOnce.Do(func() { close(s.booted) })
	wait := s.tick
	s.loopsMu.RLock()
	for _, l := range s.loops {
		l.ticked()
		if l.slowSize.Load() > 0 {
			wait = min(wait, slowTick)
		}
	}
	s.loopsMu.RUnlock()
	s.guard.sweep(s.clock(), s.limits.Load())
	return wait, gnet.None
}

// OnOpen decides whether a connection may stay. Those that may not cost no
// more than this call.
func (e *engine) OnOpen(gc gnet.Conn) (out []byte, action gnet.Action) {
	s := e.srv
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, nil)
			action = gnet.Close
		}
	}()
	reason := s.admit(gc)
	if reason == ReasonUnknown {
		return nil, gnet.None
	}
	s.metrics.closed[reason].Inc()
	return nil, gnet.Close
}

// admit is the accept guard; ReasonUnknown: the connection stays.
func (s *Server) admit(gc gnet.Conn) Reason {
	lim := s.limits.Load()
	if s.stopping.Load() {
		return ReasonShutdown
	}
	if gc.Fd() >= lim.MaxFiles {
		return ReasonMaxConns
	}
	local, ok := gc.LocalAddr().(*net.TCPAddr)
	remote, ok2 := gc.RemoteAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return ReasonIOError
	}
	which := 0
	for which < len(s.listeners)-1 && !s.listeners[which].is(local) {
		which++
	}
	mode := s.listeners[which].Mode
	ip, _ := netip.AddrFromSlice(remote.IP)
	ip = ip.Unmap()
	if mode == TLS && s.drain.Load() != nil {
		return ReasonDraining // not worth a handshake
	}
	now := s.clock()
	c := &Conn{id: s.nextID.Add(1), gc: gc, loop: s.loopOf(gc), addr: ip.As16(), slot: -1, listener: uint8(which)}
	c.s = session{opened: now, phase: phaseHello}
	if mode == Proxy {
		c.s.phase = phaseProxy
		if !exempt(ip, s.listeners[which].Trusted) {
			return ReasonProxyUntrusted
		}
	} else if reason := s.enter(c, now, lim); reason != ReasonUnknown {
		return reason
	}
	if mode == TLS {
		c.s.phase, c.tls = phaseTLS, new(tlsState)
	}
	if n := s.open.Add(1); lim.MaxConns > 0 && int(n) > lim.MaxConns {
		s.open.Add(-1)
		if c.counted {
			s.guard.leave(ip)
		}
		return ReasonMaxConns
	}
	s.metrics.opened.Inc()
	c.loop.gnet.release(gc)
	gc.SetContext(c)
	c.loop.arm(c, now)
	if mode == Plain {
		c.loop.begin(c)
	}
	return ReasonUnknown
}

// enter counts c at its address. Behind a proxy nobody is exempt: what comes
// from a load balancer on loopback is not ours.
func (s *Server) enter(c *Conn, now stamp, lim *Limits) Reason {
	ip := c.RemoteIP()
	if s.listeners[c.listener].Mode != Proxy && exempt(ip, lim.Exempt) {
		c.s.exempt = true
		return ReasonUnknown
	}
	reason := s.guard.enter(ip, now, lim)
	c.counted = reason == ReasonUnknown
	return reason
}

// OnTraffic is called when bytes have come in.
func (e *engine) OnTraffic(gc gnet.Conn) gnet.Action {
	c, ok := gc.Context().(*Conn)
	if !ok {
		return gnet.Close
	}
	if !c.gone {
		c.loop.guard(c, c.loop.inbound)
	}
	return gnet.None
}

// OnClose is called once per connection, also from within our own Close and
// Write.
func (e *engine) OnClose(gc gnet.Conn, err error) gnet.Action {
	if c, ok := gc.Context().(*Conn); ok {
		defer func() {
			if p := recover(); p != nil {
				e.srv.panicked(p, nil)
			}
		}()
		c.loop.closed(c, err)
	}
	return gnet.None
}
