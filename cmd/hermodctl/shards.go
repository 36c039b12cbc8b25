package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/mysql"
)

// ShardsInit prepares the shards of the configuration.
type ShardsInit struct {
	Settings
}

// Run makes or updates the tables, divides the slots if nobody owns any, and
// says how it is then. It may be repeated.
func (c *ShardsInit) Run(out io.Writer) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	if err := initShards(ctx, &cfg, c.log()); err != nil {
		return err
	}
	return printShards(ctx, &cfg, out)
}

// interruptible ends with Ctrl-C.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

// initShards prepares all shards for their first node.
func initShards(ctx context.Context, cfg *config.Config, log zerolog.Logger) error {
	shards, err := cfg.OpenShards(ctx, config.OpenOptions{Log: log})
	if err != nil {
		return err
	}
	err = storage.Prepare(ctx, shards, log)
	for _, sh := range shards {
		err = errors.Join(err, sh.Close())
	}
	return err
}

// ShardsStatus shows the shards.
type ShardsStatus struct {
	Settings
}

// Run asks every shard itself; no node need run.
func (c *ShardsStatus) Run(out io.Writer) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	return printShards(ctx, &cfg, out)
}

// eachShard opens the shards one by one and calls f with each, or with why it
// cannot be opened.
func eachShard(ctx context.Context, cfg *config.Config, log zerolog.Logger, f func(sc config.ShardConfig, sh storage.Shard, err error)) {
	for _, sc := range cfg.Shards() {
		one, cancel := context.WithTimeout(ctx, 15*time.Second)
		sh, err := cfg.OpenShard(one, sc, config.OpenOptions{Log: log})
		f(sc, sh, err)
		if err == nil {
			_ = sh.Close()
		}
		cancel()
	}
}

// printShards shows all shards as a table. It fails if one does not answer.
func printShards(ctx context.Context, cfg *config.Config, out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARD\tENGINE\tWHERE\tSERVER\tSLOTS\tTASKS\tLEASES\tSTATE")
	var errs []error
	eachShard(ctx, cfg, zerolog.Nop(), func(sc config.ShardConfig, sh storage.Shard, err error) {
		row := shardRow{}
		if err == nil {
			row, err = askShard(ctx, sh)
		}
		state := "ok"
		if err != nil {
			state = "see below"
			errs = append(errs, fmt.Errorf("shard %d: %w", sc.ID, err))
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", sc.ID, sc.Kind(), cfg.Where(&sc), row.server, row.slots, row.tasks, row.leases, state)
	})
	return errors.Join(append([]error{t.Flush()}, errs...)...)
}

// shardRow is what a shard says of itself, as it is shown.
type shardRow struct{ server, slots, tasks, leases string }

func askShard(ctx context.Context, sh storage.Shard) (row shardRow, err error) {
	err = sh.View(ctx, nil, func(sn storage.Snap) error {
		rows, err := sn.SlotRows()
		row.slots = slotsText(rows)
		return err
	})
	db, ok := sh.(*mysql.Shard)
	if !ok || err != nil {
		return row, err
	}
	st, err := db.Status(ctx)
	row.server, row.tasks = st.Server, strconv.Itoa(st.Tasks)
	live := 0
	for _, l := range st.Leases {
		if l.Left > 0 {
			live++
		}
	}
	row.leases = fmt.Sprintf("%d of %d nodes", live, len(st.Leases))
	return row, err
}

// slotsText counts slots by their state.
func slotsText(rows []storage.SlotRow) string {
	owned, frozen := 0, 0
	for _, r := range rows {
		switch r.State {
		case storage.SlotOwned:
			owned++
		case storage.SlotFrozen:
			frozen++
		}
	}
	if frozen > 0 {
		return fmt.Sprintf("%d + %d frozen", owned, frozen)
	}
	return strconv.Itoa(owned)
}

// ShardsCheck looks at how the databases are set up.
type ShardsCheck struct {
	Settings
}

// Run prints what it finds and fails if a shard must not run like that. Like
// everything that opens a shard, it brings its tables to this version.
func (c *ShardsCheck) Run(out io.Writer) error {
	cfg, err := c.load()
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	bad := 0
	eachShard(ctx, &cfg, zerolog.Nop(), func(sc config.ShardConfig, sh storage.Shard, err error) {
		where := fmt.Sprintf("shard %d (%s)", sc.ID, cfg.Where(&sc))
		var found []mysql.Finding
		if db, ok := sh.(*mysql.Shard); ok && err == nil {
			found, err = db.Check(ctx)
		}
		if err != nil { // what is fatal Open has refused
			bad++
			fmt.Fprintf(out, "error    %s: %v\n", where, err)
		}
		for _, f := range found {
			fmt.Fprintf(out, "warning  %s: %v\n", where, f)
		}
		if err == nil && len(found) == 0 {
			fmt.Fprintf(out, "ok       %s\n", where)
		}
	})
	if bad > 0 {
		return fmt.Errorf("%d of %d shards cannot be used", bad, len(cfg.Shards()))
	}
	return nil
}
