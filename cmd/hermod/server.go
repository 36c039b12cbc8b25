package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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
	"github.com/hermod-im/hermod/router/peer"
	"github.com/hermod-im/hermod/storage"
)

// Server is one running node. Each part knows only the one below it; what
// flows back up (durable deliveries) is joined here.
type Server struct {
	cfg     config.Config
	log     zerolog.Logger
	metrics *prometheus.Registry
	started time.Time

	// In the order in which they start; Close goes the other way.
	identity peer.Identity // of [cluster]
	data     *dataFolder
	fleet    *fleet // nil: this node runs alone
	router   *router.Router
	shards   []storage.Shard
	clocks   clocks
	store    *storage.Store
	chat     *chat.Chat
	cert     certificate
	edge     *conn.Server
	admin    *admin

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
	s := &Server{cfg: cfg, log: log, metrics: prometheus.NewRegistry(), started: time.Now(), stop: stop}
	s.clocks = startClocks(ctx, &s.work)
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// start starts the parts, each on the one before.
func (s *Server) start(ctx context.Context) error {
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, part := range []func() error{
		s.startData,
		func() error { return s.startFleet(ctx) },
		s.startRouter,
		func() error { return s.startStorage(ctx) },
		s.startChat,
		s.startLinks,
		s.startEdge,
		s.startAdmin,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	s.work.Go(func() { keepMemorySmall(ctx, time.Now) })
	if s.fleet != nil {
		s.work.Go(func() { s.keepNote(ctx) })
	}
	return nil
}

// Addrs returns the listeners' addresses: plain, TLS, proxy, as far as set.
func (s *Server) Addrs() []net.Addr { return s.edge.Addrs() }

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
	if s.admin != nil {
		s.admin.moves.Stop()
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.fleet != nil {
		errs = append(errs, s.fleet.close())
	}
	if s.router != nil {
		errs = append(errs, s.router.Close())
	}
	for _, sh := range s.shards {
		errs = append(errs, sh.Close())
	}
	if s.data != nil {
		errs = append(errs, s.data.close())
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
	if !s.data.first || s.cfg.Listen.Plain == "" || s.fleet != nil {
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
