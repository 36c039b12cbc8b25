package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/bench/observe"
	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/proto"
)

// node is a whole server in this process: sockets, disk and admin page as in
// life, only cheap passwords.
type node struct {
	*Server
	t    *testing.T
	addr string // of the first listener
	log  *logBuffer
	once sync.Once // stop
}

// testConfig is the default configuration on free ports and a new folder.
func testConfig(t *testing.T) config.Config {
	cfg := config.Default()
	cfg.Listen.Plain = "127.0.0.1:0"
	cfg.Admin.Listen = "127.0.0.1:0"
	cfg.Data.Dir = t.TempDir()
	cfg.Auth.Argon2MemoryKiB, cfg.Auth.Argon2Time = 64, 1
	cfg.Storage.CacheMiB, cfg.Storage.FreeReserveMiB = 8, 64
	return cfg
}

// nobodyExempt makes the rates hold for loopback, as they do for the world, and
// gets those out of the way that a test is not about.
func nobodyExempt(cfg *config.Config) {
	cfg.Limits.Exempt = nil
	cfg.Limits.RegistersPerIP = 1000
}

// serve starts a node; it is closed when the test ends, if not before.
func serve(t *testing.T, change ...func(*config.Config)) *node {
	t.Helper()
	cfg := testConfig(t)
	for _, f := range change {
		f(&cfg)
	}
	return serveConfig(t, cfg)
}

func serveConfig(t *testing.T, cfg config.Config) *node {
	t.Helper()
	n := &node{t: t, log: new(logBuffer)}
	var err error
	if n.Server, err = Start(cfg, zerolog.New(n.log)); err != nil {
		t.Fatalf("Start: %v", err)
	}
	n.addr = n.Addrs()[0].String()
	t.Cleanup(n.stop)
	return n
}

// stop closes the node, once.
func (n *node) stop() {
	n.once.Do(func() {
		if err := n.Close(); err != nil {
			n.t.Errorf("Close: %v", err)
		}
		if n.t.Failed() {
			n.t.Logf("log of the node:\n%s", n.log)
		}
	})
}

// logBuffer is a log to look into.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// get asks the admin page.
func (n *node) get(path string) (status int, body string) {
	n.t.Helper()
	return getPage(n.t, "http://"+n.admin.addr().String()+path, "")
}

// getPage asks for a page; host, if set, is the name it is asked under.
func getPage(t *testing.T, url, host string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// metric sums the samples of a metric whose labels have all the values, as
// /metrics shows them.
func (n *node) metric(name string, labels ...string) float64 {
	n.t.Helper()
	_, page := n.get("/metrics")
	return metricIn(n.t, page, name, labels...)
}

func metricIn(t *testing.T, page, name string, labels ...string) float64 {
	t.Helper()
	p, err := observe.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	sum, found := p.Sum(name, labels...)
	if !found && len(labels) == 0 {
		t.Fatalf("/metrics has no %s", name)
	}
	return sum
}

// closedFor waits until n connections were closed for a reason.
func (n *node) closedFor(reason string, count int) {
	n.t.Helper()
	eventually(n.t, 10*time.Second, fmt.Sprintf("%d closed for %s", count, reason), func() bool {
		return n.metric("hermod_conn_closed_total", reason) >= float64(count)
	})
}

// wire is a client that does what it is told: frames over a socket, no
// manners.
type wire struct {
	net.Conn
	t   *testing.T
	buf []byte
	id  uint64
	dev device
}

// device is an installation that a wire logs in as.
type device struct {
	id, secret []byte
	user       int64
	cursor     *proto.Cursor
	slot       proto.DeviceSlot
}

func newDevice() device {
	return device{id: random(16), secret: random(32), slot: proto.DeviceSlot_DEVICE_SLOT_PHONE}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func (n *node) dial() *wire { return n.dialFrom("127.0.0.1") }

// dialFrom connects from another loopback address, which is another person as
// far as limits go.
func (n *node) dialFrom(ip string) *wire {
	n.t.Helper()
	w, err := dialWire(n.t, n.addr, ip)
	if err != nil {
		n.t.Fatal(err)
	}
	return w
}

func dialWire(t *testing.T, addr, ip string) (*wire, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, KeepAlive: -1}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return newWire(t, nc), nil
}

// wirePatience is how long a test may go on with one connection.
const wirePatience = 2 * time.Minute

func newWire(t *testing.T, nc net.Conn) *wire {
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(wirePatience))
	return &wire{Conn: nc, t: t, dev: newDevice()}
}

func (w *wire) write(b []byte) {
	w.t.Helper()
	if _, err := w.Write(b); err != nil {
		w.t.Fatalf("write: %v", err)
	}
}

func framed(t *testing.T, fs ...*proto.Frame) (b []byte) {
	t.Helper()
	for _, f := range fs {
		var err error
		if b, err = proto.AppendFrame(b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (w *wire) send(fs ...*proto.Frame) {
	w.t.Helper()
	w.write(framed(w.t, fs...))
}

// next reads a frame; nil is a heartbeat.
func (w *wire) next() (*proto.Frame, error) {
	for {
		payload, n, err := proto.Next(w.buf, proto.MaxFrameSession)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			w.buf = w.buf[n:]
			if proto.IsHeartbeat(payload) {
				return nil, nil
			}
			f := new(proto.Frame)
			return f, proto.Decode(payload, f)
		}
		chunk := make([]byte, 32<<10)
		if n, err = w.Read(chunk); n == 0 && err != nil {
			return nil, err
		}
		w.buf = append(w.buf, chunk[:n]...)
	}
}

func (w *wire) frame() *proto.Frame {
	w.t.Helper()
	f, err := w.next()
	if err != nil {
		w.t.Fatalf("read: %v", err)
	}
	return f
}

// answer reads up to the answer of request id.
func (w *wire) answer(id uint64) *proto.Frame {
	w.t.Helper()
	for {
		f := w.frame()
		if f.GetId() == id {
			return f
		}
		if f.GetId() == 0 && f.GetError() != nil {
			w.t.Fatalf("closed: %v", f.GetError())
		}
	}
}

// ask sends a request and returns its answer.
func (w *wire) ask(f *proto.Frame) *proto.Frame {
	w.t.Helper()
	w.id++
	f.Id = w.id
	w.send(f)
	return w.answer(f.Id)
}

// fault reads up to the Error with id 0, and to the end of the connection.
func (w *wire) fault(code proto.ErrorCode) {
	w.t.Helper()
	for {
		f, err := w.next()
		if err != nil {
			w.t.Fatalf("the connection ended (%v) before %s", err, code.Short())
		}
		if f.GetError() == nil || f.GetId() != 0 {
			continue
		}
		if got := f.GetError().GetCode(); got != code {
			w.t.Fatalf("closed with %s, want %s", got.Short(), code.Short())
		}
		w.ended()
		return
	}
}

// ended reads to the end of the connection, which the server makes.
func (w *wire) ended() {
	w.t.Helper()
	_, err := io.Copy(io.Discard, w.Conn)
	_ = w.Close()
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		w.t.Fatal("the server did not close the connection")
	}
}

// closedSoon reports whether the server closes the connection without a word.
func (w *wire) closedSoon() bool {
	_ = w.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	var b [1]byte
	_, err := w.Read(b[:])
	_ = w.SetReadDeadline(time.Now().Add(wirePatience))
	var timeout net.Error
	return err != nil && !(errors.As(err, &timeout) && timeout.Timeout())
}

// hello is the device's first frame with the credentials that set fills in.
func (w *wire) hello(set func(*proto.Hello)) *proto.Frame {
	h := &proto.Hello{
		MinVersion: 1, MaxVersion: 1, NextSecret: w.dev.secret, Cursor: w.dev.cursor,
		State:  proto.AppState_APP_STATE_FOREGROUND,
		Device: &proto.DeviceInfo{Id: w.dev.id, Slot: w.dev.slot, Platform: "test"},
	}
	set(h)
	w.id++
	return &proto.Frame{Id: w.id, Body: &proto.Frame_Hello{Hello: h}}
}

const password = "correct horse battery"

func registering(name string) func(*proto.Hello) {
	return func(h *proto.Hello) {
		h.Credentials = &proto.Hello_Register{Register: &proto.Register{Name: name, Password: password}}
	}
}

func loggingIn(name, password string) func(*proto.Hello) {
	return func(h *proto.Hello) {
		h.Credentials = &proto.Hello_Login{Login: &proto.PasswordLogin{Name: name, Password: password}}
	}
}

// enter says hello and returns the answer, a Welcome or an Error.
func (w *wire) enter(set func(*proto.Hello)) *proto.Frame {
	w.t.Helper()
	f := w.hello(set)
	w.send(f)
	f = w.answer(f.Id)
	if wel := f.GetWelcome(); wel != nil {
		w.dev.user = wel.UserId
		if w.dev.cursor == nil {
			w.dev.cursor = wel.Head
		}
	}
	return f
}

// register makes an account; the wire is its phone.
func (w *wire) register(name string) *wire {
	w.t.Helper()
	if f := w.enter(registering(name)); f.GetWelcome() == nil {
		w.t.Fatalf("register %s: %v", name, f)
	}
	return w
}

// resume logs the same device in again, on a new connection.
func (n *node) resume(d device) *wire {
	n.t.Helper()
	w := n.dial()
	w.dev = d
	w.dev.secret = random(32)
	f := w.enter(func(h *proto.Hello) {
		h.Credentials = &proto.Hello_DeviceSecret{DeviceSecret: &proto.DeviceSecret{UserId: d.user, Current: d.secret}}
	})
	if f.GetWelcome() == nil {
		n.t.Fatalf("resume: %v", f)
	}
	return w
}

// message is a send request with a new id.
func message(to int64, body string) *proto.Frame {
	return messageBytes(to, textContent(body))
}

func messageBytes(to int64, content *proto.Content) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_Send{Send: &proto.SendRequest{
		Target: &proto.SendRequest_ToUserId{ToUserId: to}, SendId: newSendID(time.Now()), Content: content,
	}}}
}

// newSendID is a UUIDv7.
func newSendID(now time.Time) []byte {
	id := random(16)
	ms := now.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// padded is f with its payload grown to size by a field nobody knows.
func padded(t *testing.T, f *proto.Frame, size int) []byte {
	t.Helper()
	b, err := gproto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	// Field 1000, length-delimited: two bytes of tag, three of length.
	fill := size - len(b) - 5
	if fill < 0 || fill >= 1<<21 {
		t.Fatalf("cannot pad %d bytes to %d", len(b), size)
	}
	b = append(b, 0xc2, 0x3e, byte(fill)|0x80, byte(fill>>7)|0x80, byte(fill>>14))
	b = append(b, make([]byte, fill)...)
	return append(header(len(b)), b...)
}

// header is a frame's length.
func header(n int) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

// codeOf is the code of an Error frame, 0 of others.
func codeOf(f *proto.Frame) proto.ErrorCode { return f.GetError().GetCode() }

// wantError wants an error whose text has all the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v, want one with %q", err, w)
		}
	}
}
