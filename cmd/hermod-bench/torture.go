package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/hermod-im/hermod/bench/torture"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
	"github.com/hermod-im/hermod/cmd/internal/config"
)

type tortureCmd struct {
	Binary    string        `type:"path" help:"The server to torture; default: hermod beside this program."`
	Dir       string        `type:"path" help:"Where its data goes, on a disk like the real one. Default: a temporary folder, removed at the end."`
	Single    bool          `help:"One node with the embedded engine, instead of a cluster."`
	Disk      string        `help:"With --single: «small», a disk that can be full, or «lossy», one that can lose power; both in memory."`
	SmallDisk int64         `help:"Put the first database on a disk in memory of so many bytes, which can be full."`
	Clocks    bool          `help:"The server was built with the tag torture: set its clocks wrong, too."`
	Previous  string        `type:"path" help:"A server of an earlier version, to run beside; with --clocks built with the tag torture, too."`
	Seed      uint64        `help:"The same seed draws the same schedule of faults; 0: a random one, which is told."`
	Duration  time.Duration `default:"1m" help:"Least time of torture, without start and check."`
	Faults    int           `default:"10" help:"How many faults strike."`
	Messages  int           `help:"Go on until so many messages are acknowledged."`
	Only      []string      `name:"faults-only" help:"Strike with these only, like node-kill,redis-flush."`
	People    int           `default:"60" help:"Users who write to each other, with one to three devices each."`
	Rate      float64       `default:"200" help:"Messages per second that they would like to send."`
	InFlight  int           `default:"8" help:"Most unanswered sends per device."`
	Size      int           `default:"128" help:"Bytes of a message body."`
	NoTimes   bool          `help:"Judge the invariants only, not how long recovery takes: for a busy machine."`
	Evidence  string        `type:"path" default:"." help:"A failed run leaves a folder with all that is known here."`
	JSON      string        `name:"json" type:"path" help:"Write the report to this file."`
}

// system is what a run needs of what it tortures, beside the faults.
type system interface {
	torture.System
	// Close ends everything at once.
	Close() error
}

// Run starts a system of its own, tortures it, and judges it.
func (c *tortureCmd) Run(ctx context.Context, ui *console) (err error) {
	config.SilenceRedis()
	if c.Binary, err = besideMe(c.Binary, "hermod"); err != nil {
		return err
	}
	if err := emptyFolder(c.Dir); err != nil {
		return err
	}
	for c.Seed == 0 {
		c.Seed = rand.Uint64N(1e6)
	}
	fmt.Fprintf(ui.err, "starting a system to torture, seed %d …\n", c.Seed)
	sys, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	rep, err := torture.Run(ctx, c.options(sys, ui))
	ui.endProgress()
	if err != nil {
		return err
	}
	rep.Version = version
	return finish(ui, rep, rep.OK(), c.JSON)
}

// emptyFolder refuses a folder that has something in it: rows of an earlier run
// would be taken for ones that are nobody's.
func emptyFolder(dir string) error {
	if dir == "" {
		return nil
	}
	found, err := os.ReadDir(dir)
	if len(found) > 0 {
		return fmt.Errorf("%s is not empty: a torture begins with no data; name another folder or remove what is there", dir)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (c *tortureCmd) start(ctx context.Context) (system, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if c.Single {
		return startSingle(ctx, c.Binary, c.Dir, func(s *single) { s.kind = c.Disk })
	}
	return startFleet(ctx, c.Binary, c.Dir, func(o *cluster.Options) {
		o.SmallDisk, o.Clocks, o.Previous = c.SmallDisk, c.Clocks, c.Previous
	})
}

func (c *tortureCmd) options(sys system, ui *console) torture.Options {
	return torture.Options{
		System: sys, Seed: c.Seed, Duration: c.Duration, Faults: c.Faults, Messages: c.Messages, Only: c.Only,
		People: c.People, Rate: c.Rate, InFlight: c.InFlight, Size: c.Size,
		Times: !c.NoTimes, Evidence: c.Evidence, Log: ui.log,
		Progress: func(p torture.Progress) { ui.line(p.Phase, p.String()) },
	}
}
