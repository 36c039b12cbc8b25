package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
)

// Target is the server to measure, and who measures.
type Target struct {
	// Addr is host:port; of several, with commas between them, users take turns.
	Addr string
	// TLS, if not nil, is used for every connection; version and ALPN are set
	// by the tool.
	TLS *tls.Config
	// PID of the server, if it runs on this machine; else Admin, the base URL
	// of its admin HTTP; else there are no figures of the server's process.
	PID   int
	Admin string
	// Version of the tool, for the report.
	Version string
	Log     zerolog.Logger
	// Progress, if not nil, is called about once a second, from one goroutine.
	Progress func(Progress)
}

// Users are the accounts that a run uses: names are Prefix and a number.
type Users struct {
	// State is the folder that keeps device secrets between runs; "": nothing
	// is kept, every run registers anew.
	State  string
	Prefix string
	// Password of all accounts; "": the one in State, or a random one.
	Password string
	// Logins is how many connections may be logging in at a time.
	Logins int
}

// Progress is a moment of a run.
type Progress struct {
	// Phase is "users", "connect", "warm-up", "measure", "drain", "verify",
	// "settle" or "hold".
	Phase   string
	Elapsed time.Duration // since the phase began
	// Done of Total: users, connections; 0 of 0 where it makes no sense.
	Done, Total int
	// Connected sessions now.
	Connected int
	// Rate is acks per second since the last call; Acked all so far.
	Rate     float64
	Acked    uint64
	Ack      Latency
	Delivery Latency
	// RSS of the server, 0 if not known.
	RSS        uint64
	Violations uint64
}

// PairsConfig is the pairs scenario.
type PairsConfig struct {
	Target
	Users
	// Pairs of users; BothWays: both write.
	Pairs    int
	BothWays bool
	// Rate is messages per second of all pairs together, offered on schedule
	// whether or not the server keeps up (open loop). 0: flat out, InFlight
	// unanswered sends per writer at all times (closed loop).
	Rate float64
	// InFlight is the most unanswered sends per writer, in either mode. The
	// server's own limit holds too.
	InFlight int
	// Size of a message body in bytes, 40 … 32,768.
	Size int
	// Warmup is verified and not measured, Duration is both.
	Warmup, Duration time.Duration
	// Drain is how long to wait at the end for acks and pushes that are still
	// under way.
	Drain time.Duration
	// Verify bounds the questions to one pair after that, the wait for its
	// connections included.
	Verify time.Duration
}

// Validate fills in defaults and refuses what cannot be run.
func (c *PairsConfig) Validate() error {
	def(&c.Pairs, 50)
	def(&c.InFlight, 64)
	def(&c.Size, 128)
	def(&c.Duration, 30*time.Second)
	def(&c.Drain, 15*time.Second)
	def(&c.Verify, 30*time.Second)
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("bench: "+format, args...))
		}
	}
	check(c.Pairs > 0 && c.Pairs <= 100_000, "pairs %d: 1 to 100000", c.Pairs)
	check(c.Rate >= 0 && c.Rate <= 1e6, "rate %v: 0 (flat out) to 1000000 messages/s", c.Rate)
	check(c.InFlight > 0 && c.InFlight <= 10_000, "in-flight %d: 1 to 10000", c.InFlight)
	check(c.Size >= minContentSize && c.Size <= maxContentSize, "size %d: %d to %d bytes", c.Size, minContentSize, maxContentSize)
	check(c.Warmup >= 0 && c.Duration > 0 && c.Drain > 0 && c.Verify > 0, "warm-up, duration, drain and verify must be positive")
	return errors.Join(append(errs, c.Target.validate(), c.Users.validate())...)
}

// IdleConfig is the idle scenario.
type IdleConfig struct {
	Target
	Users
	// From and To are the numbers of connections at which memory is measured.
	From, To int
	// Warm has every user log in and leave once before, a few at a time. What
	// the server then caches of the accounts, and has to have room for anyway,
	// is not taken for memory of connections.
	Warm bool
	// Ramp is new connections per second.
	Ramp float64
	// Heartbeat is the interval to ask for; 0: the server's.
	Heartbeat time.Duration
	// Settle is how long memory must have stood still at each point: a server
	// may take half a minute until it returns what the ramp needed. SettleMax is
	// the longest wait for that.
	Settle, SettleMax time.Duration
	// Hold is how long to keep all connections and watch the server's CPU.
	Hold time.Duration
}

// Validate fills in defaults and refuses what cannot be run.
func (c *IdleConfig) Validate() error {
	def(&c.From, 2000)
	def(&c.To, 15000)
	def(&c.Ramp, 1000)
	def(&c.Settle, 40*time.Second)
	def(&c.SettleMax, c.Settle+3*time.Minute)
	def(&c.Hold, 30*time.Second)
	var errs []error
	if c.From < 1 || c.To <= c.From || c.To > 1_000_000 {
		errs = append(errs, fmt.Errorf("bench: from %d to %d: 1 or more, and rising", c.From, c.To))
	}
	if c.Ramp < 1 {
		errs = append(errs, fmt.Errorf("bench: ramp %v: at least 1 connection/s", c.Ramp))
	}
	if c.Heartbeat < 0 || c.Settle < 0 || c.SettleMax < c.Settle || c.Hold < 0 {
		errs = append(errs, errors.New("bench: heartbeat, settle and hold must be positive, and the longest settling longer than the least"))
	}
	return errors.Join(append(errs, c.Target.validate(), c.Users.validate())...)
}

// UsersConfig makes accounts and does nothing else.
type UsersConfig struct {
	Target
	Users
	Count int
}

// Validate fills in defaults and refuses what cannot be run.
func (c *UsersConfig) Validate() error {
	if c.Count < 1 || c.Count > 1_000_000 {
		return fmt.Errorf("bench: %d users: 1 to 1000000", c.Count)
	}
	return errors.Join(c.Target.validate(), c.Users.validate())
}

func (t *Target) validate() error {
	if t.Addr == "" {
		return errors.New("bench: no server address")
	}
	if t.PID < 0 {
		return fmt.Errorf("bench: pid %d", t.PID)
	}
	return nil
}

func (u *Users) validate() error {
	def(&u.Prefix, "bench")
	def(&u.Logins, 16)
	if !prefixRule.MatchString(u.Prefix) {
		return fmt.Errorf("bench: users prefix %q: 2 to 24 characters a-z and 0-9, a letter first", u.Prefix)
	}
	if u.Logins < 1 {
		return fmt.Errorf("bench: %d logins at a time", u.Logins)
	}
	return nil
}

// def gives a zero field its default.
func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
