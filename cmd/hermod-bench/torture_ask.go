package main

import (
	"context"
	"fmt"

	"github.com/hermod-im/hermod/bench/observe"
)

// askSessions reads how many sessions a node has from its metrics.
func askSessions(ctx context.Context, admin string) (int, error) {
	return askMetric(ctx, admin, "hermod_chat_sessions")
}

// askMetric adds up a metric of a node, whatever its labels.
func askMetric(ctx context.Context, admin, name string) (int, error) {
	page, err := observe.Get(ctx, "http://"+admin)
	if err != nil {
		return 0, err
	}
	sum, found := page.Sum(name)
	if !found {
		return 0, fmt.Errorf("%s has no metric %s", admin, name)
	}
	return int(sum), nil
}
