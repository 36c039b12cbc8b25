package slots

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/hermod-im/hermod/storage"
)

// Status shows which slots each shard has, and says what to do about a move
// that was cut off.
func Status(ctx context.Context, shards []storage.Shard, out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARD\tSLOTS\tOWNED\tON THE MOVE\tLEFT OVER")
	var frozen, left []storage.Slot
	for _, sh := range shards {
		rows, err := slotRows(ctx, sh)
		if err != nil {
			return err
		}
		var owned, moving, rest []storage.Slot
		for _, r := range rows {
			switch {
			case r.State == storage.SlotOwned:
				owned = append(owned, r.Slot)
			case r.State == storage.SlotFrozen:
				moving = append(moving, r.Slot)
			case r.Epoch > 0: // see storage.Mover
				rest = append(rest, r.Slot)
			}
		}
		frozen, left = append(frozen, moving...), append(left, rest...)
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\n", sh.ID(), len(owned), ranges(owned), ranges(moving), ranges(rest))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(frozen) > 0 {
		fmt.Fprintln(out, "\nThe users of slots on the move wait. If no move is under way, repeat the one that was cut off, or move them back to where they were.")
	}
	if len(left) > 0 {
		fmt.Fprintln(out, "\nRows of slots that are elsewhere are left over. Moving those slots again, to where they are, deletes them.")
	}
	return nil
}

// ranges writes slots like parse reads them; - if there are none.
func ranges(ss []storage.Slot) string {
	var parts []string
	for i := 0; i < len(ss); {
		n := i
		for n+1 < len(ss) && ss[n+1] == ss[n]+1 {
			n++
		}
		if n == i {
			parts = append(parts, fmt.Sprint(ss[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", ss[i], ss[n]))
		}
		i = n + 1
	}
	if parts == nil {
		return "-"
	}
	return strings.Join(parts, ",")
}
