package cluster

import (
	"errors"
	"strings"
	"time"

	"github.com/hermod-im/hermod/bench/fault"
)

// linkFaults is what can be done to the ways between the parts.
func (c *Cluster) linkFaults() []fault.Fault {
	var links []*fault.Link
	for _, l := range c.links.all {
		links = append(links, l.Link)
	}
	isNode := func(name string) bool { return strings.HasPrefix(name, "node") }
	held, slow := fault.Way{Held: true}, fault.Way{Delay: 250 * time.Millisecond}
	silent := fault.Trouble{Up: held, Down: held}
	of := func(name, about string) fault.Fault {
		return fault.Fault{Name: name, About: about, Least: 2 * time.Second, Most: 20 * time.Second}
	}
	out := append(fault.Network(links),
		fault.Bad(of("database-slow", "a database answers 500 ms later, on every round trip"),
			c.ways(c.databaseNames(), func(l *link, db string) bool { return l.to == db }),
			fault.Trouble{Up: slow, Down: slow}),
		fault.Bad(of("redis-silent", "nobody reaches Redis; it keeps what it has"),
			c.ways([]string{redisName}, func(l *link, redis string) bool { return l.to == redis }),
			silent),
		fault.Bad(of("node-apart", "a node and the other nodes do not reach each other"),
			c.ways(c.nodeNames(), func(l *link, node string) bool {
				return isNode(l.from) && isNode(l.to) && (l.from == node || l.to == node)
			}),
			silent),
		fault.Bad(of("node-alone", "a node reaches no other node, no database and not Redis; clients reach it"),
			c.ways(c.nodeNames(), func(l *link, node string) bool {
				return l.from == node || isNode(l.from) && l.to == node
			}),
			silent),
		fault.Breaks(fault.Fault{Name: "clients-cut", About: "all clients of a node, or of all nodes, are cut off at once"},
			c.ways(append(c.nodeNames(), "all"), func(l *link, node string) bool {
				return l.from == clientsName && (l.to == node || node == "all")
			})),
	)
	if len(c.links.all) == 0 {
		for i := range out {
			out[i].Unable = func() error { return errors.New("the cluster was started without links between its parts") }
		}
	}
	return out
}

// ways are, for each name, the links that go with it.
func (c *Cluster) ways(names []string, goes func(l *link, name string) bool) (parts []fault.Part[[]*fault.Link]) {
	for _, name := range names {
		p := fault.Part[[]*fault.Link]{Name: name}
		for _, l := range c.links.all {
			if goes(l, name) {
				p.It = append(p.It, l.Link)
			}
		}
		parts = append(parts, p)
	}
	return parts
}

func (c *Cluster) nodeNames() (names []string) {
	for _, n := range c.Nodes {
		names = append(names, n.Name)
	}
	return names
}

func (c *Cluster) databaseNames() (names []string) {
	for i := range c.Databases {
		names = append(names, databaseName(i))
	}
	return names
}
