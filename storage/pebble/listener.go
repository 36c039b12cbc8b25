package pebble

import (
	"fmt"
	"sync/atomic"

	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"
)

// listener turns Pebble's log and events into ours: warnings and errors only.
type listener struct {
	log    zerolog.Logger
	fatal  func(error)
	stalls atomic.Uint64
	slow   atomic.Uint64
}

// Infof drops what Pebble tells of its routine.
func (l *listener) Infof(string, ...any) {}

// Errorf logs.
func (l *listener) Errorf(format string, args ...any) { l.log.Error().Msgf(format, args...) }

// Fatalf ends the process: Pebble's commit pipeline cannot go on after it, and
// relies on its not returning.
func (l *listener) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.fatal(err)
	panic(err)
}

func (l *listener) diskSlow(i vfs.DiskSlowInfo) {
	l.slow.Add(1)
	l.log.Warn().Str("path", i.Path).Stringer("took", i.Duration).Msg("the disk is slow")
}

func (l *listener) events() *crdb.EventListener {
	return &crdb.EventListener{
		BackgroundError: func(err error) {
			l.log.Error().Err(err).Msg("flush or compaction failed, will be tried again")
		},
		DataCorruption: func(i crdb.DataCorruptionInfo) {
			l.log.Error().Str("path", i.Path).Err(i.Details).Msg("a data file is corrupt: restore the shard from a backup")
		},
		DiskSlow: l.diskSlow,
		WriteStallBegin: func(i crdb.WriteStallBeginInfo) {
			l.stalls.Add(1)
			l.log.Warn().Str("reason", i.Reason).Msg("writes wait for flushes or compactions to catch up")
		},
		WriteStallEnd: func() { l.log.Warn().Msg("writes go on") },
		LowDiskSpace: func(i crdb.LowDiskSpaceInfo) {
			l.log.Warn().Uint64("free_bytes", i.AvailBytes).Uint64("total_bytes", i.TotalBytes).Msg("disk space is low")
		},
	}
}
