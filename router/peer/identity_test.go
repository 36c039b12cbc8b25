package peer

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func TestIdentityCheck(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, x := range []struct {
		name   string
		ca     *authority
		change func(*x509.Certificate)
		want   string // "" : good
	}{
		{"good", ca, nil, ""},
		{"a name beside it", ca, func(c *x509.Certificate) { c.DNSNames = []string{"node7.example"} }, ""},
		{"a URI of something else beside it", ca, func(c *x509.Certificate) { c.URIs = append(c.URIs, uri("spiffe://x/y")) }, ""},
		{"another authority", other, nil, "unknown authority"},
		{"another node", ca, func(c *x509.Certificate) { c.URIs = []*url.URL{NodeURI(8)} }, "for node 8, not 7"},
		{"no node", ca, func(c *x509.Certificate) { c.URIs = nil }, "names no node"},
		{"two nodes", ca, func(c *x509.Certificate) { c.URIs = append(c.URIs, NodeURI(8)) }, "must name one node"},
		{"no number", ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hermod://node/x")} }, "hermod://node/<id>"},
		{"a leading zero", ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hermod://node/07")} }, "hermod://node/<id>"},
		{"node 0", ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hermod://node/0")} }, "hermod://node/<id>"},
		{"no path", ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hermod://node")} }, "hermod://node/<id>"},
		{"another kind", ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hermod://user/7")} }, "hermod://node/<id>"},
		{"more behind it", ca, func(c *x509.Certificate) { c.URIs = []*url.URL{uri("hermod://node/7?x=1")} }, "hermod://node/<id>"},
		{"over", ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "expired"},
		{"no server", ca, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, "server authentication"},
		{"no client", ca, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, "client authentication"},
	} {
		id := Identity{CA: ca.pool(), Certificate: x.ca.issue(t, 7, x.change)}
		err := id.Check(7, time.Now())
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
	if (Identity{}).Check(7, time.Now()) == nil || (Identity{CA: ca.pool()}).Check(7, time.Now()) == nil {
		t.Error("an empty identity is good")
	}
}

func TestLoadIdentity(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, 7, nil)
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caFile, certFile, keyFile := write("ca.pem", "CERTIFICATE", ca.cert.Raw), write("cert.pem", "CERTIFICATE", cert.Certificate[0]), write("key.pem", "EC PRIVATE KEY", key)
	id, err := LoadIdentity(caFile, certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Check(7, time.Now()); err != nil {
		t.Error(err)
	}
	for _, x := range [][3]string{{"none", certFile, keyFile}, {keyFile, certFile, keyFile}, {caFile, keyFile, keyFile}, {caFile, certFile, "none"}} {
		if _, err := LoadIdentity(x[0], x[1], x[2]); err == nil {
			t.Errorf("loaded from %v", x)
		}
	}
}

// Nobody gets in without a certificate of this fleet, and nobody is taken for
// another.
func TestStrangersAreRefused(t *testing.T) {
	w := newTown(t)
	n := w.start(1, 1)
	other := newAuthority(t)
	for name, id := range map[string]Identity{
		"wrong authority": {CA: w.ca.pool(), Certificate: other.issue(t, 2, nil)},
		"no certificate":  {CA: w.ca.pool()},
		"no node in it":   {CA: w.ca.pool(), Certificate: w.ca.issue(t, 2, func(c *x509.Certificate) { c.URIs = nil })},
		"expired":         {CA: w.ca.pool(), Certificate: w.ca.issue(t, 2, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })},
		"no client":       {CA: w.ca.pool(), Certificate: w.ca.issue(t, 2, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })},
	} {
		f, err := dial(t, n, id)
		if err == nil {
			_, err = f.hello(helloOf(2, 1, versionsHere)) // TLS 1.3: the refusal comes with the first read
		}
		if err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	// TLS, but not 1.3, or not for this.
	good := w.ca.identity(t, 2)
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":          func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no ALPN":          func(c *tls.Config) { c.NextProtos = nil },
		"another protocol": func(c *tls.Config) { c.NextProtos = []string{"hermod/1"} },
	} {
		cfg := good.client(1)
		change(cfg)
		c, err := tls.Dial("tcp", n.links.Addr().String(), cfg)
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		f := &fake{t: t, raw: c, c: c, rd: newReader(c)}
		if _, err := f.hello(helloOf(2, 1, versionsHere)); err == nil {
			t.Errorf("%s: let in", name)
		}
		_ = c.Close()
	}
	eventually(t, "all are counted", func() bool { return n.counter(t, "hermod_peer_refused_total", refusedTLS) == 8 })
	if len(n.links.Status()) != 0 {
		t.Errorf("links: %+v", n.links.Status())
	}
}

func TestHelloMustBeTheCertificates(t *testing.T) {
	w := newTown(t)
	n := w.start(1, 1)
	for name, x := range map[string]struct {
		id   Identity
		h    *proto.PeerHello
		want proto.PeerRefusalReason
	}{
		"another node":   {w.ca.identity(t, 2), helloOf(3, 1, versionsHere), proto.PeerRefusalReason_PEER_REFUSAL_REASON_NODE},
		"the node's own": {w.ca.identity(t, 1), helloOf(1, 9, versionsHere), proto.PeerRefusalReason_PEER_REFUSAL_REASON_NODE},
		"no hello":       {w.ca.identity(t, 2), nil, proto.PeerRefusalReason_PEER_REFUSAL_REASON_BAD_FRAME},
	} {
		f, err := dial(t, n, x.id)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := f.hello(x.h)
		if err != nil || answer.Refusal.GetReason() != x.want || answer.Hello.GetNode() != 1 {
			t.Errorf("%s: %v (%v), want %v", name, answer, err, x.want)
		}
		if _, err := f.next(); err == nil {
			t.Errorf("%s: the connection stays", name)
		}
	}
}

// A node that dials takes nobody else for the one that it wants.
func TestDiallerWantsTheVeryNode(t *testing.T) {
	w := newTown(t)
	other := newAuthority(t)
	foreign := w.fake(2, 1, Identity{CA: w.ca.pool(), Certificate: other.issue(t, 2, nil)})
	impostor := w.fake(3, 1, w.ca.identity(t, 4))
	liar := w.fake(5, 1, w.ca.identity(t, 5))
	n := w.start(1, 1)
	if _, _, err := foreign.accept(); err == nil {
		t.Error("went on with a certificate of another authority")
	}
	if _, _, err := impostor.accept(); err == nil {
		t.Error("went on with another node's certificate")
	}
	liar.greet(helloOf(6, 1, versionsHere))
	for node, want := range map[uint64]string{2: "authority", 3: "node 4, not 3", 5: "hello of node 6"} {
		eventually(t, "the status says why", func() bool {
			for _, s := range n.links.Status() {
				if s.Node == node {
					return !s.Up && s.Err != nil && strings.Contains(s.Err.Error(), want)
				}
			}
			return false
		})
	}
}

// New certificates are taken over while links are up; bad ones are not.
func TestSetIdentity(t *testing.T) {
	w := newTown(t)
	a, b := w.start(1, 1), w.start(2, 1)
	join(t, a, b)
	if err := a.links.SetIdentity(w.ca.identity(t, 3)); err == nil {
		t.Error("took over another node's certificate")
	}
	both := w.ca.pool()
	next := newAuthority(t)
	both.AddCert(next.cert)
	for _, n := range []*node{a, b} {
		if err := n.links.SetIdentity(Identity{CA: both, Certificate: next.issue(t, n.run.Node, nil)}); err != nil {
			t.Fatal(err)
		}
	}
	if !a.up(b) || !b.up(a) {
		t.Error("the links went down")
	}
	c := w.start(3, 1, func(o *Options) { o.Identity = Identity{CA: next.pool(), Certificate: next.issue(t, 3, nil)} })
	join(t, a, c)
	join(t, b, c)
}

// A change of the authority expels the nodes that the new one does not vouch for,
// those with connections that are up above all.
func TestSetIdentityEndsLinksOfTheExpelled(t *testing.T) {
	w := newTown(t)
	a, b, c := w.start(1, 1), w.start(2, 1), w.start(3, 1)
	join(t, a, b, c)
	since := func(n, to *node) time.Time {
		for _, s := range n.links.Status() {
			if s.Node == to.run.Node && s.Up && s.Inbound {
				return s.Since
			}
		}
		return time.Time{}
	}
	eventually(t, "both directions are up", func() bool { return !since(a, b).IsZero() && !since(a, c).IsZero() })
	next := newAuthority(t)
	both := w.ca.pool()
	both.AddCert(next.cert)
	stays := since(a, c)
	for _, n := range []*node{a, b, c} {
		if err := n.links.SetIdentity(Identity{CA: both, Certificate: w.ca.issue(t, n.run.Node, nil)}); err != nil {
			t.Fatal(err)
		}
	}
	if since(a, c) != stays {
		t.Error("a link ended although both authorities are trusted")
	}
	// a and c get certificates of the next authority, and connect anew with them.
	for _, n := range []*node{a, c} {
		if err := n.links.SetIdentity(Identity{CA: both, Certificate: next.issue(t, n.run.Node, nil)}); err != nil {
			t.Fatal(err)
		}
	}
	a2, c2 := a.links.link(3), c.links.link(1)
	for _, l := range []*link{a2, c2} {
		l.mu.Lock()
		_ = l.conn.Close()
		l.mu.Unlock()
	}
	eventually(t, "a and c are connected anew", func() bool { return since(a, c).After(stays) && a.up(c) && c.up(a) })
	stays = since(a, c)
	// From now on a trusts the next authority only: b is out, both ways.
	if err := a.links.SetIdentity(Identity{CA: next.pool(), Certificate: next.issue(t, 1, nil)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is cut off", func() bool {
		return !a.up(b) && !b.up(a) && a.counter(t, "hermod_peer_refused_total", refusedTLS) > 0
	})
	if since(a, c) != stays {
		t.Error("c was cut off, too")
	}
	b.attach(t, 7, 1, 71)
	a.deliver(7, 1)
	c.attach(t, 8, 1, 81)
	a.deliver(8, 1)
	eventually(t, "c gets its own", func() bool { return len(c.home.seqs(8)) == 1 })
	if b.home.total() != 0 {
		t.Error("b got something")
	}
	// With a certificate of the next authority it is back.
	if err := b.links.SetIdentity(Identity{CA: both, Certificate: next.issue(t, 2, nil)}); err != nil {
		t.Fatal(err)
	}
	join(t, a, b)
}
