package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// writeCert makes a self-signed pair for 127.0.0.1, like «hermodctl cert dev»,
// in dir, over the one that may be there.
func writeCert(t *testing.T, dir string) (cert *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(720 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return cert
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// withTLS has the node listen with TLS only, with the pair in dir.
func withTLS(dir string) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.Listen.Plain, cfg.Listen.TLS = "", "127.0.0.1:0"
		cfg.TLS.Cert, cfg.TLS.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	}
}

func trusting(certs ...*x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return &tls.Config{RootCAs: pool}
}

func TestTLSPins(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert := writeCert(t, dir)
	n := serve(t, withTLS(dir))
	other := writeCert(t, t.TempDir())
	for i, c := range []struct {
		name  string
		tls   *tls.Config
		pins  [][32]byte
		works bool
	}{
		{"trusted", trusting(cert), nil, true},
		{"trusted and pinned", trusting(cert), [][32]byte{client.SPKIHash(other), client.SPKIHash(cert)}, true},
		{"self-signed, by its pin alone", &tls.Config{InsecureSkipVerify: true}, [][32]byte{client.SPKIHash(cert)}, true},
		{"not trusted", &tls.Config{}, nil, false},
		{"trusted, another pin", trusting(cert), [][32]byte{client.SPKIHash(other)}, false},
		{"self-signed, another pin", &tls.Config{InsecureSkipVerify: true}, [][32]byte{client.SPKIHash(other)}, false},
	} {
		who, err := tryJoin(t, n.addr, fmt.Sprintf("pinned%d", i), 2*time.Second, func(o *client.Options) { o.TLS, o.Pins = c.tls, c.pins })
		if (err == nil) != c.works {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			who.say(t, who.c.UserID(), "encrypted")
		}
	}
}

// The protocol is TLS 1.3 with its own ALPN, nothing less.
func TestTLSVersionAndALPN(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert := writeCert(t, dir)
	n := serve(t, withTLS(dir))
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":       func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
		"another proto": func(c *tls.Config) { c.NextProtos = []string{"h2"} },
	} {
		cfg := trusting(cert)
		cfg.NextProtos = []string{"hermod/1"}
		change(cfg)
		if c, err := tls.Dial("tcp", n.addr, cfg); err == nil {
			_ = c.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	n.closedFor("tls", 2)
	w := n.dial() // plaintext to the TLS port
	w.send(w.hello(registering("naked")))
	w.ended()
	n.closedFor("tls", 3)
}

func TestTLSSeveralEndpointsOneDead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert := writeCert(t, dir)
	n := serve(t, withTLS(dir))
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	for i := range 6 { // the first endpoint is drawn
		who, err := tryJoin(t, n.addr, fmt.Sprintf("resolute%d", i), 10*time.Second, func(o *client.Options) {
			o.TLS = trusting(cert)
			o.Endpoints = []string{dead.Addr().String(), n.addr}
		})
		if err != nil {
			t.Fatal(err)
		}
		who.say(t, who.c.UserID(), "through the one that lives")
	}
}

// A new certificate is for those who come; those who are there stay.
func TestTLSReloadUnderLiveConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := writeCert(t, dir)
	n := serve(t, withTLS(dir))
	old := join(t, n.addr, "early", func(o *client.Options) { o.TLS = trusting(first) })

	second := writeCert(t, dir)
	if !n.Reload(n.cfg) {
		t.Fatal("reload refused")
	}
	if _, err := tryJoin(t, n.addr, "late", 2*time.Second, func(o *client.Options) { o.TLS = trusting(first) }); err == nil {
		t.Error("the old certificate is still shown")
	}
	late := join(t, n.addr, "late", func(o *client.Options) { o.TLS = trusting(second) })
	late.say(t, old.c.UserID(), "hello")
	eventually(t, 10*time.Second, "the early one still hears", func() bool { return len(old.received()) == 1 })
	old.say(t, late.c.UserID(), "still here")

	// Half a pair: refused as a whole, and the pair in use stays.
	writeFile(t, filepath.Join(dir, "key.pem"), "no key")
	if n.Reload(n.cfg) {
		t.Error("a broken key was taken")
	}
	join(t, n.addr, "later", func(o *client.Options) { o.TLS = trusting(second) })
	// Reloading cost no connection.
	loggedInOnce(t, "the early one", old)
	loggedInOnce(t, "the late one", late)
}

// clientHello is what a TLS client sends first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: "x", NextProtos: []string{"hermod/1"}}).Handshake() }()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf[:n])
}

func TestLimitPendingHandshakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert := writeCert(t, dir)
	n := serve(t, withTLS(dir), func(cfg *config.Config) {
		cfg.Limits.HandshakePending = 3
		cfg.Limits.Login, cfg.Limits.FirstByte = config.Duration(3*time.Second), config.Duration(3*time.Second)
	})
	flight := clientHello(t)
	// Half a ClientHello holds no place: there may be any number of those.
	for range 20 {
		n.dial().write(flight[:len(flight)/2])
	}
	join(t, n.addr, "patient", func(o *client.Options) { o.TLS = trusting(cert) })
	// A whole one, and then silence, does; the fourth is turned away.
	for range 3 {
		n.dial().write(flight)
	}
	eventually(t, 2*time.Second, "three are pending", func() bool { return n.metric("hermod_conn_handshakes_pending") == 3 })
	w := n.dial()
	w.write(flight)
	w.ended()
	n.closedFor("handshakes_full", 1)
	// The silent ones run into the login's deadline, and all goes on.
	n.closedFor("login_timeout", 23)
	join(t, n.addr, "successor", func(o *client.Options) { o.TLS = trusting(cert) })
}

func TestLimitBytesBeforeLoginTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeCert(t, dir)
	n := serve(t, withTLS(dir))
	w := n.dial()
	// A ClientHello that promises 16 KiB, in records of one byte each: six
	// bytes on the wire for one of the handshake.
	record := []byte{22, 3, 1, 0, 1}
	b := append(bytes.Clone(record), 1)
	for _, x := range []byte{0, 0x3f, 0xf0} {
		b = append(append(b, record...), x)
	}
	for len(b) < 40<<10 {
		b = append(append(b, record...), 0)
	}
	_, _ = w.Write(b)
	w.ended()
	n.closedFor("login_bytes", 1)
	if got := n.metric("hermod_conn_handshakes_pending"); got != 0 {
		t.Errorf("%v handshakes were begun", got)
	}
}

// say sends and wants an ack.
func (p *person) say(t *testing.T, to int64, text string) client.Ack {
	t.Helper()
	ctx, cancel := testContext()
	defer cancel()
	a, err := p.c.Send(ctx, client.User(to), textContent(text))
	if err != nil {
		t.Fatalf("%s says %q: %v", p.c.Name(), text, err)
	}
	if a.Durability != proto.Durability_DURABILITY_DISK {
		t.Errorf("ack with %v", a.Durability)
	}
	return a
}
