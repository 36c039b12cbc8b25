package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/router"
)

func TestMain(m *testing.M) {
	// A pool of go-redis that could not dial tries once a second, and notices
	// only then that it was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

const patience = time.Minute

// eventually polls until ok, or fails.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// authority is a cluster's.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue makes a certificate; change may spoil it.
func (a *authority) issue(t testing.TB, node uint64, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{NodeURI(node)},
	}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) identity(t testing.TB, node uint64) Identity {
	return Identity{CA: a.pool(), Certificate: a.issue(t, node, nil)}
}

// town is a fleet in one process: the directory and member list that its nodes
// share.
type town struct {
	t   testing.TB
	ca  *authority
	dir *router.Memory

	mu      sync.Mutex
	members map[uint64]router.Member
	down    bool
}

func newTown(t testing.TB) *town {
	return &town{t: t, ca: newAuthority(t), dir: router.NewMemory(time.Now), members: map[uint64]router.Member{}}
}

var errDown = errors.New("the directory is down")

// Members implements router.Fleet.
func (w *town) Members(context.Context) ([]router.Member, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errDown
	}
	var out []router.Member
	for _, m := range w.members {
		out = append(out, m)
	}
	return out, nil
}

func (w *town) list(m router.Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members[m.Node] = m
}

func (w *town) unlist(node uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.members, node)
}

func (w *town) setDown(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// node is a router with links; its sessions are a home.
type node struct {
	run    router.Run
	router *router.Router
	links  *Links
	home   *home
	reg    *prometheus.Registry
}

// start starts a run of a node and lists it.
func (w *town) start(id, incarnation uint64, change ...func(*Options)) *node {
	w.t.Helper()
	ln := listen(w.t)
	n := w.run(router.Run{Node: id, Incarnation: incarnation}, ln, w.dir, w, change...)
	w.list(router.Member{Node: id, Incarnation: incarnation, Addr: ln.Addr().String()})
	return n
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// run starts a run of a node that finds others through dir and fleet.
func (w *town) run(run router.Run, ln net.Listener, dir router.Directory, fleet router.Fleet, change ...func(*Options)) *node {
	w.t.Helper()
	n := &node{run: run, home: newHome(), reg: prometheus.NewRegistry()}
	var err error
	n.router, err = router.New(router.Options{Node: run.Node, Incarnation: run.Incarnation, Directory: dir, Log: zerolog.Nop(), Metrics: n.reg})
	if err != nil {
		w.t.Fatal(err)
	}
	n.router.SetLocal(n.home)
	opt := Options{
		Listener: ln, Identity: w.ca.identity(w.t, run.Node), Node: run.Node, Incarnation: run.Incarnation,
		Fleet: fleet, Receive: n.router, MembersEvery: 150 * time.Millisecond,
		Log: zerolog.Nop(), Metrics: n.reg,
	}
	for _, c := range change {
		c(&opt)
	}
	if n.links, err = Start(opt); err != nil {
		w.t.Fatal(err)
	}
	n.router.SetPeers(n.links)
	w.t.Cleanup(n.stop)
	return n
}

// stop ends a run as a crash would: nothing is unlisted or detached.
func (n *node) stop() {
	_ = n.links.Close()
	_ = n.router.Close()
}

// join waits until all have links to all.
func join(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				eventually(t, "a link comes up", func() bool { return a.up(b) })
			}
		}
	}
}

// up reports whether a reaches this run of b.
func (a *node) up(b *node) bool {
	for _, s := range a.links.Status() {
		if s.Node == b.run.Node {
			return s.Up && s.Incarnation == b.run.Incarnation
		}
	}
	return false
}

// attach gives a user a session on the node.
func (n *node) attach(t testing.TB, user int64, slot router.Slot, conn uint64) router.Attached {
	t.Helper()
	n.home.add(user, conn)
	a, err := n.router.Attach(context.Background(), user, slot, conn, 1)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (n *node) deliver(user int64, seqs ...uint64) {
	var ds []router.Delivery
	for _, seq := range seqs {
		ds = append(ds, router.Delivery{User: user, Seq: seq, Event: eventOf(seq)})
	}
	n.router.Deliver(context.Background(), ds)
}

func eventOf(seq uint64) []byte { return []byte{byte(seq), byte(seq >> 8), 'e'} }

// counter reads a metric of the node; labels select one of a vector.
func (n *node) counter(t testing.TB, name string, labels ...string) (sum float64) {
	t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			if len(labels) == 0 || len(m.Label) > 0 && m.Label[0].GetValue() == labels[0] {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

type kicked struct {
	user     int64
	slot     router.Slot
	conn     uint64
	newLogin bool
}

// home is a node's sessions (router.Local).
type home struct {
	mu     sync.Mutex
	conns  map[int64][]uint64
	pushed map[int64][]uint64 // seqs by user
	events [][]byte
	hints  []router.Hint
	kicks  []kicked
}

func newHome() *home { return &home{conns: map[int64][]uint64{}, pushed: map[int64][]uint64{}} }

func (h *home) add(user int64, conn uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[user] = append(h.conns[user], conn)
}

// lose forgets a user without a word to the directory.
func (h *home) lose(user int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, user)
}

func (h *home) Push(ds []router.Delivery) (found int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range ds {
		if len(h.conns[d.User]) > 0 {
			h.pushed[d.User] = append(h.pushed[d.User], d.Seq)
			h.events = append(h.events, append([]byte(nil), d.Event...))
			found++
		}
	}
	return found
}

func (h *home) Hint(hs []router.Hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range hs {
		if len(h.conns[x.User]) > 0 {
			h.hints = append(h.hints, router.Hint{User: x.User, Frame: append([]byte(nil), x.Frame...)})
		}
	}
}

func (h *home) Kick(user int64, slot router.Slot, conn uint64, newLogin bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kicks = append(h.kicks, kicked{user, slot, conn, newLogin})
	delete(h.conns, user)
}

func (h *home) Has(user int64, conn uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns[user] {
		if c == conn {
			return true
		}
	}
	return false
}

func (h *home) seqs(user int64) []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]uint64(nil), h.pushed[user]...)
}

func (h *home) total() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.pushed {
		n += len(s)
	}
	return n
}

func (h *home) kickedNow() []kicked {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]kicked(nil), h.kicks...)
}

func (h *home) hinted() []router.Hint {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]router.Hint(nil), h.hints...)
}
