package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// nodeURI begins the name of a node in its certificate; its number follows.
const nodeURI = "hermod://node/"

// NodeURI is the name of a node, as its certificate has it.
func NodeURI(node uint64) *url.URL {
	return &url.URL{Scheme: "hermod", Host: "node", Path: "/" + strconv.FormatUint(node, 10)}
}

// Credentials are what a node proves itself with to the others.
type Credentials struct {
	// Node is the number that the certificate was made for.
	Node uint64
	Cert tls.Certificate
	CA   *x509.CertPool
}

// Credentials reads the files that [cluster] names. An error says what is
// wrong with them; a certificate that has run out is one.
func (cc *ClusterConfig) Credentials() (Credentials, error) {
	var cr Credentials
	if cc.CA == "" || cc.Cert == "" || cc.Key == "" {
		return cr, errors.New("needs ca, cert and key; «hermodctl cluster ca» and «hermodctl cluster cert» make them")
	}
	var err error
	if cr.CA, err = caPool(cc.CA); err != nil {
		return cr, fmt.Errorf("ca: %w", err)
	}
	if cr.Cert, err = tls.LoadX509KeyPair(cc.Cert, cc.Key); err != nil {
		return cr, fmt.Errorf("cert and key: %w", err)
	}
	leaf := cr.Cert.Leaf
	if cr.Node, err = NodeOf(leaf); err != nil {
		return cr, fmt.Errorf("cert: %s: %w", cc.Cert, err)
	}
	between := x509.NewCertPool()
	for _, der := range cr.Cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: cr.CA, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use}})
		if err != nil {
			return cr, fmt.Errorf("cert: the other nodes would refuse %s: %w", cc.Cert, err)
		}
	}
	return cr, nil
}

// NodeOf returns the number of the node that a certificate was made for.
func NodeOf(cert *x509.Certificate) (uint64, error) {
	for _, u := range cert.URIs {
		if number, ok := strings.CutPrefix(u.String(), nodeURI); ok {
			n, err := strconv.ParseUint(number, 10, 63)
			if err == nil && n > 0 {
				return n, nil
			}
		}
	}
	return 0, errors.New("names no node; «hermodctl cluster cert» makes one that does")
}

// Advertised is the address at which the other nodes reach this one.
func (cc *ClusterConfig) Advertised() (string, error) {
	addr := cc.Advertise
	if addr == "" {
		addr = cc.Listen
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is no address; write host:port, like 10.0.0.1:5190", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return "", fmt.Errorf("cannot be taken from cluster.listen (%s), which names no host; write the address at which the other nodes reach this one, like 10.0.0.1:5190", addr)
	}
	if port == "0" && cc.Advertise != "" {
		return "", fmt.Errorf("%q has no port that a node could connect to", addr)
	}
	return addr, nil
}
