package conn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// certificate makes a self-signed one for localhost.
func certificate(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func withTLS(t *testing.T, change func(*Limits)) func(*Options) {
	return func(o *Options) {
		o.Listeners = []Listener{{Addr: "127.0.0.1:0", Mode: TLS, TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t, "one")}}}}
		if change != nil {
			change(&o.Limits)
		}
	}
}

var clientTLS = tls.Config{InsecureSkipVerify: true, NextProtos: []string{ALPN}}

func (e *edge) dialTLS(config *tls.Config) *client {
	e.t.Helper()
	c := e.dial()
	t := tls.Client(c.Conn, config)
	if err := t.Handshake(); err != nil {
		e.t.Fatalf("handshake: %v", err)
	}
	c.Conn = t
	return c
}

func TestTLSEcho(t *testing.T) {
	secure := new(atomic.Bool)
	h := &echo{onServe: func(c *Conn, f *proto.Frame) bool {
		secure.Store(c.Secure())
		_ = c.Reply(f.GetId(), ok())
		return false
	}}
	e := start(t, h, withTLS(t, nil))
	c := e.dialTLS(&clientTLS).login()
	// Frames larger than a record, and many in one.
	const n = 500
	big := request(1)
	big.GetMarkRead().Conversation = make([]byte, 60_000)
	for i := range uint64(n) {
		f := request(i + 10)
		if i%100 == 50 {
			f = big
			f.Id = i + 10
		}
		c.send(f)
		if f := c.frame(); f.GetId() != i+10 || f.GetOk() == nil {
			t.Fatalf("got %v, want Ok %d", f, i+10)
		}
	}
	if !secure.Load() {
		t.Error("Secure() is false")
	}
	_ = c.Close()
	e.closedFor(ReasonPeerClosed)
}

// The first frame in the same flight as the client's Finished, and in
// records of every size.
func TestTLSSplits(t *testing.T) {
	e := start(t, &echo{}, withTLS(t, nil))
	for _, size := range []int{1, 2, 3, 5, 7, 64, 1000} {
		server, mine := net.Pipe()
		raw := e.dial()
		go func() { // TCP, cut into pieces
			buf := make([]byte, size)
			for {
				n, err := mine.Read(buf)
				if err != nil {
					return
				}
				if _, err := raw.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := raw.Read(buf)
				if err != nil {
					_ = mine.Close()
					return
				}
				_, _ = mine.Write(buf[:n])
			}
		}()
		c := newClient(t, tls.Client(server, &clientTLS))
		b := framed(t, hello(1))
		for len(b) > 0 {
			n := min(size, len(b))
			c.write(b[:n])
			b = b[n:]
		}
		if f := c.frame(); f.GetWelcome() == nil {
			t.Fatalf("size %d: got %v", size, f)
		}
		c.send(request(2), request(3))
		for _, id := range []uint64{2, 3} {
			if f := c.frame(); f.GetId() != id {
				t.Fatalf("size %d: got %v", size, f)
			}
		}
		_ = server.Close()
		_ = raw.Close()
	}
}

func TestTLSRefuses(t *testing.T) {
	e := start(t, &echo{}, withTLS(t, nil))
	for alert, config := range map[string]*tls.Config{
		"protocol version not supported": {InsecureSkipVerify: true, NextProtos: []string{ALPN}, MaxVersion: tls.VersionTLS12},
		"internal error":                 {InsecureSkipVerify: true}, // no ALPN
		"no application protocol":        {InsecureSkipVerify: true, NextProtos: []string{"h2"}},
	} {
		err := tls.Client(e.dial(), config).Handshake()
		if err == nil || err.Error() != "remote error: tls: "+alert {
			t.Errorf("%v, want the alert %q", err, alert)
		}
	}
	eventually(t, "three closed", func() bool { return e.metric("closed_total", "tls") == 3 })
	if e.metric("handshakes_pending", "") != 0 {
		t.Error("handshakes are still counted as pending")
	}
}

func TestTLSResumes(t *testing.T) {
	e := start(t, &echo{}, withTLS(t, nil))
	config := clientTLS.Clone()
	config.ServerName = "one"
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for i := range 3 {
		c := e.dialTLS(config).login()
		if got := c.Conn.(*tls.Conn).ConnectionState().DidResume; got != (i > 0) {
			t.Errorf("connection %d: resumed %v", i, got)
		}
		_ = c.Close()
	}
}

func TestTLSReload(t *testing.T) {
	e := start(t, &echo{}, withTLS(t, nil))
	old := e.dialTLS(&clientTLS).login()
	next := &tls.Config{Certificates: []tls.Certificate{certificate(t, "two")}}
	if err := e.Reload(next, Limits{}); err != nil {
		t.Fatal(err)
	}
	c := e.dialTLS(&clientTLS).login()
	if got := c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName; got != "two" {
		t.Errorf("certificate %q after Reload", got)
	}
	if err := e.Reload(&tls.Config{}, Limits{}); err == nil {
		t.Error("a config without a certificate was taken")
	}
	if err := e.Reload(nil, Limits{FrameRate: -1}); err == nil {
		t.Error("a negative rate was taken")
	}
	old.send(request(5))
	if f := old.frame(); f.GetId() != 5 {
		t.Errorf("got %v", f)
	}
}

func TestTLSGarbage(t *testing.T) {
	for name, b := range map[string][]byte{
		"http":            []byte("GET / HTTP/1.1\r\n\r\n"),
		"frame":           framed(t, hello(1)),
		"wrong record":    {23, 3, 3, 0, 1, 0},
		"record too long": {22, 3, 1, 0xff, 0xff},
		"not a hello":     {22, 3, 1, 0, 4, 2, 0, 0, 0},
		"long hello":      {22, 3, 1, 0, 4, 1, 0xff, 0, 0},
		"empty record":    {22, 3, 1, 0, 0},
		"empty hello":     {22, 3, 1, 0, 4, 1, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, &echo{}, withTLS(t, nil))
			c := e.dial()
			c.write(b)
			c.end()
			e.closedFor(ReasonTLS)
		})
	}
}

// A ClientHello that comes byte by byte does not start a handshake.
func TestTLSDribble(t *testing.T) {
	e := start(t, &echo{}, withTLS(t, func(l *Limits) { l.FirstByte, l.Login = 100*time.Millisecond, 300*time.Millisecond }))
	c := e.dial()
	for _, b := range []byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3} {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the connection", func() bool { return e.metric("open", "") == 1 })
	if n := e.metric("handshakes_pending", ""); n != 0 {
		t.Errorf("%v handshakes for a part of a ClientHello", n)
	}
	c.end()
	e.closedFor(ReasonLogin)
}

// clientHello is what a client says first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() { _ = tls.Client(theirs, &clientTLS).Handshake() }()
	buf := make([]byte, 16<<10)
	n, err := ours.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = ours.Close()
	return buf[:n]
}

// Handshakes that wait for their client are capped, and end with the login
// deadline.
func TestTLSHandshakesFull(t *testing.T) {
	const most = 3
	e := start(t, &echo{}, withTLS(t, func(l *Limits) { l.Handshakes, l.Login = most, 700*time.Millisecond }))
	first := clientHello(t)
	for range most {
		c := e.dial()
		c.write(first)
		if _, err := c.Read(make([]byte, 1)); err != nil { // ServerHello
			t.Fatal(err)
		}
	}
	if n := e.metric("handshakes_pending", ""); n != most {
		t.Errorf("%v pending", n)
	}
	over := e.dial()
	over.write(first)
	over.end()
	e.closedFor(ReasonHandshakesFull)
	eventually(t, "the pending ones timed out", func() bool { return e.metric("closed_total", "login_timeout") == most })
	eventually(t, "no handshake left", func() bool { return e.metric("handshakes_pending", "") == 0 })
	_ = e.dialTLS(&clientTLS).login()
}

func TestTLSLoginBytes(t *testing.T) {
	e := start(t, &echo{onHello: func(*Conn, *proto.Frame) bool { return true }}, withTLS(t, nil))
	c := e.dialTLS(&clientTLS)
	eventually(t, "the handshake", func() bool { return e.metric("tls_handshakes_total", "") == 1 })
	c.send(hello(1))
	c.write(make([]byte, 20<<10))
	c.fault(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	e.closedFor(ReasonLoginBytes)
}

// A record that was tampered with ends the connection.
func TestTLSBadRecord(t *testing.T) {
	e := start(t, &echo{}, withTLS(t, nil))
	c := e.dial()
	secured := tls.Client(c.Conn, &clientTLS)
	if err := secured.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...))
	c.end()
	e.closedFor(ReasonTLS)
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0})
	f.Add([]byte{22, 3, 1, 0, 2, 1, 0, 22, 3, 1, 0, 3, 0, 1, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, need, err := wholeRecords(b)
		if n > len(b) || err == nil && need <= len(b) {
			t.Fatalf("n %d, need %d of %d bytes", n, need, len(b))
		}
		whole, err := wholeHello(b[:n])
		if whole && err != nil {
			t.Fatal("whole, and an error")
		}
	})
}
