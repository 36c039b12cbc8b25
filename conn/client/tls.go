package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
)

// alpn is the protocol's name in the TLS handshake.
const alpn = "hermod/1"

// dial connects to endpoint, TLS handshake included.
func (o *Options) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	raw, err := o.DialContext(ctx, "tcp", endpoint)
	if err != nil || o.TLS == nil {
		return raw, err
	}
	conn := tls.Client(raw, o.tlsConfig(endpoint))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// rawConn is the TCP connection under conn.
func rawConn(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		return t.NetConn()
	}
	return conn
}

func (o *Options) tlsConfig(endpoint string) *tls.Config {
	cfg := o.TLS.Clone()
	cfg.MinVersion = tls.VersionTLS13
	cfg.NextProtos = []string{alpn}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(endpoint)
	}
	own := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != alpn {
			return fmt.Errorf("client: the server does not speak %s", alpn)
		}
		if err := o.checkPins(&cs); err != nil {
			return err
		}
		if own != nil {
			return own(cs)
		}
		return nil
	}
	return cfg
}

var errPin = errors.New("client: no certificate of the server matches a pin")

// checkPins looks at verified chains only. What else a server sends along
// proves nothing: anybody can send a copy of the pinned certificate behind his
// own. Without verification, the first certificate is the only one whose key
// the server has shown to have.
func (o *Options) checkPins(cs *tls.ConnectionState) error {
	if len(o.Pins) == 0 {
		return nil
	}
	chains := cs.VerifiedChains
	if len(chains) == 0 && len(cs.PeerCertificates) > 0 {
		chains = [][]*x509.Certificate{cs.PeerCertificates[:1]}
	}
	for _, chain := range chains {
		for _, cert := range chain {
			if slices.Contains(o.Pins, SPKIHash(cert)) {
				return nil
			}
		}
	}
	return errPin
}

// SPKIHash is the pin of a certificate (see Options.Pins).
func SPKIHash(cert *x509.Certificate) [32]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}
