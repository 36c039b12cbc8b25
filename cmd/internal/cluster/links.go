package cluster

import (
	"fmt"
	"net"
	"slices"

	"github.com/hermod-im/hermod/bench/fault"
)

// Names of parts, beside node1 … and mariadb1 …
const (
	clientsName = "clients"
	redisName   = "redis"
)

// link is a way from one part to another, both by name: «node1», «mariadb2»,
// «redis», «clients».
type link struct {
	from, to string
	*fault.Link
}

// links are all ways between the parts of a cluster that has them
// (Options.Links).
type links struct {
	all   []*link
	doors []*fault.Door
}

// add makes a link that nobody can enter yet.
func (ls *links) add(from, to, target string) *link {
	l := &link{from: from, to: to, Link: fault.NewLink(from+"→"+to, target)}
	ls.all = append(ls.all, l)
	return l
}

// way returns the address at which one part finds another: target, or the door
// of a link of their own. listen is where that would like to be.
func (c *Cluster) way(from, to, target, listen string) (string, error) {
	if !c.opt.Links {
		return target, nil
	}
	l := c.links.add(from, to, target)
	return c.door(listen, func(net.Addr) *fault.Link { return l.Link })
}

func (c *Cluster) door(listen string, pick func(net.Addr) *fault.Link) (string, error) {
	d, err := fault.Open(listen, pick)
	if err != nil {
		return "", fmt.Errorf("cluster: a link: %w", err)
	}
	c.links.doors = append(c.links.doors, d)
	return d.Addr(), nil
}

// peerWay returns the address at which other nodes find a node. They read it in
// the directory, which has one for all of them: so who connects is told by the
// process that has the other end.
func (c *Cluster) peerWay(to *Node) (string, error) {
	if !c.opt.Links {
		return to.Peer, nil
	}
	from := make([]*link, c.opt.Nodes)
	for i := range from {
		if name := nodeName(i); name != to.Name {
			from[i] = c.links.add(name, to.Name, to.Peer)
		}
	}
	return c.door(anyPort, func(addr net.Addr) *fault.Link {
		pids := make([]int, c.opt.Nodes)
		for i, n := range c.Nodes {
			pids[i] = n.Pid()
		}
		pid := fault.Owner(addr, pids)
		i := slices.Index(pids, pid)
		if pid == 0 || from[i] == nil {
			return nil
		}
		return from[i].Link
	})
}

const anyPort = "127.0.0.1:0"

// close ends everything that is under way.
func (ls *links) close() (errs []error) {
	for _, d := range ls.doors {
		errs = append(errs, d.Close())
	}
	for _, l := range ls.all {
		l.Close()
	}
	return errs
}
