package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
)

// maxGreeting is how many connections may be in TLS and hello at once: each
// costs a signature, before anybody is known.
const maxGreeting = 64

// inbound is a connection that another node has made.
type inbound struct {
	raw   net.Conn
	chain []*x509.Certificate
	hello hello
	done  chan struct{} // closed when nothing more is read from it
}

// accept takes connections until Links close.
func (ls *Links) accept() {
	greeting := make(chan struct{}, maxGreeting)
	for {
		raw, err := ls.opt.Listener.Accept()
		if err != nil {
			if ls.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			ls.often.Warn().Err(err).Msg("cannot take connections of other nodes")
			if !ls.sleep(minPause, nil) {
				return
			}
			continue
		}
		select {
		case greeting <- struct{}{}:
			ls.work.Go(func() { ls.take(raw, func() { <-greeting }) })
		default:
			_ = raw.Close()
			ls.metrics.refuse(refusedBusy)
		}
	}
}

// take serves one connection from its first byte to its end.
func (ls *Links) take(raw net.Conn, greeted func()) {
	defer raw.Close()
	defer context.AfterFunc(ls.ctx, func() { _ = raw.Close() })()
	_ = raw.SetDeadline(time.Now().Add(ls.opt.greet))
	c := tls.Server(raw, ls.identity.Load().server())
	rd := newReader(c)
	in, err := ls.welcome(raw, c, rd)
	greeted()
	if err != nil {
		if ls.ctx.Err() == nil {
			ls.often.Warn().Err(err).Stringer("address", raw.RemoteAddr()).Msg("connection refused; it is no node of this fleet, or cannot be one")
		}
		return
	}
	defer ls.leave(in)
	_ = raw.SetDeadline(time.Time{})
	ls.log.Info().Uint64("node", in.hello.run.Node).Uint64("incarnation", in.hello.run.Incarnation).
		Uint32("version", in.hello.version).Msg("a node has connected")
	err = ls.read(raw, c, rd)
	if ls.ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		ls.log.Warn().Err(err).Uint64("node", in.hello.run.Node).Msg("connection of a node has ended")
	}
}

// welcome does TLS and hello. An error has been told to the other end, if that
// could read it.
func (ls *Links) welcome(raw net.Conn, c *tls.Conn, rd *reader) (*inbound, error) {
	if err := c.HandshakeContext(ls.ctx); err != nil {
		ls.metrics.refuse(refusedTLS)
		return nil, err
	}
	state := c.ConnectionState()
	if state.NegotiatedProtocol != alpn {
		ls.metrics.refuse(refusedTLS)
		return nil, errALPN
	}
	node, err := NodeOf(state.PeerCertificates[0])
	if err != nil {
		ls.metrics.refuse(refusedTLS)
		return nil, err
	}
	f, err := rd.first()
	if err != nil {
		ls.metrics.refuse(refusedFrame)
		return nil, err
	}
	h, refused := ls.opt.greeted(f.Hello, node)
	in := &inbound{raw: raw, chain: state.PeerCertificates, hello: h, done: make(chan struct{})}
	if refused == nil {
		refused = ls.enter(in)
	}
	answer := &proto.PeerFrame{Hello: ls.opt.hello()}
	if refused != nil {
		ls.metrics.refuse(refusedHello)
		answer.Refusal = &proto.PeerRefusal{Reason: refused.reason, Message: refused.text}
	}
	b, err := appendFirst(nil, answer)
	if err == nil {
		_, err = c.Write(b)
	}
	switch {
	case refused != nil:
		return nil, refused
	case err == nil && ls.distrust(raw, in.chain, node, x509.ExtKeyUsageClientAuth):
		err = errDistrusted
	}
	if err != nil {
		ls.leave(in)
		return nil, err
	}
	return in, nil
}

// enter makes in the node's connection. The one before it is ended first, and
// all that it brought is handed on: order holds across a reconnection.
func (ls *Links) enter(in *inbound) *refusal {
	run := in.hello.run
	ls.mu.Lock()
	before := ls.inbound[run.Node]
	if before != nil && before.hello.run.Incarnation > run.Incarnation {
		ls.mu.Unlock()
		return refuse(proto.PeerRefusalReason_PEER_REFUSAL_REASON_OLD_RUN, "run %d of node %d is connected, this is run %d",
			before.hello.run.Incarnation, run.Node, run.Incarnation)
	}
	ls.inbound[run.Node] = in
	l := ls.links[run.Node]
	ls.mu.Unlock()
	if before != nil {
		_ = before.raw.Close()
		<-before.done
	}
	if l == nil {
		ls.look()
	} else {
		poke(l.retry)
	}
	return nil
}

func (ls *Links) leave(in *inbound) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	close(in.done)
	if ls.inbound[in.hello.run.Node] == in {
		delete(ls.inbound, in.hello.run.Node)
	}
}

// read hands on what comes, all whole frames of one read together, and answers
// with what is not here. An echo comes after all before it was handed on.
func (ls *Links) read(raw net.Conn, c *tls.Conn, rd *reader) error {
	var in inbox
	var gone []router.Place
	out := newFrames()
	for {
		_ = raw.SetReadDeadline(time.Now().Add(ls.opt.Silence))
		if err := rd.fill(); err != nil {
			return err
		}
		beats, err := in.collect(rd)
		gone = ls.hand(&in, gone[:0])
		out.notHere(gone)
		for range beats {
			out.heartbeat()
		}
		in.reset()
		if len(out.buf) > 0 {
			_ = raw.SetWriteDeadline(time.Now().Add(ls.opt.Silence))
			if _, err := c.Write(out.buf); err != nil {
				return err
			}
			out.take(out.buf)
		}
		if err != nil {
			return err
		}
	}
}

// collect decodes the whole frames that rd has. An error comes with what was
// before it, and nothing of the frame itself.
func (in *inbox) collect(rd *reader) (beats int, err error) {
	for {
		payload, ok, err := rd.next()
		switch {
		case err != nil || !ok:
			return beats, err
		case proto.IsHeartbeat(payload):
			beats++
		default:
			if err := in.decode(payload); err != nil {
				return beats, err
			}
		}
	}
}

// hand gives the Receiver what has arrived.
func (ls *Links) hand(in *inbox, gone []router.Place) []router.Place {
	ls.metrics.received.Add(float64(len(in.Deliveries) + len(in.Hints)))
	if len(in.Deliveries)+len(in.Hints) > 0 {
		gone = ls.opt.Receive.Receive(&in.Arrived, gone)
	}
	for _, k := range in.kicks {
		ls.opt.Receive.ReceiveKick(k.at, k.newLogin)
	}
	return gone
}
