package main

import (
	"context"
	"testing"
	"time"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

func testContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

// tryJoin registers name, unless change asks for something else, through the
// reference client, and gives up after patience.
func tryJoin(t *testing.T, addr, name string, patience time.Duration, change ...func(*client.Options)) (*person, error) {
	t.Helper()
	p := &person{}
	o := client.Options{
		Endpoints:   []string{addr},
		Device:      client.Device{Slot: proto.DeviceSlot_DEVICE_SLOT_PHONE, Platform: "test"},
		Credentials: client.Credentials{Name: name, Password: password, Register: true},
		OnEvents:    p.apply,
		OnState:     p.state,
		BackoffBase: 20 * time.Millisecond,
		BackoffMax:  200 * time.Millisecond,
	}
	for _, f := range change {
		f(&o)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	p.c = c
	t.Cleanup(func() { _ = c.Close() })
	return p, nil
}

func join(t *testing.T, addr, name string, change ...func(*client.Options)) *person {
	t.Helper()
	p, err := tryJoin(t, addr, name, 30*time.Second, change...)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p
}

// withPassword logs in instead of registering, as a device of its own.
func withPassword(slot proto.DeviceSlot) func(*client.Options) {
	return func(o *client.Options) {
		o.Credentials.Register = false
		o.Device.Slot = slot
	}
}

// resuming goes on with the session in the store.
func resuming(store client.Store) func(*client.Options) {
	return func(o *client.Options) {
		o.Credentials = client.Credentials{}
		o.Store = store
	}
}

// state counts logins.
func (p *person) state(_ *client.Client, s client.State) {
	if s.Phase == client.Online {
		p.mu.Lock()
		p.logins++
		p.mu.Unlock()
	}
}

// welcomes is how often the person got in.
func (p *person) welcomes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logins
}

// loggedInOnce waits for the client's word that it got in, which comes in its
// own time, and holds that it is the only one.
func loggedInOnce(t *testing.T, name string, p *person) {
	t.Helper()
	eventually(t, 10*time.Second, name+" tells of its login", func() bool { return p.welcomes() > 0 })
	if got := p.welcomes(); got != 1 {
		t.Errorf("%s logged in %d times", name, got)
	}
}
