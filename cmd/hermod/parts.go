package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/conn/chat"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/mysql"
)

// startData takes the data folder, and with it the node's identity.
func (s *Server) startData() error {
	var number uint64 // any
	if s.cfg.Cluster.Listen != "" {
		var err error
		if s.identity, number, err = s.cfg.Cluster.Identity(); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	var err error
	s.data, err = openData(s.cfg.Data.Dir, number)
	return err
}

// startRouter starts the router on the directory: in memory for a node that
// runs alone.
func (s *Server) startRouter() (err error) {
	var d router.Directory
	if s.fleet != nil {
		d = s.fleet.directory
	} else {
		d = router.NewMemory(s.clocks.now)
	}
	s.router, err = router.New(router.Options{
		Node: s.data.node.ID, Incarnation: s.data.node.Incarnation,
		Directory: d, Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		return errors.Join(err, d.Close())
	}
	return nil
}

// startStorage opens the shards. Slots of embedded ones are divided here;
// databases are prepared by hand («hermodctl shards init»), so that a mistyped
// name is an error and not an empty installation.
func (s *Server) startStorage(ctx context.Context) (err error) {
	s.shards, err = s.cfg.OpenShards(ctx, config.OpenOptions{Log: s.log, Metrics: s.metrics, Now: s.clocks.shard, Skew: s.clocks.skew})
	if err != nil {
		return err
	}
	if err := s.refuseCompany(ctx); err != nil {
		return err
	}
	s.store, err = storage.Open(ctx, storage.Options{
		Shards: s.shards,
		Node:   storage.NodeID(s.data.node.ID), Incarnation: s.data.node.Incarnation,
		ClaimSlots:   len(s.cfg.Storage.Shards) == 0,
		Deliver:      s.deliver,
		RetainAge:    s.cfg.Storage.RetainAge.Std(),
		RetainEvents: s.cfg.Storage.RetainEvents,
		Now:          s.clocks.now,
		Log:          s.log, Metrics: s.metrics,
	})
	if errors.Is(err, storage.ErrInvalid) {
		err = fmt.Errorf("%w. A new installation, or a new shard, is prepared with «hermodctl shards init»", err)
	}
	return err
}

// refuseCompany looks for other nodes on the shards of a node that runs alone.
// They would not tell each other who is where, so that one user could be
// logged in twice, and nobody's messages would reach the other's users in time.
func (s *Server) refuseCompany(ctx context.Context) error {
	if s.fleet != nil {
		return nil
	}
	for _, sh := range s.shards {
		db, ok := sh.(*mysql.Shard)
		if !ok {
			continue
		}
		st, err := db.Status(ctx)
		if err != nil {
			return fmt.Errorf("shard %d: %w", sh.ID(), err)
		}
		for _, l := range st.Leases {
			if l.Left > 0 && l.Node != storage.NodeID(s.data.node.ID) {
				return fmt.Errorf("storage.shard %d: node %d works on this shard: several nodes need [cluster] and [redis]. If that node has just been stopped for good, wait %v", sh.ID(), l.Node, l.Left.Round(time.Second))
			}
		}
	}
	return nil
}

func (s *Server) startChat() (err error) {
	s.warnOfNewKeys()
	s.chat, err = chat.New(chat.Options{
		Store: s.store, Router: s.router,
		Limits: chatLimits(s.cfg.Limits),
		Argon2: chat.Argon2{MemoryKiB: s.cfg.Auth.Argon2MemoryKiB, Passes: s.cfg.Auth.Argon2Time},
		Tokens: chat.Tokens{Dir: s.cfg.KeysDir(), Life: s.cfg.Auth.TokenLife.Std()},
		Now:    s.clocks.now,
		Log:    s.log, Metrics: s.metrics,
	})
	if err != nil {
		return err
	}
	s.router.SetLocal(s.chat)
	s.joined.Store(true)
	return nil
}

// warnOfNewKeys tells the operator that this node is about to sign tokens that
// no other knows. All goes on, but every device that comes from another node
// then pays a second round trip for a login by its secret.
func (s *Server) warnOfNewKeys() {
	if s.fleet == nil {
		return
	}
	if keys, err := filepath.Glob(filepath.Join(s.cfg.KeysDir(), "*.pem")); err == nil && len(keys) == 0 {
		s.log.Warn().Str("folder", s.cfg.KeysDir()).Msg("there are no keys for access tokens, so this node makes one; copy the folder to all other nodes and send them SIGHUP")
	}
}

// deliver hands what became durable to the router. Before chat is there nobody
// can be connected.
func (s *Server) deliver(ds []storage.Delivery) {
	if !s.joined.Load() {
		return
	}
	buf, _ := s.batches.Get().(*[]router.Delivery)
	if buf == nil {
		buf = new([]router.Delivery)
	}
	*buf = chat.AppendDeliveries(*buf, ds)
	s.router.Deliver(context.Background(), *buf)
	clear(*buf)
	*buf = (*buf)[:0]
	s.batches.Put(buf)
}

// startEdge opens the listeners.
func (s *Server) startEdge() error {
	var ls []conn.Listener
	l := s.cfg.Listen
	if l.Plain != "" {
		host, _, _ := net.SplitHostPort(l.Plain)
		ls = append(ls, conn.Listener{Addr: l.Plain, Mode: conn.Plain, Insecure: l.PlainInsecure && !config.IsLoopback(host)})
	}
	if l.TLS != "" {
		if err := s.cert.load(s.cfg.TLS); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		ls = append(ls, conn.Listener{Addr: l.TLS, Mode: conn.TLS, TLS: &tls.Config{GetCertificate: s.cert.get}})
	}
	if l.Proxy != "" {
		ls = append(ls, conn.Listener{Addr: l.Proxy, Mode: conn.Proxy, Trusted: config.Nets(l.ProxyTrusted)})
	}
	var err error
	s.edge, err = conn.Start(conn.Options{
		Listeners: ls, Handler: s.chat, Limits: edgeLimits(s.cfg.Limits),
		Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		return err
	}
	for i, addr := range s.edge.Addrs() {
		s.log.Info().Stringer("address", addr).Stringer("mode", ls[i].Mode).Msg("listening")
	}
	return nil
}

// startAdmin opens the operator's HTTP. It comes last: who sees it listen can
// connect everywhere else.
func (s *Server) startAdmin() (err error) {
	if s.cfg.Admin.Listen == "" {
		return nil
	}
	if s.admin, err = startAdmin(s.cfg.Admin.Listen, s.metrics, s.ready, s.serveStatus, s.shards, s.log); err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	s.log.Info().Stringer("address", s.admin.addr()).Str("mode", "admin").Msg("listening")
	return nil
}
