package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Config is hermod.toml. Every key has a default that is safe on a laptop; a
// key may be overridden by the environment as HERMOD_SECTION_KEY.
type Config struct {
	Listen  ListenConfig  `toml:"listen"`
	TLS     TLSConfig     `toml:"tls"`
	Admin   AdminConfig   `toml:"admin"`
	Data    DataConfig    `toml:"data"`
	Log     LogConfig     `toml:"log"`
	Auth    AuthConfig    `toml:"auth"`
	Limits  LimitsConfig  `toml:"limits"`
	Storage StorageConfig `toml:"storage"`
	Drain   DrainConfig   `toml:"drain"`
}

// ListenConfig says where clients connect. An empty address is no listener.
type ListenConfig struct {
	Plain string `toml:"plain" help:"plaintext listener; loopback only, unless plain_insecure"`
	// PlainInsecure allows plaintext off loopback. Passwords and messages then
	// cross the network readable by anyone on the way.
	PlainInsecure bool     `toml:"plain_insecure" help:"true: allow the plaintext listener off loopback; passwords travel readable"`
	TLS           string   `toml:"tls" help:"TLS 1.3 listener; needs tls.cert and tls.key"`
	Proxy         string   `toml:"proxy" help:"listener for a load balancer that speaks PROXY protocol v2"`
	ProxyTrusted  []string `toml:"proxy_trusted" help:"networks the load balancers are in; others are refused"`
}

// TLSConfig names the certificate. Both files are read again on SIGHUP.
type TLSConfig struct {
	Cert string `toml:"cert" help:"PEM file: certificate and chain"`
	Key  string `toml:"key" help:"PEM file: private key"`
}

// AdminConfig is the operator's HTTP: health, metrics, profiles. It has no
// login, so it stays on loopback.
type AdminConfig struct {
	Listen string `toml:"listen" help:"operator's HTTP (/livez /readyz /metrics /debug/pprof); loopback only"`
}

// DataConfig is where everything durable lives.
type DataConfig struct {
	Dir string `toml:"dir" help:"data folder: messages, accounts, keys"`
}

// LogConfig sets the log.
type LogConfig struct {
	Level  string `toml:"level" help:"trace, debug, info, warn or error"`
	Format string `toml:"format" help:"auto (console on a terminal, JSON otherwise), console or json"`
}

// AuthConfig sets tokens and passwords.
type AuthConfig struct {
	TokenLife       Duration `toml:"token_life" help:"life of an access token, 15m to 60m"`
	Argon2MemoryKiB uint32   `toml:"argon2_memory_kib" help:"argon2id memory per password check"`
	Argon2Time      uint32   `toml:"argon2_time" help:"argon2id passes"`
}

// LimitsConfig holds what guards the server. All but exempt count per node.
type LimitsConfig struct {
	Exempt           []string `toml:"exempt" help:"networks without the per-IP and per-session rates (never behind PROXY)"`
	MaxConns         int      `toml:"max_conns" help:"connections; 0: 90% of the descriptor limit"`
	ConnsPerIP       int      `toml:"conns_per_ip" help:"live connections per IP (/64 for IPv6)"`
	NewConnsPerIP    int      `toml:"new_conns_per_ip" help:"new connections per second and IP"`
	RegistersPerIP   int      `toml:"registers_per_ip" help:"registrations per minute and IP"`
	FramesPerSecond  int      `toml:"frames_per_second" help:"frames per second and session"`
	SyncsPerSecond   int      `toml:"syncs_per_second" help:"client syncs per second and session"`
	MaxInFlight      int      `toml:"max_in_flight" help:"requests open at a time per connection"`
	EventWindow      int      `toml:"event_window" help:"events on their way unacknowledged"`
	OutboxKiB        int      `toml:"outbox_kib" help:"bytes waiting for a slow client before it is closed"`
	FirstByte        Duration `toml:"first_byte" help:"time to the first byte"`
	Login            Duration `toml:"login" help:"time to a finished login"`
	PartialFrame     Duration `toml:"partial_frame" help:"time to finish a begun frame"`
	OutboxStall      Duration `toml:"outbox_stall" help:"time without progress of a slow client"`
	HandshakePending int      `toml:"handshakes_pending" help:"TLS handshakes under way"`
}

// StorageConfig sets the embedded engine and retention.
type StorageConfig struct {
	CacheMiB       int      `toml:"cache_mib" help:"block cache of the embedded engine"`
	FreeReserveMiB int      `toml:"free_reserve_mib" help:"writes are refused below this much free disk"`
	RetainAge      Duration `toml:"retain_age" help:"inbox events are kept so long (history stays)"`
	RetainEvents   int      `toml:"retain_events" help:"inbox events kept per user (history stays)"`
}

// DrainConfig sets the way out.
type DrainConfig struct {
	Window  Duration `toml:"window" help:"clients spread their reconnects over this time"`
	Timeout Duration `toml:"timeout" help:"connections left after this are closed"`
}

// Duration is a time.Duration written as "30s", "15m" or "720h".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration: write it like 30s, 15m or 720h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d Duration) std() time.Duration { return time.Duration(d) }

// DefaultConfig is what runs with no configuration at all.
func DefaultConfig() Config {
	return Config{
		Listen: ListenConfig{Plain: "127.0.0.1:5100"},
		Admin:  AdminConfig{Listen: "127.0.0.1:5180"},
		Data:   DataConfig{Dir: "data"},
		Log:    LogConfig{Level: "info", Format: "auto"},
		Auth: AuthConfig{
			TokenLife:       Duration(30 * time.Minute),
			Argon2MemoryKiB: 19 << 10,
			Argon2Time:      2,
		},
		Limits: LimitsConfig{
			Exempt:           []string{"127.0.0.0/8", "::1/128"},
			ConnsPerIP:       2000,
			NewConnsPerIP:    50,
			RegistersPerIP:   5,
			FramesPerSecond:  50,
			SyncsPerSecond:   5,
			MaxInFlight:      64,
			EventWindow:      1024,
			OutboxKiB:        256,
			FirstByte:        Duration(5 * time.Second),
			Login:            Duration(10 * time.Second),
			PartialFrame:     Duration(15 * time.Second),
			OutboxStall:      Duration(30 * time.Second),
			HandshakePending: 1024,
		},
		Storage: StorageConfig{
			CacheMiB:       64,
			FreeReserveMiB: 512,
			RetainAge:      Duration(30 * 24 * time.Hour),
			RetainEvents:   10_000,
		},
		Drain: DrainConfig{
			Window:  Duration(10 * time.Second),
			Timeout: Duration(20 * time.Second),
		},
	}
}

// defaultConfigFile is read if it exists and no --config is given.
const defaultConfigFile = "hermod.toml"

// LoadConfig reads the defaults, then the file, then the environment. An empty
// path means hermod.toml, if there is one. Unknown keys are errors: a
// misspelled limit must not be a missing one.
func LoadConfig(path string, environ []string) (Config, error) {
	cfg := DefaultConfig()
	b, err := os.ReadFile(cmp.Or(path, defaultConfigFile))
	switch {
	case err == nil:
		if err := decodeTOML(b, &cfg); err != nil {
			return cfg, fmt.Errorf("%s: %w", cmp.Or(path, defaultConfigFile), err)
		}
	case path == "" && errors.Is(err, fs.ErrNotExist):
	default:
		return cfg, fmt.Errorf("configuration: %w", err)
	}
	if err := applyEnv(&cfg, environ); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// decodeTOML decodes strictly and turns the library's errors into a place and
// a reason.
func decodeTOML(b []byte, cfg *Config) error {
	err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(cfg)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		var all []error
		for _, e := range strict.Errors {
			row, _ := e.Position()
			all = append(all, fmt.Errorf("line %d: unknown key %q; «hermod check --defaults» prints all keys", row, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		row, col := bad.Position()
		return fmt.Errorf("line %d, column %d: %w", row, col, err)
	}
	return err
}
