package mysql

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hermod-im/hermod/storage"
)

type metrics struct {
	reg     prometheus.Registerer
	all     []prometheus.Collector
	commits prometheus.Histogram
	rows    prometheus.Counter
	again   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Shard) (*metrics, error) {
	labels := prometheus.Labels{"shard": strconv.FormatUint(uint64(s.opt.ID), 10)}
	m := &metrics{
		reg: reg,
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hermod_mysql_commit_seconds", Help: "Write transactions that were committed, both round trips.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hermod_mysql_rows_total", Help: "Inbox rows written.", ConstLabels: labels,
		}),
		again: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hermod_mysql_retries_total", Help: "Transactions run again, by the server's reason.", ConstLabels: labels,
		}, []string{"reason"}),
	}
	conns := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hermod_mysql_connections", Help: "Connections to the shard in use.", ConstLabels: labels,
	}, func() float64 { return float64(s.db.Stats().InUse) })
	m.all = []prometheus.Collector{m.commits, m.rows, m.again, conns}
	if reg == nil {
		return m, nil
	}
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			for _, done := range m.all[:i] {
				reg.Unregister(done)
			}
			return nil, errors.Join(storage.ErrInvalid, err)
		}
	}
	return m, nil
}

func (m *metrics) committed(d time.Duration, w *storage.Writes) {
	m.commits.Observe(d.Seconds())
	if w != nil {
		m.rows.Add(float64(len(w.Inbox)))
	}
}

func (m *metrics) retried(number uint16) {
	reason := "deadlock"
	if number == errDuplicate {
		reason = "duplicate"
	}
	m.again.WithLabelValues(reason).Inc()
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
