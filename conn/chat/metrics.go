package chat

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hermod-im/hermod/proto"
)

// metrics of a Chat. Labelled counters of hot lines are looked up once.
type metrics struct {
	acks                                     *prometheus.CounterVec
	ackOK                                    prometheus.Counter
	ackAgain                                 prometheus.Counter
	latency                                  prometheus.Histogram
	pushes                                   [full + 1]prometheus.Counter
	hints                                    map[string]prometheus.Counter
	pumps                                    prometheus.Counter
	pumped                                   prometheus.Counter
	nonsense                                 prometheus.Counter
	panics                                   prometheus.Counter
	audited                                  prometheus.Counter
	repairs                                  prometheus.Counter
	markWrites, markFailures, markSpared     prometheus.Counter
	pumpFailures, auditFailures, auditCloses prometheus.Counter
	auditSkips, attachFailures               prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, t *table) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "hermod", Subsystem: "chat", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "hermod", Subsystem: "chat", Name: name, Help: help}, []string{label})
		reg.MustRegister(v)
		return v
	}
	m := &metrics{
		acks: vec("sends_total", "Send requests, by result.", "result"),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "hermod", Subsystem: "chat", Name: "send_ack_seconds",
			Help:    "From the start of a send to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 15),
		}),
		pumps:          counter("pump_runs_total", "Storage reads that send a session what it has not got by push."),
		pumped:         counter("pumped_events_total", "Events sent from storage."),
		pumpFailures:   counter("pump_failures_total", "Storage reads for sessions that failed and are tried again."),
		nonsense:       counter("ack_nonsense_total", "Delivery acks of events that were never sent; ignored."),
		panics:         counter("panics_total", "Panics caught in requests; each closed its session."),
		audited:        counter("audited_users_total", "Users compared with storage."),
		auditFailures:  counter("audit_failures_total", "Audit batches that storage did not answer."),
		attachFailures: counter("attach_failures_total", "Sessions that the directory did not answer for; tried again until it does."),
		auditSkips:     counter("audit_skipped_total", "Users left to the next round because their shard is slow."),
		auditCloses:    counter("audit_closes_total", "Sessions closed by the audit: revoked, or a newer login."),
		repairs:        counter("audit_repairs_total", "Sessions whose pushes were lost, found by the audit."),
		markWrites:     counter("mark_writes_total", "Writes of delivered marks."),
		markSpared:     counter("marks_spared_total", "Writes of delivered marks put off because their shard is loaded."),
		markFailures:   counter("mark_failures_total", "Writes of delivered marks that failed."),
		hints:          make(map[string]prometheus.Counter),
	}
	m.ackOK, m.ackAgain = m.acks.WithLabelValues("ok"), m.acks.WithLabelValues("duplicate")
	pushes := vec("pushes_total", "Live events offered to a session, by what became of them.", "verdict")
	for v, name := range [...]string{forward: "forwarded", stale: "stale", later: "reading", gap: "gap", full: "window_full"} {
		m.pushes[v] = pushes.WithLabelValues(name)
	}
	hints := vec("hints_total", "Hints, by what became of them.", "result")
	for _, name := range []string{"sent", "collapsed", "shed"} {
		m.hints[name] = hints.WithLabelValues(name)
	}
	reg.MustRegister(m.latency, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "hermod", Subsystem: "chat", Name: "sessions", Help: "Logged-in sessions.",
	}, func() float64 { return float64(t.count.Load()) }))
	return m
}

// ack counts a send that was refused.
func (m *metrics) ack(code proto.ErrorCode) { m.acks.WithLabelValues(code.Short()).Inc() }

// acked counts a send that was acknowledged.
func (m *metrics) acked(duplicate bool, took time.Duration) {
	if duplicate {
		m.ackAgain.Inc()
	} else {
		m.ackOK.Inc()
	}
	m.latency.Observe(took.Seconds())
}
