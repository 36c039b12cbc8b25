package attack

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Time: who is slow costs a place, and only so long.

func attackFirstByte(s *scene) string {
	s.shared()
	var took time.Duration
	s.all(2, func(i int) {
		begun := time.Now()
		if i == 0 {
			s.dial().closedFor(proto.ErrorCode_ERROR_CODE_TIMEOUT)
			took = time.Since(begun)
			return
		}
		if w := s.dialFrom(s.someone(), s.srv.TLS); !w.shut(s.firstByte + s.patience) {
			s.breach("the TLS listener keeps a connection that says nothing")
		}
		s.within(time.Since(begun), s.firstByte)
	})
	return s.within(took, s.firstByte)
}

// attackSlowHello says hello a byte at a time: each byte is progress, and the
// whole does not come in time.
func attackSlowHello(s *scene) string {
	s.shared()
	drip := func(w *wire, b []byte) {
		done := make(chan struct{})
		s.later(func() { <-done })
		go func() {
			defer close(done)
			for i := range b {
				if _, err := w.Write(b[i : i+1]); err != nil {
					return
				}
				select {
				case <-time.After(200 * time.Millisecond):
				case <-s.ctx.Done():
					return
				}
			}
		}()
	}
	took := make([]time.Duration, 2)
	s.all(2, func(i int) {
		begun := time.Now()
		defer func() { took[i] = time.Since(begun) }()
		if i == 0 {
			w := s.dial()
			drip(w, s.framed(w.hello(registering(s.name("slow")))))
			w.closedFor(proto.ErrorCode_ERROR_CODE_TIMEOUT)
			return
		}
		w := s.dialFrom(s.someone(), s.srv.TLS)
		drip(w, s.clientHello())
		if !w.shut(s.login + s.patience) {
			s.breach("the TLS listener keeps a ClientHello that comes byte by byte")
		}
	})
	s.within(took[1], s.login)
	return s.within(took[0], s.login)
}

func attackPartialFrame(s *scene) string {
	s.shared()
	w := s.person()
	w.write([]byte{0, 0, 1})
	begun := time.Now()
	w.closedFor(proto.ErrorCode_ERROR_CODE_TIMEOUT)
	return s.within(time.Since(begun), s.partialFrame)
}

// attackStall reads nothing, and stays just below the cap of the outbox.
func attackStall(s *scene) string {
	s.own(Wish{}) // the metrics count all connections
	r := s.sluggard()
	// Until the kernel takes no more: then what the server keeps stands still.
	var begun time.Time
	for begun.IsZero() {
		r.receive(1)
		switch kept := r.kept(); {
		case kept > 0:
			s.pause(500 * time.Millisecond)
			if r.kept() >= kept {
				begun = time.Now()
			}
		case s.metric("hermod_chat_sessions") < float64(1+len(r.friends)):
			s.fail("closed before it stalled")
		case r.sent > 3000:
			s.breach("%d MiB for a client that reads nothing, and the kernel still takes more", r.sent*32>>10)
		}
	}
	s.eventually(s.stall+s.patience, "a client that reads nothing is closed", func() bool { return s.metric("hermod_conn_closed_total", "stalled") >= 1 })
	return s.within(time.Since(begun), s.stall)
}

// clientHello is what a TLS client says first.
func (s *scene) clientHello() []byte {
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		_ = tls.Client(a, &tls.Config{ServerName: "x", NextProtos: []string{"hermod/1"}}).Handshake()
		_ = a.Close()
	}()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	s.must(err)
	return buf[:n]
}
