package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/cmd/internal/slots"
	"github.com/hermod-im/hermod/storage"
)

// admin is the operator's HTTP server. It has no login: Config.Check keeps it
// on loopback.
type admin struct {
	srv  *http.Server
	ln   net.Listener
	done sync.WaitGroup
	// moves are the slots that somebody has let this node move. They end before
	// the shards do.
	moves *slots.Moves
}

// startAdmin listens on addr.
func startAdmin(addr string, metrics prometheus.Gatherer, ready func(context.Context) health, status http.HandlerFunc, shards []storage.Shard, log zerolog.Logger) (*admin, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		h := ready(ctx)
		if h.err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, h.String()+"\n")
	})
	mux.HandleFunc("GET /cluster", status)
	moves := slots.Handle(mux, shards, log)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	a := &admin{ln: ln, moves: moves, srv: &http.Server{Handler: localOnly(mux), ReadHeaderTimeout: 5 * time.Second}}
	a.done.Go(func() {
		if err := a.srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error().Err(err).Msg("admin HTTP stopped")
		}
	})
	return a, nil
}

// localOnly refuses requests under a foreign host name: a web page that the
// operator has open could otherwise reach loopback by DNS rebinding.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if !config.IsLoopback(host) {
			http.Error(w, "ask for this page under a loopback name", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *admin) addr() net.Addr { return a.ln.Addr() }

// close ends the listener and gives running requests until ctx.
func (a *admin) close(ctx context.Context) error {
	err := a.srv.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.srv.Close())
	}
	a.done.Wait()
	return err
}
