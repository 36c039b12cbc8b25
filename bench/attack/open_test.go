package attack

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

// openHouse is a Site whose servers let everybody in, believe everything, show
// everything to everybody and keep no limit. No attack may call that good.
type openHouse struct {
	t    *testing.T
	cert tls.Certificate
	ca   [2]string // files
	key  ed25519.PrivateKey
	keys string // folder

	mu    sync.Mutex
	names map[string]int64
	conns map[net.Conn]struct{}
	sent  uint64
}

func newOpenHouse(t *testing.T) *openHouse {
	h := &openHouse{t: t, names: map[string]int64{}, conns: map[net.Conn]struct{}{}, keys: t.TempDir()}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.must(err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "open"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, caKey.Public(), caKey)
	h.must(err)
	h.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: caKey}
	h.ca = [2]string{h.write("ca.pem", "CERTIFICATE", der), h.write("ca-key.pem", "PRIVATE KEY", h.pkcs8(caKey))}
	_, h.key, err = ed25519.GenerateKey(rand.Reader)
	h.must(err)
	h.write("token-1.pem", "PRIVATE KEY", h.pkcs8(h.key))
	return h
}

func (h *openHouse) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *openHouse) pkcs8(key any) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	h.must(err)
	return der
}

func (h *openHouse) write(name, kind string, der []byte) string {
	path := filepath.Join(h.keys, name)
	h.must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// listen accepts until the test ends.
func (h *openHouse) listen(addr string, serve func(net.Conn)) string {
	ln, err := net.Listen("tcp", addr)
	h.must(err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns[c] = struct{}{}
			h.mu.Unlock()
			wg.Go(func() { serve(c) })
		}
	})
	h.t.Cleanup(func() {
		_ = ln.Close()
		h.mu.Lock()
		for c := range h.conns {
			_ = c.Close()
		}
		h.mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

func (h *openHouse) Serve(context.Context, Wish) (*Server, error) {
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(h.cert.Certificate[0])
	h.must(err)
	pool.AddCert(leaf)
	loose := &tls.Config{Certificates: []tls.Certificate{h.cert}, MinVersion: tls.VersionTLS10}
	return &Server{
		Plain: h.listen("127.0.0.1:0", h.talk), Proxy: h.listen("127.0.0.1:0", h.talk),
		TLS: h.listen("127.0.0.1:0", func(c net.Conn) {
			first := make([]byte, 1)
			if _, err := io.ReadFull(c, first); err != nil {
				return
			}
			pre := &prefixed{c, first}
			if first[0] != 22 { // plaintext is welcome too
				h.talk(pre)
				return
			}
			s := tls.Server(pre, loose)
			if s.Handshake() == nil {
				h.talk(s)
				return
			}
			_, _ = io.Copy(io.Discard, c) // and never closes
		}),
		Admin: h.listen("[::]:0", h.admin), Balancer: netip.MustParseAddr("127.255.255.1"),
		Roots: pool, Keys: h.keys, Close: func() error { return nil },
	}, nil
}

func (h *openHouse) Fleet(ctx context.Context) (*Fleet, error) {
	srv, err := h.Serve(ctx, Wish{})
	node := func(n uint64) Node {
		return Node{Addr: srv.Plain, Admin: srv.Admin, Peer: h.listen("127.0.0.1:0", h.peer), Number: n, Incarnation: 5}
	}
	return &Fleet{Nodes: []Node{node(1), node(2)}, CACert: h.ca[0], CAKey: h.ca[1], Cut: func(context.Context) (func() error, error) {
		return func() error { return nil }, nil
	}}, err
}

// prefixed has bytes that were read already.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// admin answers under any name. All figures are those of a server in trouble
// that turns nobody away.
func (h *openHouse) admin(c net.Conn) {
	defer c.Close()
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	_ = req.Body.Close()
	var b strings.Builder
	for name, v := range map[string]int{
		"hermod_conn_opened_total": 1e6, "hermod_conn_closed_total": 0, "hermod_conn_open": 1e6, "hermod_conn_outbox_bytes": 1e9,
		"hermod_conn_panics_total": 1, "hermod_chat_panics_total": 1, "hermod_conn_handshakes_pending": 1e6, "hermod_chat_sessions": 1e6,
	} {
		fmt.Fprintf(&b, "%s %d\n", name, v)
	}
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", b.Len(), b.String())
}

// peer takes everybody for a node.
func (h *openHouse) peer(c net.Conn) {
	s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{h.cert}, MinVersion: tls.VersionTLS10})
	if s.Handshake() == nil {
		b, _ := gproto.Marshal(&proto.PeerFrame{Hello: &proto.PeerHello{MinVersion: 1, MaxVersion: 1, Node: 1, Incarnation: 5}})
		_, _ = s.Write(append(header(len(b)), b...))
	}
	_, _ = io.Copy(io.Discard, c)
}

// talk answers whatever is asked.
func (h *openHouse) talk(c net.Conn) {
	rd := bufio.NewReader(c)
	if first, err := rd.Peek(16); err == nil && string(first[:4]) == "\r\n\r\n" {
		_, _ = rd.Discard(16 + int(binary.BigEndian.Uint16(first[14:]))) // a PROXY header, whatever it says
	}
	for {
		var head [4]byte
		if _, err := io.ReadFull(rd, head[:]); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(head[:])
		if size > 1<<20 {
			_, _ = io.Copy(io.Discard, rd)
			return
		}
		payload := make([]byte, size)
		if _, err := io.ReadFull(rd, payload); err != nil {
			return
		}
		f := new(proto.Frame)
		if len(payload) == 0 || gproto.Unmarshal(payload, f) != nil {
			continue
		}
		if a := h.answer(f); a != nil {
			a.Id = f.Id
			if b, err := proto.AppendFrame(nil, a); err == nil {
				_, _ = c.Write(b)
			}
		}
	}
}

func (h *openHouse) answer(f *proto.Frame) *proto.Frame {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch b := f.Body.(type) {
	case *proto.Frame_Hello:
		return h.welcome(b.Hello)
	case *proto.Frame_Send:
		key := b.Send.GetConversation()
		if len(key) != 16 {
			key = make([]byte, 16)
			binary.BigEndian.PutUint64(key[8:], uint64(b.Send.GetToUserId()))
		}
		h.sent++
		return &proto.Frame{Body: &proto.Frame_SendAck{SendAck: &proto.SendAck{Conversation: key, Rev: h.sent, ConvSeq: h.sent}}}
	case *proto.Frame_ListBlocks:
		return &proto.Frame{Body: &proto.Frame_Blocks{Blocks: &proto.Blocks{}}}
	case *proto.Frame_ChangePassword, *proto.Frame_RefreshToken:
		return &proto.Frame{Body: &proto.Frame_AccessToken{AccessToken: &proto.AccessToken{Token: h.token(1)}}}
	case *proto.Frame_Sync:
		return &proto.Frame{Body: &proto.Frame_SyncResponse{SyncResponse: &proto.SyncResponse{}}}
	case *proto.Frame_ListConversations:
		return &proto.Frame{Body: &proto.Frame_Conversations{Conversations: &proto.Conversations{}}}
	case *proto.Frame_DeliveryAck, *proto.Frame_Typing:
		return nil
	}
	return &proto.Frame{Body: &proto.Frame_Ok{Ok: &proto.Ok{}}}
}

func (h *openHouse) welcome(m *proto.Hello) *proto.Frame {
	name := m.GetRegister().GetName() + m.GetLogin().GetName()
	if name == "" {
		name = "somebody"
	}
	id := h.names[name]
	if id == 0 {
		id = int64(len(h.names) + 1)
		h.names[name] = id
	}
	return &proto.Frame{Body: &proto.Frame_Welcome{Welcome: &proto.Welcome{
		Version: 1, UserId: id, Name: name, AccessToken: h.token(id), Head: &proto.Cursor{Epoch: 1, Seq: h.sent},
	}}}
}

func (h *openHouse) token(id int64) string {
	text := part(object{"alg": "EdDSA", "typ": "JWT", "kid": "k"}) + "." + part(object{"sub": fmt.Sprint(id), "exp": time.Now().Add(time.Hour).Unix()})
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(h.key, []byte(text)))
}
