package config

import (
	"crypto/tls"
	"fmt"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// Options returns where Redis is and how to get in. How patient the client is
// with it is the directory's business (router.DialRedis).
func (r *RedisConfig) Options() (redis.UniversalOptions, error) {
	o := redis.UniversalOptions{
		Addrs:         r.Addrs,
		MasterName:    r.Master,
		IsClusterMode: r.Cluster || len(r.Addrs) > 1 && r.Master == "",
		Username:      r.User,
		ClientName:    "hermod",
	}
	var err error
	if r.PasswordFile != "" {
		if o.Password, err = readSecret(r.PasswordFile); err != nil {
			return o, fmt.Errorf("password_file: %w", err)
		}
	}
	if r.TLS {
		roots, err := caPool(r.CA)
		if err != nil {
			return o, fmt.Errorf("ca: %w", err)
		}
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	return o, nil
}

// SilenceRedis keeps the client library from writing to standard error. It is
// the process's: main calls it.
func SilenceRedis() { logging.Disable() }
