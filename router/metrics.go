package router

import "github.com/prometheus/client_golang/prometheus"

// The kinds of what could not be placed.
const (
	dropAttach = "attach" // the directory did not answer an Attach
	dropKick   = "kick"   // the loser is on another node, and there are no links
	dropLookup = "lookup" // the directory did not answer a Lookup
	dropQueue  = "queue"  // too much waits for look-ups
	dropHint   = "hint"   // the same, for hints
	dropStale  = "stale"  // a wrong entry could not be removed
)

type metrics struct {
	deliveries, offline, forwarded, received, forgotten prometheus.Counter

	dropped *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	m := metrics{
		deliveries: counter("hermod_router_deliveries_total", "Events for users with a session on this node."),
		offline:    counter("hermod_router_offline_total", "Events for users without a connection: on this node, or on any where nodes are linked."),
		forwarded:  counter("hermod_router_forwarded_total", "Events and hints handed to the links to other nodes."),
		received:   counter("hermod_router_received_total", "Events that came from other nodes."),
		forgotten:  counter("hermod_router_forgotten_total", "Wrong entries removed from the directory because a node said so."),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hermod_router_dropped_total", Help: "What could not be placed, by kind; sessions repair it from storage.",
		}, []string{"kind"}),
	}
	reg.MustRegister(m.dropped)
	return m
}

func (m *metrics) drop(kind string, n int) {
	if n > 0 {
		m.dropped.WithLabelValues(kind).Add(float64(n))
	}
}
