package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// DiskConfig is the disk probe: what an ack waits for at the least.
type DiskConfig struct {
	// Dir is on the disk to measure, the server's data folder for example. The
	// probe's file is removed at the end.
	Dir string
	// Rate is writes per second, Size the bytes of each.
	Rate float64
	Size int
	// Duration of the measurement.
	Duration time.Duration
}

// Validate names the first value that cannot work.
func (c *DiskConfig) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("bench: Dir is missing: name a folder on the disk to measure")
	case c.Rate <= 0 || c.Rate > 100_000:
		return fmt.Errorf("bench: Rate is %v, must be above 0 and at most 100,000", c.Rate)
	case c.Size < 1 || c.Size > 1<<20:
		return fmt.Errorf("bench: Size is %d, must be 1 … %d", c.Size, 1<<20)
	case c.Duration <= 0:
		return errors.New("bench: Duration must be above 0")
	}
	return nil
}

// Disk appends to a file of its own, as a write-ahead log does, and forces each
// write to the disk before it begins the next. The latencies are those of one
// write and its fdatasync: no server can acknowledge sooner on this disk.
func Disk(ctx context.Context, cfg DiskConfig) (lat Latency, err error) {
	if err := cfg.Validate(); err != nil {
		return lat, err
	}
	f, err := os.CreateTemp(cfg.Dir, "hermod-bench-disk-*")
	if err != nil {
		return lat, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	writes := int64(cfg.Rate * cfg.Duration.Seconds())
	if err := unix.Fallocate(int(f.Fd()), 0, 0, writes*int64(cfg.Size)); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return lat, fmt.Errorf("bench: room for the probe's file: %w", err)
	}
	rec := newRecorder()
	buf := make([]byte, cfg.Size)
	tick := time.NewTicker(time.Duration(float64(time.Second) / cfg.Rate))
	defer tick.Stop()
	for n := range writes {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return rec.latency(), ctx.Err()
		}
		began := time.Now()
		if _, err := f.WriteAt(buf, n*int64(cfg.Size)); err != nil {
			return lat, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return lat, fmt.Errorf("bench: fdatasync: %w", err)
		}
		rec.add(time.Since(began))
	}
	return rec.latency(), nil
}
