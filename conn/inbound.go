package conn

import (
	"fmt"

	"github.com/hermod-im/hermod/proto"
)

// inbound goes through what has come in on c, flushes what that has caused,
// and sets the next deadline.
func (l *loop) inbound(c *Conn) {
	now := l.srv.clock()
	if c.s.phase != phaseClosing {
		c.s.started = true
	}
	c.cork()
	if c.s.phase == phaseProxy {
		l.proxy(c)
	}
	if !c.gone {
		switch {
		case c.s.phase == phaseClosing:
			l.discard(c)
		case c.tls != nil:
			l.inboundTLS(c, now)
		case c.s.phase != phaseProxy:
			l.inboundPlain(c, now)
		}
	}
	if c.gone {
		return
	}
	l.flush(c)
	if !c.gone {
		l.arm(c, now)
	}
}

func (l *loop) inboundPlain(c *Conn, now stamp) {
	have := c.gc.InboundBuffered()
	if c.s.phase == phaseLogin {
		l.loginBytes(c, have)
		return
	}
	if have == 0 || have < int(c.s.need) {
		return
	}
	buf, err := c.gc.Peek(0)
	if err != nil {
		l.kill(c, ReasonIOError)
		return
	}
	if n := l.consume(c, buf, now); n > 0 && !c.gone {
		l.took(c, n)
	}
	if !c.gone && c.s.phase == phaseLogin {
		l.loginBytes(c, c.gc.InboundBuffered())
	}
}

// loginBytes bounds what a client may send before it is logged in. Until then
// nothing behind the Hello is even decoded.
func (l *loop) loginBytes(c *Conn, have int) {
	if most := l.srv.limits.Load().LoginBytes; have > most {
		c.Close(ReasonLoginBytes, proto.Errorf(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, "more than %d bytes before the Welcome", most))
	}
}

// took tells gnet that n bytes, at least one, are done with.
func (l *loop) took(c *Conn, n int) {
	l.stats.bytesIn += uint64(n)
	_, _ = c.gc.Discard(n) // never fails
}

// discard throws away input of a closing connection, but not for ever.
func (l *loop) discard(c *Conn) {
	n := c.gc.InboundBuffered()
	if n > 0 {
		l.took(c, n)
	}
	if c.s.need += int32(n); c.s.need > lingerBytes {
		l.kill(c, ReasonUnknown)
	}
}

// consume handles the whole frames at the front of buf and returns how many
// bytes it is done with. buf is not touched after gnet has closed c.
func (l *loop) consume(c *Conn, buf []byte, now stamp) int {
	lim := l.srv.limits.Load()
	used := 0
	for {
		a := c.s.read(buf[used:], now, lim)
		used += a.size
		switch a.step {
		case stepWait:
			return used
		case stepHeartbeat:
			l.stats.framesIn++
			c.heartbeatBack()
		case stepSkip:
			l.stats.framesIn++
			l.srv.metrics.drop(DropHeartbeat, 1)
		case stepFrame, stepRefuse:
			l.stats.framesIn++
			if a = l.frame(c, a, lim); a.step == stepClose {
				l.refuseConn(c, a)
				return len(buf)
			}
		case stepClose:
			l.refuseConn(c, a)
			return len(buf)
		}
	}
}

// frame decodes one payload and queues or refuses it.
func (l *loop) frame(c *Conn, a action, lim *Limits) action {
	f := new(proto.Frame)
	if err := proto.Decode(a.payload, f); err != nil {
		a = closing(ReasonBadFrame, proto.ErrorCode_ERROR_CODE_BAD_FRAME)
		a.err = err
		return a
	}
	code, size := a.code, len(a.payload)
	if a.step == stepFrame {
		queued := false
		if a, queued = l.deliver(c, f, size, lim); queued {
			l.srv.queue.push(c)
		}
		code = a.code
	}
	if a.step == stepRefuse {
		l.srv.metrics.refuse(code)
		if f.GetId() != 0 {
			c.open.Add(1) // the Handler's Reply gives it back
		}
		l.srv.opts.Handler.Refuse(c, f, code)
	}
	return a
}

// deliver puts f into the mailbox if the session admits it; push: c has to go
// into the run queue.
func (l *loop) deliver(c *Conn, f *proto.Frame, size int, lim *Limits) (a action, push bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return action{}, false
	}
	queued, bytes := 0, 0
	if c.mail != nil {
		queued, bytes = c.mail.len(), c.mail.bytes
	}
	if a = c.s.admit(f, int(c.open.Load()), queued, bytes, lim); a.step != stepFrame {
		return a, false
	}
	if f.GetId() != 0 {
		c.open.Add(1)
	}
	if c.mail == nil {
		c.mail = l.srv.mailboxes.get()
	}
	c.mail.push(f, size)
	if c.run != runIdle {
		return a, false
	}
	c.run = runQueued
	return a, true
}

// refuseConn ends a connection over what it has sent.
func (l *loop) refuseConn(c *Conn, a action) {
	fault := proto.Errorf(a.code, "")
	if a.err != nil {
		fault = proto.AsFault(fmt.Errorf("conn: %w", a.err))
	}
	l.srv.log.Debug().Uint64("conn", c.id).Stringer("reason", a.reason).Err(fault).Msg("closing a connection")
	c.Close(a.reason, fault)
}

// heartbeatBack answers a heartbeat in kind.
func (c *Conn) heartbeatBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return
	}
	out := c.outLocked()
	before := len(out.b)
	out.b = proto.AppendHeartbeat(out.b)
	out.frames++
	c.grownLocked(len(out.b) - before)
}
