package attack

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// What wears a whole server down: descriptors, handshakes, memory.

// attackDescriptors opens more connections than the server has descriptors for.
func attackDescriptors(s *scene) string {
	const files, storm = 512, 900
	s.descriptors(storm)
	s.own(Wish{Files: files})
	inside := s.person()
	s.crowd(storm, func(int) netip.Addr { return s.someone() }, s.srv.Plain, nil)
	s.eventually(s.patience, "connections are turned away", func() bool { return s.metric("hermod_conn_closed_total", "max_conns") > 100 })
	open := s.metric("hermod_conn_open")
	if open > files*0.9 {
		s.breach("%v connections are open, %d files are allowed", open, files)
	}
	inside.lives("who was there before")
	took := s.eventually(s.firstByte+s.patience, "newcomers get in again", func() bool {
		w := inside.again()
		return w.enter(byToken(inside.token)).GetWelcome() != nil
	})
	return fmt.Sprintf("%d connections, %d files: %v were kept, the session went on; after %s newcomers got in", storm, files, open, secs(took))
}

// attackHandshakes says a whole ClientHello each time and nothing more.
func attackHandshakes(s *scene) string {
	const storm, limit = 1400, 1024
	s.descriptors(storm * 2)
	s.own(Wish{})
	flight := s.clientHello()
	s.crowd(storm, func(i int) netip.Addr { return s.someone() }, s.srv.TLS, flight)
	s.eventually(s.patience, "handshakes are turned away", func() bool {
		return s.metric("hermod_conn_closed_total", "handshakes_full") >= storm-limit-storm/20
	})
	pending := s.metric("hermod_conn_handshakes_pending")
	if pending > limit {
		s.breach("%v handshakes are pending", pending)
	}
	took := s.eventually(s.login+s.patience, "TLS clients get in again", func() bool {
		w, err := s.tryDial(s.someone(), s.srv.TLS)
		if err != nil {
			return false
		}
		w.until(2 * time.Second)
		return w.secure(nil) == nil
	})
	return fmt.Sprintf("%d at once: %.0f were pending; after %s the next got in", storm, pending, secs(took))
}

// What a connection may cost before anybody is known: a silent one, and one
// that has sent nearly a whole frame.
const silentBytes, heldBytes = 4 << 10, 32 << 10

// attackSilence opens ten thousand connections and says nothing.
func attackSilence(s *scene) string {
	const n = 10_000
	each, crowd := s.hold(n, nil, silentBytes, false)
	defer crowd.leave()
	s.eventually(s.firstByte+s.patience, "they are sent away", func() bool { return s.metric("hermod_conn_open") <= 2 })
	return fmt.Sprintf("%d silent connections: %d bytes each; a stranger logged in meanwhile", n, each)
}

// attackHalfHellos makes the server keep what it cannot read yet.
func attackHalfHellos(s *scene) string {
	const n = 5_000
	half := append(header(proto.MaxFrameHello), make([]byte, proto.MaxFrameHello-10)...)
	held, crowd := s.hold(n, half, heldBytes, false)
	crowd.leave()
	flight := s.clientHello()
	secure, crowd := s.hold(n, flight[:len(flight)/2], heldBytes, true)
	crowd.leave()
	return fmt.Sprintf("%d connections: %d bytes each with %d bytes of a Hello, %d with half a ClientHello", n, held, len(half), secure)
}

// hold opens n connections to a server of its own, with the same bytes each,
// and returns what one costs.
func (s *scene) hold(n int, first []byte, most int64, tls bool) (each int64, crowd wires) {
	s.descriptors(n)
	s.own(Wish{})
	addr := s.srv.Plain
	if tls {
		addr = s.srv.TLS
	}
	s.person().lives("the first") // what a server allocates once is there
	before := s.resident()
	begun := time.Now()
	crowd = s.crowd(n, func(int) netip.Addr { return s.someone() }, addr, first)
	top, open := before, 0.0
	for time.Since(begun) < s.firstByte && open < float64(n) {
		top, open = max(top, s.resident()), max(open, s.metric("hermod_conn_open"))
	}
	came := time.Now()
	s.person().lives("a stranger among the silent")
	if took := time.Since(came); took > s.revoked {
		s.breach("a login takes %s meanwhile", secs(took))
	}
	top = max(top, s.resident())
	each = (top - before) / int64(max(open, 1))
	if each > most {
		s.breach("%d bytes a connection with %.0f of them, at most %d are allowed", each, open, most)
	}
	if open < float64(n)*0.8 {
		s.fail("only %.0f of %d connections were open at a time", open, n)
	}
	if n := s.metric("hermod_chat_sessions"); n > 2 {
		s.breach("%v sessions for two people", n)
	}
	return each, crowd
}

// attackAdmin asks for the operator's page as a web page in the operator's
// browser would, and as somebody on another address.
func attackAdmin(s *scene) string {
	s.shared()
	for _, path := range []string{"/metrics", "/debug/pprof/heap", "/cluster", "/readyz"} {
		resp, err := s.page(s.srv.Admin, path, "rebound.example.org")
		s.must(err)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			s.breach("%s under a foreign name: %s", path, resp.Status)
		}
	}
	admin, err := netip.ParseAddrPort(s.srv.Admin)
	s.must(err)
	if w, err := s.tryDial(s.someone(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), admin.Port()).String()); err == nil {
		_ = w.Close()
		s.breach("the operator's page listens beyond 127.0.0.1")
	}
	return "foreign host names: 403; 127.0.0.1 only"
}
