package config

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/mysql"
	"github.com/hermod-im/hermod/storage/pebble"
)

// OpenOptions is what an opened shard is given beside the configuration.
type OpenOptions struct {
	Log     zerolog.Logger
	Metrics prometheus.Registerer
	// Now is the clock of an embedded shard, Skew is added to that of databases;
	// nil: they are right.
	Now  func() time.Time
	Skew func() time.Duration
}

// OpenShards opens every shard of the installation; the caller closes them,
// after everything that uses them. On an error none is left open.
func (c *Config) OpenShards(ctx context.Context, o OpenOptions) ([]storage.Shard, error) {
	var open []storage.Shard
	for _, sc := range c.Shards() {
		sh, err := c.OpenShard(ctx, sc, o)
		if err != nil {
			for _, sh := range open {
				err = errors.Join(err, sh.Close())
			}
			return nil, err
		}
		open = append(open, sh)
	}
	return open, nil
}

// OpenShard opens one shard, as OpenShards does.
func (c *Config) OpenShard(ctx context.Context, sc ShardConfig, o OpenOptions) (storage.Shard, error) {
	if sc.Kind() == Embedded {
		return pebble.Open(pebble.Options{
			Dir:              c.EmbeddedDir(sc.ID),
			ID:               storage.ShardID(sc.ID),
			CacheBytes:       int64(c.Storage.CacheMiB) << 20,
			FreeReserveBytes: int64(c.Storage.FreeReserveMiB) << 20,
			Now:              o.Now,
			Log:              o.Log,
			Metrics:          o.Metrics,
		})
	}
	mo, err := sc.mysqlOptions(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sc.key("dsn"), err)
	}
	sh, err := mysql.Open(ctx, mo)
	if err != nil {
		return nil, fmt.Errorf("shard %d: %w", sc.ID, err)
	}
	return sh, nil
}

func (sc *ShardConfig) mysqlOptions(o OpenOptions) (mysql.Options, error) {
	db, err := sc.Database()
	if err != nil {
		return mysql.Options{}, err
	}
	return mysql.Options{ID: storage.ShardID(sc.ID), DSN: db.DSN, TLS: db.TLS, Skew: o.Skew, Log: o.Log, Metrics: o.Metrics}, nil
}
