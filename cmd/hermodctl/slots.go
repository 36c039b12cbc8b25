package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/cmd/internal/slots"
	"github.com/hermod-im/hermod/storage"
)

// slotSettings are what both commands on slots take.
type slotSettings struct {
	Settings
	Admin string `help:"Let the node whose operator's HTTP is at this host:port do it: for a shard that is embedded in a running server. Default: admin.listen of the configuration, if a shard is embedded."`
}

// SlotsMove moves slots between shards.
type SlotsMove struct {
	slotSettings
	Slots  string `arg:"" optional:"" help:"Slots and ranges of them: 0-1023,2000."`
	From   int    `help:"Instead of naming slots: those of this shard, its last ones."`
	Count  int    `help:"With --from: how many; default all."`
	To     int    `required:"" help:"The shard that gets them."`
	Frozen bool   `required:"" help:"Yes: the users of a slot wait while it moves. (There is no other way yet.)"`
}

// Run moves slot after slot. Ctrl-C gives the one that is moving back.
func (c *SlotsMove) Run(out io.Writer) error {
	job := slots.Job{Slots: c.Slots, From: c.From, Count: c.Count, To: c.To, Who: whoami()}
	if err := job.Check(); err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	q := url.Values{"slots": {c.Slots}, "to": {strconv.Itoa(c.To)}, "who": {job.Who},
		"from": {strconv.Itoa(c.From)}, "count": {strconv.Itoa(c.Count)}}
	return c.run(ctx, out, "/slots/move?"+q.Encode(), func(shards []storage.Shard) error {
		return slots.Move(ctx, shards, job, c.log(), out)
	})
}

// SlotsStatus shows which shard has which slots.
type SlotsStatus struct{ slotSettings }

// Run asks every shard.
func (c *SlotsStatus) Run(out io.Writer) error {
	ctx, stop := interruptible()
	defer stop()
	return c.run(ctx, out, "/slots/status", func(shards []storage.Shard) error { return slots.Status(ctx, shards, out) })
}

// run does what is asked for with the shards open, or asks the server that has
// an embedded one open.
func (c *slotSettings) run(ctx context.Context, out io.Writer, path string, do func([]storage.Shard) error) error {
	if c.Admin != "" {
		return askServer(ctx, c.Admin, path, out)
	}
	cfg, err := c.load()
	if err != nil {
		return err
	}
	shards, err := cfg.OpenShards(ctx, config.OpenOptions{Log: c.log()})
	if err != nil {
		if !hasEmbedded(&cfg) || cfg.Admin.Listen == "" {
			return err
		}
		// Most likely a server runs on it.
		if serr := askServer(ctx, cfg.Admin.Listen, path, out); serr != nil {
			return errors.Join(err, serr)
		}
		return nil
	}
	err = do(shards)
	for _, sh := range shards {
		err = errors.Join(err, sh.Close())
	}
	return err
}

func hasEmbedded(cfg *config.Config) bool {
	for _, sc := range cfg.Shards() {
		if sc.Kind() == config.Embedded {
			return true
		}
	}
	return false
}

// whoami is the operator, for other operators.
func whoami() string {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return fmt.Sprintf("%s@%s, process %d", os.Getenv("USER"), host, os.Getpid())
}

// askServer lets a node do it, and shows what it says meanwhile.
func askServer(ctx context.Context, admin, path string, out io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+admin+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set(slots.Header, "1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no node answers at %s: %w", admin, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s answers %s: %s", admin, resp.Status, bytes.TrimSpace(text))
	}
	if _, err := io.Copy(out, resp.Body); err != nil {
		return err
	}
	if text := resp.Trailer.Get(slots.Trailer); text != "" {
		return errors.New(text)
	}
	return nil
}
