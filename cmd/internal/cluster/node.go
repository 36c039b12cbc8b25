package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hermod-im/hermod/bench/local"
)

// Node is a hermod process of a cluster. Its addresses stay its own.
type Node struct {
	Name   string
	Number uint64
	// Config is its hermod.toml.
	Config string
	// Addr is where clients find it, Admin the operator's HTTP, Peer its
	// listener for other nodes.
	Addr, Admin, Peer string

	c      *Cluster
	dir    string
	listen string // its listener for clients: Addr, unless links are in between
	binary atomic.Pointer[string]
	*local.Server
}

func nodeName(i int) string { return "node" + strconv.Itoa(i+1) }

// makeNodes makes all nodes, and then their configurations: the way to a node
// has to know all.
func (c *Cluster) makeNodes() error {
	for i := range c.opt.Nodes {
		n, err := c.newNode(i)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
	}
	for i, n := range c.Nodes {
		wish := 0
		if c.opt.Ports > 0 {
			wish = c.opt.Ports + i
		}
		if err := n.configure(wish); err != nil {
			return err
		}
	}
	return nil
}

// newNode makes folder, ports and certificate of the i-th node.
func (c *Cluster) newNode(i int) (n *Node, err error) {
	n = &Node{Name: nodeName(i), c: c}
	n.binary.Store(&c.opt.Binary)
	n.dir = filepath.Join(c.Dir, n.Name)
	n.Config = filepath.Join(n.dir, "hermod.toml")
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	for _, addr := range []*string{&n.Admin, &n.Peer} {
		if *addr, err = addrLike(0); err != nil {
			return nil, err
		}
	}
	if n.Number, err = NodeNumber(c.pki(n.Name + ".pem")); err != nil {
		return nil, err
	}
	_, err = MakeCert(CertOptions{
		Dir: filepath.Join(c.Dir, "pki"), Name: n.Name, Node: n.Number,
		Hosts: []string{"127.0.0.1", "localhost"}, Life: devLife, Replace: true,
	})
	if err != nil {
		return nil, err
	}
	n.Server, err = local.NewProcess(local.ProcessOptions{Name: n.Name, Dir: n.dir, Command: n.command, Ready: n.Ready})
	return n, err
}

// addrLike returns an address with that port if it is free, and otherwise with
// one that is.
func addrLike(port int) (string, error) {
	if port > 0 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if ln, err := net.Listen("tcp", addr); err == nil {
			return addr, ln.Close()
		}
	}
	port, err := local.FreePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// Start starts the node, or starts it again after it has ended in whatever way,
// and returns when it is ready for clients.
func (n *Node) Start(ctx context.Context) error {
	n.Kill() // one that has ended by itself is not known to have
	return n.Server.Start(ctx)
}

func (n *Node) command() *exec.Cmd {
	cmd := exec.Command(*n.binary.Load(), "--config", n.Config)
	cmd.Env = append(os.Environ(), n.c.opt.Settings...)
	if n.c.opt.Clocks {
		cmd.Env = append(cmd.Env, "HERMOD_TORTURE_CLOCK="+n.c.clock(n.Name).File, "HERMOD_TORTURE_SHARD_CLOCK="+n.c.clock(shardsName).File)
	}
	return cmd
}

// Ready returns nil when the node says that it takes clients.
func (n *Node) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Admin+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready: %s", n.Name, resp.Status)
	}
	return nil
}
