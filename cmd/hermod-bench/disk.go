package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hermod-im/hermod/bench"
)

type diskCmd struct {
	Dir      string        `default:"." type:"existingdir" help:"Folder on the disk to measure."`
	Rate     float64       `default:"500" help:"Writes per second."`
	Size     int           `default:"700" help:"Bytes of a write; a message costs the log about 700."`
	Duration time.Duration `default:"10s" help:"How long."`
}

// Run prints what one durable write costs without any server.
func (c *diskCmd) Run(ctx context.Context, ui *console) error {
	lat, err := bench.Disk(ctx, bench.DiskConfig{Dir: c.Dir, Rate: c.Rate, Size: c.Size, Duration: c.Duration})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(ui.out, "write + fdatasync   p50 %d µs  p90 %d µs  p99 %d µs  p99.9 %d µs  max %d µs (%d writes of %d bytes)\n",
		lat.P50, lat.P90, lat.P99, lat.P999, lat.Max, lat.Count, c.Size)
	return err
}
