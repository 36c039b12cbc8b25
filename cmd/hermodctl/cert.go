package main

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"path/filepath"
	"time"
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
	key, err := newKey(filepath.Join(c.Dir, "key.pem"), c.Force)
	if err != nil {
		return err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "hermod development"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(c.Life),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	setHosts(tmpl, c.Hosts)
	if err := writePair(c.Dir, "cert.pem", "key.pem", tmpl, tmpl, key, key); err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	pin := sha256.Sum256(spki)
	cert, keyFile := filepath.Join(c.Dir, "cert.pem"), filepath.Join(c.Dir, "key.pem")
	fmt.Fprintf(out, `made %s and %s, valid for %s

  server   HERMOD_LISTEN_TLS=127.0.0.1:5101 HERMOD_TLS_CERT=%s HERMOD_TLS_KEY=%s hermod
  client   hermodctl chat --server 127.0.0.1:5101 --tls --ca %s
  pin      sha256/%s
`, cert, keyFile, c.Life, cert, keyFile, cert, base64.StdEncoding.EncodeToString(pin[:]))
	return nil
}
