package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/hermod-im/hermod/bench/fault"
	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/bench/observe"
	"github.com/hermod-im/hermod/bench/torture"
	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/storage"
)

// single is one node with the embedded engine.
type single struct {
	*local.Server
	dir         string
	own         bool // dir is a temporary one
	cfg         config.Config
	file        string
	addr, admin string
	// environ is added to the node's environment.
	environ []string
	// slots are those whose rows are counted in the end: see countByExport.
	slots func(context.Context, storage.Shard) ([]storage.Slot, error)
	// kind is what the data is on, disk that disk.
	kind string
	disk disk
	// clients is the way that all clients take.
	clients *fault.Link
	door    *fault.Door
}

// tortureArgon makes passwords cheap: what is on trial is something else.
const tortureArgonKiB, tortureArgonTime = 64, 1

// tortureRetention keeps all events: what retention takes, no one can compare.
const tortureRetention = 100_000_000

// startSingle starts a node. change is for the configuration and the environment.
func startSingle(ctx context.Context, binary, dir string, change ...func(*single)) (_ *single, err error) {
	s := &single{dir: dir, slots: allSlots}
	if dir == "" {
		s.own = true
		if s.dir, err = os.MkdirTemp("", "hermod-torture-"); err != nil {
			return nil, err
		}
	}
	if err := s.start(ctx, binary, change); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *single) start(ctx context.Context, binary string, change []func(*single)) (err error) {
	for _, addr := range []*string{&s.addr, &s.admin} {
		port, err := local.FreePort()
		if err != nil {
			return err
		}
		*addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	s.cfg = config.Default()
	s.cfg.Listen.Plain, s.cfg.Admin.Listen = s.addr, s.admin
	s.cfg.Data.Dir = filepath.Join(s.dir, "data")
	s.cfg.Log.Format = "json"
	s.cfg.Auth.Argon2MemoryKiB, s.cfg.Auth.Argon2Time = tortureArgonKiB, tortureArgonTime
	s.cfg.Storage.FreeReserveMiB, s.cfg.Storage.RetainEvents = 64, tortureRetention
	s.clients = fault.NewLink("clients→node", s.addr)
	if s.door, err = fault.OpenLink("127.0.0.1:0", s.clients); err != nil {
		return err
	}
	for _, f := range change {
		f(s)
	}
	if err := s.mount(); err != nil {
		return err
	}
	s.file = filepath.Join(s.dir, "hermod.toml")
	var text bytes.Buffer
	s.cfg.Explain(&text)
	if err := errors.Join(os.MkdirAll(s.dir, 0o700), os.WriteFile(s.file, text.Bytes(), 0o600)); err != nil {
		return err
	}
	if len(s.cfg.Storage.Shards) > 0 {
		if err := initShards(ctx, s.file); err != nil {
			return err
		}
	}
	s.Server, err = local.StartProcess(ctx, local.ProcessOptions{
		Name: "hermod", Dir: s.dir, Ready: s.ready,
		Command: func() *exec.Cmd {
			cmd := exec.Command(binary, "--config", s.file)
			cmd.Env = append(os.Environ(), s.environ...)
			return cmd
		},
	})
	return err
}

func (s *single) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}

// Close kills the node.
func (s *single) Close() (err error) {
	if s.Server != nil {
		err = s.Server.Close()
	}
	if s.door != nil {
		err = errors.Join(err, s.door.Close())
	}
	if s.clients != nil {
		s.clients.Close()
	}
	err = errors.Join(err, s.disk.close())
	if s.own {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// About, Endpoints and the methods below make it a torture.System.
func (s *single) About() string { return "one node with the embedded engine" + s.disk.about() }

// Endpoints is the way to its one listener.
func (s *single) Endpoints() []string { return []string{s.door.Addr()} }

// TLS is none on loopback.
func (s *single) TLS() *tls.Config { return nil }

// Faults are those of a process.
func (s *single) Faults() []fault.Fault {
	node := []fault.Part[fault.Process]{{Name: "node", It: s.Server}}
	clients := []fault.Part[[]*fault.Link]{{Name: s.clients.Name, It: []*fault.Link{s.clients}}}
	return slices.Concat([]fault.Fault{
		fault.Kill("node-kill", "the node dies: kill -9", node, 0, 8*time.Second),
		fault.Pause("node-pause", "the node freezes and wakes: SIGSTOP", node, time.Second, 12*time.Second),
		fault.Restart("node-restart", "the node is stopped, drained, and started again", node, 0, 3*time.Second),
		fault.Breaks(fault.Fault{Name: "clients-cut", About: "all clients are cut off at once"}, clients),
		fault.Revived(fault.Descriptors("node-descriptors", "the node may open no more files and connections", node, 2*time.Second, 20*time.Second), node),
	}, fault.Network(clients[0].It), s.disk.faults(s.Server))
}

// Sessions are the node's.
func (s *single) Sessions(ctx context.Context) (int, error) { return askSessions(ctx, s.admin) }

// Tasks are none, unless there are several shards.
func (s *single) Tasks(ctx context.Context) (int, error) {
	return askMetric(ctx, s.admin, "hermod_storage_tasks_open")
}

// Routes: the directory is in the node's memory.
func (s *single) Routes(context.Context) (int, error) { return -1, nil }

// Memory is the node's.
func (s *single) Memory(context.Context) (map[string]uint64, error) {
	n, err := observe.Resident(s.Pid())
	return map[string]uint64{"node": n}, err
}

// Place is the same for all.
func (s *single) Place(int64) string { return "" }

// Logs copies the node's log.
func (s *single) Logs(to string) error { return copyLogs(s.dir, to) }

// Stores stops the node, which alone may have its folder open, and opens it.
func (s *single) Stores(ctx context.Context) (torture.Stores, error) {
	stopped := s.Server.Stop() // if it had to be killed it is gone all the same
	shards, err := s.cfg.OpenShards(ctx, config.OpenOptions{})
	if err != nil {
		return nil, errors.Join(stopped, err)
	}
	st, err := openStores(ctx, shards, func(ctx context.Context) (torture.Totals, error) { return countByExport(ctx, shards, s.slots) })
	if err != nil {
		return nil, errors.Join(stopped, err)
	}
	return st, stopped
}
