package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hermod-im/hermod/proto"
)

const (
	// greetTimeout bounds dialling, TLS and hello together.
	greetTimeout = 5 * time.Second
	// The pause between two attempts doubles from one to the other, with jitter.
	minPause, maxPause = 100 * time.Millisecond, 5 * time.Second
	// steady is how long a connection has to last to count as a success.
	steady = 2 * time.Second
	// writeChunk is written under one deadline.
	writeChunk = 256 << 10
)

var (
	errOldRun     = errors.New("peer: an earlier run of the node answers; a later one is known")
	errALPN       = errors.New("peer: no Hermod node answers there")
	errNoAnswer   = errors.New("peer: no answer to a heartbeat")
	errDistrusted = errors.New("peer: the certificates were changed meanwhile, and the node's is not trusted any more")
)

// serve keeps the link up.
func (l *link) serve() {
	defer l.ls.metrics.up.DeleteLabelValues(label(l.node))
	failures := 0
	for l.ctx.Err() == nil {
		pause := time.Hour // until the address is known
		if addr := l.address(); addr != "" {
			began := time.Now()
			err := l.connect(addr)
			if l.ctx.Err() != nil {
				return
			}
			l.ls.metrics.dials.WithLabelValues("lost").Inc()
			if l.goDown(err) {
				l.ls.log.Warn().Err(err).Uint64("node", l.node).Str("address", addr).Msg("link to a node is down; trying again")
			}
			if failures++; time.Since(began) > steady {
				failures = 0
			}
			pause = jitter(min(maxPause, minPause<<min(failures, 10)))
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-l.retry:
		case <-l.ctx.Done():
		}
		t.Stop()
	}
}

func (l *link) address() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addr
}

// connect makes one connection and uses it until it ends.
func (l *link) connect(addr string) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.ls.opt.greet)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	defer context.AfterFunc(l.ctx, func() { _ = raw.Close() })()

	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline)
	c := tls.Client(raw, l.ls.identity.Load().client(l.node))
	rd := newReader(c)
	h, err := l.greet(ctx, c, rd)
	if err != nil {
		return err
	}
	_ = raw.SetDeadline(time.Time{})
	if err := l.goUp(raw, c.ConnectionState().PeerCertificates, h); err != nil {
		return err
	}
	l.ls.metrics.dials.WithLabelValues("up").Inc()
	l.ls.log.Info().Uint64("node", l.node).Uint64("incarnation", h.run.Incarnation).
		Str("address", addr).Uint32("version", h.version).Msg("link to a node is up")

	ended := make(chan error, 1)
	go func() {
		ended <- l.listen(raw, rd, h)
		_ = raw.Close()
	}()
	if err := l.write(raw, c, ended); err != nil {
		_ = raw.Close()
		<-ended
		return err
	}
	return <-ended
}

// greet exchanges hellos.
func (l *link) greet(ctx context.Context, c *tls.Conn, rd *reader) (hello, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return hello{}, err
	}
	if c.ConnectionState().NegotiatedProtocol != alpn {
		return hello{}, errALPN
	}
	b, err := appendFirst(nil, &proto.PeerFrame{Hello: l.ls.opt.hello()})
	if err != nil {
		return hello{}, err
	}
	if _, err := c.Write(b); err != nil {
		return hello{}, err
	}
	f, err := rd.first()
	if err != nil {
		return hello{}, err
	}
	if r := f.Refusal; r != nil {
		return hello{}, &refusal{r.Reason, fmt.Sprintf("%q", r.Message)}
	}
	h, refused := l.ls.opt.greeted(f.Hello, l.node)
	if refused != nil {
		return hello{}, refused
	}
	return h, nil
}

// write writes what comes in until the connection ends: nil if the other
// direction ended first.
func (l *link) write(raw net.Conn, c *tls.Conn, ended chan error) error {
	beats := time.NewTicker(l.ls.opt.Heartbeat)
	defer beats.Stop()
	var buf []byte
	for {
		tick := false
		select {
		case <-l.wake:
		case <-beats.C:
			tick = true
		case err := <-ended:
			ended <- err
			return nil
		}
		buf = l.take(buf, tick)
		for rest := buf; len(rest) > 0; {
			n := min(len(rest), writeChunk)
			_ = raw.SetWriteDeadline(time.Now().Add(l.ls.opt.Silence))
			if _, err := c.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		l.wrote()
	}
}

// listen reads the other direction: echoes, and connections that are not there.
func (l *link) listen(raw net.Conn, rd *reader, h hello) error {
	var in inbox
	for {
		payload, ok, err := rd.next()
		switch {
		case err != nil:
			return err
		case !ok:
			_ = raw.SetReadDeadline(time.Now().Add(l.ls.opt.Silence))
			if err := rd.fill(); err != nil {
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() {
					return errNoAnswer
				}
				return err
			}
		case proto.IsHeartbeat(payload):
			l.echoed()
		default:
			if err := in.decode(payload); err != nil {
				return err
			}
			l.ls.metrics.notHere.Add(float64(len(in.gone)))
			l.ls.opt.Receive.NotHere(h.run, in.gone)
			in.reset()
		}
	}
}
