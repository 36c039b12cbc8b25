package chat

import (
	"crypto/rand"
	"net"
	"testing"

	"github.com/hermod-im/hermod/proto"
)

// app is an installation: it keeps what a client must keep, and follows the
// rule of the device secret unless a test makes it break it.
type app struct {
	r        *rig
	t        *testing.T
	name     string
	password string
	id       []byte
	slot     proto.DeviceSlot
	user     int64
	token    string
	secret   []byte // current
	next     []byte // stored before it is sent
	from     string // local address, "" for any
}

func (r *rig) app(name string, slot proto.DeviceSlot) *app {
	return &app{r: r, t: r.t, name: name, password: password, id: random(16), slot: slot}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// hello sends h as it is, filled up with what every Hello has, and returns the
// connection and the answer.
func (a *app) hello(h *proto.Hello) (*peer, *proto.Frame) {
	a.t.Helper()
	if h.Device == nil {
		h.Device = &proto.DeviceInfo{Id: a.id, Slot: a.slot, Platform: "test", Model: a.name, AppVersion: "1.0"}
	}
	if h.MaxVersion == 0 {
		h.MinVersion, h.MaxVersion = 1, 1
	}
	p := a.dial()
	p.write(&proto.Frame{Id: 1, Body: &proto.Frame_Hello{Hello: h}})
	return p, p.next("answer to hello")
}

func (a *app) dial() *peer {
	a.t.Helper()
	var d net.Dialer
	if a.from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(a.from)}
	}
	nc, err := d.DialContext(a.t.Context(), "tcp", a.r.addr)
	if err != nil {
		a.t.Fatal(err)
	}
	p := &peer{t: a.t, d: &device{r: a.r, name: a.name}, nc: nc, frames: make(chan *proto.Frame, 4096)}
	done := make(chan struct{})
	go p.readAll(done)
	a.t.Cleanup(func() { nc.Close(); <-done })
	return p
}

// welcomed does what a client does with a Welcome.
func (a *app) welcomed(p *peer, f *proto.Frame) *peer {
	a.t.Helper()
	w := f.GetWelcome()
	if w == nil {
		a.t.Fatalf("hello of %s was answered with %v", a.name, f)
	}
	p.welcome = w
	a.user = w.UserId
	if w.AccessToken != "" {
		a.token = w.AccessToken
	}
	if a.next != nil {
		a.secret, a.next = a.next, nil
	}
	return p
}

// refused expects an error that answers the Hello, and the end.
func (a *app) refused(p *peer, f *proto.Frame, code proto.ErrorCode) *proto.Error {
	a.t.Helper()
	if f.Id != 1 || f.GetError().GetCode() != code {
		a.t.Fatalf("%s: hello was answered with %v, want %v", a.name, f, code)
	}
	eventually(a.t, "the connection ends", func() bool {
		select {
		case more, ok := <-p.frames:
			if ok {
				a.t.Fatalf("%s: after the refusal came %v", a.name, more)
			}
			return true
		default:
			return false
		}
	})
	return f.GetError()
}

// newNext stores the next secret, unless one waits already.
func (a *app) newNext() []byte {
	if a.next == nil {
		a.next = random(32)
	}
	return a.next
}

func (a *app) registers() *proto.Hello {
	return &proto.Hello{NextSecret: a.newNext(), Credentials: &proto.Hello_Register{Register: &proto.Register{Name: a.name, Password: a.password}}}
}

func (a *app) logsIn() *proto.Hello {
	return &proto.Hello{NextSecret: a.newNext(), Credentials: &proto.Hello_Login{Login: &proto.PasswordLogin{Name: a.name, Password: a.password}}}
}

func (a *app) showsToken() *proto.Hello {
	return &proto.Hello{Credentials: &proto.Hello_AccessToken{AccessToken: a.token}}
}

func (a *app) showsSecret() *proto.Hello {
	return &proto.Hello{NextSecret: a.newNext(), Credentials: &proto.Hello_DeviceSecret{DeviceSecret: &proto.DeviceSecret{UserId: a.user, Current: a.secret}}}
}

// in says hello and expects to be welcomed.
func (a *app) in(h *proto.Hello) *peer {
	a.t.Helper()
	p, f := a.hello(h)
	return a.welcomed(p, f)
}

// out says hello and expects to be refused.
func (a *app) out(h *proto.Hello, code proto.ErrorCode) *proto.Error {
	a.t.Helper()
	p, f := a.hello(h)
	return a.refused(p, f, code)
}

// notices reads the user's own log up to now, by sync from the start.
func (p *peer) notices() (kinds []proto.SecurityKind) {
	p.t.Helper()
	f := p.call(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{
		Cursor: &proto.Cursor{Epoch: p.welcome.Head.Epoch}, Limit: maxSyncEvents,
	}}})
	if f.GetSyncResponse() == nil {
		p.t.Fatalf("sync was answered with %v", f)
	}
	for _, ev := range f.GetSyncResponse().Events {
		if n := ev.GetSecurity(); n != nil {
			kinds = append(kinds, n.Kind)
		}
	}
	return kinds
}

func (p *peer) ok(f *proto.Frame) {
	p.t.Helper()
	if got := p.call(f); got.GetOk() == nil {
		p.t.Fatalf("%s: answered with %v, want ok", p.d.name, got)
	}
}
