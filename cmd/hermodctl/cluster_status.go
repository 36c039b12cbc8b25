package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// ClusterStatus shows the cluster as the node of this machine sees it.
type ClusterStatus struct {
	Settings
	Admin string `help:"The node's operator's HTTP, host:port; default: admin.listen of the configuration."`
	JSON  bool   `name:"json" help:"Print JSON instead of tables."`
}

// Run asks the node's operator's HTTP.
func (c *ClusterStatus) Run(out io.Writer) error {
	if c.Admin == "" {
		cfg, err := c.load()
		if err != nil {
			return err
		}
		if c.Admin = cfg.Admin.Listen; c.Admin == "" {
			return errors.New("admin.listen is empty: this node tells nobody how it is")
		}
	}
	url := "http://" + c.Admin + "/cluster"
	if c.JSON {
		url += "?format=json"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no node answers at %s: %w; is it running? Name another one with --admin", c.Admin, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	_, err = io.Copy(out, resp.Body)
	return err
}
