package config

import (
	"net"
	"strings"
	"time"
)

// maxShardID keeps shard numbers short; there are 4,096 slots to divide.
const maxShardID = 65535

// checkShards looks at [[storage.shard]], without connecting.
func (c *Config) checkShards(ps *Problems) {
	ids, places := map[int]bool{}, map[string]int{}
	for i := range c.Storage.Shards {
		sc := &c.Storage.Shards[i]
		if sc.ID < 1 || sc.ID > maxShardID {
			ps.fail(sc.key("id"), "is out of range; number the shards from 1 (to %d), and never change a number", maxShardID)
			continue
		}
		if ids[sc.ID] {
			ps.fail(sc.key("id"), "is there twice; give each shard its own number")
			continue
		}
		ids[sc.ID] = true
		switch sc.Kind() {
		case MySQL:
			c.checkDatabase(ps, sc, places)
		case Embedded:
			c.checkEmbedded(ps, sc)
		default:
			ps.fail(sc.key("engine"), "%q is no engine; use mysql or embedded", sc.Engine)
		}
	}
}

func (c *Config) checkDatabase(ps *Problems, sc *ShardConfig, places map[string]int) {
	db, err := sc.Database()
	if err != nil {
		ps.fail(sc.key("dsn"), "%v", err)
		return
	}
	if other, taken := places[db.Where]; taken {
		ps.fail(sc.key("dsn"), "%s is shard %d's already; each shard needs a database of its own", db.Where, other)
		return
	}
	places[db.Where] = sc.ID
	if sc.Insecure {
		ps.warn(sc.key("insecure"), "messages and the database's password can be read on the way to %s", db.Where)
	}
}

func (c *Config) checkEmbedded(ps *Problems, sc *ShardConfig) {
	switch {
	case sc.DSN != "" || sc.DSNFile != "":
		ps.fail(sc.key("dsn"), "is set, but the shard is embedded; remove it, or set engine = \"mysql\"")
	case c.Cluster.Listen != "":
		ps.fail(sc.key("engine"), "an embedded shard belongs to one process, and cluster.listen lets other nodes in. Move it to MySQL first («hermodctl slots move»)")
	}
}

func (c *Config) checkRedis(ps *Problems) {
	r := &c.Redis
	if len(r.Addrs) == 0 {
		if r.Master != "" || r.User != "" || r.PasswordFile != "" || r.TLS {
			ps.warn("redis", "has settings but no addrs, so it is not used")
		}
		return
	}
	if c.Cluster.Listen == "" {
		ps.fail("cluster.listen", "is empty, but redis.addrs is set: nodes that share a directory must also reach each other. Set it (like 10.0.0.1:5190), or remove redis.addrs if this node runs alone")
	}
	if r.Prefix == "" || strings.ContainsAny(r.Prefix, " {}\r\n") {
		ps.fail("redis.prefix", "%q cannot begin keys; use a word like hermod", r.Prefix)
	}
	if r.Buckets < 1 || r.Buckets > 1<<24 || r.Buckets&(r.Buckets-1) != 0 {
		ps.fail("redis.buckets", "is %d; a power of two up to 16777216: about a 50th of the devices online at most", r.Buckets)
	}
	if _, err := r.Options(); err != nil {
		ps.fail("redis", "%v", err)
	}
	remote := ""
	for _, addr := range r.Addrs {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			ps.fail("redis.addrs", "%q is no address; write host:port, like 10.0.0.5:6379", addr)
		} else if !IsLoopback(host) {
			remote = addr
		}
	}
	switch {
	case remote == "":
	case !r.TLS && !r.Insecure:
		ps.fail("redis.tls", "%s is not loopback: set tls = true (and ca), or, if you accept that who is online travels readable and can be forged, insecure = true", remote)
	case !r.TLS:
		ps.warn("redis.insecure", "who is online can be read and forged on the way to %s", remote)
	}
	if remote != "" && r.PasswordFile == "" {
		ps.warn("redis.password_file", "is empty: whoever reaches Redis can end sessions. Set requirepass, or an ACL user, there and here")
	}
}

func (c *Config) checkCluster(ps *Problems) {
	cc := &c.Cluster
	if cc.Listen == "" {
		if *cc != (ClusterConfig{}) {
			ps.warn("cluster", "has settings but no listen, so it is not used")
		}
		return
	}
	if _, _, err := net.SplitHostPort(cc.Listen); err != nil {
		ps.fail("cluster.listen", "%q is no address; write host:port, like 10.0.0.1:5190", cc.Listen)
	} else if _, err := cc.Advertised(); err != nil {
		ps.fail("cluster.advertise", "%v", err)
	}
	if len(c.Redis.Addrs) == 0 {
		ps.fail("redis.addrs", "is empty, but cluster.listen is set: nodes find each other's users in Redis. Set it, or remove cluster.listen if this node runs alone")
	}
	if len(c.Storage.Shards) == 0 {
		ps.fail("storage.shard", "is empty, but cluster.listen is set: nodes share shards on MySQL or MariaDB. Add a [[storage.shard]] for each")
	}
	id, node, err := cc.Identity()
	if err != nil {
		ps.fail("cluster", "%v", err)
		return
	}
	ends := id.Certificate.Leaf.NotAfter
	if left := time.Until(ends); left < 14*24*time.Hour {
		ps.warn("cluster.cert", "expires on %s; renew it («hermodctl cluster cert --node %d») and send SIGHUP", ends.Format(time.DateOnly), node)
	}
}
