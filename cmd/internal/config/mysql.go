package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/go-sql-driver/mysql"
)

// Database is where a MySQL shard lives.
type Database struct {
	// DSN is the driver's; it holds the password.
	DSN string
	// TLS is nil for a connection in plaintext.
	TLS *tls.Config
	// Where names server and database, without secrets.
	Where string
}

// Database returns how to reach a MySQL shard. Off loopback that is with TLS
// and a certificate that is checked, unless the shard is called insecure.
func (sc *ShardConfig) Database() (Database, error) {
	dsn := sc.DSN
	if sc.DSNFile != "" {
		if sc.DSN != "" {
			return Database{}, errors.New("dsn and dsn_file are both set; keep one")
		}
		var err error
		if dsn, err = readSecret(sc.DSNFile); err != nil {
			return Database{}, fmt.Errorf("dsn_file: %w", err)
		}
	}
	if dsn == "" {
		return Database{}, errors.New("has no database; set dsn_file (or dsn), like hermod:secret@tcp(10.0.0.5:3306)/hermod_1")
	}
	d, err := mysql.ParseDSN(dsn)
	if err != nil {
		// The driver's errors quote the DSN at times.
		return Database{}, errors.New("the DSN cannot be read; write it like hermod:secret@tcp(10.0.0.5:3306)/hermod_1, special characters in parameters as %XX")
	}
	if d.DBName == "" {
		return Database{}, fmt.Errorf("the DSN names no database; end it in /hermod_%d", sc.ID)
	}
	out := Database{DSN: dsn, Where: d.Addr + "/" + d.DBName}
	if sc.local(d) {
		return out, nil
	}
	out.TLS, err = sc.encryption(d)
	return out, err
}

// local reports whether nothing of the connection leaves this machine.
func (sc *ShardConfig) local(d *mysql.Config) bool {
	if d.Net == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(d.Addr)
	return err == nil && IsLoopback(host) && d.TLSConfig == "" && sc.CA == ""
}

// encryption is the TLS of a connection that leaves the machine. The driver's
// tls=preferred and skip-verify let anyone on the way read along; they are not
// taken for encryption.
func (sc *ShardConfig) encryption(d *mysql.Config) (*tls.Config, error) {
	if sc.Insecure {
		return d.TLS, nil
	}
	switch d.TLSConfig {
	case "", "true":
	default:
		return nil, fmt.Errorf("tls=%s in the DSN does not protect against somebody on the way. Remove it, and name the CA of the database in ca; or, if you accept that, set insecure = true", d.TLSConfig)
	}
	roots, err := caPool(sc.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	host, _, err := net.SplitHostPort(d.Addr)
	if err != nil {
		return nil, fmt.Errorf("%q is no address; write tcp(host:3306)", d.Addr)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host}, nil
}

// caPool reads a PEM file of CAs; no file is the system's, which is nil.
func caPool(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}
