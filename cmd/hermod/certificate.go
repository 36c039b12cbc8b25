package main

import (
	"crypto/tls"
	"sync/atomic"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

// certificate is the server's key pair, replaced as a whole on SIGHUP.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

// load reads the pair; on an error the one in use stays.
func (c *certificate) load(cfg config.TLSConfig) error {
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return err
	}
	c.current.Store(&pair)
	return nil
}

// get implements tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
