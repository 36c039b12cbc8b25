package torture

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// device is one place for an app: a person's phone, or desktop. Installations
// of the app come one after the other, and processes of each.
type device struct {
	crowd *crowd
	p     *person
	slot  proto.DeviceSlot

	mu     sync.Mutex
	app    *app // nil while it is away
	rec    *record
	flash  *flash
	outbox []uint32 // unanswered messages, in the order of sending
}

// install puts a new installation in place of what there is.
func (d *device) install() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rec = d.crowd.h.device(d.p.number, int32(d.slot))
	d.flash = &flash{}
	d.outbox = nil
}

// start starts the app; what its outbox holds goes out again, under the same
// ids and in the same order.
func (d *device) start(register bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := &app{h: d.crowd.h, rec: d.rec}
	o := d.crowd.clientOptions(d)
	o.Store = memory{d.flash, a}
	o.OnEvents, o.OnReset, o.OnCaughtUp, o.OnState = a.onEvents, a.onReset, a.onCaughtUp, a.onState
	d.flash.mu.Lock()
	if s := d.flash.s; !s.LoggedIn() {
		o.Credentials = client.Credentials{Name: d.p.name, Password: password, Register: register}
	}
	d.flash.mu.Unlock()
	c, err := client.New(o)
	if err != nil {
		return err
	}
	a.c = c
	d.app = a
	for _, n := range d.outbox {
		d.crowd.h.repeat(n)
		d.hand(a, n)
	}
	return nil
}

// hand gives message n to the app's client. mu is held.
func (d *device) hand(a *app, n uint32) {
	id, to := d.crowd.h.idOf(n)
	s := stamp{run: d.crowd.h.run, number: n, from: d.crowd.h.user(d.p.number), to: d.crowd.h.user(to)}
	err := a.c.SendAsync(id, client.User(s.to), s.content(d.crowd.size(n)), func(ack client.Ack, err error) {
		// Not on the reader, which must not wait for whoever holds mu.
		d.answered(a, n, ack, err)
	})
	if err != nil && !errors.Is(err, client.ErrClosed) {
		d.crowd.h.answer(n, unsent, nil)
		d.outbox = slices.DeleteFunc(d.outbox, func(m uint32) bool { return m == n })
	}
}

// answered notes what the server said to message n. A process that ended leaves
// it in the outbox; so does a dead one, whatever it heard.
func (d *device) answered(a *app, n uint32, ack client.Ack, err error) {
	var e *client.Error
	switch h := d.crowd.h; {
	case err == nil:
		if a.alive(func() {}) != nil {
			return
		}
		h.answer(n, acked, func(m *message) {
			m.conv, m.rev, m.convSeq = h.conv(ack.Conversation), uint32(ack.Rev), uint32(ack.ConvSeq)
		})
	case errors.As(err, &e) && e.Code != 0:
		h.answer(n, refused, func(m *message) { m.code = int32(e.Code) })
		d.crowd.refused(e)
	default:
		return
	}
	d.crowd.took(d, n)
}

// forget takes message n out of the outbox.
func (d *device) forget(n uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.outbox, n); i >= 0 {
		d.outbox = slices.Delete(d.outbox, i, i+1)
	}
}

// send writes a message to somebody, unless too many are unanswered or the
// device is not in a state to. It reports whether it did.
func (d *device) send(to *person) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.app == nil || len(d.outbox) >= d.crowd.opt.InFlight {
		return false
	}
	id, err := d.app.c.NewSendID()
	if err != nil {
		return false // never online yet
	}
	n := d.crowd.h.begin(id, d.rec, to.number)
	d.outbox = append(d.outbox, n)
	d.hand(d.app, n)
	return true
}

// away ends the app, by its user or by force.
func (d *device) away(kill bool) {
	d.mu.Lock()
	a := d.app
	d.app = nil
	d.mu.Unlock()
	switch {
	case a == nil:
	case kill:
		a.kill()
	default:
		a.close()
	}
}

// back starts the app if it is away, and logs in again if its session was
// ended by the server for good.
func (d *device) back() error {
	d.mu.Lock()
	a := d.app
	d.mu.Unlock()
	if a != nil && a.c.Err() == nil {
		return nil
	}
	if a != nil {
		d.crowd.ended(d, a.c.Err())
		d.away(false)
		d.flash.mu.Lock()
		d.flash.s = client.Session{DeviceID: d.flash.s.DeviceID}
		d.flash.mu.Unlock()
	}
	return d.start(false)
}

// replace puts a new installation in the slot; the old one is never seen again.
func (d *device) replace() error {
	d.away(true)
	d.rec.mu.Lock()
	d.rec.ended = true
	d.rec.mu.Unlock()
	d.install()
	return d.start(false)
}

// client is the running app's; nil if it is away.
func (d *device) client() *client.Client {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.app == nil {
		return nil
	}
	return d.app.c
}

// unanswered is how many messages wait.
func (d *device) unanswered() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.outbox)
}

// live is the device's owner: it writes, and does what else people do, until
// stop is closed.
func (d *device) live(ctx context.Context, stop <-chan struct{}) {
	pause := time.Duration(float64(d.crowd.devices()) / d.crowd.opt.Rate * float64(time.Second))
	restless := d.crowd.opt.Restless * pause.Minutes() // of a turn
	for turn := rand.IntN(1000); ; turn++ {
		select {
		case <-stop:
			return
		case <-time.After(rand.N(2*pause + 1)):
		}
		if d.crowd.held.Load() {
			continue
		}
		if rand.Float64() < restless {
			d.act(ctx, stop)
			continue
		}
		if err := d.back(); err != nil {
			d.crowd.trouble("%s: %v", d.p.name, err)
			return
		}
		d.send(d.p.peers[turn%len(d.p.peers)])
	}
}

// act does one thing that is no sending.
func (d *device) act(ctx context.Context, stop <-chan struct{}) {
	var err error
	switch roll := rand.IntN(100); {
	case rand.Float64() < d.crowd.opt.Ghosts:
		err = d.haunt(ctx)
	case roll < 45:
		d.read(ctx)
	case roll < 65:
		d.away(false)
		rest(stop, 4*time.Second)
		d.crowd.count(&d.crowd.returns)
		err = d.back()
	case roll < 85:
		d.away(true)
		rest(stop, 2*time.Second)
		d.crowd.count(&d.crowd.restarts)
		err = d.back()
	case roll < 90:
		d.crowd.count(&d.crowd.replaced)
		err = d.replace()
	default:
		d.quarrel(ctx, stop)
	}
	if err != nil {
		d.crowd.trouble("%s: %v", d.p.name, err)
	}
}

// rest waits for a random time.
func rest(stop <-chan struct{}, most time.Duration) {
	select {
	case <-stop:
	case <-time.After(rand.N(most)):
	}
}

// actTimeout bounds a request of an act.
const actTimeout = 20 * time.Second

// read marks a conversation read up to the newest message applied here.
func (d *device) read(ctx context.Context) {
	c := d.client()
	if c == nil {
		return
	}
	d.mu.Lock()
	rec := d.rec
	d.mu.Unlock()
	rec.mu.Lock()
	var last sight
	if l := rec.current(); l != nil && len(l.seen) > 0 {
		last = l.seen[len(l.seen)-1-rand.IntN(min(len(l.seen), 20))]
	}
	rec.mu.Unlock()
	if last.kind != sawMessage || last.conv == 0 {
		return
	}
	d.crowd.h.mu.Lock()
	key := d.crowd.h.keys[last.conv]
	d.crowd.h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, actTimeout)
	defer cancel()
	if c.MarkRead(ctx, key[:], uint64(last.convSeq)) == nil {
		d.crowd.h.read(d.p.number, key[:], uint64(last.convSeq))
	}
}

// quarrelTime is how long somebody stays blocked; a block on another shard may
// be known 5 s late.
const quarrelTime = 8 * time.Second

// quarrel blocks somebody for a while.
func (d *device) quarrel(ctx context.Context, stop <-chan struct{}) {
	c := d.client()
	peer := d.p.peers[rand.IntN(min(2, len(d.p.peers)))] // who writes back
	if c == nil || !d.p.quarrels.TryLock() {
		return
	}
	defer d.p.quarrels.Unlock()
	h := d.crowd.h
	ctx, cancel := context.WithTimeout(ctx, actTimeout+quarrelTime)
	defer cancel()
	b := h.block(d.p.number, peer.number)
	if err := c.Block(ctx, h.user(peer.number)); err == nil {
		b.from = h.now()
		select {
		case <-stop:
		case <-time.After(quarrelTime):
		}
		b.until = h.now()
	}
	d.p.blocked.add(b)
	d.p.makeUp(ctx, c)
}
