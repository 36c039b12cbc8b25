package conn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/proto"
)

// Mode is how connections of a Listener begin.
type Mode uint8

const (
	// Plain: frames from the first byte. Loopback only, unless Insecure.
	Plain Mode = iota
	// TLS: TLS 1.3, ALPN "hermod/1".
	TLS
	// Proxy: a PROXY v2 header, then plain frames. For load balancers that end
	// TLS, inside Trusted networks.
	Proxy
)

func (m Mode) String() string {
	switch m {
	case Plain:
		return "plain"
	case TLS:
		return "tls"
	case Proxy:
		return "proxy"
	}
	return fmt.Sprintf("mode_%d", uint8(m))
}

// Listener is one address to listen on.
type Listener struct {
	// Addr is host:port. An empty host is every address; port 0 lets the
	// system choose (see Server.Addrs).
	Addr string
	Mode Mode
	// TLS belongs to Mode TLS: certificates, directly or by GetCertificate or
	// GetConfigForClient. Version and ALPN are set by this package.
	TLS *tls.Config
	// Trusted belongs to Mode Proxy: who may send a PROXY header.
	Trusted []netip.Prefix
	// Insecure permits Mode Plain on an address that is not loopback. What is
	// sent there, passwords too, can be read on the way.
	Insecure bool
}

// Limits bound what a client can cost. A zero field takes its default.
type Limits struct {
	// FirstByte (5 s), Login (10 s): from accept to the first byte, and to
	// Conn.Accept, TLS handshake included.
	FirstByte, Login time.Duration
	// PartialFrame (15 s): from the first byte of a frame to its last.
	PartialFrame time.Duration
	// MinHeartbeat (10 s), MaxHeartbeat (10 min): bounds of Conn.Accept.
	MinHeartbeat, MaxHeartbeat time.Duration
	// LoginBytes (16 KiB): unread input of a connection before login, without
	// the TLS handshake.
	LoginBytes int
	// MaxInFlight (64): requests handed over and not replied to. Beyond it BUSY.
	MaxInFlight int
	// MailboxBytes (256 KiB): payloads waiting for the Handler. Beyond it BUSY.
	MailboxBytes int
	// FrameRate (50/s), FrameBurst (100): beyond it RATE_LIMITED; at ten
	// times both the connection is closed. Not for Exempt addresses.
	FrameRate, FrameBurst int
	// OutboxBytes (256 KiB): output not yet taken by the kernel.
	OutboxBytes int
	// OutboxStall (30 s): how long output may wait without any progress.
	OutboxStall time.Duration
	// CloseGrace (2 s): how long a closing connection may take to accept its
	// last frames.
	CloseGrace time.Duration
	// MaxConns: connections at a time. Default: only MaxFiles bounds them.
	MaxConns int
	// MaxFiles (90% of RLIMIT_NOFILE): no connection is kept whose descriptor
	// is this or higher. Since the kernel gives out the lowest free number,
	// that counts every file of the process, not only connections.
	MaxFiles int
	// PerIPRate (50/s), PerIPLive (2,000): connections of one IPv4 address or
	// IPv6 /64. Not for Exempt addresses.
	PerIPRate, PerIPLive int
	// Handshakes (1,024): TLS handshakes at a time. Those that compute at a
	// time are as many as there are processors.
	Handshakes int
	// Exempt networks skip the per-address and frame rates; never behind
	// PROXY. nil: loopback; empty: nobody.
	Exempt []netip.Prefix
}

// floodFactor is how far over a limit a client may go, refused each time,
// before it is closed.
const floodFactor = 10

func (l Limits) withDefaults() Limits {
	dur := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	num := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	dur(&l.FirstByte, 5*time.Second)
	dur(&l.Login, 10*time.Second)
	dur(&l.PartialFrame, 15*time.Second)
	dur(&l.MinHeartbeat, 10*time.Second)
	dur(&l.MaxHeartbeat, 10*time.Minute)
	num(&l.LoginBytes, 16<<10)
	num(&l.MaxInFlight, 64)
	num(&l.MailboxBytes, 256<<10)
	num(&l.FrameRate, 50)
	num(&l.FrameBurst, 2*l.FrameRate)
	num(&l.OutboxBytes, 256<<10)
	dur(&l.OutboxStall, 30*time.Second)
	dur(&l.CloseGrace, 2*time.Second)
	num(&l.MaxFiles, maxFiles())
	num(&l.PerIPRate, 50)
	num(&l.PerIPLive, 2000)
	num(&l.Handshakes, 1024)
	if l.Exempt == nil {
		l.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	return l
}

// Validate reports what cannot work. Zero fields are valid.
func (l Limits) Validate() error {
	l = l.withDefaults()
	var errs []error
	for name, d := range map[string]time.Duration{
		"FirstByte": l.FirstByte, "Login": l.Login, "PartialFrame": l.PartialFrame, "MinHeartbeat": l.MinHeartbeat,
		"MaxHeartbeat": l.MaxHeartbeat, "OutboxStall": l.OutboxStall, "CloseGrace": l.CloseGrace,
	} {
		if d < time.Millisecond || d > 24*time.Hour {
			errs = append(errs, fmt.Errorf("conn: limit %s is %v: give 1ms to 24h", name, d))
		}
	}
	for name, n := range map[string]int{
		"MaxInFlight": l.MaxInFlight, "FrameRate": l.FrameRate, "FrameBurst": l.FrameBurst, "MaxFiles": l.MaxFiles,
		"PerIPRate": l.PerIPRate, "PerIPLive": l.PerIPLive, "Handshakes": l.Handshakes,
	} {
		if n < 1 {
			errs = append(errs, fmt.Errorf("conn: limit %s is %d: it must be positive", name, n))
		}
	}
	if l.MaxConns < 0 {
		errs = append(errs, fmt.Errorf("conn: limit MaxConns is %d: give 0 for none", l.MaxConns))
	}
	if l.MaxInFlight > 10_000 {
		errs = append(errs, fmt.Errorf("conn: limit MaxInFlight is %d: at most 10000", l.MaxInFlight))
	}
	if l.MinHeartbeat > l.MaxHeartbeat {
		errs = append(errs, fmt.Errorf("conn: limit MinHeartbeat %v is over MaxHeartbeat %v", l.MinHeartbeat, l.MaxHeartbeat))
	}
	if l.LoginBytes < proto.MaxFrameHello+proto.HeaderLen {
		errs = append(errs, fmt.Errorf("conn: limit LoginBytes is %d: a Hello takes up to %d", l.LoginBytes, proto.MaxFrameHello+proto.HeaderLen))
	}
	if l.MailboxBytes < proto.MaxFrameSession {
		errs = append(errs, fmt.Errorf("conn: limit MailboxBytes is %d: one frame takes up to %d", l.MailboxBytes, proto.MaxFrameSession))
	}
	if low, high := 2*(proto.MaxFrameSession+proto.HeaderLen), 1<<30; l.OutboxBytes < low || l.OutboxBytes > high {
		errs = append(errs, fmt.Errorf("conn: limit OutboxBytes is %d: give %d to %d", l.OutboxBytes, low, high))
	}
	return errors.Join(errs...)
}

// Options make a Server. Listeners and Handler are required.
type Options struct {
	Listeners []Listener
	Handler   Handler
	Limits    Limits
	// Loops (one a CPU) read and write; Workers (two a CPU) run the Handler.
	Loops, Workers int
	Log            zerolog.Logger
	// Metrics takes the counters while the server runs; nil: nowhere.
	Metrics prometheus.Registerer
	// Now is the clock, which must be monotonic; default time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Loops == 0 {
		o.Loops = runtime.NumCPU()
	}
	if o.Workers == 0 {
		o.Workers = 2 * runtime.NumCPU()
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Limits = o.Limits.withDefaults()
	return o
}

// Validate reports everything that Start would refuse, short of binding the
// addresses. It resolves host names.
func (o Options) Validate() error {
	errs := []error{o.Limits.Validate()}
	if o.Handler == nil {
		errs = append(errs, errors.New("conn: Options.Handler is missing"))
	}
	if len(o.Listeners) == 0 {
		errs = append(errs, errors.New("conn: Options.Listeners is empty: give at least one address"))
	}
	if o.Loops < 0 || o.Loops > 256 || o.Workers < 0 || o.Workers > 4096 {
		errs = append(errs, fmt.Errorf("conn: %d loops and %d workers: give up to 256 and 4096", o.Loops, o.Workers))
	}
	for _, l := range o.Listeners {
		if err := l.validate(); err != nil {
			errs = append(errs, fmt.Errorf("conn: listener %s (%v): %w", l.Addr, l.Mode, err))
		}
	}
	return errors.Join(errs...)
}

func (l Listener) validate() error {
	addr, err := net.ResolveTCPAddr("tcp", l.Addr)
	if err != nil {
		return err
	}
	switch l.Mode {
	case Plain:
		if !addr.IP.IsLoopback() && !l.Insecure {
			return errors.New("plaintext is for loopback; use TLS, or set insecure on this listener if everybody on the way may read passwords and messages")
		}
	case TLS:
		if c := l.TLS; c == nil || (len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil) {
			return errors.New("no certificate: set TLS.Certificates, GetCertificate or GetConfigForClient")
		}
	case Proxy:
		if len(l.Trusted) == 0 {
			return errors.New("no trusted networks: name those of the load balancer")
		}
	default:
		return errors.New("unknown mode")
	}
	if l.Mode != Plain && l.Insecure {
		return errors.New("insecure is for plain listeners only")
	}
	return nil
}
