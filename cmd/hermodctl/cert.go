package main

import (
	"fmt"
	"io"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/cluster"
)

// CertDev makes a self-signed pair for trying TLS: not for users' devices,
// which have no reason to trust it.
type CertDev struct {
	Dir   string        `default:"data/tls" help:"Folder for cert.pem and key.pem."`
	Hosts []string      `name:"host" default:"localhost,127.0.0.1,::1" help:"Names and addresses that the certificate is for."`
	Life  time.Duration `default:"2160h" help:"How long it is valid."`
	Force bool          `help:"Replace a pair that is already there."`
}

// Run writes the pair and says how to use it.
func (c *CertDev) Run(out io.Writer) error {
	pair, err := cluster.MakeSelfSigned(cluster.CertOptions{Dir: c.Dir, Hosts: c.Hosts, Life: c.Life, Replace: c.Force})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `made %[1]s and %[2]s, valid for %[3]s

  server   HERMOD_LISTEN_TLS=127.0.0.1:5101 HERMOD_TLS_CERT=%[1]s HERMOD_TLS_KEY=%[2]s hermod
  client   hermodctl chat --server 127.0.0.1:5101 --tls --ca %[1]s
  pin      sha256/%[4]s
`, pair.Cert, pair.Key, c.Life, pair.Pin)
	return nil
}
