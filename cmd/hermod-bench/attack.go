package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hermod-im/hermod/bench/attack"
	"github.com/hermod-im/hermod/cmd/internal/config"
)

type attackCmd struct {
	Binary string   `type:"path" help:"The server; default: hermod beside this program."`
	Single bool     `help:"Leave out what needs a cluster (MariaDB, Redis)."`
	Only   []string `help:"Attacks or groups of attacks, like limits,forged-tokens; default: all."`
	List   bool     `help:"Print the attacks, and stop."`
	JSON   string   `name:"json" type:"path" help:"Write everything to this file."`
}

// Run starts servers, attacks them and says what held.
func (c *attackCmd) Run(ctx context.Context, ui *console) error {
	if c.List {
		for _, a := range attack.All() {
			if _, err := fmt.Fprintf(ui.out, "%-8s %-20s %s\n", a.Group, a.Name, a.Claim); err != nil {
				return err
			}
		}
		return nil
	}
	binary, err := besideMe(c.Binary, "hermod")
	if err != nil {
		return err
	}
	config.SilenceRedis()
	site := &attackSite{binary: binary, single: c.Single}
	rep, err := attack.Run(ctx, attack.Options{Site: site, Only: c.Only, Progress: func(r attack.Result) {
		fmt.Fprintf(ui.err, "%-8s %s (%.1f s)\n", r.Verdict, r.Name, r.Took.Seconds())
	}})
	if closing := site.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return finish(ui, rep, rep.OK, c.JSON)
}

// besideMe is the program to run: path, or the one of that name in the folder
// of this program.
func besideMe(path, name string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		path = filepath.Join(filepath.Dir(self), name)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no server to start: %w; «make build» makes one, --binary names another", err)
	}
	return filepath.Abs(path)
}
