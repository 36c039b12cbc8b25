package config

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
	Redis   RedisConfig   `toml:"redis"`
	Cluster ClusterConfig `toml:"cluster"`
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
	KeysDir         string   `toml:"keys_dir" help:"folder of the keys that sign access tokens, the same files on every node; empty: keys in data.dir"`
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

// StorageConfig says where messages and accounts are, and sets retention.
type StorageConfig struct {
	CacheMiB       int      `toml:"cache_mib" help:"block cache of the embedded engine"`
	FreeReserveMiB int      `toml:"free_reserve_mib" help:"writes are refused below this much free disk"`
	RetainAge      Duration `toml:"retain_age" help:"inbox events are kept so long (history stays)"`
	RetainEvents   int      `toml:"retain_events" help:"inbox events kept per user (history stays)"`
	// Shards are [[storage.shard]]; none is one embedded shard, number 1.
	Shards []ShardConfig `toml:"shard"`
}

// RedisConfig is the directory of who is where, shared by the nodes. Nothing
// durable is in it.
type RedisConfig struct {
	Addrs        []string `toml:"addrs" help:"host:port of Redis, of its Sentinels (with master), or of nodes of a Redis Cluster"`
	Master       string   `toml:"master" help:"name that the Sentinels watch the master under"`
	Cluster      bool     `toml:"cluster" help:"true: a Redis Cluster (implied by several addresses without master)"`
	User         string   `toml:"user" help:"ACL user; empty: the default one"`
	PasswordFile string   `toml:"password_file" help:"file with the password, readable by the server alone"`
	TLS          bool     `toml:"tls" help:"true: connect with TLS"`
	CA           string   `toml:"ca" help:"PEM file of the CA that signed Redis' certificates; empty: the system's CAs"`
	Prefix       string   `toml:"prefix" help:"begins every key; one prefix for each cluster that shares a Redis"`
	Buckets      int      `toml:"buckets" help:"hashes that share the entries, a power of two, the same on all nodes; the default is for 4 million devices online"`
	Insecure     bool     `toml:"insecure" help:"true: allow Redis off loopback without TLS; who is online travels readable"`
}

// ClusterConfig joins this node to others. Certificates are read again on
// SIGHUP.
type ClusterConfig struct {
	Listen    string `toml:"listen" help:"listener for the other nodes, mutual TLS, usually port 5190; empty: this node runs alone"`
	Advertise string `toml:"advertise" help:"host:port at which the other nodes reach it; empty: cluster.listen, if that names a host"`
	CA        string `toml:"ca" help:"PEM file of the cluster's CA; «hermodctl cluster ca» makes one"`
	Cert      string `toml:"cert" help:"PEM file: this node's certificate, which also holds its number; «hermodctl cluster cert»"`
	Key       string `toml:"key" help:"PEM file: its private key"`
}

// DrainConfig sets the way out.
type DrainConfig struct {
	Window  Duration `toml:"window" help:"clients spread their reconnects over this time"`
	Timeout Duration `toml:"timeout" help:"connections left after this are closed"`
}

// Default is what runs with no configuration at all.
func Default() Config {
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
		Redis: RedisConfig{Prefix: "hermod", Buckets: 1 << 16},
		Drain: DrainConfig{
			Window:  Duration(10 * time.Second),
			Timeout: Duration(20 * time.Second),
		},
	}
}

// defaultConfigFile is read if it exists and no --config is given.
const defaultConfigFile = "hermod.toml"

// Load reads the defaults, then the file, then the environment. An empty
// path means hermod.toml, if there is one. Unknown keys are errors: a
// misspelled limit must not be a missing one.
func Load(path string, environ []string) (Config, error) {
	cfg := Default()
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
