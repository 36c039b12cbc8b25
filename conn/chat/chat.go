package chat

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

// Chat is what connected people may ask. It implements conn.Handler (frames
// come in) and router.Local (events go out).
type Chat struct {
	opt    Options
	store  *storage.Store
	router *router.Router
	log    zerolog.Logger
	// often is for what may happen to everybody at once: a shard that is down
	// must not fill the log. The metrics count each.
	often zerolog.Logger
	now   func() time.Time
	auth  *authority

	table   *table
	metrics *metrics
	sends   sync.Pool // *sending
	bursts  sync.Pool // *burst
	buffers buffers
	windows windows
	backlog *backlog
	marks   *markFlusher
	blocks  *blockCache
	rejoin  *rejoiner
	leaving *leaving

	bug    bug // none, but in a server for the torture
	limits atomic.Pointer[Limits]
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // background goroutines and calls under way
}

// Options configures a Chat. Zero values of everything but Store and Router
// take the defaults of DESIGN §6.
type Options struct {
	// Store and Router are the caller's; Chat does not close them.
	Store  *storage.Store
	Router *router.Router

	// Limits can be changed later by SetLimits.
	Limits Limits
	// Argon2 and Tokens say how passwords are hashed and tokens signed,
	// Accounts what bounds them.
	Argon2   Argon2
	Tokens   Tokens
	Accounts Accounts

	// Durability is what the store's acks are promised by. Default DISK.
	Durability proto.Durability
	// AuditEvery is the time in which all connected users are compared with
	// storage once. Default 40 s.
	AuditEvery time.Duration
	// MarksEvery is the least time between two writes of a session's delivered
	// marks. Default 2 s.
	MarksEvery time.Duration
	// Heartbeat is for clients that name none, within the edge's bounds.
	// Default 4 min: the shortest of the usual carrier NAT timeouts is 5.
	Heartbeat time.Duration

	Log     zerolog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
}

// Limits bound what one session may ask and hold.
type Limits struct {
	// MaxContent is the largest content body in bytes. Default and most 32 KiB.
	MaxContent int
	// WindowEvents and WindowBytes bound what was sent to a device and is not
	// acknowledged; past either the node stops sending and later reads storage.
	// Defaults 1,024 and 128 KiB (half of the outbox).
	WindowEvents, WindowBytes int
	// MaxInFlight is told to clients; the edge enforces it. Default 64.
	MaxInFlight int
	// SyncsPerSecond is the rate of SyncRequest. Default 5; 10× closes.
	SyncsPerSecond int
	// MaxIDs bounds the ids of one request. Default 200.
	MaxIDs int
	// RegistersPerMinute and IP (/64 for IPv6). Default 5.
	RegistersPerMinute int
}

const (
	maxContent    = 32 << 10
	maxSyncEvents = 200
	// pageBytes bounds the events of one frame, so that the frame stays well
	// under proto.MaxFrameSession whatever its last event weighs.
	pageBytes = 48 << 10
)

func (o *Options) defaults() {
	o.Limits.defaults()
	setDefault(&o.Durability, proto.Durability_DURABILITY_DISK)
	setDefault(&o.AuditEvery, 40*time.Second)
	setDefault(&o.MarksEvery, 2*time.Second)
	setDefault(&o.Heartbeat, 4*time.Minute)
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func (l *Limits) defaults() {
	setDefault(&l.MaxContent, maxContent)
	setDefault(&l.WindowEvents, 1024)
	setDefault(&l.WindowBytes, 128<<10)
	setDefault(&l.MaxInFlight, 64)
	setDefault(&l.SyncsPerSecond, 5)
	setDefault(&l.MaxIDs, 200)
	setDefault(&l.RegistersPerMinute, 5)
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate names the first option that cannot work.
func (o *Options) Validate() error {
	switch {
	case o.Store == nil:
		return errors.New("chat: Options.Store is missing")
	case o.Router == nil:
		return errors.New("chat: Options.Router is missing")
	case o.AuditEvery <= 0 || o.MarksEvery <= 0:
		return errors.New("chat: Options.AuditEvery and MarksEvery must be above 0")
	case o.Heartbeat <= 0:
		return errors.New("chat: Options.Heartbeat must be above 0")
	}
	return o.Limits.Validate()
}

// Validate names the first limit that cannot work.
func (l *Limits) Validate() error {
	switch {
	case l.MaxContent < 1 || l.MaxContent > maxContent:
		return fmt.Errorf("chat: Limits.MaxContent is %d, allowed are 1 to %d bytes", l.MaxContent, maxContent)
	case l.WindowEvents < 1:
		return fmt.Errorf("chat: Limits.WindowEvents is %d, must be above 0", l.WindowEvents)
	case l.WindowBytes < 1:
		return fmt.Errorf("chat: Limits.WindowBytes is %d, must be above 0", l.WindowBytes)
	case l.MaxInFlight < 1 || l.SyncsPerSecond < 1:
		return errors.New("chat: Limits.MaxInFlight and SyncsPerSecond must be above 0")
	case l.RegistersPerMinute < 1:
		return fmt.Errorf("chat: Limits.RegistersPerMinute is %d, must be above 0", l.RegistersPerMinute)
	case l.MaxIDs < 1 || l.MaxIDs > 500:
		return fmt.Errorf("chat: Limits.MaxIDs is %d, allowed are 1 to 500", l.MaxIDs)
	}
	return nil
}

// New starts a Chat. The caller joins it to the router (SetLocal) and to the
// edge (conn.Options.Handler) before the first connection.
func New(opt Options) (*Chat, error) {
	opt.defaults()
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	auth, err := newAuthority(opt)
	if err != nil {
		return nil, err
	}
	c := &Chat{
		opt: opt, store: opt.Store, router: opt.Router, log: opt.Log, often: opt.Log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Second}), now: opt.Now, auth: auth,
		table: newTable(), bug: openBug(),
	}
	c.limits.Store(&opt.Limits)
	c.metrics = newMetrics(opt.Metrics, c.table)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.sends.New = func() any { return newSending(c) }
	c.bursts.New = func() any { return new(burst) }
	c.backlog = newBacklog(c)
	c.marks = newMarkFlusher(c)
	c.blocks = newBlockCache(c)
	c.rejoin, c.leaving = newRejoiner(c), newLeaving(c)
	c.work.Add(4)
	go c.backlog.run()
	go c.rejoin.run()
	go c.marks.run()
	go c.audit()
	return c, nil
}

// SetLimits changes the limits for what is asked from now on.
func (c *Chat) SetLimits(l Limits) error {
	l.defaults()
	if err := l.Validate(); err != nil {
		return err
	}
	c.limits.Store(&l)
	return nil
}

// Close writes the delivered marks that wait and ends the background work. The
// edge is closed before, the router and the store after.
func (c *Chat) Close() error {
	c.marks.stop()
	c.leaving.stop(c.cancel)
	c.work.Wait()
	c.auth.close()
	return nil
}

// Hello is the first frame of a connection (conn.Handler). It stays parked until
// admit.
func (c *Chat) Hello(cn *conn.Conn, f *proto.Frame) (park bool) {
	cn.SetData(new(greeting))
	c.hello(cn, f)
	return true
}

// Serve handles one later frame (conn.Handler).
func (c *Chat) Serve(cn *conn.Conn, f *proto.Frame) (park bool) {
	s, ok := cn.Data().(*session)
	if !ok {
		return false // closed between its Hello and this frame
	}
	return c.dispatch(s, f)
}

// dispatch starts a call. Its list is the whole of what may be asked.
func (c *Chat) dispatch(s *session, f *proto.Frame) (park bool) {
	switch f.Body.(type) {
	case *proto.Frame_DeliveryAck, *proto.Frame_Typing:
		return c.notice(s, f)
	case nil:
		if f.Id == 0 {
			return false // a notice of a later version
		}
	}
	if f.Id == 0 {
		c.closeSession(s, invalid("a request needs an id above 0"))
		return false
	}
	switch f.Body.(type) {
	case *proto.Frame_Send:
		return c.send(s, f)
	case *proto.Frame_Sync:
		return c.sync(s, f)
	case *proto.Frame_ListConversations:
		return c.listConversations(s, f)
	case *proto.Frame_GetHistory:
		return c.getHistory(s, f)
	case *proto.Frame_GetMarks:
		return c.getMarks(s, f)
	case *proto.Frame_MarkRead:
		return c.markRead(s, f)
	case *proto.Frame_SetState:
		return c.setState(s, f)
	case *proto.Frame_RefreshToken:
		return c.refreshToken(s, f)
	case *proto.Frame_Logout:
		return c.logout(s, f)
	case *proto.Frame_ListDevices:
		return c.listDevices(s, f)
	case *proto.Frame_RevokeDevice:
		return c.revokeDevice(s, f)
	case *proto.Frame_ChangePassword:
		return c.changePassword(s, f)
	case *proto.Frame_LookupUser:
		return c.lookupUser(s, f)
	case *proto.Frame_GetProfiles:
		return c.getProfiles(s, f)
	case *proto.Frame_UpdateProfile:
		return c.updateProfile(s, f)
	case *proto.Frame_BlockUser:
		return c.blockUser(s, f)
	case *proto.Frame_UnblockUser:
		return c.unblockUser(s, f)
	case *proto.Frame_ListBlocks:
		return c.listBlocks(s, f)
	}
	s.conn.Fail(f.Id, proto.Errorf(proto.ErrorCode_ERROR_CODE_UNKNOWN_REQUEST, ""))
	return false
}

// notice handles what has no answer.
func (c *Chat) notice(s *session, f *proto.Frame) (park bool) {
	if f.Id != 0 {
		s.conn.Fail(f.Id, invalid("delivery_ack and typing are one-way: their id is 0"))
		return false
	}
	if f.GetDeliveryAck() != nil {
		return c.deliveryAck(s, f)
	}
	return c.typing(s, f)
}

// read runs fn on the bulkhead of slot's shard and answers request id with what
// it returns. The session is parked meanwhile: its later frames wait, so that
// one person cannot take more than one reader.
func (c *Chat) read(s *session, id uint64, slot storage.Slot, fn func(context.Context) (*proto.Frame, error)) (park bool) {
	err := c.store.Go(slot, func(ctx context.Context) {
		defer s.conn.Resume()
		c.answer(ctx, s, id, fn)
	})
	if err != nil {
		s.conn.Fail(id, faultOf(err))
		return false
	}
	return true
}

// answer runs one call off the workers; a panic in it costs that session only.
func (c *Chat) answer(ctx context.Context, s *session, id uint64, fn func(context.Context) (*proto.Frame, error)) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(s, p)
		}
	}()
	f, err := fn(ctx)
	if err != nil {
		fault := faultOf(err)
		c.logFault(s, fault)
		s.conn.Fail(id, fault)
		return
	}
	s.conn.Reply(id, f)
}

func (c *Chat) panicked(s *session, p any) {
	c.metrics.panics.Inc()
	c.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).
		Int64("user", int64(s.id.user)).Uint64("conn", s.conn.ID()).Msg("a request panicked; its session is closed")
	c.closeSession(s, proto.Errorf(proto.ErrorCode_ERROR_CODE_INTERNAL, ""))
}

// logFault logs what is the server's own trouble; what a client got wrong is
// only counted.
func (c *Chat) logFault(s *session, f *proto.Fault) {
	if f.Code < proto.ErrorCode_ERROR_CODE_INTERNAL {
		return
	}
	c.often.Warn().Err(f).Int64("user", int64(s.id.user)).Uint64("conn", s.conn.ID()).Msg("request failed")
}
