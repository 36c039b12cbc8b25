package attack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Rates: who does too much of something is slowed down or sent away, and
// nobody else is.

// wires are many, to be closed together.
type wires []*wire

func (ws wires) leave() {
	for _, w := range ws {
		_ = w.Close()
	}
}

// crowd dials n connections at once, from the addresses that from gives, and
// returns those that the server has kept after a moment.
func (s *scene) crowd(n int, from func(i int) netip.Addr, addr string, first []byte) wires {
	ws := make([]*wire, n)
	var next atomic.Int32
	s.all(min(n, 64), func(int) {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			w, err := s.tryDial(from(i), addr)
			if err != nil {
				continue // turned away before the handshake was over
			}
			if len(first) > 0 {
				_, _ = w.Write(first)
			}
			ws[i] = w
		}
	})
	var kept wires
	for _, w := range ws {
		if w != nil {
			kept = append(kept, w)
		}
	}
	return kept
}

func one(ip netip.Addr) func(int) netip.Addr { return func(int) netip.Addr { return ip } }

// mostNew is how many new connections an address may make in a time. If that is
// all of them, this machine is too slow to show anything.
func (s *scene) mostNew(storm int, d time.Duration) int {
	most := 50 + int(50*d.Seconds()) + 1
	if most >= storm {
		s.fail("%d connections took %s: too slow to be over the limit", storm, secs(d))
	}
	return most
}

func attackNewConns(s *scene) string {
	s.own(Wish{})
	const storm = 400
	begun := time.Now()
	defer s.crowd(storm, one(s.someone()), s.srv.Plain, nil).leave()
	s.eventually(s.patience, "all were looked at", func() bool {
		return s.metric("hermod_conn_opened_total")+s.metric("hermod_conn_closed_total", "per_ip_rate") >= storm
	})
	got, most := int(s.metric("hermod_conn_opened_total")), s.mostNew(storm, time.Since(begun))
	if got > most {
		s.breach("%d of %d connections of one address were taken, at most %d are allowed", got, storm, most)
	}
	s.person().lives("somebody else meanwhile")
	return fmt.Sprintf("of %d connections at once %d were taken", storm, got)
}

func attackLiveConns(s *scene) string {
	s.descriptors(4400)
	s.own(Wish{Settings: []string{"HERMOD_LIMITS_NEW_CONNS_PER_IP=1000000"}})
	const storm, limit = 2100, 2000
	s.crowd(storm, one(s.someone()), s.srv.Plain, nil)
	s.eventually(s.patience, "those over the limit are turned away", func() bool {
		return s.metric("hermod_conn_closed_total", "per_ip_live") >= storm-limit
	})
	if open := s.metric("hermod_conn_open"); open > limit {
		s.breach("%v connections of one address are live", open)
	}
	s.person().lives("somebody else meanwhile")
	return fmt.Sprintf("of %d at once %d stayed", storm, limit)
}

// attackIPv6 comes through the balancer from as many addresses of one /64.
func attackIPv6(s *scene) string {
	s.own(Wish{})
	const storm = 400
	prefix := netip.MustParseAddr("2001:db8:7:7::").As16()
	begun := time.Now()
	s.all(storm, func(i int) {
		ip := prefix
		binary.BigEndian.PutUint64(ip[8:], uint64(i+1))
		s.dialFrom(s.srv.Balancer, s.srv.Proxy).write(proxyHeader(netip.AddrFrom16(ip)))
	})
	most := s.mostNew(storm, time.Since(begun))
	turnedAway := func() int { return int(s.metric("hermod_conn_closed_total", "per_ip_rate")) }
	s.eventually(s.patience, "addresses of one /64 count as one", func() bool { return turnedAway() >= storm-most })
	got := storm - turnedAway()
	w := s.dialFrom(s.srv.Balancer, s.srv.Proxy)
	w.write(proxyHeader(netip.MustParseAddr("2001:db8:7:8::1")))
	w.in(registering(s.name("neighbour"))).lives("the next /64")
	return fmt.Sprintf("of %d addresses of one /64 %d got in", storm, got)
}

// proxyHeader is a PROXY v2 header that names a client.
func proxyHeader(client netip.Addr) []byte {
	family, size := byte(0x11), 12
	if client.Is6() {
		family, size = 0x21, 36
	}
	b := binary.BigEndian.AppendUint16(append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21"), family), uint16(size))
	b = append(append(b, client.AsSlice()...), client.AsSlice()...)
	return append(b, 0x30, 0x39, 0x13, 0xec)
}

// attackExempt wants the balancer's or a forged address to skip the limits.
func attackExempt(s *scene) string {
	s.own(Wish{Settings: []string{"HERMOD_LIMITS_EXEMPT=127.0.0.0/8,::1/128"}})
	// Through the balancer, with a header that says loopback.
	const storm = 400
	begun := time.Now()
	s.all(storm, func(int) {
		s.dialFrom(s.srv.Balancer, s.srv.Proxy).write(proxyHeader(netip.MustParseAddr("127.0.0.1")))
	})
	most := s.mostNew(storm, time.Since(begun))
	s.eventually(s.patience, "the limits hold behind the balancer", func() bool {
		return int(s.metric("hermod_conn_closed_total", "per_ip_rate")) >= storm-most
	})
	// Past the balancer: a header from elsewhere, and one on a port without.
	w := s.dial()
	w.Conn = s.dialFrom(s.someone(), s.srv.Proxy).Conn
	_, _ = w.Write(proxyHeader(netip.MustParseAddr("127.0.0.1")))
	if !w.shut(s.patience) {
		s.breach("a PROXY header from a stranger is taken")
	}
	w = s.dial()
	w.write(proxyHeader(netip.MustParseAddr("127.0.0.1")))
	w.closedFor(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE) // it reads as a length
	w = s.dialFrom(s.srv.Balancer, s.srv.Proxy)
	_, _ = w.Write(s.framed(w.hello(registering(s.name("headless")))))
	if !w.shut(s.patience) {
		s.breach("the balancer gets in without a header")
	}
	return "loopback in a PROXY header is not exempt; headers of strangers are refused"
}

func attackRegistrations(s *scene) string {
	s.shared()
	ip := s.someone()
	in := 0
	for i := range 12 {
		f := s.dialFrom(ip, s.srv.Plain).enter(registering(s.name("clone")))
		switch {
		case f.GetWelcome() != nil:
			in++
		case codeOf(f) != proto.ErrorCode_ERROR_CODE_RATE_LIMITED || f.GetError().RetryAfterMs == 0:
			s.breach("registration %d: %v", i+1, f)
		}
	}
	if in > 6 { // a slow machine takes the 12 s in which one more grows back
		s.breach("%d of 12 registrations of one address were taken", in)
	}
	s.person().lives("somebody else")
	return fmt.Sprintf("of 12 at once %d were taken", in)
}

// attackFrames and attackSyncs flood a session.
func attackFrames(s *scene) string {
	s.shared()
	w := s.person()
	burst := func(n int) (b []byte) {
		for range n {
			w.id++
			f := listBlocks()
			f.Id = w.id
			b = append(b, s.framed(f)...)
		}
		return b
	}
	// Few enough at a time to be within the requests that may be open.
	begun := time.Now()
	served, refused := 0, 0
	for range 10 {
		w.write(burst(30))
		for answers := 0; answers < 30; {
			f, err := w.next()
			s.must(err)
			switch {
			case f.GetBlocks() != nil:
				served++
				answers++
			case f.GetError() != nil && f.Id != 0:
				refused++
				answers++
			}
		}
	}
	if most := 100 + int(50*time.Since(begun).Seconds()) + 1; served > most || refused == 0 {
		s.breach("%d of 300 frames were served, at most %d are allowed", served, most)
	}
	took := time.Since(begun)
	_, _ = w.Write(burst(3000))
	w.closedFor(proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
	return fmt.Sprintf("of 300 frames in %s %d were served; 3,000 more at once: closed", secs(took), served)
}

func attackSyncs(s *scene) string {
	s.shared()
	w := s.person()
	sync := func(n int) (b []byte) {
		for range n {
			w.id++
			b = append(b, s.framed(&proto.Frame{Id: w.id, Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: w.dev.cursor}}})...)
		}
		return b
	}
	w.write(sync(40))
	served := 0
	for answers := 0; answers < 40; {
		f, err := w.next()
		s.must(err)
		if f.GetId() == 0 {
			continue
		}
		answers++
		if f.GetSyncResponse() != nil {
			served++
		}
	}
	if served > 10 { // two seconds may share them
		s.breach("%d of 40 syncs at once were served", served)
	}
	w.lives("other requests")
	return fmt.Sprintf("of 40 syncs at once %d were served", served)
}
