package bench

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// maxLatency is the most a histogram tells apart; longer ones count as it.
const maxLatency = time.Hour

// recorder is a histogram of durations that several goroutines feed: with
// bursts, so that the lock is taken once a burst.
type recorder struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

func newRecorder() *recorder {
	return &recorder{h: hdrhistogram.New(1, maxLatency.Microseconds(), 3)}
}

func (r *recorder) add(ds ...time.Duration) {
	if len(ds) == 0 {
		return
	}
	r.mu.Lock()
	for _, d := range ds {
		// In range by the clamp, so there is no error.
		_ = r.h.RecordValue(min(max(d, 0), maxLatency).Microseconds())
	}
	r.mu.Unlock()
}

// Latency is a distribution in microseconds, exact to three digits.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_us"`
	P50   int64   `json:"p50_us"`
	P90   int64   `json:"p90_us"`
	P99   int64   `json:"p99_us"`
	P999  int64   `json:"p999_us"`
	Max   int64   `json:"max_us"`
}

func (r *recorder) latency() Latency {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.h.TotalCount() == 0 {
		return Latency{}
	}
	return Latency{
		Count: r.h.TotalCount(),
		Mean:  r.h.Mean(),
		P50:   r.h.ValueAtPercentile(50),
		P90:   r.h.ValueAtPercentile(90),
		P99:   r.h.ValueAtPercentile(99),
		P999:  r.h.ValueAtPercentile(99.9),
		Max:   r.h.Max(),
	}
}
