package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hermod-im/hermod/bench/torture"
	"github.com/hermod-im/hermod/storage"
)

// stores reads shards of either engine, without the server's rules.
type stores struct {
	shards []storage.Shard
	owner  [storage.Slots]storage.Shard
	count  func(context.Context) (torture.Totals, error)
}

// openStores takes the shards over. count counts all their rows.
func openStores(ctx context.Context, shards []storage.Shard, count func(context.Context) (torture.Totals, error)) (*stores, error) {
	s := &stores{shards: shards, count: count}
	for _, sh := range shards {
		err := sh.View(ctx, nil, func(sn storage.Snap) error {
			rows, err := sn.SlotRows()
			for _, r := range rows {
				if r.State == storage.SlotOwned {
					s.owner[r.Slot] = sh
				}
			}
			return err
		})
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close closes the shards.
func (s *stores) Close() (err error) {
	for _, sh := range s.shards {
		err = errors.Join(err, sh.Close())
	}
	return err
}

// view reads what is kept under a slot, in one snapshot.
func (s *stores) view(ctx context.Context, slot storage.Slot, read func(storage.Snap) error) error {
	sh := s.owner[slot]
	if sh == nil {
		return fmt.Errorf("slot %d has no owner", slot)
	}
	return sh.View(ctx, nil, read)
}

// Rows of one read.
const pageRows, pageBytes = 2000, 8 << 20

// Inbox reads everything of a user.
func (s *stores) Inbox(ctx context.Context, user int64) (in torture.Inbox, ok bool, err error) {
	id := storage.UserID(user)
	err = s.view(ctx, id.Slot(), func(sn storage.Snap) error {
		in, ok = torture.Inbox{User: user}, false // a View may run again
		h, err := sn.User(id)
		if err != nil || !h.Found {
			return err
		}
		ok = true
		in.Seq, in.Floor, in.Epoch = h.Seq, h.Floor, h.InboxEpoch
		for after := uint64(0); ; {
			rows, err := sn.Inbox(id, after, pageRows)
			if err != nil {
				return err
			}
			for i := range rows {
				r := rowOf(&rows[i].Entry)
				r.Seq = rows[i].Seq
				in.Rows = append(in.Rows, r)
			}
			if len(rows) < pageRows {
				break
			}
			after = rows[len(rows)-1].Seq
		}
		in.Views, err = views(sn, id)
		return err
	})
	return in, ok, err
}

func views(sn storage.Snap, user storage.UserID) (all []torture.View, err error) {
	for after := (*storage.ConvKey)(nil); ; {
		page, err := sn.UserConvs(user, after, pageRows)
		if err != nil {
			return nil, err
		}
		for _, c := range page {
			all = append(all, torture.View{Conv: torture.ConvKey(c.Key.Conv), HeadRev: c.HeadRev, Head: c.Head, Read: c.Read})
		}
		if len(page) < pageRows {
			return all, nil
		}
		after = &page[len(page)-1].Key.Conv
	}
}

// Log reads a conversation.
func (s *stores) Log(ctx context.Context, conv torture.ConvKey) (log torture.Log, err error) {
	key := storage.ConvKey(conv)
	err = s.view(ctx, key.Home().Slot(), func(sn storage.Snap) error {
		h, err := sn.Conv(key)
		if err != nil {
			return err
		}
		log = torture.Log{Conv: conv, Rev: h.Rev, ConvSeq: h.ConvSeq}
		for from := uint64(1); ; {
			page, err := sn.Entries(key, from, math.MaxInt64, pageRows, pageBytes, false)
			if err != nil || len(page) == 0 {
				return err
			}
			for i := range page {
				log.Entries = append(log.Entries, rowOf(&page[i]))
			}
			from = page[len(page)-1].Rev + 1
		}
	})
	return log, err
}

// Totals counts the rows of all shards.
func (s *stores) Totals(ctx context.Context) (torture.Totals, error) { return s.count(ctx) }

func rowOf(e *storage.Entry) torture.Row {
	return torture.Row{
		Conv: torture.ConvKey(e.Conv), Rev: e.Rev, ConvSeq: e.ConvSeq, Time: e.Time,
		Sender: int64(e.Sender), Kind: e.Kind, SendID: e.SendID, Body: e.Body,
	}
}

// allSlots are those that there are.
func allSlots(context.Context, storage.Shard) (slots []storage.Slot, err error) {
	for slot := range storage.Slot(storage.Slots) {
		slots = append(slots, slot)
	}
	return slots, nil
}

// peopled are the slots of a shard that have users: the few, in a short run.
func peopled(ctx context.Context, sh storage.Shard) (slots []storage.Slot, err error) {
	var owned []storage.SlotRef
	err = sh.View(ctx, nil, func(sn storage.Snap) error {
		rows, err := sn.SlotRows()
		for _, r := range rows {
			if r.State == storage.SlotOwned {
				owned = append(owned, storage.SlotRef{Slot: r.Slot, Epoch: r.Epoch})
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = sh.View(ctx, owned, func(sn storage.Snap) error {
		users, err := sn.UsersFrom(0, math.MaxInt32)
		for _, u := range users {
			slots = append(slots, u.Slot())
		}
		return err
	})
	return slices.Compact(slots), err
}

// countByExport counts what a shard exports, of the slots that are told.
func countByExport(ctx context.Context, shards []storage.Shard, which func(context.Context, storage.Shard) ([]storage.Slot, error)) (n torture.Totals, err error) {
	for _, sh := range shards {
		slots, err := which(ctx, sh)
		if err == nil {
			err = countSlots(ctx, sh, slots, &n)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func countSlots(ctx context.Context, sh storage.Shard, slots []storage.Slot, n *torture.Totals) error {
	for _, slot := range slots {
		for after := []byte(nil); ; {
			var page storage.Writes
			err := sh.View(ctx, nil, func(sn storage.Snap) (err error) {
				page, after, err = sn.Export(slot, after, pageRows)
				return err
			})
			if err != nil {
				return err
			}
			n.Inbox += len(page.Inbox)
			n.Entries += len(page.Entries)
			n.Tasks += len(page.Tasks)
			if after == nil {
				break
			}
		}
	}
	return nil
}

// copyLogs copies every *.log below from into to, named by its path.
func copyLogs(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".log") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, strings.ReplaceAll(name, string(filepath.Separator), "-")), text, 0o600)
	})
}
