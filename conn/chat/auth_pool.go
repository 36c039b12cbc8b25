package chat

import (
	"crypto/rand"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/proto"
)

// hasher runs password hashes on a few goroutines of its own, behind a queue
// that refuses rather than grows: a hash costs tens of milliseconds and 19 MiB,
// so a flood of logins must cost the flood, not the messages.
type hasher struct {
	opt       Argon2
	log       zerolog.Logger
	dummySalt []byte

	mu     sync.Mutex // guards closed against a send on queue
	closed bool
	queue  chan func()
	wg     sync.WaitGroup

	// runs counts argon2 runs; took is a moving average of one job, in ns.
	runs atomic.Uint64
	took atomic.Int64
}

func newHasher(opt Argon2, log zerolog.Logger) (*hasher, error) {
	h := &hasher{opt: opt, log: log, dummySalt: make([]byte, saltLen), queue: make(chan func(), opt.Queue)}
	if _, err := rand.Read(h.dummySalt); err != nil {
		return nil, err
	}
	h.took.Store(int64(25 * time.Millisecond))
	for range opt.Workers {
		h.wg.Go(h.work)
	}
	return h, nil
}

func (h *hasher) work() {
	for job := range h.queue {
		h.run(job)
	}
}

// run contains a panic: the job's own deferred end answers, the pool goes on.
func (h *hasher) run(job func()) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("password job panicked")
		}
	}()
	start := time.Now()
	job()
	h.took.Store((7*h.took.Load() + int64(time.Since(start))) / 8)
}

// submit queues a job, or answers with an OVERLOADED fault that says when the
// queue of now will be done. After close the fault is DRAINING. A job
// accepted is always run.
func (h *hasher) submit(job func()) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_DRAINING, "")
	}
	select {
	case h.queue <- job:
		return nil
	default:
		wait := time.Duration(h.took.Load()) * time.Duration(h.opt.Queue/h.opt.Workers+1)
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_OVERLOADED, "too many password checks are waiting").WithRetry(max(wait, 100*time.Millisecond))
	}
}

// close finishes what was accepted.
func (h *hasher) close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.queue)
	}
	h.mu.Unlock()
	h.wg.Wait()
}

func (h *hasher) register(reg prometheus.Registerer) {
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "hermod_chat_password_hashes_total", Help: "Argon2 runs.",
		}, func() float64 { return float64(h.runs.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hermod_chat_password_queue", Help: "Password checks that wait for a worker.",
		}, func() float64 { return float64(len(h.queue)) }),
	)
}
