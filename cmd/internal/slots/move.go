package slots

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
)

// Job says what is to be moved where.
type Job struct {
	// Slots are numbers and ranges: "0-1023,2000". Instead of them, Count
	// slots of shard From, its last ones; 0: all of them.
	Slots       string
	From, Count int
	To          int
	// Who is told to somebody else who would move slots meanwhile.
	Who string
}

// Check finds what makes no sense, without looking at a shard.
func (j *Job) Check() error {
	switch {
	case j.To <= 0:
		return errors.New("say where the slots go: --to SHARD")
	case (j.Slots == "") == (j.From == 0):
		return errors.New("say which slots move: either numbers and ranges, like 0-1023,2000, or --from SHARD")
	case j.Slots != "" && j.Count != 0, j.Count < 0:
		return errors.New("--count goes with --from, and is above 0")
	case j.From == j.To:
		return fmt.Errorf("the slots of shard %d are on shard %d already", j.From, j.To)
	}
	_, err := parse(j.Slots)
	return err
}

// parse reads "0-1023,2000".
func parse(text string) (out []storage.Slot, err error) {
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from > to || to >= storage.Slots {
			return nil, fmt.Errorf("%q is no slot (0 to %d) or range of slots like 0-1023", part, storage.Slots-1)
		}
		for slot := from; slot <= to; slot++ {
			out = append(out, storage.Slot(slot))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Move does the job, and tells out slot by slot.
func Move(ctx context.Context, shards []storage.Shard, j Job, log zerolog.Logger, out io.Writer) (err error) {
	if err := j.Check(); err != nil {
		return err
	}
	todo, err := pick(ctx, shards, j)
	if err != nil {
		return err
	}
	if err := known(ctx, shards, storage.ShardID(j.To)); err != nil {
		return err
	}
	m, err := storage.NewMover(storage.MoverOptions{Shards: shards, Who: j.Who, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	began, longest, rows := time.Now(), time.Duration(0), uint64(0)
	for i, slot := range todo {
		res, err := m.Move(ctx, slot, storage.ShardID(j.To))
		if err != nil {
			return fmt.Errorf("slot %d, after %d of %d slots: %w", slot, i, len(todo), err)
		}
		if res.Already {
			fmt.Fprintf(out, "slot %d is on shard %d\n", slot, j.To)
			continue
		}
		longest, rows = max(longest, res.Frozen), rows+res.Rows.Total()
		fmt.Fprintf(out, "slot %d: shard %d → %d, %d rows, its users waited %v\n", slot, res.From, res.To, res.Rows.Total(), res.Frozen.Round(time.Millisecond))
	}
	fmt.Fprintf(out, "%d slots are on shard %d: %d rows copied and compared in %v; no user waited longer than %v\n",
		len(todo), j.To, rows, time.Since(began).Round(time.Millisecond), longest.Round(time.Millisecond))
	return nil
}

// pick lists the slots of a job.
func pick(ctx context.Context, shards []storage.Shard, j Job) ([]storage.Slot, error) {
	if j.Slots != "" {
		return parse(j.Slots)
	}
	at := slices.IndexFunc(shards, func(sh storage.Shard) bool { return int(sh.ID()) == j.From })
	if at < 0 {
		return nil, fmt.Errorf("there is no shard %d in the configuration", j.From)
	}
	rows, err := slotRows(ctx, shards[at])
	if err != nil {
		return nil, err
	}
	var out []storage.Slot
	for _, r := range rows {
		if r.State != storage.SlotAbsent {
			out = append(out, r.Slot)
		}
	}
	if j.Count > len(out) {
		return nil, fmt.Errorf("shard %d has %d slots, not %d", j.From, len(out), j.Count)
	}
	if j.Count > 0 {
		out = out[len(out)-j.Count:]
	}
	return out, nil
}

func slotRows(ctx context.Context, sh storage.Shard) (rows []storage.SlotRow, err error) {
	err = sh.View(ctx, nil, func(sn storage.Snap) (err error) {
		rows, err = sn.SlotRows()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("shard %d: reading its slots: %w", sh.ID(), err)
	}
	return rows, nil
}
