package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/conn/chat"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

// Server is one running node. Each part knows only the one below it; what
// flows back up (durable deliveries) is joined here.
type Server struct {
	cfg     config.Config
	log     zerolog.Logger
	metrics *prometheus.Registry
	first   bool // the data folder is new

	// In the order in which they start; Close goes the other way.
	shards []storage.Shard
	router *router.Router
	store  *storage.Store
	chat   *chat.Chat
	cert   certificate
	edge   *conn.Server
	admin  *admin

	joined   atomic.Bool // the router knows chat
	batches  sync.Pool   // *[]router.Delivery
	draining atomic.Bool
	stop     context.CancelFunc
	work     sync.WaitGroup
}

// Start runs a node. It returns when clients can connect, or with everything
// that Check finds fatal.
func Start(cfg config.Config, log zerolog.Logger) (*Server, error) {
	ps := cfg.Check()
	var fatal []error
	for _, p := range ps {
		if p.Fatal {
			fatal = append(fatal, fmt.Errorf("%s: %s", p.Key, p.Text))
		} else {
			log.Warn().Str("key", p.Key).Msg(p.Text)
		}
	}
	if len(fatal) > 0 {
		return nil, errors.Join(fatal...)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{cfg: cfg, log: log, metrics: prometheus.NewRegistry(), stop: stop}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) (err error) {
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := s.startStorage(ctx); err != nil {
		return err
	}
	if err := s.startEdge(); err != nil {
		return err
	}
	if s.cfg.Admin.Listen != "" {
		if s.admin, err = startAdmin(s.cfg.Admin.Listen, s.metrics, s.ready, s.log); err != nil {
			return fmt.Errorf("admin.listen: %w", err)
		}
		s.log.Info().Stringer("address", s.admin.addr()).Str("mode", "admin").Msg("listening")
	}
	s.work.Go(func() { keepMemorySmall(ctx, time.Now) })
	return nil
}

// startStorage opens the data folder and everything that rests on it.
func (s *Server) startStorage(ctx context.Context) error {
	dir := s.cfg.Data.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data.dir: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, nodeFile)); errors.Is(err, os.ErrNotExist) {
		s.first = true
	}
	var err error
	s.shards, err = s.cfg.OpenShards(ctx, config.OpenOptions{Log: s.log, Metrics: s.metrics})
	if err != nil {
		return err
	}
	node, err := startNode(dir) // under the lock of the shard's folder
	if err != nil {
		return err
	}
	s.router, err = router.New(router.Options{
		Node: node.ID, Incarnation: node.Incarnation,
		Directory: router.NewMemory(time.Now), Log: s.log, Metrics: s.metrics,
	})
	if err != nil {
		return err
	}
	s.store, err = storage.Open(ctx, storage.Options{
		Shards: s.shards,
		Node:   storage.NodeID(node.ID), Incarnation: node.Incarnation,
		ClaimSlots:   true,
		Deliver:      s.deliver,
		RetainAge:    s.cfg.Storage.RetainAge.Std(),
		RetainEvents: s.cfg.Storage.RetainEvents,
		Log:          s.log, Metrics: s.metrics,
	})
	if err != nil {
		return err
	}
	s.chat, err = chat.New(chat.Options{
		Store: s.store, Router: s.router,
		Limits:   chatLimits(s.cfg.Limits),
		Argon2:   chat.Argon2{MemoryKiB: s.cfg.Auth.Argon2MemoryKiB, Passes: s.cfg.Auth.Argon2Time},
		Tokens:   chat.Tokens{Dir: s.cfg.KeysDir(), Life: s.cfg.Auth.TokenLife.Std()},
		Accounts: chat.Accounts{RegistersPerMinute: s.cfg.Limits.RegistersPerIP},
		Log:      s.log, Metrics: s.metrics,
	})
	if err != nil {
		return err
	}
	s.router.SetLocal(s.chat)
	s.joined.Store(true)
	return nil
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

// edgeLimits and chatLimits split the configuration's limits.
func edgeLimits(l config.LimitsConfig) conn.Limits {
	return conn.Limits{
		FirstByte: l.FirstByte.Std(), Login: l.Login.Std(), PartialFrame: l.PartialFrame.Std(),
		MaxInFlight: l.MaxInFlight, FrameRate: l.FramesPerSecond,
		OutboxBytes: l.OutboxKiB << 10, OutboxStall: l.OutboxStall.Std(),
		MaxConns: l.MaxConns, PerIPRate: l.NewConnsPerIP, PerIPLive: l.ConnsPerIP,
		Handshakes: l.HandshakePending, Exempt: config.Nets(l.Exempt),
	}
}

func chatLimits(l config.LimitsConfig) chat.Limits {
	return chat.Limits{
		WindowEvents: l.EventWindow, WindowBytes: l.OutboxKiB << 10 / 2,
		MaxInFlight: l.MaxInFlight, SyncsPerSecond: l.SyncsPerSecond,
	}
}

// ready says why the node takes no clients, nil if it does.
func (s *Server) ready(ctx context.Context) error {
	if s.draining.Load() {
		return errors.New("draining")
	}
	var errs []error
	for _, sh := range s.shards {
		if err := sh.Barrier(ctx); err != nil {
			errs = append(errs, fmt.Errorf("shard %d does not answer: %w", sh.ID(), err))
		}
	}
	return errors.Join(errs...)
}

// Addrs returns the listeners' addresses: plain, TLS, proxy, as far as set.
func (s *Server) Addrs() []net.Addr { return s.edge.Addrs() }

// Reload takes over what can change while running. What cannot be taken over
// stays, and the log says so; ok is false if the whole was refused.
func (s *Server) Reload(cfg config.Config) (ok bool) {
	ps := cfg.Check()
	for _, p := range ps {
		level := zerolog.WarnLevel
		if p.Fatal {
			level = zerolog.ErrorLevel
		}
		s.log.WithLevel(level).Str("key", p.Key).Msg(p.Text)
	}
	if ps.Fatal() {
		s.log.Error().Msg("the new configuration has errors; everything stays as it was")
		return false
	}
	var errs []error
	if cfg.Listen.TLS != "" && s.cfg.Listen.TLS != "" {
		errs = append(errs, s.cert.load(cfg.TLS))
	}
	errs = append(errs,
		s.chat.ReloadKeys(),
		s.edge.Reload(nil, edgeLimits(cfg.Limits)),
		s.chat.SetLimits(chatLimits(cfg.Limits)))
	if err := errors.Join(errs...); err != nil {
		s.log.Error().Err(err).Msg("reload: what failed stays as it was")
		return true
	}
	s.log.Info().Msg("reloaded certificates, keys and limits")
	return true
}

// Shutdown drains, then closes. A value on hurry ends the wait for clients.
func (s *Server) Shutdown(hurry <-chan os.Signal) error {
	s.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain.Timeout.Std())
	defer cancel()
	go func() {
		select {
		case <-hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := s.edge.Drain(ctx, s.cfg.Drain.Window.Std()); err != nil {
		s.log.Info().Msg("clients that were left have been closed")
	}
	return s.Close()
}

// Close stops at once, in the reverse order of starting: no new work, then
// what is under way, then the disk.
func (s *Server) Close() error {
	s.draining.Store(true)
	s.stop()
	s.work.Wait()
	var errs []error
	if s.edge != nil {
		errs = append(errs, s.edge.Close())
	}
	if s.chat != nil {
		errs = append(errs, s.chat.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.router != nil {
		errs = append(errs, s.router.Close())
	}
	for _, sh := range s.shards {
		errs = append(errs, sh.Close())
	}
	if s.admin != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		errs = append(errs, s.admin.close(ctx))
	}
	return errors.Join(errs...)
}

// greet tells a person at the first start how to try it.
func (s *Server) greet(w io.Writer) {
	if !s.first || s.cfg.Listen.Plain == "" {
		return
	}
	admin := ""
	if s.admin != nil {
		admin = fmt.Sprintf("Health and metrics: http://%s/metrics", s.admin.addr())
	}
	fmt.Fprintf(w, `
  Hermod is ready on %s, data in %s.
  Try it: open two more terminals and run in each

    ./bin/hermodctl chat --register --name alice
    ./bin/hermodctl chat --register --name bob

  then type /to bob in Alice's, and write. %s

`, s.Addrs()[0], s.cfg.Data.Dir, admin)
}
