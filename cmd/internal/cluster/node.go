package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hermod-im/hermod/bench/local"
)

// Node is a hermod process of a cluster. Its addresses stay its own.
type Node struct {
	Name   string
	Number uint64
	// Config is its hermod.toml.
	Config string
	// Addr is for clients, Admin the operator's HTTP, Peer for other nodes.
	Addr, Admin, Peer string

	c   *Cluster
	dir string
	*local.Server
}

// newNode makes certificate and configuration of the i-th node.
func (c *Cluster) newNode(i int) (*Node, error) {
	n := &Node{Name: "node" + strconv.Itoa(i+1), c: c}
	n.dir = filepath.Join(c.Dir, n.Name)
	n.Config = filepath.Join(n.dir, "hermod.toml")
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	wish := 0
	if c.opt.Ports > 0 {
		wish = c.opt.Ports + i
	}
	for _, a := range []struct {
		addr *string
		wish int
	}{{&n.Addr, wish}, {&n.Admin, 0}, {&n.Peer, 0}} {
		port, err := portLike(a.wish)
		if err != nil {
			return nil, err
		}
		*a.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	var err error
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
	cfg := c.configuration(n)
	var text bytes.Buffer
	fmt.Fprintf(&text, "# %s of a cluster on this machine, written by its start.\n", n.Name)
	cfg.Explain(&text)
	return n, os.WriteFile(n.Config, text.Bytes(), 0o600)
}

// portLike returns the port if it is free, and otherwise one that is.
func portLike(port int) (int, error) {
	if port > 0 {
		if ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, ln.Close()
		}
	}
	return local.FreePort()
}

// Start starts the node, or starts it again after it has ended in whatever way,
// and returns when it is ready for clients.
func (n *Node) Start(ctx context.Context) error {
	if n.Server != nil {
		n.Kill() // one that has ended by itself is not known to have
		return n.Server.Start(ctx)
	}
	var err error
	n.Server, err = local.StartProcess(ctx, local.ProcessOptions{
		Name: n.Name, Dir: n.dir, Command: n.command, Ready: n.Ready,
	})
	return err
}

func (n *Node) command() *exec.Cmd {
	cmd := exec.Command(n.c.opt.Binary, "--config", n.Config)
	cmd.Env = append(os.Environ(), n.c.opt.Settings...)
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

// Stop drains the node and ends it; one that was never started stays so.
func (n *Node) Stop() error {
	if n.Server == nil {
		return nil
	}
	return n.Server.Stop()
}

// Close kills the node. Its folder stays.
func (n *Node) Close() error {
	if n.Server == nil {
		return nil
	}
	return n.Server.Close()
}
