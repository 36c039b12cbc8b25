package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

// newLog writes to w: for people on a terminal, as JSON lines for machines.
func newLog(cfg config.LogConfig, w *os.File) zerolog.Logger {
	var out io.Writer = w
	if cfg.Format == "console" || cfg.Format == "auto" && term.IsTerminal(int(w.Fd())) {
		out = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(out).With().Timestamp().Logger()
}

// setLogLevel sets the level of the process; only main does, so that it can be
// changed while running.
func setLogLevel(level string) error {
	l, err := zerolog.ParseLevel(level)
	if err == nil {
		zerolog.SetGlobalLevel(l)
	}
	return err
}
