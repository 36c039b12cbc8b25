package conn

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hermod-im/hermod/proto"
)

// metrics are the edge's counters. What is counted per frame or per byte is
// counted in the loops and added here once per tick.
type metrics struct {
	reg     prometheus.Registerer
	all     []prometheus.Collector
	opened  prometheus.Counter
	closed  [numReasons]prometheus.Counter
	dropped [numDrops]prometheus.Counter
	refused *prometheus.CounterVec
	panics  prometheus.Counter

	bytesIn, bytesOut, framesIn, framesOut prometheus.Counter
	handshakes                             prometheus.Counter
}

func newMetrics(s *Server) (*metrics, error) {
	m := &metrics{reg: s.opts.Metrics}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "hermod_conn_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hermod_conn_" + name, Help: help}, []string{label})
		m.all = append(m.all, c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hermod_conn_" + name, Help: help}, f))
	}
	m.opened = counter("opened_total", "Connections that passed the accept guard.")
	closed := vec("closed_total", "Connections closed or turned away, by reason.", "reason")
	for r := range m.closed {
		m.closed[r] = closed.WithLabelValues(Reason(r).String())
	}
	dropped := vec("dropped_total", "Things thrown away without closing a connection for it, by reason.", "reason")
	for d := range m.dropped {
		m.dropped[d] = dropped.WithLabelValues(Drop(d).String())
	}
	m.refused = vec("refused_total", "Frames refused by the edge, by error code.", "code")
	m.panics = counter("panics_total", "Panics caught in the handler or the edge.")
	m.bytesIn = counter("read_bytes_total", "Bytes read from clients.")
	m.bytesOut = counter("written_bytes_total", "Bytes written to clients.")
	m.framesIn = counter("frames_in_total", "Frames read, heartbeats included.")
	m.framesOut = counter("frames_out_total", "Frames written, heartbeats included; encoded batches count once.")
	m.handshakes = counter("tls_handshakes_total", "TLS handshakes that succeeded.")
	gauge("open", "Open connections.", func() float64 { return float64(s.open.Load()) })
	gauge("logged_in", "Open connections past their login.", func() float64 { return float64(s.loggedIn.Load()) })
	gauge("handshakes_pending", "TLS handshakes on their way.", func() float64 { return float64(s.shaking.Load()) })
	gauge("outbox_bytes", "Bytes waiting in outboxes.", func() float64 { return float64(s.outboxBytes()) })
	for i, c := range m.all {
		if err := m.reg.Register(c); err != nil {
			m.all = m.all[:i]
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// close takes the metrics out of the registry, so that another server may use
// it.
func (m *metrics) close() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

func (m *metrics) drop(d Drop, n int) { m.dropped[d].Add(float64(n)) }

func (m *metrics) refuse(code proto.ErrorCode) { m.refused.WithLabelValues(code.Short()).Inc() }

// flush adds a loop's counts and clears them.
func (m *metrics) flush(s *loopStats) {
	m.bytesIn.Add(float64(s.bytesIn))
	m.bytesOut.Add(float64(s.bytesOut))
	m.framesIn.Add(float64(s.framesIn))
	m.framesOut.Add(float64(s.framesOut))
	*s = loopStats{}
}
