package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Credentials is how a device gets in for the first time. The zero value
// resumes the session in the Store; a name logs in by password, or registers.
// They are used until they succeed once; from then on the session is resumed.
type Credentials struct {
	Name     string
	Password string
	// Register makes the account. DisplayName is what others see; empty: Name.
	Register    bool
	DisplayName string
}

// Device describes the installation to the account's owner.
type Device struct {
	// Slot: of each kind one device is live at a time. Default OTHER.
	Slot proto.DeviceSlot
	// At most 64 bytes each.
	Platform, Model, AppVersion string
}

// Options for New and Dial. Only Endpoints is required.
//
// Callbacks are called one at a time, in the order in which things happened,
// from a goroutine that lives as long as there is something to tell. They may
// block (the server stops sending when its window is full) and may call any
// method but Close.
type Options struct {
	// Endpoints are host:port. The client starts with a random one and takes
	// the next after each failure.
	Endpoints []string
	// TLS, if not nil, turns TLS 1.3 on. RootCAs, ServerName (default: the
	// endpoint's host) and client certificates are taken from it; version and
	// ALPN are the protocol's.
	TLS *tls.Config
	// Pins, if any, are SHA-256 hashes of the DER public key info (SPKI) of
	// certificates; one in the server's verified chain must match. With
	// TLS.InsecureSkipVerify only the server's own certificate is compared:
	// so a self-signed one is trusted by its pin.
	Pins [][32]byte
	// Insecure allows plain TCP to endpoints that are not loopback. Passwords
	// and messages can then be read on the way.
	Insecure bool
	// DialContext makes TCP connections. Default: net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	Device      Device
	Credentials Credentials
	// Store keeps the session. Default: a new MemoryStore.
	Store Store
	// Background: start in the background (see SetState). Default: foreground.
	Background bool
	// Heartbeat is the interval to ask for, whole seconds; 0 leaves it to the
	// server, whose answer holds in any case.
	Heartbeat time.Duration

	// OnEvents applies events: the user's inbox, in seq order, without gaps,
	// each once. They are acknowledged after it returns. Own messages carry
	// their content too.
	OnEvents func(c *Client, events []*proto.Event)
	// OnReset rebuilds: the events up to r.Resume cannot be had. Drop what you
	// have and read Conversations and History; when OnReset returns nil, events
	// go on behind r.Resume. On an error, or if the connection breaks (ctx
	// ends), it is called again on the next one. Every device gets it once,
	// after its first login. nil: nothing to rebuild.
	OnReset func(ctx context.Context, c *Client, r *proto.Reset) error
	// OnCaughtUp is called once a connection: all that was missed is applied.
	OnCaughtUp func(c *Client)
	// OnHint shows typing and delivered marks. Hints may be lost.
	OnHint func(c *Client, h *proto.Hint)
	// OnState tells where the connection is.
	OnState func(c *Client, s State)

	// ConnectTimeout bounds one attempt, from TCP to the Welcome. Default 15 s.
	ConnectTimeout time.Duration
	// RequestTimeout bounds a request with its repetitions where its context
	// has no sooner deadline. Default 30 s.
	RequestTimeout time.Duration
	// BackoffBase and BackoffMax: attempt n waits for a random time up to
	// min(BackoffMax, BackoffBase·2ⁿ). Default 500 ms and 30 s.
	BackoffBase, BackoffMax time.Duration
	// StableAfter: a connection this old starts the backoff anew. Default 10 s.
	StableAfter time.Duration
	// AckDelay is the longest that an applied event stays unacknowledged.
	// Default 1 s.
	AckDelay time.Duration
	// WriteTimeout: a write without progress for so long ends the connection.
	// Default 30 s.
	WriteTimeout time.Duration
	// MaxOutbox is how many messages may wait for their ack. Default 1,000.
	MaxOutbox int
	// Pool is shared by the clients of a process. Default: one of its own.
	Pool *Pool
}

// Validate fills in defaults and reports what cannot work.
func (o *Options) Validate() error {
	if len(o.Endpoints) == 0 {
		return errors.New("client: Endpoints is empty: name at least one host:port")
	}
	for _, ep := range o.Endpoints {
		host, port, err := net.SplitHostPort(ep)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("client: endpoint %q is not host:port", ep)
		}
		if o.TLS == nil && !o.Insecure && !isLoopback(host) {
			return fmt.Errorf("client: endpoint %q without TLS is not loopback: set TLS, or Insecure if the network may read everything", ep)
		}
	}
	if len(o.Pins) > 0 && o.TLS == nil {
		return errors.New("client: Pins need TLS")
	}
	if o.Credentials.Name == "" && (o.Credentials.Password != "" || o.Credentials.Register) {
		return errors.New("client: Credentials without a Name")
	}
	if o.Device.Slot == proto.DeviceSlot_DEVICE_SLOT_UNSPECIFIED {
		o.Device.Slot = proto.DeviceSlot_DEVICE_SLOT_OTHER
	}
	if !o.Device.Slot.Valid() {
		return fmt.Errorf("client: Device.Slot %d does not exist", o.Device.Slot)
	}
	for _, s := range []string{o.Device.Platform, o.Device.Model, o.Device.AppVersion} {
		if len(s) > 64 {
			return fmt.Errorf("client: %q describes the device in more than 64 bytes", s)
		}
	}
	for _, d := range []struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{
		{"ConnectTimeout", &o.ConnectTimeout, 15 * time.Second},
		{"RequestTimeout", &o.RequestTimeout, 30 * time.Second},
		{"BackoffBase", &o.BackoffBase, 500 * time.Millisecond},
		{"BackoffMax", &o.BackoffMax, 30 * time.Second},
		{"StableAfter", &o.StableAfter, 10 * time.Second},
		{"AckDelay", &o.AckDelay, time.Second},
		{"WriteTimeout", &o.WriteTimeout, 30 * time.Second},
		{"Heartbeat", &o.Heartbeat, 0},
	} {
		if *d.d < 0 {
			return fmt.Errorf("client: %s is negative", d.name)
		}
		if *d.d == 0 {
			*d.d = d.def
		}
	}
	if o.MaxOutbox == 0 {
		o.MaxOutbox = 1000
	}
	if o.MaxOutbox < 0 {
		return errors.New("client: MaxOutbox is negative")
	}
	if o.Store == nil {
		o.Store = &MemoryStore{}
	}
	if o.Pool == nil {
		o.Pool = NewPool()
	}
	if o.DialContext == nil {
		o.DialContext = (&net.Dialer{KeepAlive: -1}).DialContext // heartbeats do that
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
