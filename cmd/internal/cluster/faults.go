package cluster

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/hermod-im/hermod/bench/fault"
)

// Faults is what can be done to this cluster, by name. Targets are parts
// («node1», «mariadb2», «redis»), links («node1→redis», «clients→node2»), or
// «all». What cannot be done here is listed, too, and says why.
//
// Times: a lease of a node is 10 s, so pauses and outages are shorter and longer
// than that.
func (c *Cluster) Faults() []fault.Fault {
	nodes, databases, redis := c.nodeParts(), c.databaseParts(), []fault.Part[fault.Process]{{Name: redisName, It: c.Redis}}
	return append([]fault.Fault{
		fault.Kill("node-kill", "a node dies: kill -9", nodes, time.Second, 15*time.Second),
		fault.Pause("node-pause", "a node freezes and wakes: SIGSTOP", nodes, time.Second, 20*time.Second),
		fault.Restart("node-restart", "a node is stopped, drained, and started again", nodes, 0, 5*time.Second),
		fault.Rolling("node-rolling", "all nodes are restarted, one after the other", nodes),
		fault.Kill("database-kill", "a database dies: kill -9", databases, time.Second, 15*time.Second),
		fault.Pause("database-pause", "a database freezes and wakes: SIGSTOP", databases, time.Second, 20*time.Second),
		fault.Kill("redis-kill", "Redis dies, and comes back empty", redis, time.Second, 15*time.Second),
		fault.Pause("redis-pause", "Redis freezes and wakes: SIGSTOP", redis, time.Second, 20*time.Second),
		c.redisFlush(), c.redisLoss(),
		fault.Revived(fault.Descriptors("node-descriptors", "a node may open no more files and connections", nodes, 2*time.Second, 20*time.Second), nodes),
		c.databaseFull(databases), c.previous(),
	}, slices.Concat(c.clockFaults(), c.linkFaults())...)
}

func (c *Cluster) nodeParts() (parts []fault.Part[fault.Process]) {
	for _, n := range c.Nodes {
		parts = append(parts, fault.Part[fault.Process]{Name: n.Name, It: n})
	}
	return parts
}

func (c *Cluster) databaseParts() (parts []fault.Part[fault.Process]) {
	for i, db := range c.Databases {
		parts = append(parts, fault.Part[fault.Process]{Name: databaseName(i), It: db})
	}
	return parts
}

// databaseName is the name of the i-th database in faults, folders and links.
func databaseName(i int) string { return "mariadb" + strconv.Itoa(i+1) }

// redisFlush loses who is where, all at once.
func (c *Cluster) redisFlush() fault.Fault {
	f := fault.Fault{Name: "redis-flush", About: "Redis loses everything: FLUSHALL"}
	return fault.On(f, []fault.Part[*Cluster]{{Name: redisName, It: c}}, func(ctx context.Context, c *Cluster) (fault.Heal, error) {
		_, err := c.Redis.Do(ctx, "FLUSHALL")
		return nil, err
	})
}

// redisLoss loses some of it, as a failover to a replica that is behind does:
// every second key, leases and entries alike, in one step. Nobody notices that
// his own is gone until he looks.
func (c *Cluster) redisLoss() fault.Fault {
	const everySecond = `for i, key in ipairs(redis.call('KEYS', '*')) do if i % 2 == tonumber(ARGV[1]) then redis.call('DEL', key) end end return 1`
	f := fault.Fault{Name: "redis-loss", About: "Redis loses half of its keys"}
	return fault.On(f, []fault.Part[*Cluster]{{Name: redisName, It: c}}, func(ctx context.Context, c *Cluster) (fault.Heal, error) {
		_, err := c.Redis.Do(ctx, "EVAL", everySecond, 0, rand.IntN(2))
		return nil, err
	})
}

// databaseFull leaves the first database no room. What InnoDB makes of that is
// its own affair, and that it may end is why it is looked after.
func (c *Cluster) databaseFull(databases []fault.Part[fault.Process]) fault.Fault {
	var disks []fault.Part[*fault.Disk]
	if c.disk != nil {
		disks = []fault.Part[*fault.Disk]{{Name: databaseName(0), It: c.disk}}
	}
	f := fault.Revived(fault.Full("database-full", "the disk of a database is full", disks, 64<<10, 2*time.Second, 20*time.Second), databases)
	f.Unable = func() error {
		if c.disk != nil {
			return nil
		}
		return cmp.Or(fault.Mountable(), errors.New("no database has a disk of its own"))
	}
	return f
}

// previous runs a node with an earlier version for a while, beside the others.
func (c *Cluster) previous() fault.Fault {
	f := fault.Fault{
		Name: "node-previous", About: "a node runs an earlier version for a while", Least: 10 * time.Second, Most: 30 * time.Second,
		Unable: func() error {
			if c.opt.Previous == "" {
				return errors.New("no binary of an earlier version was given")
			}
			return nil
		},
	}
	var nodes []fault.Part[*Node]
	for _, n := range c.Nodes {
		nodes = append(nodes, fault.Part[*Node]{Name: n.Name, It: n})
	}
	return fault.On(f, nodes, func(ctx context.Context, n *Node) (fault.Heal, error) {
		change := func(ctx context.Context, binary *string) error {
			n.binary.Store(binary)
			return errors.Join(n.Stop(), n.Start(ctx))
		}
		if err := change(ctx, &c.opt.Previous); err != nil {
			return nil, errors.Join(err, change(ctx, &c.opt.Binary))
		}
		return func(ctx context.Context) error { return change(ctx, &c.opt.Binary) }, nil
	})
}

// clock is the file with the error of a node's clock, or of the shards'.
func (c *Cluster) clock(name string) fault.Clock {
	return fault.Clock{File: filepath.Join(c.Dir, name+".clock")}
}

// shardsName is what all shards together are called, whose clock is one.
const shardsName = "shards"

// clockFaults let clocks step: a node's by more than anybody's patience, and
// the shards', by which leases run out, by more than a lease.
func (c *Cluster) clockFaults() []fault.Fault {
	var nodes []fault.Part[fault.Clock]
	for _, n := range c.Nodes {
		nodes = append(nodes, fault.Part[fault.Clock]{Name: n.Name, It: c.clock(n.Name)})
	}
	shards := []fault.Part[fault.Clock]{{Name: shardsName, It: c.clock(shardsName)}}
	const least, most = 2 * time.Second, 20 * time.Second
	out := []fault.Fault{
		fault.Step("clock-ahead", "a node's clock is 5 minutes ahead", nodes, 5*time.Minute, least, most),
		fault.Step("clock-behind", "a node's clock is 5 minutes behind", nodes, -5*time.Minute, least, most),
		fault.Step("shard-clock-ahead", "the clock of all shards is 30 s ahead", shards, 30*time.Second, least, most),
		fault.Step("shard-clock-behind", "the clock of all shards is 30 s behind", shards, -30*time.Second, least, most),
	}
	for i := range out {
		out[i].Unable = func() error {
			if !c.opt.Clocks {
				return errors.New("the server was built without the tag torture, so nobody can set its clock")
			}
			return nil
		}
	}
	return out
}
