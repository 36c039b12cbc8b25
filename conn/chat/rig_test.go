package chat

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/pebble"
)

// rig is a whole node on one in-memory shard, with the real edge, store and
// router, talked to by raw frames.
type rig struct {
	t     *testing.T
	chat  *Chat
	store *storage.Store
	addr  string
	log   *logBuffer
	// directory fails on command.
	directory *illDirectory
	// lose decides which deliveries never reach the router.
	lose atomic.Pointer[func(storage.Delivery) bool]
	ids  atomic.Uint64
	// closed counts the connections whose end chat has been told of.
	closed atomic.Int64
}

// watched is a Chat at the edge that counts.
type watched struct {
	*Chat
	closed *atomic.Int64
}

func (w watched) Closed(cn *conn.Conn, why conn.Reason) {
	w.Chat.Closed(cn, why)
	w.closed.Add(1)
}

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

// rigOptions are what a test may want different.
type rigOptions struct {
	chat  Options
	conn  conn.Limits
	store storage.Options
	// beside: other rigs live at the same time; whoever made them looks for
	// leaks.
	beside bool
}

func newRig(t *testing.T, change func(*rigOptions)) *rig {
	t.Helper()
	before := goleak.IgnoreCurrent()
	r := &rig{t: t, log: new(logBuffer), directory: &illDirectory{Directory: router.NewMemory(time.Now)}}
	log := zerolog.New(r.log)
	shard, err := pebble.Open(pebble.Options{
		Dir: "data", FS: vfs.NewMem(), ID: 1, Log: log, CacheBytes: 1 << 20, MemTableBytes: 1 << 20, HeadCacheBytes: 1 << 20,
		Fatal: func(err error) { t.Errorf("pebble: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := router.New(router.Options{Node: 1, Incarnation: 1, Directory: r.directory, Log: log, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	o := rigOptions{
		chat: Options{
			Router: rt, Log: log, Tokens: Tokens{Dir: t.TempDir()}, MarksEvery: 20 * time.Millisecond,
			Argon2: Argon2{MemoryKiB: 8, Passes: 1}, Limits: Limits{RegistersPerMinute: 1000},
		},
		store: storage.Options{
			Shards: []storage.Shard{shard}, Node: 1, Incarnation: 1, ClaimSlots: true, Log: log,
			Deliver: r.deliver(rt),
		},
	}
	if change != nil {
		change(&o)
	}
	if r.store, err = storage.Open(t.Context(), o.store); err != nil {
		t.Fatal(err)
	}
	o.chat.Store = r.store
	if r.chat, err = New(o.chat); err != nil {
		t.Fatal(err)
	}
	rt.SetLocal(r.chat)
	edge, err := conn.Start(conn.Options{
		Listeners: []conn.Listener{{Addr: "127.0.0.1:0"}}, Handler: watched{r.chat, &r.closed}, Limits: o.conn, Log: log, Loops: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.addr = edge.Addrs()[0].String()
	t.Cleanup(func() {
		closers := []io.Closer{edge, r.chat, rt, r.store}
		for _, sh := range o.store.Shards {
			closers = append(closers, sh)
		}
		if o.store.Shards[0] != storage.Shard(shard) {
			closers = append(closers, shard) // a test brought its own
		}
		for _, c := range closers {
			if err := c.Close(); err != nil {
				t.Errorf("close %T: %v", c, err)
			}
		}
		if n := r.chat.table.count.Load(); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		if !o.beside {
			goleak.VerifyNone(t, before)
		}
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	return r
}

func (r *rig) deliver(rt *router.Router) func([]storage.Delivery) {
	return func(ds []storage.Delivery) {
		if lose := r.lose.Load(); lose != nil {
			kept := make([]storage.Delivery, 0, len(ds))
			for _, d := range ds {
				if !(*lose)(d) {
					kept = append(kept, d)
				}
			}
			ds = kept
		}
		rt.Deliver(context.Background(), AppendDeliveries(nil, ds))
	}
}

// dropping makes the router lose deliveries.
func (r *rig) dropping(f func(storage.Delivery) bool) {
	if f == nil {
		r.lose.Store(nil)
		return
	}
	r.lose.Store(&f)
}

// nobody is no exempt network: the rates hold for loopback too.
func nobody() []netip.Prefix { return []netip.Prefix{} }

// device is a client's state between two connections.
type device struct {
	r     *rig
	name  string
	id    []byte
	slot  proto.DeviceSlot
	user  int64
	token string
	head  *proto.Cursor
}

// peer is one raw connection of a device.
type peer struct {
	t       *testing.T
	d       *device
	nc      net.Conn
	frames  chan *proto.Frame // closed at the end of the connection
	welcome *proto.Welcome
	early   []*proto.Frame // read and not asked for yet
}

const phone, desktop = proto.DeviceSlot_DEVICE_SLOT_PHONE, proto.DeviceSlot_DEVICE_SLOT_DESKTOP

func (r *rig) device(name string, slot proto.DeviceSlot) *device {
	id := make([]byte, 16)
	rand.Read(id)
	return &device{r: r, name: name, id: id, slot: slot}
}

// register makes an account, and returns its first connection, caught up.
func (r *rig) register(name string) *peer {
	r.t.Helper()
	d := r.device(name, phone)
	p := d.dial(&proto.Hello{Credentials: &proto.Hello_Register{Register: &proto.Register{Name: name, Password: password}}})
	p.caughtUp()
	return p
}

const password = "correct horse battery"

// login logs another device in.
func (r *rig) login(name string, slot proto.DeviceSlot, cur *proto.Cursor) *peer {
	r.t.Helper()
	d := r.device(name, slot)
	return d.dial(&proto.Hello{Cursor: cur, Credentials: &proto.Hello_Login{Login: &proto.PasswordLogin{Name: name, Password: password}}})
}

// resume connects a device again.
func (d *device) resume(cur *proto.Cursor) *peer {
	d.r.t.Helper()
	return d.dial(&proto.Hello{Cursor: cur, Credentials: &proto.Hello_AccessToken{AccessToken: d.token}})
}

// dial says hello and takes the Welcome.
func (d *device) dial(h *proto.Hello) *peer {
	d.r.t.Helper()
	p := d.open(h)
	f := p.next("welcome")
	p.welcome = f.GetWelcome()
	if p.welcome == nil {
		d.r.t.Fatalf("hello of %s was answered with %v", d.name, f)
	}
	d.user, d.head = p.welcome.UserId, p.welcome.Head
	if p.welcome.AccessToken != "" {
		d.token = p.welcome.AccessToken
	}
	return p
}

// open says hello and reads frames from then on.
func (d *device) open(h *proto.Hello) *peer {
	d.r.t.Helper()
	nc, err := net.Dial("tcp", d.r.addr)
	if err != nil {
		d.r.t.Fatal(err)
	}
	p := &peer{t: d.r.t, d: d, nc: nc, frames: make(chan *proto.Frame, 4096)}
	h.MinVersion, h.MaxVersion = 1, 1
	h.Device = &proto.DeviceInfo{Id: d.id, Slot: d.slot}
	if h.State == 0 {
		h.State = proto.AppState_APP_STATE_FOREGROUND
	}
	if _, ok := h.Credentials.(*proto.Hello_AccessToken); !ok {
		h.NextSecret = make([]byte, 32)
		rand.Read(h.NextSecret)
	}
	done := make(chan struct{})
	go p.readAll(done)
	d.r.t.Cleanup(func() { nc.Close(); <-done })
	p.write(&proto.Frame{Id: 1, Body: &proto.Frame_Hello{Hello: h}})
	return p
}

func (p *peer) readAll(done chan struct{}) {
	defer close(done)
	defer close(p.frames)
	var buf []byte
	chunk := make([]byte, 64<<10)
	for {
		for {
			payload, n, err := proto.Next(buf, proto.MaxFrameSession)
			if err != nil {
				p.t.Errorf("server sent a bad frame: %v", err)
				return
			}
			if n == 0 {
				break
			}
			f := new(proto.Frame)
			if err := proto.Decode(payload, f); err != nil {
				p.t.Errorf("server sent a bad frame: %v", err)
				return
			}
			buf = buf[n:]
			p.frames <- f
		}
		n, err := p.nc.Read(chunk)
		if err != nil {
			return
		}
		buf = append(buf, chunk[:n]...)
	}
}

func (p *peer) write(fs ...*proto.Frame) {
	p.t.Helper()
	var b []byte
	for _, f := range fs {
		var err error
		if b, err = proto.AppendFrame(b, f); err != nil {
			p.t.Fatal(err)
		}
	}
	if _, err := p.nc.Write(b); err != nil {
		p.t.Logf("write: %v", err)
	}
}

const patience = time.Minute

// take returns the first frame that want likes, and keeps the others for later.
func (p *peer) take(what string, want func(*proto.Frame) bool) *proto.Frame {
	p.t.Helper()
	for i, f := range p.early {
		if want(f) {
			p.early = append(p.early[:i:i], p.early[i+1:]...)
			return f
		}
	}
	timeout := time.After(patience)
	for {
		select {
		case f, ok := <-p.frames:
			if !ok {
				p.t.Fatalf("%s: connection ended while waiting for %s; unread: %s", p.d.name, what, p.unread())
			}
			if want(f) {
				return f
			}
			p.early = append(p.early, f)
		case <-timeout:
			p.t.Fatalf("%s: no %s; unread: %s", p.d.name, what, p.unread())
		}
	}
}

// unread tells of the last frames that nobody asked for.
func (p *peer) unread() string {
	return fmt.Sprintf("%d frames, the last %v", len(p.early), p.early[max(0, len(p.early)-2):])
}

func (p *peer) next(what string) *proto.Frame {
	p.t.Helper()
	return p.take(what, func(*proto.Frame) bool { return true })
}

// call asks and returns the answer.
func (p *peer) call(f *proto.Frame) *proto.Frame {
	p.t.Helper()
	f.Id = p.d.r.ids.Add(1) + 1
	p.write(f)
	return p.answer(f.Id)
}

func (p *peer) answer(id uint64) *proto.Frame {
	p.t.Helper()
	return p.take("answer", func(f *proto.Frame) bool { return f.Id == id })
}

// events returns the next n events, checking that seqs have no gap from the
// first on.
func (p *peer) events(n int) (evs []*proto.Event) {
	p.t.Helper()
	for len(evs) < n {
		batch := p.take("events", func(f *proto.Frame) bool { return f.GetEvents() != nil }).GetEvents().Events
		if len(evs)+len(batch) > n {
			rest := batch[n-len(evs):]
			batch = batch[:n-len(evs)]
			p.early = append([]*proto.Frame{{Body: &proto.Frame_Events{Events: &proto.EventBatch{Events: rest}}}}, p.early...)
		}
		evs = append(evs, batch...)
	}
	for i := 1; i < len(evs); i++ {
		if evs[i].Seq != evs[i-1].Seq+1 {
			p.t.Fatalf("%s: event %d follows %d", p.d.name, evs[i].Seq, evs[i-1].Seq)
		}
	}
	return evs
}

func (p *peer) caughtUp() uint64 {
	p.t.Helper()
	return p.take("caught-up", func(f *proto.Frame) bool { return f.GetCaughtUp() != nil }).GetCaughtUp().Seq
}

// closed waits for the error that the server closes with.
func (p *peer) closed() proto.ErrorCode {
	p.t.Helper()
	f := p.take("closing error", func(f *proto.Frame) bool { return f.Id == 0 && f.GetError() != nil })
	timeout := time.After(patience)
	for {
		select {
		case _, ok := <-p.frames:
			if !ok {
				return f.GetError().Code
			}
		case <-timeout:
			p.t.Fatal("the connection stays open")
		}
	}
}

// quiet checks that nothing comes that want likes. It asks the server a
// question and looks at what came before the answer.
func (p *peer) quiet(what string, want func(*proto.Frame) bool) {
	p.t.Helper()
	p.call(&proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{}}})
	for _, f := range p.early {
		if want(f) {
			p.t.Fatalf("%s: unexpected %s: %v", p.d.name, what, f)
		}
	}
}

func (p *peer) ack(seq uint64) {
	p.write(&proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: seq}}})
}

func textTo(user int64, text string) *proto.SendRequest {
	id := proto.NewSendID(time.Now())
	return &proto.SendRequest{
		Target: &proto.SendRequest_ToUserId{ToUserId: user}, SendId: id[:],
		Content: &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_TEXT, Body: []byte(text)},
	}
}

func sendFrame(req *proto.SendRequest) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_Send{Send: req}}
}

// send sends and expects the ack.
func (p *peer) send(req *proto.SendRequest) *proto.SendAck {
	p.t.Helper()
	f := p.call(sendFrame(req))
	if f.GetSendAck() == nil {
		p.t.Fatalf("%s: send was answered with %v", p.d.name, f)
	}
	return f.GetSendAck()
}

// refused expects an error with a code.
func (p *peer) refused(f *proto.Frame, code proto.ErrorCode) *proto.Error {
	p.t.Helper()
	got := p.call(f)
	if got.GetError().GetCode() != code {
		p.t.Fatalf("%s: answered with %v, want %v", p.d.name, got, code)
	}
	return got.GetError()
}

func (p *peer) close() { p.nc.Close() }

// eventually waits for cond.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func counterOf(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}
