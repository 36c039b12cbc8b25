package client

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Phase is where the connection is.
type Phase uint8

const (
	// Connecting: TCP, TLS, or login is under way.
	Connecting Phase = iota
	// Online: welcomed; requests are answered.
	Online
	// Waiting: the next attempt is at State.RetryAt.
	Waiting
	// Closed: for good. State.Err says why.
	Closed
)

func (p Phase) String() string {
	if int(p) < len(phases) {
		return phases[p]
	}
	return fmt.Sprintf("Phase(%d)", uint8(p))
}

var phases = [...]string{"connecting", "online", "waiting", "closed"}

// State is where the connection is, and why.
type State struct {
	Phase    Phase
	Endpoint string
	// RetryAt is set while Waiting.
	RetryAt time.Time
	// Err is an *Error: why the last attempt or connection ended. It is nil
	// before that, and while Online.
	Err error
}

// Client is one device's session, over as many connections as it takes. All
// methods may be called from any goroutine.
type Client struct {
	opts   Options
	pool   *Pool
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{} // closed when run has ended
	hurry  chan struct{} // Reconnect
	wg     sync.WaitGroup

	saving sync.Mutex // one Store.Save at a time; taken before mu

	mu      sync.Mutex
	session Session
	dirty   bool        // session has changed since it was saved
	behind  bool        // its cursor has
	creds   Credentials // zero once they have worked
	state   State
	changed chan struct{} // closed at the next change of state, if anybody waits
	ended   *Error        // why the client is closed
	link    *link         // while Online
	app     proto.AppState
	limits  *proto.Limits // of the last Welcome, never changed in place
	ids     idMaker
	clock   struct {
		known  bool
		server time.Time     // server time
		at     time.Duration // at this time of the pool
	}
	alarm   alarm
	alarmAt time.Duration // when it rings at the latest; 0: not set
	calls   []*call       // not yet on a connection
	outbox  outbox
	inbox   inbox
}

// New starts a client and returns at once; OnState tells how it goes. It fails
// only if the options or the Store do not work.
func New(opts Options) (*Client, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	s, err := opts.Store.Load()
	if err != nil {
		return nil, wrap(ErrStore, err)
	}
	c := &Client{
		opts: opts, pool: opts.Pool, session: s, creds: opts.Credentials,
		done: make(chan struct{}), hurry: make(chan struct{}, 1),
		app: proto.AppState_APP_STATE_FOREGROUND,
	}
	if opts.Background {
		c.app = proto.AppState_APP_STATE_BACKGROUND
	}
	if len(s.DeviceID) != proto.DeviceIDLen {
		c.session.DeviceID = make([]byte, proto.DeviceIDLen)
		rand.Read(c.session.DeviceID)
		c.dirty = true
	}
	c.inbox.received = c.session.Cursor
	c.alarm.ring = c.tick
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Add(1)
	go c.run(mathrand.IntN(len(opts.Endpoints)))
	return c, nil
}

// Dial is New and WaitOnline. If that fails, because ctx ends or because the
// server says no, the client is closed and the error is the reason.
func Dial(ctx context.Context, opts Options) (*Client, error) {
	c, err := New(opts)
	if err != nil {
		return nil, err
	}
	if err := c.WaitOnline(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// WaitOnline returns when the client is online, or has ended, or ctx has.
func (c *Client) WaitOnline(ctx context.Context) error {
	for {
		c.mu.Lock()
		s, ended := c.state, c.ended
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		switch {
		case ended != nil:
			return ended
		case s.Phase == Online:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if s.Err != nil {
				return s.Err
			}
			return localError(ErrCanceled, ctx.Err(), "not online yet")
		}
	}
}

// Close ends the client and returns when no callback runs any more. Messages
// without an ack fail with ErrClosed: they may or may not have been sent. Do not
// call it from a callback (go c.Close() will do).
func (c *Client) Close() error {
	c.finish(localError(ErrClosed, nil, ""))
	c.cancel()
	c.wg.Wait()
	c.mu.Lock()
	dirty := c.dirty || c.behind
	c.mu.Unlock()
	if !dirty {
		return nil
	}
	_, err := c.save()
	return err
}

// Done is closed when the client has ended: by Close, or because the server
// said that it must not come back. Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is nil until the client has ended.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		return nil
	}
	return c.ended
}

// State is the present state.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Reconnect ends a wait for the next attempt: call it when the network is back
// or the app comes to the front, but not more than once in 5 s.
func (c *Client) Reconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Phase == Waiting {
		select {
		case c.hurry <- struct{}{}:
		default:
		}
	}
}

// UserID is the own user id, 0 before the first login.
func (c *Client) UserID() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session.UserID
}

// Name is the account name as the server stores it.
func (c *Client) Name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session.Name
}

// DeviceID is this installation's.
func (c *Client) DeviceID() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.session.DeviceID...)
}

// Cursor is the last event that was applied.
func (c *Client) Cursor() Cursor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session.Cursor
}

// AccessToken is the present access token and its end, for other services that
// accept it; "" if there is none.
func (c *Client) AccessToken() (token string, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session.Token, c.session.TokenExpires
}

// Limits are those of the last Welcome; nil before it. Read only.
func (c *Client) Limits() *proto.Limits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limits
}

// ServerTime is the server's clock, as far as it is known.
func (c *Client) ServerTime() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.serverTime()
}

// serverTime goes by the monotonic clock since the Welcome: turning the device's
// clock changes nothing.
func (c *Client) serverTime() time.Time {
	if !c.clock.known {
		return time.Now()
	}
	return c.clock.server.Add(c.pool.now() - c.clock.at)
}

// setState is called with mu held.
func (c *Client) setState(s State) {
	c.state = s
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
	if c.opts.OnState != nil {
		c.enqueue(item{state: &s})
	}
}

// wake asks for a tick at the time at, with mu held.
func (c *Client) wake(at time.Duration) {
	if c.alarmAt == 0 || at < c.alarmAt {
		c.alarmAt = at
		c.pool.wake(&c.alarm, at)
	}
}

// save stores the session as it is now and returns the cursor that is safe.
func (c *Client) save() (Cursor, error) {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	s := c.session
	c.dirty, c.behind = false, false
	c.mu.Unlock()
	if err := c.opts.Store.Save(s); err != nil {
		c.mu.Lock()
		c.dirty = true
		c.mu.Unlock()
		return Cursor{}, wrap(ErrStore, err)
	}
	return s.Cursor, nil
}

// finish ends the client for the reason why; the first reason stays.
func (c *Client) finish(why *Error) {
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return
	}
	c.ended = why
	switch why.Kind {
	case ErrRevoked:
		c.session.lock()
		c.dirty = true
	case ErrLoggedOut:
		c.session = Session{DeviceID: c.session.DeviceID}
		c.dirty = true
	}
	c.pool.cancel(&c.alarm)
	if c.link != nil {
		c.link.fail(why)
	}
	open := c.outbox.takeAll()
	calls := c.calls
	c.calls = nil
	c.setState(State{Phase: Closed, Endpoint: c.state.Endpoint, Err: why})
	c.mu.Unlock()

	err := why
	if why.Kind != ErrClosed {
		err = localError(ErrClosed, why, "")
	}
	for _, o := range open {
		o.done(Ack{SendID: o.id}, err)
	}
	for _, k := range calls {
		k.done(nil, err)
	}
}
