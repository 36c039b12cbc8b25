package attack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

// authority signs certificates: the cluster's, or one that looks like it.
type authority struct {
	cert *x509.Certificate
	key  any
}

func (s *scene) authority(f *Fleet) *authority {
	pair, err := tls.LoadX509KeyPair(f.CACert, f.CAKey)
	s.must(err)
	return &authority{pair.Leaf, pair.PrivateKey}
}

// stranger has the same name as the cluster's authority, and another key.
func (s *scene) stranger(like *authority) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	tmpl := *like.cert
	tmpl.PublicKey = key.Public()
	der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, key.Public(), key)
	s.must(err)
	cert, err := x509.ParseCertificate(der)
	s.must(err)
	return &authority{cert, key}
}

// issue makes a node's certificate, changed.
func (s *scene) issue(a *authority, node uint64, change func(*x509.Certificate)) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	s.must(err)
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{nodeURI(node)},
	}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	s.must(err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func nodeURI(node uint64) *url.URL {
	return &url.URL{Scheme: "hermod", Host: "node", Path: fmt.Sprint("/", node)}
}

// knock says hello to a node as another one, and returns whether it is let in,
// and why not.
func (s *scene) knock(at Node, cert *tls.Certificate, first []byte, change func(*tls.Config)) (in bool, why string) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.someone().AsSlice()}, Timeout: s.patience}
	raw, err := d.DialContext(s.ctx, "tcp", at.Peer)
	s.must(err)
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(s.patience))
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"hermod-peer"}, InsecureSkipVerify: true}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	if change != nil {
		change(cfg)
	}
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(s.ctx); err != nil {
		return false, err.Error()
	}
	if _, err := c.Write(first); err != nil {
		return false, err.Error()
	}
	var head [proto.HeaderLen]byte
	if _, err := io.ReadFull(c, head[:]); err != nil { // TLS 1.3: a refused certificate shows here
		if timedOut(err) {
			return true, "neither taken nor refused"
		}
		return false, err.Error()
	}
	b := make([]byte, min(binary.BigEndian.Uint32(head[:]), proto.MaxFrameHello))
	_, err = io.ReadFull(c, b)
	s.must(err)
	var f proto.PeerFrame
	s.must(gproto.Unmarshal(b, &f))
	if f.Refusal != nil {
		return false, f.Refusal.Message
	}
	return true, ""
}

// peerHello is the first frame of a node, with a push behind it that would be
// delivered if it were let in.
func (s *scene) peerHello(node, incarnation uint64, to *wire) []byte {
	hello := &proto.PeerFrame{Hello: &proto.PeerHello{MinVersion: 1, MaxVersion: 1, Node: node, Incarnation: incarnation}}
	event, err := gproto.Marshal(&proto.Event{Conversation: make([]byte, 16), Rev: 1, ConvSeq: 1, ActorId: to.dev.user,
		Body: &proto.Event_Message{Message: &proto.Message{Content: &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: []byte("forged")}}}})
	s.must(err)
	push := &proto.PeerFrame{Push: []*proto.PeerPush{{Event: event, To: []*proto.PeerRecipient{{User: to.dev.user, Seq: to.dev.cursor.GetSeq() + 1}}}}}
	return append(s.peerFramed(hello), s.peerFramed(push)...)
}

func (s *scene) peerFramed(f *proto.PeerFrame) []byte {
	b, err := gproto.Marshal(f)
	s.must(err)
	return append(header(len(b)), b...)
}

// attackPeers knocks at the door for nodes with everything but a good
// certificate and a true hello. Whoever were let in could push events.
func attackPeers(s *scene) string {
	f := s.clustered()
	s.stage.links.RLock()
	defer s.stage.links.RUnlock()
	at, other := f.Nodes[0], f.Nodes[1]
	victim := s.member(f, 0)
	s.crosses(s.member(f, 1), victim, 3*s.patience) // the true node is connected
	ca := s.authority(f)
	hello := func(node, incarnation uint64) []byte { return s.peerHello(node, incarnation, victim) }
	good := hello(other.Number, other.Incarnation+1)
	spare := other.Number ^ 1<<40 // a number that no node has
	attempts := map[string]struct {
		cert   *tls.Certificate
		first  []byte
		change func(*tls.Config)
	}{
		"no certificate":                {nil, good, nil},
		"an authority of the same name": {s.issue(s.stranger(ca), other.Number, nil), good, nil},
		"a server's certificate":        {s.issue(ca, 0, func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"db1"} }), good, nil},
		"two nodes in one":              {s.issue(ca, other.Number, func(c *x509.Certificate) { c.URIs = append(c.URIs, nodeURI(spare)) }), good, nil},
		"node 0":                        {s.issue(ca, 0, nil), hello(0, 1), nil},
		"expired":                       {s.issue(ca, other.Number, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), good, nil},
		"not for clients":               {s.issue(ca, other.Number, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), good, nil},
		"TLS 1.2":                       {s.issue(ca, other.Number, nil), good, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		"the clients' protocol":         {s.issue(ca, other.Number, nil), good, func(c *tls.Config) { c.NextProtos = []string{"hermod/1"} }},
		"the hello of another node":     {s.issue(ca, spare, nil), good, nil},
		"the very node's own name":      {s.issue(ca, at.Number, nil), hello(at.Number, at.Incarnation+1), nil},
		"an old incarnation":            {s.issue(ca, other.Number, nil), hello(other.Number, other.Incarnation-1), nil},
		"no hello":                      {s.issue(ca, spare, nil), s.peerFramed(&proto.PeerFrame{NotHere: []*proto.PeerPlace{{User: 1, Slot: 1, Conn: 1}}}), nil},
		"versions that nobody speaks":   {s.issue(ca, spare, nil), s.peerFramed(&proto.PeerFrame{Hello: &proto.PeerHello{MinVersion: 7, MaxVersion: 9, Node: spare, Incarnation: 1}}), nil},
		"a hello of a mebibyte":         {s.issue(ca, spare, nil), append(header(1<<20), make([]byte, 8<<10)...), nil},
	}
	for what, a := range attempts {
		if in, why := s.knock(at, a.cert, a.first, a.change); in {
			s.breach("%s: let in %s", what, why)
		}
	}
	for _, got := range victim.quiet(time.Second) {
		if len(got.GetEvents().GetEvents()) > 0 {
			s.breach("a forged event was delivered: %v", got)
		}
	}
	// That the door does open shows that it was the certificates.
	if in, why := s.knock(at, s.issue(ca, spare, nil), s.peerFramed(&proto.PeerFrame{Hello: &proto.PeerHello{MinVersion: 1, MaxVersion: 1, Node: spare, Incarnation: 1}}), nil); !in {
		s.fail("a good certificate is refused: %s", why)
	}
	return fmt.Sprintf("%d impostors refused, none delivered an event", len(attempts))
}

// attackPeerSilence holds the door for nodes: more connections that say nothing
// than may be in their greeting.
func attackPeerSilence(s *scene) string {
	f := s.clustered()
	s.stage.links.Lock() // no node gets in meanwhile, if it comes anew
	defer s.stage.links.Unlock()
	at := f.Nodes[0]
	a, b := s.member(f, 0), s.member(f, 1)
	s.crosses(b, a, 3*s.patience) // the links are up
	var held []net.Conn
	for range 300 {
		c, err := net.DialTimeout("tcp", at.Peer, s.patience)
		if err != nil {
			continue
		}
		held = append(held, c)
		s.later(func() { _ = c.Close() })
	}
	begun := time.Now()
	s.crosses(b, a, 5*time.Second)
	for _, c := range held {
		_ = c.SetDeadline(begun.Add(s.login))
		if _, err := io.Copy(io.Discard, c); err != nil && timedOut(err) {
			s.breach("silent connections stay")
		}
	}
	return fmt.Sprintf("%d silent connections: links stayed up, all were closed within %s", len(held), secs(time.Since(begun)))
}

// crosses sends messages until one is pushed to the other node at once. Those
// before it may wait for the audit: a link or a route is not up yet.
func (s *scene) crosses(from, to *wire, within time.Duration) {
	for begun := time.Now(); ; {
		if time.Since(begun) > within {
			s.breach("for %s no message is pushed to the other node", secs(within))
		}
		text := fmt.Sprint("across ", time.Now().UnixNano())
		from.says(to.dev.user, text)
		for _, f := range to.quiet(300 * time.Millisecond) {
			for _, e := range f.GetEvents().GetEvents() {
				to.dev.cursor.Seq = max(to.dev.cursor.Seq, e.Seq)
				if string(e.GetMessage().GetContent().GetBody()) == text {
					return
				}
			}
		}
	}
}

// clustered attacks the cluster.
func (s *scene) clustered() *Fleet {
	f, err := s.stage.cluster(s.ctx)
	s.must(err)
	return f
}

// member is somebody new, whose phone is connected to the i-th node.
func (s *scene) member(f *Fleet, i int) *wire {
	return s.at(f, i).in(registering(s.name("member")))
}

// at connects somebody to a node of the cluster.
func (s *scene) at(f *Fleet, i int) *wire {
	w := s.dialFrom(s.someone(), f.Nodes[i].Addr)
	if f.Roots != nil {
		s.must(w.secure(func(c *tls.Config) { c.RootCAs = f.Roots }))
	}
	return w
}
