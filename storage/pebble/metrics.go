package pebble

import (
	"fmt"
	"strconv"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// metrics are a shard's figures. Pebble's own are read when they are scraped.
type metrics struct {
	s       *Shard
	reg     prometheus.Registerer
	latency prometheus.Histogram
	bytes   prometheus.Counter
	gauges  []gauge
	sync    *prometheus.Desc
}

// gauge is one of Pebble's figures.
type gauge struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*crdb.Metrics) float64
}

func newMetrics(s *Shard) (*metrics, error) {
	labels := prometheus.Labels{"shard": strconv.FormatUint(uint64(s.opts.ID), 10)}
	name := func(n string) string { return "hermod_pebble_" + n }
	m := &metrics{
		s: s, reg: s.opts.Metrics,
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name("commit_seconds"), Help: "From the start of a transaction until it is durable.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.000125, 2, 16),
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: name("commit_bytes_total"), Help: "Bytes of durable transactions.", ConstLabels: labels,
		}),
		sync: prometheus.NewDesc(name("wal_sync_seconds"), "Syncs of the write-ahead log.", nil, labels),
	}
	add := func(kind prometheus.ValueType, n, help string, read func(*crdb.Metrics) float64) {
		m.gauges = append(m.gauges, gauge{prometheus.NewDesc(name(n), help, nil, labels), kind, read})
	}
	const g, c = prometheus.GaugeValue, prometheus.CounterValue
	add(g, "compaction_debt_bytes", "Estimated bytes to compact until the tree is in shape.", func(m *crdb.Metrics) float64 { return float64(m.Compact.EstimatedDebt) })
	add(g, "compactions_running", "Compactions running.", func(m *crdb.Metrics) float64 { return float64(m.Compact.NumInProgress) })
	add(c, "compactions_total", "Compactions.", func(m *crdb.Metrics) float64 { return float64(m.Compact.Count) })
	add(c, "flushes_total", "Flushes of memtables.", func(m *crdb.Metrics) float64 { return float64(m.Flush.Count) })
	add(g, "disk_bytes", "Bytes on disk: tables, log, those waiting for deletion.", func(m *crdb.Metrics) float64 { return float64(m.DiskSpaceUsage()) })
	add(g, "l0_files", "Tables in level 0.", func(m *crdb.Metrics) float64 { return float64(m.Levels[0].TablesCount) })
	add(g, "l0_sublevels", "Sublevels of level 0: writes stall at 60.", func(m *crdb.Metrics) float64 { return float64(m.Levels[0].Sublevels) })
	add(g, "read_amplification", "Tables that a read may have to look at.", func(m *crdb.Metrics) float64 { return float64(m.ReadAmp()) })
	add(g, "memtable_bytes", "Bytes in memtables.", func(m *crdb.Metrics) float64 { return float64(m.MemTable.Size) })
	add(g, "cache_bytes", "Bytes in the block cache.", func(m *crdb.Metrics) float64 { return float64(m.BlockCache.Size) })
	add(c, "cache_hits_total", "Blocks found in the cache.", func(m *crdb.Metrics) float64 { return float64(m.BlockCache.Hits) })
	add(c, "cache_misses_total", "Blocks read from files.", func(m *crdb.Metrics) float64 { return float64(m.BlockCache.Misses) })
	add(c, "wal_bytes_total", "Bytes written to the write-ahead log.", func(m *crdb.Metrics) float64 { return float64(m.WAL.BytesWritten) })
	add(c, "write_stalls_total", "Times that writes waited for flushes or compactions.", func(*crdb.Metrics) float64 { return float64(s.events.stalls.Load()) })
	add(c, "disk_slow_total", "Disk operations that took seconds.", func(*crdb.Metrics) float64 { return float64(s.events.slow.Load()) })
	add(g, "in_flight", "Transactions begun and not yet durable.", func(*crdb.Metrics) float64 { return float64(len(s.pipe.tokens)) })
	add(g, "disk_full", "1 while writes are refused for lack of disk space.", func(*crdb.Metrics) float64 {
		if s.full.Load() {
			return 1
		}
		return 0
	})
	if m.reg == nil {
		return m, nil
	}
	if err := m.reg.Register(m); err != nil {
		return nil, fmt.Errorf("pebble: register metrics of shard %d: %w", s.opts.ID, err)
	}
	return m, nil
}

func (m *metrics) committed(b *crdb.Batch, took time.Duration) {
	m.latency.Observe(took.Seconds())
	m.bytes.Add(float64(b.Len()))
}

func (m *metrics) close() {
	if m.reg != nil {
		m.reg.Unregister(m)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.latency.Describe(ch)
	m.bytes.Describe(ch)
	ch <- m.sync
	for _, g := range m.gauges {
		ch <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	if !m.s.gate.enter() { // a scrape must not outlive the database
		return
	}
	defer m.s.gate.exit()
	m.latency.Collect(ch)
	m.bytes.Collect(ch)
	stats := m.s.db.Metrics()
	for _, g := range m.gauges {
		ch <- prometheus.MustNewConstMetric(g.desc, g.kind, g.read(stats))
	}
	if h := stats.LogWriter.FsyncLatency; h != nil {
		m.collectSync(ch, h)
	}
}

// collectSync gives Pebble's nameless histogram of nanoseconds a name and
// seconds, and keeps of its hundred buckets those that tell disks apart: each
// bound at least 1.5 times the one before.
func (m *metrics) collectSync(ch chan<- prometheus.Metric, h prometheus.Histogram) {
	var d dto.Metric
	if err := h.Write(&d); err != nil || d.Histogram == nil {
		return
	}
	buckets := make(map[float64]uint64, len(d.Histogram.Bucket))
	last := 0.0
	for _, b := range d.Histogram.Bucket {
		if bound := b.GetUpperBound() / 1e9; bound >= 1.5*last && bound > 0 {
			buckets[bound], last = b.GetCumulativeCount(), bound
		}
	}
	ch <- prometheus.MustNewConstHistogram(m.sync, d.Histogram.GetSampleCount(), d.Histogram.GetSampleSum()/1e9, buckets)
}
