package config

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// redisTimeout bounds every exchange with Redis: a login waits for it.
const redisTimeout = 250 * time.Millisecond

// Options returns what the directory's client connects with. Nothing is
// retried by the client: the router knows what can be had again, and what is
// better dropped than late.
func (r *RedisConfig) Options() (*redis.UniversalOptions, error) {
	o := &redis.UniversalOptions{
		Addrs:         r.Addrs,
		MasterName:    r.Master,
		IsClusterMode: r.Cluster || len(r.Addrs) > 1 && r.Master == "",
		Username:      r.User,
		ClientName:    "hermod",

		ContextTimeoutEnabled: true,
		DialTimeout:           redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout,
		MaxRetries: -1, DialerRetries: 1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if r.PasswordFile != "" {
		var err error
		if o.Password, err = readSecret(r.PasswordFile); err != nil {
			return nil, fmt.Errorf("password_file: %w", err)
		}
	}
	if r.TLS {
		roots, err := caPool(r.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	return o, nil
}
