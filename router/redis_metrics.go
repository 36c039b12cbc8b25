package router

import "github.com/prometheus/client_golang/prometheus"

// What is asked of Redis.
const (
	opAttach = "attach"
	opDetach = "detach"
	opLookup = "lookup"
	opRenew  = "renew"
	opRejoin = "rejoin"
	opSweep  = "sweep"
)

type redisMetrics struct {
	up, owed, members, mismatched                prometheus.Gauge
	anew, stale, swept, losses, crowded, dropped prometheus.Counter

	failed, mirrored *prometheus.CounterVec
	seconds          *prometheus.HistogramVec
}

func newRedisMetrics(reg prometheus.Registerer) redisMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "hermod_directory_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hermod_directory_" + name, Help: help})
	}
	byOp := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hermod_directory_" + name, Help: help}, []string{"op"})
	}
	m := redisMetrics{
		up:         gauge("up", "1 while Redis answers; 0: this node goes by what it knows itself."),
		owed:       gauge("owed", "Attaches and detaches that Redis has not heard of yet."),
		members:    gauge("members", "Live nodes, this one included, as of the last answer."),
		mismatched: gauge("mismatched", "Live nodes that this one cannot work with; the log says why."),
		anew:       counter("registered_anew_total", "Entries registered again after a loss, an outage or in the regular round."),
		stale:      counter("stale_total", "Entries found of runs that are no more."),
		swept:      counter("swept_total", "Entries removed of runs that ended long ago."),
		losses:     counter("losses_total", "Times when this node's lease was gone, so that everything was registered anew."),
		crowded:    counter("crowded_total", "Attaches into a bucket with more than 100 devices: time for more buckets."),
		dropped:    counter("owed_dropped_total", "Detaches that Redis will never hear of, as too many were owed; look-ups of them are repaired one by one."),
		failed:     byOp("failed_total", "Requests that Redis failed or did not answer in time."),
		mirrored:   byOp("mirrored_total", "Calls answered from what this node knows itself, as Redis did not answer."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hermod_directory_seconds", Help: "How long requests to Redis took, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 10),
		}, []string{"op"}),
	}
	reg.MustRegister(m.up, m.owed, m.members, m.mismatched, m.anew, m.stale, m.swept, m.losses, m.crowded, m.dropped, m.failed, m.mirrored, m.seconds)
	return m
}
