package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hermod-im/hermod/bench"
	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
)

type stormCmd struct {
	Binary  string        `type:"path" help:"The server; default: hermod beside this program."`
	Dir     string        `type:"path" help:"Folder for its data; default: a temporary one, on the disk of the others."`
	Clients int           `default:"15000" help:"Clients, each a user of its own."`
	Plain   bool          `help:"Without TLS."`
	Cuts    []bench.Cut   `default:"kill,drain" help:"How they are cut off: kill is kill -9, drain the orderly end with GoAway."`
	Within  time.Duration `default:"120s" help:"All must be back and synced so long after the cut."`
	JSON    string        `name:"json" type:"path" help:"Write everything to this file."`
}

// Run starts a server, takes it away from everybody at once, and watches them
// come back.
func (c *stormCmd) Run(ctx context.Context, ui *console) (err error) {
	binary, err := besideMe(c.Binary, "hermod")
	if err != nil {
		return err
	}
	srv, err := startStormServer(ctx, binary, c.Dir, c.Plain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	rep, err := bench.Storm(ctx, bench.StormConfig{
		Server: srv, TLS: srv.tls, Clients: c.Clients, Cuts: c.Cuts, Within: c.Within,
		Progress: func(line string) { ui.line("storm", line) },
	})
	ui.endProgress()
	if err != nil {
		return err
	}
	return finish(ui, rep, rep.OK, c.JSON)
}

// stormServer is one node with the embedded engine. It is a bench.StormServer.
type stormServer struct {
	*local.Server
	addr, admin string
	tls         *tls.Config
	remove      string // a temporary folder
}

// Addr is where clients connect, Admin where the operator looks.
func (s *stormServer) Addr() string  { return s.addr }
func (s *stormServer) Admin() string { return "http://" + s.admin }

// Close kills the server, and removes what it has left.
func (s *stormServer) Close() (err error) {
	if s.Server != nil {
		err = s.Server.Close()
	}
	if s.remove != "" {
		err = errors.Join(err, os.RemoveAll(s.remove))
	}
	return err
}

// startStormServer starts it; settings are added to its environment.
func startStormServer(ctx context.Context, binary, dir string, plain bool, settings ...string) (_ *stormServer, err error) {
	s := &stormServer{}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "hermod-storm-"); err != nil {
			return nil, err
		}
		s.remove = dir
	}
	if err := s.start(ctx, binary, dir, plain, settings); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *stormServer) start(ctx context.Context, binary, dir string, plain bool, settings []string) error {
	for _, addr := range []*string{&s.addr, &s.admin} {
		port, err := local.FreePort()
		if err != nil {
			return err
		}
		*addr = net.JoinHostPort(serverHost, strconv.Itoa(port))
	}
	// Only the making of the accounts hashes passwords, so that may be cheap.
	env := append(os.Environ(), "HERMOD_DATA_DIR="+filepath.Join(dir, "data"), "HERMOD_ADMIN_LISTEN="+s.admin, "HERMOD_LOG_FORMAT=json",
		fmt.Sprintf("HERMOD_AUTH_ARGON2_MEMORY_KIB=%d", tortureArgonKiB), fmt.Sprintf("HERMOD_AUTH_ARGON2_TIME=%d", tortureArgonTime))
	if plain {
		env = append(env, "HERMOD_LISTEN_PLAIN="+s.addr)
	} else {
		pair, err := cluster.MakeSelfSigned(cluster.CertOptions{Dir: filepath.Join(dir, "tls"), Hosts: []string{serverHost}, Life: 24 * time.Hour, Replace: true})
		if err != nil {
			return err
		}
		s.tls = &tls.Config{MinVersion: tls.VersionTLS13}
		if s.tls.RootCAs, err = pool(pair.Cert); err != nil {
			return err
		}
		env = append(env, "HERMOD_LISTEN_PLAIN=", "HERMOD_LISTEN_TLS="+s.addr, "HERMOD_TLS_CERT="+pair.Cert, "HERMOD_TLS_KEY="+pair.Key)
	}
	var err error
	s.Server, err = local.StartProcess(ctx, local.ProcessOptions{
		Name: "hermod", Dir: dir, Ready: func(ctx context.Context) error { return ready(ctx, s.admin) },
		Command: func() *exec.Cmd {
			cmd := exec.Command(binary)
			cmd.Env = append(env, settings...)
			return cmd
		},
	})
	return err
}
