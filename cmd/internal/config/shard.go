package config

import (
	"path/filepath"
	"slices"
	"strconv"
)

// Engines of a shard.
const (
	// MySQL is a shard in a database on MySQL or MariaDB.
	MySQL = "mysql"
	// Embedded is a shard in this node's own data folder.
	Embedded = "embedded"
)

// ShardConfig is one [[storage.shard]]. All nodes of a cluster have the same.
type ShardConfig struct {
	ID       int    `toml:"id" help:"the shard's number, 1 to 65535, the same for ever on every node"`
	Engine   string `toml:"engine" help:"mysql (MySQL or MariaDB), or embedded: in data.dir of this node, which then runs alone"`
	DSN      string `toml:"dsn" secret:"dsn" help:"user:password@tcp(host:3306)/database"`
	DSNFile  string `toml:"dsn_file" help:"file with the DSN, readable by the server alone"`
	CA       string `toml:"ca" help:"PEM file of the CA that signed the database's certificate; empty: the system's CAs"`
	Insecure bool   `toml:"insecure" help:"true: allow a database off loopback without TLS; messages and its password travel readable"`
}

// Kind is the shard's engine; MySQL is what a shard that names none means.
func (sc *ShardConfig) Kind() string {
	if sc.Engine == "" {
		return MySQL
	}
	return sc.Engine
}

// key names a setting of the shard in messages to the operator.
func (sc *ShardConfig) key(name string) string {
	return "storage.shard " + strconv.Itoa(sc.ID) + ": " + name
}

// Shards returns the shards of the installation: those that are configured, by
// number, or the one embedded shard of a node that runs alone.
func (c *Config) Shards() []ShardConfig {
	if len(c.Storage.Shards) == 0 {
		return []ShardConfig{{ID: 1, Engine: Embedded}}
	}
	out := slices.Clone(c.Storage.Shards)
	slices.SortFunc(out, func(a, b ShardConfig) int { return a.ID - b.ID })
	return out
}

// EmbeddedDir is the folder of the embedded shard with that number.
func (c *Config) EmbeddedDir(id int) string {
	return filepath.Join(c.Data.Dir, "shard-"+strconv.Itoa(id))
}

// Where names the shard's folder or database, without secrets.
func (c *Config) Where(sc *ShardConfig) string {
	if sc.Kind() == Embedded {
		return c.EmbeddedDir(sc.ID)
	}
	db, err := sc.Database()
	if err != nil {
		return err.Error()
	}
	return db.Where
}

// KeysDir is the folder of the keys that sign access tokens.
func (c *Config) KeysDir() string {
	if c.Auth.KeysDir != "" {
		return c.Auth.KeysDir
	}
	return filepath.Join(c.Data.Dir, "keys")
}
