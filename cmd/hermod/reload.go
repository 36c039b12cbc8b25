package main

import (
	"errors"
	"reflect"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/conn/chat"
)

// Reload takes over what can change while running. What cannot be taken over
// stays, and the log says so; ok is false if the whole was refused.
func (s *Server) Reload(cfg config.Config) (ok bool) {
	ps := cfg.Check()
	for _, p := range ps {
		level := zerolog.WarnLevel
		if p.Fatal {
			level = zerolog.ErrorLevel
		}
		s.log.WithLevel(level).Str("key", p.Key).Msg(p.Text)
	}
	if ps.Fatal() {
		s.log.Error().Msg("the new configuration has errors; everything stays as it was")
		return false
	}
	s.restartFor(cfg)
	var errs []error
	if cfg.Listen.TLS != "" && s.cfg.Listen.TLS != "" {
		errs = append(errs, s.cert.load(cfg.TLS))
	}
	if s.fleet != nil && cfg.Cluster.Listen != "" {
		id, _, err := cfg.Cluster.Identity()
		if err == nil {
			err = s.fleet.links.SetIdentity(id)
		}
		errs = append(errs, err)
	}
	errs = append(errs,
		s.chat.ReloadKeys(),
		s.edge.Reload(nil, edgeLimits(cfg.Limits)),
		s.chat.SetLimits(chatLimits(cfg.Limits)))
	if err := errors.Join(errs...); err != nil {
		s.log.Error().Err(err).Msg("reload: what failed stays as it was")
		return true
	}
	s.log.Info().Msg("reloaded certificates, keys and limits")
	return true
}

// restartFor says which sections have changed that a reload does not reach.
func (s *Server) restartFor(cfg config.Config) {
	// What a reload takes over, it takes over from the files.
	cfg.Cluster.CA, cfg.Cluster.Cert, cfg.Cluster.Key = s.cfg.Cluster.CA, s.cfg.Cluster.Cert, s.cfg.Cluster.Key
	for section, v := range map[string][2]any{
		"listen": {s.cfg.Listen, cfg.Listen}, "admin": {s.cfg.Admin, cfg.Admin}, "data": {s.cfg.Data, cfg.Data},
		"auth": {s.cfg.Auth, cfg.Auth}, "storage": {s.cfg.Storage, cfg.Storage}, "redis": {s.cfg.Redis, cfg.Redis},
		"cluster": {s.cfg.Cluster, cfg.Cluster}, "drain": {s.cfg.Drain, cfg.Drain},
	} {
		if !reflect.DeepEqual(v[0], v[1]) {
			s.log.Warn().Str("section", section).Msg("has changed; that takes effect at the next start")
		}
	}
}

// edgeLimits and chatLimits split the configuration's limits.
func edgeLimits(l config.LimitsConfig) conn.Limits {
	return conn.Limits{
		FirstByte: l.FirstByte.Std(), Login: l.Login.Std(), PartialFrame: l.PartialFrame.Std(),
		MaxInFlight: l.MaxInFlight, FrameRate: l.FramesPerSecond,
		OutboxBytes: l.OutboxKiB << 10, OutboxStall: l.OutboxStall.Std(),
		MaxConns: l.MaxConns, PerIPRate: l.NewConnsPerIP, PerIPLive: l.ConnsPerIP,
		Handshakes: l.HandshakePending, Exempt: config.Nets(l.Exempt),
	}
}

func chatLimits(l config.LimitsConfig) chat.Limits {
	return chat.Limits{
		WindowEvents: l.EventWindow, WindowBytes: l.OutboxKiB << 10 / 2,
		MaxInFlight: l.MaxInFlight, SyncsPerSecond: l.SyncsPerSecond,
		RegistersPerMinute: l.RegistersPerIP,
	}
}
