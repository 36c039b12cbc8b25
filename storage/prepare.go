package storage

import (
	"context"
	"fmt"
	"slices"

	"github.com/rs/zerolog"
)

// Prepare makes shards ready for their first Store: slots are divided evenly if
// no shard owns any, and all get one name key. Shards that are ready stay as
// they are, so it may be repeated, after a failure or when a shard was added;
// one that was added owns nothing until slots move there. It refuses shards of
// different installations.
func Prepare(ctx context.Context, shards []Shard, log zerolog.Logger) error {
	if len(shards) == 0 {
		return fmt.Errorf("%w: no shards to prepare", ErrInvalid)
	}
	s := &Store{log: log}
	for _, sh := range shards {
		s.shards = append(s.shards, &shard{Shard: sh})
	}
	slices.SortFunc(s.shards, func(a, b *shard) int { return int(int64(a.ID()) - int64(b.ID())) })
	for i, sh := range s.shards {
		sh.idx = i
	}
	// The key first: it tells a foreign shard before that one is given slots.
	if err := s.openNameKey(ctx); err != nil {
		return err
	}
	return s.claimSlots(ctx)
}
