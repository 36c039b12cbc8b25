package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/router/peer"
)

// fleet is what a node of a cluster has and one that runs alone has not: the
// directory in Redis, and links to the other nodes.
type fleet struct {
	addr      string        // where other nodes reach this one
	directory *router.Redis // the router's to close
	notes     notes
	listener  net.Listener
	links     *peer.Links // owns listener
}

// startFleet opens the directory and the listener for other nodes. Redis need
// not answer: nobody is sent away because it is down, and the directory
// registers everybody when it is back.
func (s *Server) startFleet(ctx context.Context) error {
	if s.cfg.Cluster.Listen == "" {
		return nil
	}
	addr, err := s.cfg.Cluster.Advertised()
	if err != nil {
		return fmt.Errorf("cluster.advertise: %w", err)
	}
	s.fleet = &fleet{addr: addr}
	if s.fleet.listener, err = net.Listen("tcp", s.cfg.Cluster.Listen); err != nil {
		return fmt.Errorf("cluster.listen: %w", err)
	}
	o, err := s.cfg.Redis.Options()
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	client := router.DialRedis(o)
	s.fleet.notes = notes{client: client, prefix: s.cfg.Redis.Prefix + ":status:"}
	if err := s.refuseTwin(ctx); err != nil {
		return errors.Join(err, client.Close())
	}
	s.fleet.directory, err = router.NewRedis(router.RedisOptions{
		Client: client, Prefix: s.cfg.Redis.Prefix, Buckets: s.cfg.Redis.Buckets,
		Node: s.data.node.ID, Incarnation: s.data.node.Incarnation, Addr: addr,
		Now: s.clocks.now,
		Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		return errors.Join(err, client.Close())
	}
	if !s.fleet.directory.Up() {
		s.log.Warn().Strs("addresses", s.cfg.Redis.Addrs).Msg("Redis does not answer: this node starts without; until Redis is back, messages reach users on other nodes late")
	}
	return nil
}

// refuseTwin looks for another machine that runs as this node: a data folder
// and a certificate that were copied. Each would take the other's users for its
// own. Without Redis nothing is known, and nothing refused.
func (s *Server) refuseTwin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	n, err := s.fleet.notes.read(ctx, s.data.node.ID)
	if err != nil || n == nil || n.Peer == s.fleet.addr {
		return nil
	}
	return fmt.Errorf("cluster: node %d already runs on %s, at %s; every node needs a data folder and a certificate of its own («hermodctl cluster cert»). If it has just moved from there, wait %v", n.Node, n.Host, n.Peer, noteLife)
}

// startLinks joins the router to the other nodes.
func (s *Server) startLinks() (err error) {
	if s.fleet == nil {
		return nil
	}
	s.fleet.links, err = peer.Start(peer.Options{
		Listener: s.fleet.listener, Identity: s.identity,
		Node: s.data.node.ID, Incarnation: s.data.node.Incarnation,
		Fleet: s.fleet.directory, Receive: s.router,
		Log: s.log, Metrics: s.metrics,
	})
	s.fleet.listener = nil // Start owns it, also when it fails
	if err != nil {
		return err
	}
	s.router.SetPeers(s.fleet.links)
	s.log.Info().Stringer("address", s.fleet.links.Addr()).Str("mode", "peers").Uint64("node", s.data.node.ID).Msg("listening")
	return nil
}

// close ends what comes from other nodes, before the router.
func (f *fleet) close() error {
	var errs []error
	if f.listener != nil {
		errs = append(errs, f.listener.Close())
	}
	if f.links != nil {
		errs = append(errs, f.links.Close())
	}
	return errors.Join(errs...)
}

// ask returns how all nodes are, self first, and whether Redis answers.
func (f *fleet) ask(ctx context.Context, self nodeStatus) (nodes []nodeStatus, redis string) {
	nodes, redis = []nodeStatus{self}, "ok"
	members, err := f.directory.Members(ctx)
	if err != nil {
		return nodes, err.Error()
	}
	for _, m := range members {
		if m.Node == self.Node {
			continue
		}
		n, err := f.notes.read(ctx, m.Node)
		if err != nil {
			redis = err.Error()
		}
		if n == nil || n.Incarnation != m.Incarnation {
			n = &nodeStatus{Node: m.Node, Incarnation: m.Incarnation, Peer: m.Addr, Silent: true}
		}
		nodes = append(nodes, *n)
	}
	slices.SortFunc(nodes[1:], func(a, b nodeStatus) int { return cmp.Compare(a.Node, b.Node) })
	return nodes, redis
}

// linkStatus is how the links of this node are.
func (f *fleet) linkStatus() []linkStatus {
	if f.links == nil {
		return nil
	}
	var out []linkStatus
	for _, l := range f.links.Status() {
		ls := linkStatus{Node: l.Node, Up: l.Up, Since: l.Since, Trip: l.RoundTrip, Queued: l.QueuedBytes}
		if l.Err != nil {
			ls.Error = l.Err.Error()
		}
		out = append(out, ls)
	}
	return out
}
