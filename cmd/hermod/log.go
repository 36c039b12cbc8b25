package main

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"
)

// newLog writes to w: for people on a terminal, as JSON lines for machines.
func newLog(cfg LogConfig, w *os.File) (zerolog.Logger, error) {
	level, err := zerolog.ParseLevel(cfg.Level)
	if err != nil {
		return zerolog.Nop(), err
	}
	var out io.Writer = w
	if cfg.Format == "console" || cfg.Format == "auto" && term.IsTerminal(int(w.Fd())) {
		out = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(out).Level(level).With().Timestamp().Logger(), nil
}
