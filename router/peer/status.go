package peer

import (
	"slices"
	"strconv"
	"time"
)

// Status is what this node knows about its link to another.
type Status struct {
	Node, Incarnation uint64
	// Addr is empty where the Fleet does not list the node.
	Addr string
	// Up: this node reaches the other; Inbound: the other has reached this one.
	Up, Inbound bool
	// Since is when it came up, or went down.
	Since time.Time
	// Version is the protocol's on this link, 0 before the first.
	Version uint32
	// RoundTrip is that of the last heartbeat, 0 before the first.
	RoundTrip time.Duration
	// QueuedBytes waits to be written.
	QueuedBytes int
	// Err is why the link is down, nil if that is not known.
	Err error
}

// Status returns all links, by node.
func (ls *Links) Status() []Status {
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	out := make([]Status, 0, len(ls.links))
	for node, l := range ls.links {
		s := l.status()
		_, s.Inbound = ls.inbound[node]
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int {
		if a.Node < b.Node {
			return -1
		}
		return 1
	})
	return out
}

func (l *link) status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Status{
		Node: l.node, Incarnation: l.run.Incarnation, Addr: l.addr, Up: l.conn != nil, Since: l.since,
		Version: l.version, RoundTrip: l.roundTrip, QueuedBytes: len(l.out.buf) + l.writing, Err: l.err,
	}
}

// label names a node in metrics.
func label(node uint64) string { return strconv.FormatUint(node, 10) }
