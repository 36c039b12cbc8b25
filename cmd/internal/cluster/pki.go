package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/hermod-im/hermod/router/peer"
)

// Files of a cluster's CA, in its folder. Only CACert goes to the nodes.
const (
	CACert = "ca.pem"
	CAKey  = "ca-key.pem"
)

// CertOptions says what is made, and where.
type CertOptions struct {
	Dir  string
	Life time.Duration
	// Name names the files, Name.pem and Name-key.pem; the CA's are fixed.
	Name string
	// Hosts are the names and addresses that the certificate is for.
	Hosts []string
	// Node is the number of the node that the certificate is for; 0: none.
	Node uint64
	// Replace allows a key that is there already to be overwritten.
	Replace bool
}

// Pair is a certificate and its key, as files.
type Pair struct {
	Cert, Key string
	NotAfter  time.Time
	// Pin is the SHA-256 of the public key, as clients pin it.
	Pin string
}

// MakeCA makes the CA of a cluster.
func MakeCA(o CertOptions) (Pair, error) {
	tmpl := &x509.Certificate{
		Subject:        pkix.Name{CommonName: "Hermod cluster CA"},
		KeyUsage:       x509.KeyUsageCertSign,
		IsCA:           true,
		MaxPathLenZero: true,
	}
	return o.sign(tmpl, filepath.Join(o.Dir, CACert), filepath.Join(o.Dir, CAKey), nil)
}

// MakeCert makes a certificate that the CA in the same folder signs.
func MakeCert(o CertOptions) (Pair, error) {
	if o.Name == "" || filepath.Base(o.Name) != o.Name || o.Name == "ca" || o.Name == "." {
		return Pair{}, fmt.Errorf("%q cannot name files; use something like node1", o.Name)
	}
	ca, err := tls.LoadX509KeyPair(filepath.Join(o.Dir, CACert), filepath.Join(o.Dir, CAKey))
	if err != nil {
		return Pair{}, fmt.Errorf("the cluster's CA: %w; «hermodctl cluster ca» makes one", err)
	}
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Hermod " + o.Name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if o.Node != 0 {
		tmpl.URIs = []*url.URL{peer.NodeURI(o.Node)}
	}
	cert, key := filepath.Join(o.Dir, o.Name+".pem"), filepath.Join(o.Dir, o.Name+"-key.pem")
	return o.sign(tmpl, cert, key, &ca)
}

// MakeSelfSigned makes a server's certificate that nobody has a reason to
// trust but who is told to.
func MakeSelfSigned(o CertOptions) (Pair, error) {
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "hermod development"},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:        true,
	}
	return o.sign(tmpl, filepath.Join(o.Dir, "cert.pem"), filepath.Join(o.Dir, "key.pem"), nil)
}

// sign completes tmpl and writes certificate and key, the key readable by its
// owner only. Without ca the certificate signs itself.
func (o *CertOptions) sign(tmpl *x509.Certificate, certFile, keyFile string, ca *tls.Certificate) (Pair, error) {
	if _, err := os.Stat(keyFile); err == nil && !o.Replace {
		return Pair{}, fmt.Errorf("%s is already there; --force replaces it", keyFile)
	}
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	if tmpl.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return Pair{}, err
	}
	now := time.Now()
	tmpl.NotBefore, tmpl.NotAfter = now.Add(-time.Hour), now.Add(o.Life)
	tmpl.BasicConstraintsValid = true
	for _, h := range o.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	parent, signer := tmpl, any(priv)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
		if tmpl.NotAfter.After(parent.NotAfter) {
			tmpl.NotAfter = parent.NotAfter
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, priv.Public(), signer)
	if err != nil {
		return Pair{}, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return Pair{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(priv.Public())
	if err != nil {
		return Pair{}, err
	}
	sum := sha256.Sum256(spki)
	return Pair{Cert: certFile, Key: keyFile, NotAfter: tmpl.NotAfter, Pin: base64.StdEncoding.EncodeToString(sum[:])}, errors.Join(
		os.MkdirAll(o.Dir, 0o700),
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600),
	)
}

// NodeNumber is the number in the certificate at path, or a new one if there
// is no such file. New ones are random, so that nobody has to keep a list, and
// of 63 bits, so that none comes twice.
func NodeNumber(path string) (uint64, error) {
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
		return 0, fmt.Errorf("%s holds no certificate; remove it, or give the node's number", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	n, err := peer.NodeOf(cert)
	if err != nil {
		return 0, fmt.Errorf("%s: %w; remove it, or give the node's number", path, err)
	}
	return n, nil
}
