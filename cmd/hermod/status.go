package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/mysql"
)

// clusterStatus is the page /cluster: the cluster, as this node sees it.
type clusterStatus struct {
	Node   uint64        `json:"node"` // whose view it is
	Nodes  []nodeStatus  `json:"nodes"`
	Shards []shardStatus `json:"shards"`
	// Redis is "ok", why it does not answer, or empty where there is none.
	Redis string `json:"redis,omitempty"`
}

// nodeStatus is how a node is. In a cluster each writes its own into Redis, for
// the others to show.
type nodeStatus struct {
	Node        uint64       `json:"node"`
	Incarnation uint64       `json:"incarnation"`
	Host        string       `json:"host"`
	Version     string       `json:"version"`
	Started     time.Time    `json:"started"`
	Peer        string       `json:"peer,omitempty"` // where other nodes reach it
	Clients     []string     `json:"clients"`
	Sessions    int          `json:"sessions"`
	Draining    bool         `json:"draining,omitempty"`
	Links       []linkStatus `json:"links,omitempty"`
	// Silent: it holds a lease, but does not say how it is.
	Silent bool `json:"silent,omitempty"`
}

// linkStatus is a node's link to another one.
type linkStatus struct {
	Node   uint64        `json:"node"`
	Up     bool          `json:"up"`
	Since  time.Time     `json:"since"`
	Trip   time.Duration `json:"round_trip_ns"`
	Queued int           `json:"queued_bytes"`
	Error  string        `json:"error,omitempty"`
}

// shardStatus is how a shard is.
type shardStatus struct {
	Shard  storage.ShardID `json:"shard"`
	Engine string          `json:"engine"`
	Where  string          `json:"where"`
	Error  string          `json:"error,omitempty"` // why it does not answer
	Trip   time.Duration   `json:"round_trip_ns"`
	Slots  int             `json:"slots"`
	Frozen int             `json:"frozen_slots,omitempty"`
	Tasks  int             `json:"tasks"`
	// Leases are the nodes that are alive as the shard has it, and how long
	// theirs last.
	Leases map[storage.NodeID]time.Duration `json:"leases_ns,omitempty"`
}

// status asks every part how it is. What does not answer within ctx is shown
// as that.
func (s *Server) status(ctx context.Context) clusterStatus {
	st := clusterStatus{Node: s.data.node.ID, Nodes: []nodeStatus{s.self()}}
	shards := s.cfg.Shards()
	st.Shards = make([]shardStatus, len(shards))
	var wg sync.WaitGroup
	if s.fleet != nil {
		wg.Go(func() { st.Nodes, st.Redis = s.fleet.ask(ctx, st.Nodes[0]) })
	}
	for i, sc := range shards {
		st.Shards[i] = shardStatus{Shard: storage.ShardID(sc.ID), Engine: sc.Kind(), Where: s.cfg.Where(&sc)}
		wg.Go(func() { st.Shards[i].ask(ctx, s.shard(storage.ShardID(sc.ID)), storage.NodeID(st.Node)) })
	}
	wg.Wait()
	return st
}

// self is how this node is.
func (s *Server) self() nodeStatus {
	host, _ := os.Hostname()
	n := nodeStatus{
		Node: s.data.node.ID, Incarnation: s.data.node.Incarnation,
		Host: host, Version: version, Started: s.started,
		Sessions: s.chat.Sessions(), Draining: s.draining.Load(),
	}
	for _, addr := range s.Addrs() {
		n.Clients = append(n.Clients, addr.String())
	}
	if s.fleet != nil {
		n.Peer, n.Links = s.fleet.addr, s.fleet.linkStatus()
	}
	return n
}

func (s *Server) shard(id storage.ShardID) storage.Shard {
	for _, sh := range s.shards {
		if sh.ID() == id {
			return sh
		}
	}
	return nil
}

// ask fills in what the shard says of itself.
func (st *shardStatus) ask(ctx context.Context, sh storage.Shard, self storage.NodeID) {
	begin := time.Now()
	err := sh.View(ctx, nil, func(sn storage.Snap) error {
		rows, err := sn.SlotRows()
		for _, r := range rows {
			switch r.State {
			case storage.SlotOwned:
				st.Slots++
			case storage.SlotFrozen:
				st.Frozen++
			}
		}
		return err
	})
	st.Trip = time.Since(begin)
	if err == nil {
		err = st.askWork(ctx, sh, self)
	}
	if err != nil {
		st.Error = err.Error()
	}
}

// askWork fills in the work on the shard. An embedded one has no other node's.
func (st *shardStatus) askWork(ctx context.Context, sh storage.Shard, self storage.NodeID) error {
	db, ok := sh.(*mysql.Shard)
	if !ok {
		own, err := sh.Tasks(ctx, self, nil, maxTasksShown)
		st.Tasks = len(own)
		return err
	}
	work, err := db.Status(ctx)
	if err != nil {
		return err
	}
	st.Tasks, st.Leases = work.Tasks, make(map[storage.NodeID]time.Duration)
	for _, l := range work.Leases {
		if l.Left > 0 {
			st.Leases[l.Node] = l.Left
		}
	}
	return nil
}

// maxTasksShown bounds the count of an embedded shard's tasks.
const maxTasksShown = 10_000

// serveStatus is the handler of /cluster: tables for people, or ?format=json.
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	st := s.status(ctx)
	if r.URL.Query().Get("format") == "json" {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(st)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	st.write(w, time.Now())
}
