package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
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
	cert, key := filepath.Join(c.Dir, "cert.pem"), filepath.Join(c.Dir, "key.pem")
	if _, err := os.Stat(key); err == nil && !c.Force {
		return fmt.Errorf("%s is already there; --force replaces it", key)
	}
	der, pin, pemKey, err := makeCert(c.Hosts, time.Now(), c.Life)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(key, pemKey, 0o600),
	)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `made %s and %s, valid for %s

  server   HERMOD_LISTEN_TLS=127.0.0.1:5101 HERMOD_TLS_CERT=%s HERMOD_TLS_KEY=%s hermod
  client   hermodctl chat --server 127.0.0.1:5101 --tls --ca %s
  pin      sha256/%s
`, cert, key, c.Life, cert, key, cert, pin)
	return nil
}

// makeCert returns the certificate, the pin of its public key and the PEM of
// its private key.
func makeCert(hosts []string, now time.Time, life time.Duration) (der []byte, pin string, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, "", nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "hermod development"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, priv.Public(), priv)
	if err != nil {
		return nil, "", nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, "", nil, err
	}
	sum := sha256.Sum256(parsed.RawSubjectPublicKeyInfo)
	raw, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, "", nil, err
	}
	return der, base64.StdEncoding.EncodeToString(sum[:]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}
