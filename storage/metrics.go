package storage

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a Store, one set per shard.
type shardMetrics struct {
	batch     prometheus.Observer
	commit    prometheus.Observer
	retries   *prometheus.CounterVec
	shed      prometheus.Counter
	delivered prometheus.Counter
	drained   prometheus.Counter
	taskReads prometheus.Counter
	taskFails prometheus.Counter
	takenOver prometheus.Counter
	swept     prometheus.Counter
	trimmed   prometheus.Counter
	lease     prometheus.Counter
	readsBusy prometheus.Counter
	// unavailable counts what the breakers refused.
	unavailable prometheus.Counter

	reg prometheus.Registerer
	all []prometheus.Collector
}

// unregister lets another Store take the place of a closed one.
func (m *shardMetrics) unregister() {
	if m == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

func (m *shardMetrics) retry(kind string) { m.retries.WithLabelValues(kind).Inc() }

// newMetrics registers the metrics of one shard.
func newMetrics(reg prometheus.Registerer, sh *shard, s *Store) (*shardMetrics, error) {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	labels := prometheus.Labels{"shard": strconv.FormatUint(uint64(sh.ID()), 10)}
	var failed error
	var all []prometheus.Collector
	add := func(c prometheus.Collector) {
		if err := reg.Register(c); err != nil && failed == nil {
			failed = fmt.Errorf("storage: metrics of shard %d: %w", sh.ID(), err)
		} else if err == nil {
			all = append(all, c)
		}
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "hermod", Subsystem: "storage", Name: name, Help: help, ConstLabels: labels})
		add(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "hermod", Subsystem: "storage", Name: name, Help: help, ConstLabels: labels, Buckets: buckets,
		})
		add(h)
		return h
	}
	gauge := func(name, help string, f func() float64) {
		add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "hermod", Subsystem: "storage", Name: name, Help: help, ConstLabels: labels}, f))
	}
	m := &shardMetrics{
		batch:       histogram("batch_operations", "Operations per transaction.", prometheus.ExponentialBuckets(1, 2, 8)),
		commit:      histogram("commit_seconds", "From locking to durable.", prometheus.ExponentialBuckets(0.0001, 2, 16)),
		shed:        counter("refused_operations_total", "Operations refused because the shard failed for too long or is full."),
		delivered:   counter("task_deliveries_total", "Inbox rows written to this shard by tasks."),
		drained:     counter("tasks_drained_total", "Tasks of this shard's conversations that were completed."),
		taskReads:   counter("task_reads_total", "Deliveries of this shard's conversations whose entries were not at hand and had to be read."),
		taskFails:   counter("task_failures_total", "Times that the delivery of this shard's tasks, or telling it so, failed and had to wait."),
		takenOver:   counter("tasks_taken_over_total", "Tasks taken over from dead nodes."),
		swept:       counter("swept_users_total", "Inboxes looked at by the retention sweep."),
		trimmed:     counter("swept_trims_total", "Inboxes that lost rows by age."),
		lease:       counter("lease_failures_total", "Lease renewals that failed."),
		readsBusy:   counter("reads_refused_total", "Reads refused because too many were waiting."),
		unavailable: counter("unavailable_total", "Calls refused at once because the shard answers nobody."),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "hermod", Subsystem: "storage", Name: "commit_retries_total", ConstLabels: labels,
			Help: "Commits tried again, by what went wrong.",
		}, []string{"kind"}),
	}
	add(m.retries)
	gauge("queued_operations", "Operations waiting for a committer.", func() (n float64) {
		for _, c := range sh.committers {
			n += c.depth()
		}
		return n
	})
	gauge("tasks_open", "Tasks of this shard's conversations that this node has in mind, those just done included.", func() float64 { return s.tasks.open(sh) })
	if sh.idx == 0 { // of the whole Store
		taskBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "hermod", Subsystem: "storage", Name: "task_bytes", Help: "Bytes of entries kept in memory until they are delivered to another shard.",
		}, func() float64 { return float64(s.tasks.carried.Load()) })
		add(taskBytes)
	}
	for _, b := range sh.breakers.all() {
		add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "hermod", Subsystem: "storage", Name: "breaker_open", Help: "1 while a part of the shard answers nobody, and its calls are refused.",
			ConstLabels: prometheus.Labels{"shard": labels["shard"], "part": b.opt.part},
		}, b.gauge))
	}
	m.reg, m.all = reg, all
	return m, failed
}
