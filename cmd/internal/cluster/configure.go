package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

// configure writes hermod.toml, with every address that of the node's own way
// there. Clients would like to find it at the port wish.
func (n *Node) configure(wish int) (err error) {
	if n.Addr, err = addrLike(wish); err != nil {
		return err
	}
	n.listen = n.Addr
	if n.c.opt.Links {
		if n.listen, err = addrLike(0); err != nil {
			return err
		}
		if n.Addr, err = n.c.way(clientsName, n.Name, n.listen, n.Addr); err != nil {
			return err
		}
	}
	cfg := config.Default()
	cfg.Listen.Plain = n.listen
	cfg.Admin.Listen = n.Admin
	cfg.Data.Dir = filepath.Join(n.dir, "data")
	cfg.Auth.KeysDir = filepath.Join(n.c.Dir, "keys")
	cfg.Log.Format = "json"
	cfg.Cluster = config.ClusterConfig{Listen: n.Peer, CA: n.c.CA.Cert, Cert: n.c.pki(n.Name + ".pem"), Key: n.c.pki(n.Name + "-key.pem")}
	if cfg.Cluster.Advertise, err = n.c.peerWay(n); err != nil {
		return err
	}
	redis, err := n.c.way(n.Name, redisName, n.c.redisAddr, anyPort)
	if err != nil {
		return err
	}
	cfg.Redis.Addrs, cfg.Redis.PasswordFile = []string{redis}, filepath.Join(n.c.Dir, "redis-password")
	if cfg.Storage.Shards, err = n.shards(); err != nil {
		return err
	}
	if n.c.opt.TLS {
		n.encrypt(&cfg)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "# %s of a cluster on this machine, written by its start.\n", n.Name)
	cfg.Explain(&text)
	return os.WriteFile(n.Config, text.Bytes(), 0o600)
}

// shards is where the node finds the shards; a DSN has a file of its own.
func (n *Node) shards() (out []config.ShardConfig, err error) {
	ways := make([]string, len(n.c.Databases))
	for i, db := range n.c.Databases {
		if ways[i], err = n.c.way(n.Name, databaseName(i), db.Addr(), anyPort); err != nil {
			return nil, err
		}
	}
	for id := 1; id <= n.c.opt.Shards; id++ {
		file := filepath.Join(n.dir, "shard-"+strconv.Itoa(id)+".dsn")
		dsn := n.c.Database(id).DSNAt(ways[(id-1)%len(ways)], schema(id))
		if err := os.WriteFile(file, []byte(dsn+"\n"), 0o600); err != nil {
			return nil, err
		}
		out = append(out, config.ShardConfig{ID: id, Engine: config.MySQL, DSNFile: file})
	}
	return out, nil
}

// encrypt turns TLS on everywhere.
func (n *Node) encrypt(cfg *config.Config) {
	ca := n.c.CA.Cert
	cfg.Listen.Plain, cfg.Listen.TLS = "", n.listen
	cfg.TLS = config.TLSConfig{Cert: cfg.Cluster.Cert, Key: cfg.Cluster.Key}
	cfg.Redis.TLS, cfg.Redis.CA = true, ca
	for i := range cfg.Storage.Shards {
		cfg.Storage.Shards[i].CA = ca
	}
}
