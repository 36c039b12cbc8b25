package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/cluster"
)

// ClusterCA makes the CA that the nodes of a cluster trust, and nobody else.
type ClusterCA struct {
	Dir   string        `default:"cluster" help:"Folder for ca.pem and ca-key.pem. Keep it off the nodes."`
	Life  time.Duration `default:"87600h" help:"How long the CA is valid."`
	Force bool          `help:"Replace a CA that is already there: all nodes then need new certificates."`
}

// Run makes the CA and says what comes next.
func (c *ClusterCA) Run(out io.Writer) error {
	ca, err := cluster.MakeCA(cluster.CertOptions{Dir: c.Dir, Life: c.Life, Replace: c.Force})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `made %s and %s, valid until %s

  Whoever has the key can pose as a node: keep it where no node runs.
  Next, once for each node:

    hermodctl cluster cert --dir %s node1
`, ca.Cert, ca.Key, ca.NotAfter.Format(time.DateOnly), c.Dir)
	return nil
}

// ClusterCert makes the certificate of one node. It also gives the node its
// number, which stays its own for good.
type ClusterCert struct {
	Name  string        `arg:"" help:"What you call the node; names the files."`
	Dir   string        `default:"cluster" help:"Folder of the CA; the pair goes there."`
	Node  uint64        `help:"The node's number; default: that of NAME.pem if it is there, else a new one."`
	Hosts []string      `name:"host" help:"Names and addresses of the node, if the pair is to serve clients, too."`
	Life  time.Duration `default:"8760h" help:"How long it is valid."`
}

// Run makes the pair and says where it goes.
func (c *ClusterCert) Run(out io.Writer) error {
	if c.Node == 0 {
		var err error
		if c.Node, err = cluster.NodeNumber(filepath.Join(c.Dir, c.Name+".pem")); err != nil {
			return err
		}
	}
	pair, err := cluster.MakeCert(cluster.CertOptions{
		Dir: c.Dir, Name: c.Name, Node: c.Node, Hosts: c.Hosts, Life: c.Life, Replace: true,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `made %s and %s for node %d, valid until %s

  Copy both and %s to that node, and name them in its hermod.toml:

    [cluster]
    listen = "10.0.0.1:5190"    # its own address
    ca = "/etc/hermod/%s"
    cert = "/etc/hermod/%s"
    key = "/etc/hermod/%s"

  The same command makes a new pair for the same node when this one runs out.
`, pair.Cert, pair.Key, c.Node, pair.NotAfter.Format(time.DateOnly), filepath.Join(c.Dir, cluster.CACert),
		cluster.CACert, filepath.Base(pair.Cert), filepath.Base(pair.Key))
	return nil
}
