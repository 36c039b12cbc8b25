package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hermod-im/hermod/bench/attack"
	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
)

// attackSite starts servers to attack: processes on loopback, in temporary
// folders. It is an attack.Site.
type attackSite struct {
	binary string
	single bool
	// settings are added to every server's environment.
	settings []string

	mu     sync.Mutex
	closes []func() error
}

// balancer is the address that may speak PROXY.
const balancer = "127.255.255.1"

// serverHost is where all listen. Attackers come from other loopback addresses.
const serverHost = "127.0.0.1"

// Serve starts a server with the embedded engine.
func (a *attackSite) Serve(ctx context.Context, w attack.Wish) (*attack.Server, error) {
	dir, err := os.MkdirTemp("", "hermod-attack-")
	if err != nil {
		return nil, err
	}
	a.later(func() error { return os.RemoveAll(dir) })
	pair, err := cluster.MakeSelfSigned(cluster.CertOptions{Dir: dir, Hosts: []string{serverHost}, Life: 24 * time.Hour})
	if err != nil {
		return nil, err
	}
	srv := &attack.Server{Balancer: netip.MustParseAddr(balancer), Keys: filepath.Join(dir, "data", "keys")}
	if srv.Roots, err = pool(pair.Cert); err != nil {
		return nil, err
	}
	for _, addr := range []*string{&srv.Plain, &srv.TLS, &srv.Proxy, &srv.Admin} {
		port, err := local.FreePort()
		if err != nil {
			return nil, err
		}
		*addr = net.JoinHostPort(serverHost, strconv.Itoa(port))
	}
	env := append([]string{
		"HERMOD_LISTEN_PLAIN=" + srv.Plain, "HERMOD_LISTEN_TLS=" + srv.TLS,
		"HERMOD_LISTEN_PROXY=" + srv.Proxy, "HERMOD_LISTEN_PROXY_TRUSTED=" + balancer + "/32",
		"HERMOD_TLS_CERT=" + pair.Cert, "HERMOD_TLS_KEY=" + pair.Key,
		"HERMOD_ADMIN_LISTEN=" + srv.Admin, "HERMOD_DATA_DIR=data", "HERMOD_LOG_FORMAT=json",
		"HERMOD_LIMITS_EXEMPT=", "HERMOD_STORAGE_CACHE_MIB=8", "HERMOD_STORAGE_FREE_RESERVE_MIB=64",
	}, append(a.settings, w.Settings...)...)
	p, err := local.StartProcess(ctx, local.ProcessOptions{
		Name: "hermod", Dir: dir, Ready: func(ctx context.Context) error { return ready(ctx, srv.Admin) },
		Command: func() *exec.Cmd {
			cmd := exec.Command(a.binary)
			if w.Files > 0 {
				cmd = exec.Command("/bin/sh", "-c", `ulimit -n "$1" && exec "$2"`, "sh", strconv.Itoa(w.Files), a.binary)
			}
			cmd.Env = append(os.Environ(), env...)
			return cmd
		},
	})
	if err != nil {
		return nil, err
	}
	srv.Pid, srv.Close = p.Pid(), p.Close
	a.later(p.Close)
	return srv, nil
}

// Fleet starts a small cluster. Its clients come through links, which hide
// their addresses, so loopback is exempt there.
func (a *attackSite) Fleet(ctx context.Context) (*attack.Fleet, error) {
	if a.single {
		return nil, fmt.Errorf("%w: it needs a cluster, and --single was given", attack.ErrUnable)
	}
	c, err := cluster.Start(ctx, cluster.Options{
		Binary: a.binary, Nodes: 2, Shards: 2, Databases: 1, TLS: true, Links: true, Init: initShards,
		Settings: append([]string{"HERMOD_STORAGE_FREE_RESERVE_MIB=64"}, a.settings...),
	})
	if err != nil {
		return nil, err
	}
	a.later(c.Close)
	f := &attack.Fleet{CACert: c.CA.Cert, CAKey: c.CA.Key, Cut: func(ctx context.Context) (func() error, error) {
		return part(ctx, c)
	}}
	if f.Roots, err = pool(c.CA.Cert); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		run, err := incarnation(ctx, n.Admin)
		if err != nil {
			return nil, err
		}
		f.Nodes = append(f.Nodes, attack.Node{Addr: n.Addr, Peer: n.Peer, Admin: n.Admin, Number: n.Number, Incarnation: run})
	}
	return f, nil
}

// part keeps the last node and the others from reaching each other.
func part(ctx context.Context, c *cluster.Cluster) (mend func() error, err error) {
	for _, f := range c.Faults() {
		if f.Name != "node-apart" {
			continue
		}
		heal, err := f.Strike(ctx, c.Nodes[len(c.Nodes)-1].Name)
		if err != nil {
			return nil, err
		}
		return func() error { return heal(context.WithoutCancel(ctx)) }, nil
	}
	return nil, fmt.Errorf("%w: the cluster cannot part its nodes", attack.ErrUnable)
}

func (a *attackSite) later(f func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closes = append(a.closes, f)
}

// Close ends everything that is left.
func (a *attackSite) Close() (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := len(a.closes) - 1; i >= 0; i-- {
		err = errors.Join(err, a.closes[i]())
	}
	a.closes = nil
	return err
}

func pool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return p, nil
}

// ready returns nil when the server says that it takes clients.
func ready(ctx context.Context, admin string) error {
	resp, err := adminGet(ctx, admin, "/readyz")
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// incarnation asks a node which run of it this is.
func incarnation(ctx context.Context, admin string) (uint64, error) {
	resp, err := adminGet(ctx, admin, "/cluster?format=json")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var st struct {
		Node  uint64 `json:"node"`
		Nodes []struct {
			Node        uint64 `json:"node"`
			Incarnation uint64 `json:"incarnation"`
		} `json:"nodes"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		return 0, fmt.Errorf("http://%s/cluster: %w", admin, err)
	}
	for _, n := range st.Nodes {
		if n.Node == st.Node {
			return n.Incarnation, nil
		}
	}
	return 0, fmt.Errorf("http://%s/cluster does not list its own node", admin)
}

func adminGet(ctx context.Context, admin, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		return nil, err
	}
	return (&http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
}
