package slots

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
)

// Header must be set on requests: a web page that the operator has open cannot
// set it for a foreign address. Trailer says what went wrong, if anything did:
// the answer has begun by then.
const (
	Header  = "Hermod-Slots"
	Trailer = "Hermod-Slots-Error"
)

// Moves are requests that may be moving slots.
type Moves struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex // held while one begins or the last ones are waited for
	open sync.WaitGroup
}

// Stop ends all requests, and refuses more: the slot that is moving is given
// back first.
func (m *Moves) Stop() {
	m.cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open.Wait()
}

// begin returns a context that ends with the request and with Stop; nil: too late.
func (m *Moves) begin(r *http.Request) (ctx context.Context, end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return nil, nil
	}
	m.open.Add(1)
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(m.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		m.open.Done()
	}
}

// Handle adds POST /slots/move and /slots/status to mux, for a server whose
// shards nobody else can open. Whoever asks stays until it is done: leaving
// gives back the slot that is moving. Stop the Moves before closing the shards.
func Handle(mux *http.ServeMux, shards []storage.Shard, log zerolog.Logger) *Moves {
	m := new(Moves)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	mux.HandleFunc("POST /slots/move", func(w http.ResponseWriter, r *http.Request) {
		num := func(name string) int {
			n, _ := strconv.Atoi(r.FormValue(name)) // 0: Check complains
			return n
		}
		j := Job{Slots: r.FormValue("slots"), From: num("from"), Count: num("count"), To: num("to"), Who: r.FormValue("who")}
		m.answer(w, r, j.Check(), func(ctx context.Context, out io.Writer) error { return Move(ctx, shards, j, log, out) })
	})
	mux.HandleFunc("POST /slots/status", func(w http.ResponseWriter, r *http.Request) {
		m.answer(w, r, nil, func(ctx context.Context, out io.Writer) error { return Status(ctx, shards, out) })
	})
	return m
}

func (m *Moves) answer(w http.ResponseWriter, r *http.Request, invalid error, do func(context.Context, io.Writer) error) {
	switch {
	case r.Header.Get(Header) == "":
		http.Error(w, "use hermodctl slots", http.StatusForbidden)
		return
	case invalid != nil:
		http.Error(w, invalid.Error(), http.StatusBadRequest)
		return
	}
	ctx, end := m.begin(r)
	if ctx == nil {
		http.Error(w, "the server stops", http.StatusServiceUnavailable)
		return
	}
	defer end()
	w.Header().Set("Trailer", Trailer)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := do(ctx, flushing{w, http.NewResponseController(w)}); err != nil {
		w.Header().Set(Trailer, strings.Join(strings.Fields(err.Error()), " "))
	}
}

// flushing sends every line at once.
type flushing struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}
