package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

// Files of a cluster's CA, in its folder. Only ca.pem goes to the nodes.
const (
	caCertFile = "ca.pem"
	caKeyFile  = "ca-key.pem"
)

// ClusterCA makes the CA that the nodes of a cluster trust, and nobody else.
type ClusterCA struct {
	Dir   string        `default:"cluster" help:"Folder for ca.pem and ca-key.pem. Keep it off the nodes."`
	Life  time.Duration `default:"87600h" help:"How long the CA is valid."`
	Force bool          `help:"Replace a CA that is already there: all nodes then need new certificates."`
}

// Run makes the CA and says what comes next.
func (c *ClusterCA) Run(out io.Writer) error {
	key, err := newKey(filepath.Join(c.Dir, caKeyFile), c.Force)
	if err != nil {
		return err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Hermod cluster CA"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(c.Life),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	if err := writePair(c.Dir, caCertFile, caKeyFile, tmpl, tmpl, key, key); err != nil {
		return err
	}
	fmt.Fprintf(out, `made %s/%s and %s, valid until %s

  Whoever has %s can pose as a node: keep it where no node runs.
  Next, once for each node:

    hermodctl cluster cert --dir %s node1
`, c.Dir, caCertFile, caKeyFile, tmpl.NotAfter.Format(time.DateOnly), caKeyFile, c.Dir)
	return nil
}

// ClusterCert makes the certificate of one node. It also gives the node its
// number, which stays its own for good.
type ClusterCert struct {
	Name  string        `arg:"" help:"What you call the node; names the files."`
	Dir   string        `default:"cluster" help:"Folder of the CA; the pair goes there."`
	Node  uint64        `help:"The node's number; default: that of NAME.pem if it is there, else a new one."`
	Hosts []string      `name:"host" help:"Names and addresses of the node, if the pair is to serve elsewhere, too."`
	Life  time.Duration `default:"8760h" help:"How long it is valid."`
}

// Run makes the pair and says where it goes.
func (c *ClusterCert) Run(out io.Writer) error {
	if filepath.Base(c.Name) != c.Name || c.Name == "ca" {
		return fmt.Errorf("%q cannot name files; use something like node1", c.Name)
	}
	ca, err := tls.LoadX509KeyPair(filepath.Join(c.Dir, caCertFile), filepath.Join(c.Dir, caKeyFile))
	if err != nil {
		return fmt.Errorf("the CA: %w; «hermodctl cluster ca» makes one", err)
	}
	certFile, keyFile := c.Name+".pem", c.Name+"-key.pem"
	if c.Node == 0 {
		if c.Node, err = nodeNumber(filepath.Join(c.Dir, certFile)); err != nil {
			return err
		}
	}
	key, err := newKey(filepath.Join(c.Dir, keyFile), true)
	if err != nil {
		return err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Hermod node " + c.Name},
		NotBefore:   now.Add(-time.Hour),
		NotAfter:    now.Add(c.Life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{config.NodeURI(c.Node)},
	}
	if tmpl.NotAfter.After(ca.Leaf.NotAfter) {
		tmpl.NotAfter = ca.Leaf.NotAfter
	}
	setHosts(tmpl, c.Hosts)
	caKey, ok := ca.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("%s is no ECDSA key", caKeyFile)
	}
	if err := writePair(c.Dir, certFile, keyFile, tmpl, ca.Leaf, key, caKey); err != nil {
		return err
	}
	fmt.Fprintf(out, `made %[1]s/%[2]s and %[3]s for node %[4]d, valid until %[5]s

  Copy %[2]s, %[3]s and %[6]s to that node, and name them in its hermod.toml:

    [cluster]
    listen = "10.0.0.1:5190"    # its own address
    ca = "/etc/hermod/%[6]s"
    cert = "/etc/hermod/%[2]s"
    key = "/etc/hermod/%[3]s"

  The same command makes a new pair for the same node when this one runs out.
`, c.Dir, certFile, keyFile, c.Node, tmpl.NotAfter.Format(time.DateOnly), caCertFile)
	return nil
}

// nodeNumber is the number in the certificate at path, or a new random one if
// there is no such file. Random, so that nobody has to keep a list; 63 bits, so
// that none comes twice.
func nodeNumber(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var r [8]byte
		if _, err := rand.Read(r[:]); err != nil {
			return 0, err
		}
		return binary.BigEndian.Uint64(r[:])>>1 | 1, nil
	}
	if err != nil {
		return 0, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return 0, fmt.Errorf("%s is there but holds no certificate; remove it, or give --node", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	n, err := config.NodeOf(cert)
	if err != nil {
		return 0, fmt.Errorf("%s %w; remove it, or give --node", path, err)
	}
	return n, nil
}
