package cluster

import (
	"context"
	"math/rand/v2"
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
	}, c.linkFaults()...)
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
