// Command hermod is the server: configuration, and the only place where
// everything is wired together. With no configuration it serves a laptop:
// plaintext on loopback, durable data in ./data.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

// version is set by the linker.
var version = "unknown"

type cli struct {
	Config string   `type:"path" help:"Configuration file (hermod.toml, if there is one)."`
	Run    runCmd   `cmd:"" default:"1" help:"Serve until SIGINT or SIGTERM; SIGHUP reads certificates, keys, limits and log level again."`
	Check  checkCmd `cmd:"" help:"Say what would run, and what is wrong with it."`

	Version kong.VersionFlag `help:"Print the version."`
}

type runCmd struct{}

type checkCmd struct {
	Defaults bool `help:"Print every key with its default instead."`
}

func main() {
	var c cli
	ctx := kong.Parse(&c,
		kong.Name("hermod"),
		kong.Description("Instant-messaging server. Every key of the configuration can be set as HERMOD_SECTION_KEY."),
		kong.Vars{"version": version},
		kong.BindTo(os.Stdout, (*io.Writer)(nil)),
		kong.UsageOnError(),
	)
	ctx.FatalIfErrorf(ctx.Run(&c))
}

// Run prints the settings and everything that Check finds.
func (cmd *checkCmd) Run(c *cli, out io.Writer) error {
	if cmd.Defaults {
		cfg := config.Default()
		cfg.Explain(out)
		return nil
	}
	cfg, err := config.Load(c.Config, environ())
	if err != nil {
		return err
	}
	cfg.Explain(out)
	fmt.Fprintln(out)
	ps := cfg.Check()
	for _, p := range ps {
		fmt.Fprintln(out, p)
	}
	if ps.Fatal() {
		return errors.New("hermod would not start")
	}
	fmt.Fprintln(out, "hermod would start")
	return nil
}

// Run serves until a signal asks it to stop.
func (cmd *runCmd) Run(c *cli) error {
	load := func() (config.Config, error) { return config.Load(c.Config, environ()) }
	cfg, err := load()
	if err != nil {
		return err
	}
	if err := setLogLevel(cfg.Log.Level); err != nil {
		return fmt.Errorf("log.level: %w", err)
	}
	spareProcessors()
	config.SilenceRedis()
	log := newLog(cfg.Log, os.Stderr)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	s, err := Start(cfg, log)
	if err != nil {
		return err
	}
	s.greet(os.Stdout) // the log goes to stderr
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				if cfg, err := load(); err != nil {
					log.Error().Err(err).Msg("the configuration cannot be read; everything stays as it was")
				} else if s.Reload(cfg) {
					_ = setLogLevel(cfg.Log.Level) // Reload has checked it
				}
				continue
			}
			log.Info().Stringer("signal", sig).Stringer("window", cfg.Drain.Window.Std()).Msg("draining; a second signal does not wait")
			return s.Shutdown(signals)
		case <-s.edge.Done():
			return errors.Join(s.edge.Err(), s.Close())
		}
	}
}
