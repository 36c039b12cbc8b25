package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

func TestClusterPageOfALoneNode(t *testing.T) {
	t.Parallel()
	n := serve(t)
	join(t, n.addr, "ann")
	status, page := n.get("/cluster")
	for _, want := range []string{"ok (asked)", "embedded", "4096", "1 sessions on 1 nodes\n"} {
		if status != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("%d, without %q:\n%s", status, want, page)
		}
	}
	_, page = n.get("/cluster?format=json")
	var st clusterStatus
	if err := json.Unmarshal([]byte(page), &st); err != nil {
		t.Fatalf("%v in %s", err, page)
	}
	if len(st.Nodes) != 1 || st.Nodes[0].Sessions != 1 || st.Nodes[0].Node != n.data.node.ID || st.Redis != "" ||
		len(st.Shards) != 1 || st.Shards[0].Slots != storage.Slots || len(st.Nodes[0].Clients) != 1 {
		t.Errorf("%+v", st)
	}
}

// What is wrong must leap to the eye.
func TestClusterPageShowsWhatIsWrong(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	st := clusterStatus{
		Node: 1, Redis: "connection refused",
		Nodes: []nodeStatus{
			{Node: 1, Host: "one", Sessions: 5, Started: now.Add(-time.Hour), Peer: "10.0.0.1:5190", Links: []linkStatus{
				{Node: 2, Up: true}, {Node: 3, Since: now.Add(-time.Minute), Error: "no route"},
			}},
			{Node: 2, Host: "two", Sessions: 6, Started: now.Add(-time.Minute), Draining: true},
			{Node: 3, Peer: "10.0.0.3:5190", Silent: true},
		},
		Shards: []shardStatus{
			{Shard: 1, Engine: "mysql", Where: "db/1", Slots: 2000, Frozen: 48, Tasks: 7, Leases: map[storage.NodeID]time.Duration{1: 1, 2: 1}},
			{Shard: 2, Engine: "mysql", Where: "db/2", Error: "gone\naway"},
		},
	}
	var out bytes.Buffer
	st.write(&out, now)
	for _, want := range []string{
		"1 of 2", "1h0m0s", "draining", "holds a lease, says nothing", "2000 + 48 frozen", "slots are moving", "gone away",
		"11 sessions on 3 nodes, Redis: connection refused", "node 1 does not reach node 3 since 2026-01-02 03:03:05: no route",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("without %q:\n%s", want, out.String())
		}
	}
}
