package main

import (
	"os"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

// Settings is embedded by the commands that work on what the server works on:
// they read its configuration.
type Settings struct {
	Config string `type:"path" help:"The server's configuration file (hermod.toml, if there is one)."`
}

// load reads the configuration as the server does, environment included.
func (s *Settings) load() (config.Config, error) { return config.Load(s.Config, os.Environ()) }

// log is for what the parts of the server say while a command uses them.
func (s *Settings) log() zerolog.Logger {
	return zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, NoColor: !term.IsTerminal(int(os.Stderr.Fd())), PartsExclude: []string{zerolog.TimestampFieldName}}).Level(zerolog.InfoLevel)
}
