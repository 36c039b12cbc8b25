package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// crowd is everybody who writes.
type crowd struct {
	opt  *Options
	h    *History
	pool *client.Pool
	// prefix begins the names; a run has its own.
	prefix string
	people []*person
	// held stops the writing for a while.
	held atomic.Bool
	// taken hands answers to one goroutine: they come on readers, which must not
	// wait for a device that is being changed.
	taken chan taken
	done  sync.WaitGroup

	mu                          sync.Mutex
	codes                       map[string]int
	ends                        map[string]int
	troubles                    []string
	returns, restarts, replaced int
	ousted                      int // sessions that were told that another has their place
	ghosts                      []*client.Client
}

// taken is a message that was answered.
type taken struct {
	d *device
	n uint32
}

// person is a user.
type person struct {
	number  int32
	name    string
	peers   []*person
	devices []*device
	// quarrels is held by the device that has blocked somebody.
	quarrels sync.Mutex
	blocked  blocked
}

// blocked is who may be blocked: an Unblock may have failed.
type blocked struct {
	mu   sync.Mutex
	list []*block
}

func (b *blocked) add(one *block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = append(b.list, one)
}

const password = "a password for torture"

// Everybody has up to so many devices.
const mostPlaces = 3

// slots are what a person's devices are, in this order.
var slots = [mostPlaces]proto.DeviceSlot{proto.DeviceSlot_DEVICE_SLOT_PHONE, proto.DeviceSlot_DEVICE_SLOT_DESKTOP, proto.DeviceSlot_DEVICE_SLOT_TABLET}

// logins is how many people register at a time.
const logins = 8

// newCrowd registers everybody, with all their devices.
func newCrowd(ctx context.Context, opt *Options, h *History) (*crowd, error) {
	c := &crowd{
		opt: opt, h: h, pool: client.NewPool(), prefix: fmt.Sprintf("t%x", h.run%0xffffff),
		taken: make(chan taken, 4096), codes: make(map[string]int), ends: make(map[string]int),
	}
	c.done.Go(c.settleAnswers)
	for i := range opt.People {
		p := &person{name: fmt.Sprintf("%s-%d", c.prefix, i)}
		p.number = h.person(p.name)
		for k := range 1 + i%mostPlaces {
			p.devices = append(p.devices, &device{crowd: c, p: p, slot: slots[k]})
		}
		c.people = append(c.people, p)
	}
	for i, p := range c.people {
		// The two beside one write back; those further off mix all.
		for _, step := range [...]int{1, len(c.people) - 1, 8, 29} {
			if to := c.people[(i+step)%len(c.people)]; to != p && !slices.Contains(p.peers, to) {
				p.peers = append(p.peers, to)
			}
		}
		if i%10 == 0 {
			p.peers = append(p.peers, p) // to one's own devices
		}
	}
	return c, c.join(ctx)
}

// join has everybody log in.
func (c *crowd) join(ctx context.Context) error {
	room := make(chan struct{}, logins)
	errs := make(chan error, len(c.people))
	for _, p := range c.people {
		room <- struct{}{}
		go func() {
			defer func() { <-room }()
			errs <- p.join(ctx)
		}()
	}
	var failed error
	for range c.people {
		if err := <-errs; err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

// join registers one person, with the first device, and logs the others in.
func (p *person) join(ctx context.Context) error {
	for i, d := range p.devices {
		d.install()
		if err := d.start(i == 0); err != nil {
			return fmt.Errorf("torture: %s: %w", p.name, err)
		}
		if err := d.client().WaitOnline(ctx); err != nil {
			return fmt.Errorf("torture: %s: %w", p.name, err)
		}
		if i == 0 {
			d.crowd.h.identify(p.number, d.client().UserID())
		}
	}
	return nil
}

// clientOptions is how apps connect: each with another endpoint first.
func (c *crowd) clientOptions(d *device) client.Options {
	eps := c.opt.System.Endpoints()
	at := rand.IntN(len(eps))
	return client.Options{
		Endpoints: slices.Concat(eps[at:], eps[:at]), TLS: c.opt.System.TLS(), Pool: c.pool,
		Device:    client.Device{Slot: d.slot, Platform: "torture"},
		Heartbeat: 10 * time.Second, ConnectTimeout: 5 * time.Second,
		BackoffBase: 250 * time.Millisecond, BackoffMax: 4 * time.Second,
	}
}

// size is how many bytes the body of message n has: most are short, some do
// not fit into the row of an inbox.
func (c *crowd) size(n uint32) int {
	switch {
	case n%97 == 0:
		return max(c.opt.Size, 3000)
	case n%7 == 0:
		return max(c.opt.Size/2, bodyLen)
	}
	return c.opt.Size
}

// devices is how many places for apps there are.
func (c *crowd) devices() (n int) {
	for _, p := range c.people {
		n += len(p.devices)
	}
	return n
}

// each calls f for every device, several at a time.
func (c *crowd) each(f func(*device)) {
	room := make(chan struct{}, 32)
	var wg sync.WaitGroup
	for _, p := range c.people {
		for _, d := range p.devices {
			room <- struct{}{}
			wg.Go(func() {
				defer func() { <-room }()
				f(d)
			})
		}
	}
	wg.Wait()
}

// talk has everybody live until stop is closed.
func (c *crowd) talk(ctx context.Context, stop <-chan struct{}) {
	var wg sync.WaitGroup
	for _, p := range c.people {
		for _, d := range p.devices {
			wg.Go(func() { d.live(ctx, stop) })
		}
	}
	wg.Wait()
}

// close ends all apps.
func (c *crowd) close() {
	c.exorcise()
	c.each(func(d *device) { d.away(false) })
	close(c.taken)
	c.done.Wait()
}

// took hands on that message n was answered.
func (c *crowd) took(d *device, n uint32) { c.taken <- taken{d, n} }

func (c *crowd) settleAnswers() {
	for t := range c.taken {
		t.d.forget(t.n)
	}
}

// makeUp unblocks everybody; who cannot be is tried again.
func (p *person) makeUp(ctx context.Context, c *client.Client) bool {
	p.blocked.mu.Lock()
	defer p.blocked.mu.Unlock()
	h := p.devices[0].crowd.h
	p.blocked.list = slices.DeleteFunc(p.blocked.list, func(b *block) bool {
		ctx, cancel := context.WithTimeout(ctx, actTimeout)
		defer cancel()
		if c.Unblock(ctx, h.user(b.whom)) != nil {
			return false
		}
		b.over = h.now()
		return true
	})
	return len(p.blocked.list) == 0
}

func (c *crowd) count(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

func (c *crowd) refused(e *client.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.codes[e.Code.Short()]++
}

// ended notes that the server has ended a device's session for good, for which
// nothing that the crowd does is a reason.
func (c *crowd) ended(d *device, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(why, client.ErrReplaced) || errors.Is(why, client.ErrKicked) {
		c.ousted++
	} else {
		c.ends[fmt.Sprint(why)]++
	}
	c.opt.Log.Warn().Str("user", d.p.name).Err(why).Msg("a session was ended for good")
}

// mostTroubles bounds what a report lists.
const mostTroubles = 20

func (c *crowd) trouble(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.troubles) < mostTroubles {
		c.troubles = append(c.troubles, fmt.Sprintf(format, args...))
	}
}
