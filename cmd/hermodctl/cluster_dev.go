package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
	"github.com/hermod-im/hermod/cmd/internal/config"
)

// ClusterDev runs a whole cluster on this machine, for people to play with.
type ClusterDev struct {
	Binary    string        `type:"path" help:"The server; default: hermod beside this program."`
	Dir       string        `type:"path" help:"Where everything is; kept and used again. Default: a temporary folder."`
	Nodes     int           `default:"3" help:"Nodes."`
	Shards    int           `default:"4" help:"Shards."`
	Databases int           `default:"2" help:"MariaDB servers that the shards take turns on."`
	Ports     int           `default:"5111" help:"The nodes' ports, one after the other, where they are free."`
	Revive    time.Duration `default:"5s" help:"A node that ends is started again after so long."`
}

// Run starts the cluster, says how to try it, starts nodes again that end, and
// stops everything on Ctrl-C.
func (c *ClusterDev) Run(out io.Writer) error {
	if c.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		c.Binary = filepath.Join(filepath.Dir(self), "hermod")
	}
	config.SilenceRedis()
	ctx, stop := interruptible()
	defer stop()
	fmt.Fprintf(out, "starting %d MariaDB servers, Redis, and %d nodes …\n", c.Databases, c.Nodes)
	cl, err := cluster.Start(ctx, cluster.Options{
		Dir: c.Dir, Binary: c.Binary, Nodes: c.Nodes, Shards: c.Shards, Databases: c.Databases, Ports: c.Ports,
		Init: func(ctx context.Context, file string) error {
			cfg, err := config.Load(file, nil)
			if err != nil {
				return err
			}
			return initShards(ctx, &cfg, new(Settings).log())
		},
	})
	if err != nil {
		return err
	}
	guide(out, cl)
	c.watch(ctx, out, cl)
	fmt.Fprintln(out, "\nstopping …")
	stop() // a second Ctrl-C does not wait
	return cl.Stop()
}

// guide says what runs and how to try it.
func guide(out io.Writer, cl *cluster.Cluster) {
	var servers []string
	fmt.Fprintf(out, "\n  a cluster is running; its files are in %s\n\n", cl.Dir)
	for _, n := range cl.Nodes {
		servers = append(servers, n.Addr)
		fmt.Fprintf(out, "    %-10s %-16s pid %-8d admin http://%s\n", n.Name, n.Addr, n.Pid(), n.Admin)
	}
	for i, db := range cl.Databases {
		fmt.Fprintf(out, "    mariadb%-3d %-16s pid %d\n", i+1, db.Addr(), db.Pid())
	}
	fmt.Fprintf(out, "    %-10s %-16s pid %d\n", "redis", cl.Redis.Addr(), cl.Redis.Pid())
	all := strings.Join(servers, ",")
	fmt.Fprintf(out, `
  Try it: in two more terminals, on different nodes

    ./bin/hermodctl chat --server %s --register --name alice
    ./bin/hermodctl chat --server %s --register --name bob

  then type /to bob in Alice's, and write. What is where:

    ./bin/hermodctl cluster status --admin %s

  Break it: kill -9 any of the above while they write; a node is started again
  after a while. Clients that know all nodes go to another one:

    ./bin/hermodctl chat --server %s --name alice

  Ctrl-C stops everything.

`, servers[0], servers[len(servers)-1], cl.Nodes[0].Admin, all)
}

// watch starts what has ended again, until ctx ends. Databases and Redis too:
// on a real machine their service manager would.
func (c *ClusterDev) watch(ctx context.Context, out io.Writer, cl *cluster.Cluster) {
	done := make(chan struct{})
	type part struct {
		name  string
		ended func() <-chan struct{}
		start func(context.Context) error
	}
	var parts []part
	for _, n := range cl.Nodes {
		parts = append(parts, part{n.Name, n.Ended, n.Start})
	}
	again := func(s *local.Server) func(context.Context) error {
		return func(ctx context.Context) error {
			s.Kill() // one that has ended by itself is not known to have
			return s.Start(ctx)
		}
	}
	for i, db := range cl.Databases {
		parts = append(parts, part{fmt.Sprintf("mariadb%d", i+1), db.Ended, again(&db.Server)})
	}
	parts = append(parts, part{"redis", cl.Redis.Ended, again(&cl.Redis.Server)})
	for _, p := range parts {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-ctx.Done():
					return
				case <-p.ended():
				}
				fmt.Fprintf(out, "%s  %s has ended; it is started again in %v\n", time.Now().Format(time.TimeOnly), p.name, c.Revive)
				select {
				case <-ctx.Done():
					return
				case <-time.After(c.Revive):
				}
				if err := p.start(ctx); err == nil {
					fmt.Fprintf(out, "%s  %s is back\n", time.Now().Format(time.TimeOnly), p.name)
				} else if !errors.Is(err, context.Canceled) {
					fmt.Fprintf(out, "%s  %s does not start: %v\n", time.Now().Format(time.TimeOnly), p.name, err)
				}
			}
		}()
	}
	for range parts {
		<-done
	}
}
