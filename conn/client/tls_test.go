package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, leaf
}

func TestTLS(t *testing.T) {
	cert, leaf := certificate(t)
	_, other := certificate(t)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	withCopy := cert // sends the pinned certificate of somebody else along
	withCopy.Certificate = append(withCopy.Certificate[:1:1], other.Raw)

	for _, tc := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
		pins   [][32]byte
		fails  string
	}{
		{"root", &tls.Config{}, &tls.Config{RootCAs: roots}, nil, ""},
		{"root and pin", &tls.Config{}, &tls.Config{RootCAs: roots}, [][32]byte{SPKIHash(other), SPKIHash(leaf)}, ""},
		{"pin alone", &tls.Config{}, &tls.Config{InsecureSkipVerify: true}, [][32]byte{SPKIHash(leaf)}, ""},
		{"unknown root", &tls.Config{}, &tls.Config{}, nil, "unknown authority"},
		{"wrong name", &tls.Config{}, &tls.Config{RootCAs: roots, ServerName: "elsewhere"}, nil, "match elsewhere"},
		{"wrong pin", &tls.Config{}, &tls.Config{RootCAs: roots}, [][32]byte{SPKIHash(other)}, "pin"},
		{"copy of the pinned one", &tls.Config{Certificates: []tls.Certificate{withCopy}}, &tls.Config{InsecureSkipVerify: true}, [][32]byte{SPKIHash(other)}, "pin"},
		{"own check", &tls.Config{}, &tls.Config{RootCAs: roots, VerifyConnection: func(tls.ConnectionState) error { return errors.New("not today") }}, nil, "not today"},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, &tls.Config{RootCAs: roots}, nil, "protocol version"},
		{"no ALPN", &tls.Config{NextProtos: []string{}}, &tls.Config{RootCAs: roots}, nil, "does not speak"},
		{"other ALPN", &tls.Config{NextProtos: []string{"h2"}}, &tls.Config{RootCAs: roots}, nil, "no application protocol"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv, a := newServer(t), &app{}
			if tc.server.Certificates == nil {
				tc.server.Certificates = []tls.Certificate{cert}
			}
			if tc.server.NextProtos == nil {
				tc.server.NextProtos = []string{alpn}
			}
			o := a.options(srv.addr())
			o.TLS, o.Pins = tc.client, tc.pins
			o.BackoffBase, o.BackoffMax = time.Hour, time.Hour
			c := start(t, o)
			p := srv.accept()
			p.conn = tls.Server(p.conn, tc.server)
			if tc.fails == "" {
				id, _ := p.hello()
				p.send(welcome(id))
				if err := c.WaitOnline(ctxFor(t)); err != nil {
					t.Fatal(err)
				}
				c.Close()
				return
			}
			p.gone()
			eventually(t, "waiting", func() bool { return c.State().Phase == Waiting })
			if err := c.State().Err; !errors.Is(err, ErrDisconnected) || !strings.Contains(err.Error(), tc.fails) {
				t.Fatal(err)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	good := func() Options { return Options{Endpoints: []string{"127.0.0.1:5100"}} }
	for _, tc := range []struct {
		says   string
		change func(*Options)
	}{
		{"", func(o *Options) {}},
		{"", func(o *Options) { o.Endpoints = []string{"localhost:1", "[::1]:2", "127.3.4.5:3"} }},
		{"", func(o *Options) { o.Endpoints, o.Insecure = []string{"chat.example:5100"}, true }},
		{"", func(o *Options) { o.Endpoints, o.TLS = []string{"chat.example:5101"}, &tls.Config{} }},
		{"at least one", func(o *Options) { o.Endpoints = nil }},
		{"not host:port", func(o *Options) { o.Endpoints = []string{"chat.example"} }},
		{"without TLS is not loopback", func(o *Options) { o.Endpoints = []string{"chat.example:5100"} }},
		{"without TLS is not loopback", func(o *Options) { o.Endpoints = []string{"127.0.0.1:1", "10.0.0.1:5100"} }},
		{"Pins need TLS", func(o *Options) { o.Pins = make([][32]byte, 1) }},
		{"without a Name", func(o *Options) { o.Credentials.Password = "x" }},
		{"Slot", func(o *Options) { o.Device.Slot = 99 }},
		{"64 bytes", func(o *Options) { o.Device.Model = strings.Repeat("x", 65) }},
		{"BackoffMax is negative", func(o *Options) { o.BackoffMax = -1 }},
		{"MaxOutbox is negative", func(o *Options) { o.MaxOutbox = -1 }},
	} {
		o := good()
		tc.change(&o)
		err := o.Validate()
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("«%s»: %v", tc.says, err)
		}
	}
}
