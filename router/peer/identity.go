package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"
)

// alpn names the protocol in the TLS handshake. A change of it cuts a fleet in
// two; what changes otherwise is a matter of versions.
const alpn = "hermod-peer"

// Identity is what a node proves itself with, and what it accepts as proof.
type Identity struct {
	// CA signed the certificates of all nodes of the fleet. Nothing else is
	// trusted, the system's authorities neither.
	CA *x509.CertPool
	// Certificate is this node's: chain and key. Its only hermod URI is
	// NodeURI, its uses are server and client authentication.
	Certificate tls.Certificate
}

// NodeURI is the name of a node in its certificate: hermod://node/<id>.
func NodeURI(node uint64) *url.URL {
	return &url.URL{Scheme: "hermod", Host: "node", Path: "/" + strconv.FormatUint(node, 10)}
}

// NodeOf returns the node that a certificate is for.
func NodeOf(cert *x509.Certificate) (uint64, error) {
	var found *url.URL
	for _, u := range cert.URIs {
		if u.Scheme != "hermod" {
			continue
		}
		if found != nil {
			return 0, fmt.Errorf("peer: the certificate is for %s and %s; it must name one node", found, u)
		}
		found = u
	}
	if found == nil {
		return 0, errors.New("peer: the certificate names no node; it needs the URI hermod://node/<id>")
	}
	if len(found.Path) > 1 {
		node, err := strconv.ParseUint(found.Path[1:], 10, 64)
		if err == nil && node != 0 && *found == *NodeURI(node) {
			return node, nil
		}
	}
	return 0, fmt.Errorf("peer: the certificate is for %s; a node's URI is hermod://node/<id>", found)
}

// LoadIdentity reads PEM files: the certificates of the cluster's authority,
// this node's certificate (its chain behind it) and its key.
func LoadIdentity(ca, cert, key string) (Identity, error) {
	raw, err := os.ReadFile(ca)
	if err != nil {
		return Identity{}, fmt.Errorf("peer: the cluster's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return Identity{}, fmt.Errorf("peer: %s has no certificate in it", ca)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return Identity{}, fmt.Errorf("peer: this node's certificate and key: %w", err)
	}
	return Identity{CA: pool, Certificate: pair}, nil
}

// Check says why other nodes would not accept id as that of node.
func (id Identity) Check(node uint64, now time.Time) error {
	if id.CA == nil {
		return errors.New("peer: Identity.CA is missing")
	}
	leaf, err := id.leaf()
	if err != nil {
		return err
	}
	if err := id.prove([]*x509.Certificate{leaf}, node, x509.ExtKeyUsageAny, now); err != nil {
		return err
	}
	for usage, name := range map[x509.ExtKeyUsage]string{
		x509.ExtKeyUsageServerAuth: "server", x509.ExtKeyUsageClientAuth: "client",
	} {
		if err := id.prove([]*x509.Certificate{leaf}, node, usage, now); err != nil {
			return fmt.Errorf("%w (it must be good for %s authentication)", err, name)
		}
	}
	return nil
}

func (id Identity) leaf() (*x509.Certificate, error) {
	switch {
	case id.Certificate.Leaf != nil:
		return id.Certificate.Leaf, nil
	case len(id.Certificate.Certificate) == 0:
		return nil, errors.New("peer: Identity.Certificate is missing")
	}
	leaf, err := x509.ParseCertificate(id.Certificate.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("peer: this node's certificate: %w", err)
	}
	return leaf, nil
}

// prove says why a chain, leaf first, does not prove node.
func (id Identity) prove(chain []*x509.Certificate, node uint64, usage x509.ExtKeyUsage, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("peer: no certificate was shown")
	}
	opts := x509.VerifyOptions{
		Roots: id.CA, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return fmt.Errorf("peer: certificate: %w", err)
	}
	got, err := NodeOf(chain[0])
	if err != nil {
		return err
	}
	if got != node {
		return fmt.Errorf("peer: the certificate is for node %d, not %d", got, node)
	}
	return nil
}

// client is for dialling node. The standard check is for host names, which
// nodes do not have; prove replaces it as a whole.
func (id Identity) client(node uint64) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn},
		Certificates: []tls.Certificate{id.Certificate},
		// Small records at first are for browsers that wait for the first byte.
		DynamicRecordSizingDisabled: true,
		InsecureSkipVerify:          true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return id.prove(cs.PeerCertificates, node, x509.ExtKeyUsageServerAuth, time.Now())
		},
	}
}

// server is for accepting any node of the fleet. Without tickets every
// connection shows its certificate anew.
func (id Identity) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn},
		Certificates: []tls.Certificate{id.Certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: id.CA,
		SessionTicketsDisabled: true,
	}
}
