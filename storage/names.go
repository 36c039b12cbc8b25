package storage

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// metaNameKey is the meta row with the key that maps names to slots.
const metaNameKey = "name_key"

// openNameKey makes the key once, or compares what the shards have. Were two
// shards to disagree, one name could be registered twice.
func (s *Store) openNameKey(ctx context.Context) error {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("storage: making the name key: %w", err)
	}
	// A key that any shard has goes before a new one.
	for _, sh := range s.shards {
		var row MetaRow
		err := sh.View(ctx, nil, func(sn Snap) (err error) {
			row, err = sn.Meta(metaNameKey)
			return err
		})
		if err != nil {
			return fmt.Errorf("storage: shard %d: reading the name key: %w", sh.ID(), err)
		}
		if row.Found {
			key = row.Value
			break
		}
	}
	for i, sh := range s.shards {
		var have []byte
		plan := func(l *Locked) (*Writes, error) {
			if l.Meta[0].Found {
				have = append([]byte(nil), l.Meta[0].Value...)
				return &Writes{}, nil
			}
			have = key
			return &Writes{Meta: []MetaRow{{Name: metaNameKey, Value: key, Found: true}}}, nil
		}
		if err := commitNow(ctx, sh.Shard, &Locks{Meta: []string{metaNameKey}}, plan); err != nil {
			return fmt.Errorf("storage: shard %d: writing the name key: %w", sh.ID(), err)
		}
		if i == 0 {
			key = have // of nodes that start at once the first one's stays
		}
		if !hmac.Equal(key, have) {
			return fmt.Errorf("%w: shards %d and %d have different name keys: they belong to different installations; configure shards of one only",
				ErrInvalid, s.shards[0].ID(), sh.ID())
		}
	}
	s.nameKey = key
	return nil
}

// NameSlot returns the slot of a normalized account name: the one that the
// user's id must be made in. It is keyed, so that nobody can choose names that
// all land on one shard.
func (s *Store) NameSlot(name string) Slot {
	h := hmac.New(sha256.New, s.nameKey)
	h.Write([]byte(name))
	return Slot(binary.BigEndian.Uint16(h.Sum(nil)) >> 4)
}
