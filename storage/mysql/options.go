package mysql

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
)

// Options says where a shard is. ID and DSN are required.
type Options struct {
	// ID is the shard's name for good; the database remembers it, and Open
	// refuses another.
	ID storage.ShardID
	// DSN is go-sql-driver's: user:password@tcp(host:3306)/database?tls=true.
	// Time-outs that it does not name are set here; what the engine needs
	// otherwise (several statements at once) it switches on by itself.
	DSN string
	// TLS, if not nil, encrypts connections in place of the DSN's tls=.
	TLS *tls.Config
	// Committers is how many write transactions of this node run at once;
	// default 2. Four gave a worse p99 where pairs are hot.
	Committers int
	// MaxConns bounds this node's connections to the shard; default 32.
	MaxConns int
	// Timeout bounds a round trip; default 10 s. It ends the connection:
	// nothing tells a slow database from a dead one.
	Timeout time.Duration
	// Skew moves the database's clock, for tests; nil: it is right.
	Skew func() time.Duration

	Log zerolog.Logger
	// Metrics may be nil: nothing is exported then.
	Metrics prometheus.Registerer
}

// defaultConns leaves room for a Store's readers, its committers and what runs
// by itself.
const defaultConns = 32

func (o Options) withDefaults() Options {
	if o.Committers == 0 {
		o.Committers = 2
	}
	if o.MaxConns == 0 {
		o.MaxConns = defaultConns
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Skew == nil {
		o.Skew = func() time.Duration { return 0 }
	}
	return o
}

// Validate names the first option that cannot work. It never repeats the DSN,
// which has a password in it.
func (o Options) Validate() error {
	switch {
	case o.DSN == "":
		return errors.New("mysql: Options.DSN is missing: user:password@tcp(host:3306)/database")
	case o.Committers < 0 || o.MaxConns < 0 || o.Timeout < 0:
		return errors.New("mysql: Options.Committers, MaxConns and Timeout may not be negative")
	case o.MaxConns > 0 && o.MaxConns < o.withDefaults().Committers+2:
		return fmt.Errorf("mysql: Options.MaxConns is %d: the committers, a reader and the lease need one each", o.MaxConns)
	}
	_, err := o.config()
	return err
}

// config is the driver's configuration for o.
func (o Options) config() (*mysql.Config, error) {
	cfg, err := mysql.ParseDSN(o.DSN)
	if err != nil {
		return nil, errors.New("mysql: the DSN cannot be read: write user:password@tcp(host:3306)/database")
	}
	if cfg.DBName == "" {
		return nil, errors.New("mysql: the DSN names no database: add /database at its end")
	}
	if o.TLS != nil {
		cfg.TLS = o.TLS.Clone()
	}
	cfg.MultiStatements = true
	cfg.ParseTime = false
	cfg.InterpolateParams = false
	cfg.Logger = &mysql.NopLogger{} // what goes wrong is returned
	d := o.withDefaults()
	for _, t := range []*time.Duration{&cfg.ReadTimeout, &cfg.WriteTimeout} {
		if *t == 0 {
			*t = d.Timeout
		}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = min(5*time.Second, d.Timeout)
	}
	return cfg, nil
}
