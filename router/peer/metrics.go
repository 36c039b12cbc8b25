package peer

import "github.com/prometheus/client_golang/prometheus"

// Why something for another node was dropped. Sessions there repair events from
// storage.
const (
	dropFull    = "full"    // too much waits for the node
	dropLarge   = "large"   // it fits into no frame
	dropDown    = "down"    // the link is down for long, or it is a hint and the link is down
	dropRun     = "run"     // it was for an earlier run of the node
	dropBroken  = "broken"  // the connection broke while it was written: at most these
	dropUnknown = "unknown" // too many nodes
	dropKick    = "kick"    // more kicks than a node can be owed
)

// Why a connection of another node was refused.
const (
	refusedBusy  = "busy"  // too many at once
	refusedTLS   = "tls"   // no certificate of this fleet
	refusedFrame = "frame" // what came first was no hello
	refusedHello = "hello" // told in a PeerRefusal
)

type metrics struct {
	up      *prometheus.GaugeVec
	dials   *prometheus.CounterVec
	dropped *prometheus.CounterVec
	refused *prometheus.CounterVec

	sent, sentBytes, received, kicks, notHere prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, help, by string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{by})
		reg.MustRegister(c)
		return c
	}
	m := metrics{
		up:        prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hermod_peer_up", Help: "1 while this node's link to another is up."}, []string{"node"}),
		dials:     vec("hermod_peer_dials_total", "Links that came up, and attempts or links that were lost.", "result"),
		dropped:   vec("hermod_peer_dropped_total", "Events and hints for other nodes that were dropped, by reason.", "reason"),
		refused:   vec("hermod_peer_refused_total", "Connections to this node that were refused, by reason.", "reason"),
		sent:      counter("hermod_peer_sent_total", "Events and hints taken for other nodes."),
		sentBytes: counter("hermod_peer_sent_bytes_total", "Bytes written to other nodes, before TLS."),
		received:  counter("hermod_peer_received_total", "Events and hints that came from other nodes."),
		kicks:     counter("hermod_peer_kicks_total", "Kicks taken for other nodes."),
		notHere:   counter("hermod_peer_not_here_total", "Connections that another node was thought to have and has not."),
	}
	reg.MustRegister(m.up)
	return m
}

func (m *metrics) drop(reason string, n int) {
	if n > 0 {
		m.dropped.WithLabelValues(reason).Add(float64(n))
	}
}

func (m *metrics) lose(lost losses) {
	m.drop(dropFull, lost.full)
	m.drop(dropLarge, lost.large)
	m.drop(dropDown, lost.down)
}

func (m *metrics) refuse(reason string) { m.refused.WithLabelValues(reason).Inc() }
