package torture

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/hermod-im/hermod/conn/client"
)

// A ghost is a process of an app that should be gone: one that the system forgot
// to end, or a copy of the phone that was started elsewhere. It has one
// connection, older than that of the process that goes on, and stays until the
// server ends it. What it is told counts for nothing; that there is a session
// too many does (I7).

// errGhost is what a ghost gets that would like to come again.
var errGhost = errors.New("torture: a ghost comes once")

// haunt leaves a ghost of a device's app, and starts the app again. The ghost
// gets in by the same access token, which it cannot renew.
func (d *device) haunt(ctx context.Context) error {
	d.away(false)
	if err := d.leaveGhost(ctx); err != nil {
		return err
	}
	return d.back()
}

func (d *device) leaveGhost(ctx context.Context) error {
	d.flash.mu.Lock()
	s := d.flash.s
	d.flash.mu.Unlock()
	if s.Token == "" {
		return nil
	}
	s.Secret, s.NextSecret = nil, nil
	store := new(client.MemoryStore)
	if err := store.Save(s); err != nil {
		return err
	}
	o := d.crowd.clientOptions(d)
	o.Store = store
	var came atomic.Bool
	o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if came.Swap(true) {
			return nil, errGhost
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	c, err := client.New(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	if c.WaitOnline(ctx) != nil {
		return c.Close() // it must not come after the app
	}
	d.crowd.mu.Lock()
	defer d.crowd.mu.Unlock()
	d.crowd.ghosts = append(d.crowd.ghosts, c)
	return nil
}

// exorcise closes the ghosts.
func (c *crowd) exorcise() {
	c.mu.Lock()
	ghosts := c.ghosts
	c.ghosts = nil
	c.mu.Unlock()
	for _, g := range ghosts {
		_ = g.Close()
	}
}
