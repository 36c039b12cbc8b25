package peer

import (
	"errors"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/router"
)

// Options configures Links.
type Options struct {
	// Listener is where other nodes connect, plain TCP; TLS is put on top. It
	// comes open, since its address must be known to the Fleet before. Start
	// owns it, also when it fails.
	Listener net.Listener
	// Identity proves this node to the others.
	Identity Identity
	// Node is this node for good, Incarnation this run of it.
	Node, Incarnation uint64
	// Fleet says which nodes there are, and where.
	Fleet router.Fleet
	// Receive takes what other nodes send.
	Receive router.Receiver

	// QueueBytes bounds what waits for one node, 4 MiB unless set. Beyond, it is
	// dropped.
	QueueBytes int
	// Heartbeat is how often a link is tried, 3 s unless set; Silence how long
	// one may say nothing, 10 s unless set.
	Heartbeat, Silence time.Duration
	// MembersEvery is how often the Fleet is asked, 2 s unless set.
	MembersEvery time.Duration
	// Grace is how long things wait for a link that is not there, 5 s unless
	// set. Afterwards they are dropped at once, until it is there.
	Grace time.Duration
	// Forget is how long a node may be gone before its link is, 30 s unless set.
	Forget time.Duration

	Log     zerolog.Logger
	Metrics prometheus.Registerer

	// speaks is versionsHere and greet greetTimeout, except in tests.
	speaks versions
	greet  time.Duration
}

const (
	defaultQueueBytes   = 4 << 20
	defaultHeartbeat    = 3 * time.Second
	defaultSilence      = 10 * time.Second
	defaultMembersEvery = 2 * time.Second
	defaultGrace        = 5 * time.Second
	defaultForget       = 30 * time.Second
)

// Validate names the first option that cannot work.
func (o *Options) Validate() error {
	switch {
	case o.Listener == nil:
		return errors.New("peer: Options.Listener is missing")
	case o.Node == 0:
		return errors.New("peer: Options.Node is 0")
	case o.Fleet == nil:
		return errors.New("peer: Options.Fleet is missing")
	case o.Receive == nil:
		return errors.New("peer: Options.Receive is missing")
	case o.Metrics == nil:
		return errors.New("peer: Options.Metrics is missing")
	case o.QueueBytes < 0 || o.Heartbeat < 0 || o.Silence < 0 || o.MembersEvery < 0 || o.Grace < 0 || o.Forget < 0:
		return errors.New("peer: an option of Options is negative")
	case o.Silence != 0 && o.Silence <= o.Heartbeat:
		return errors.New("peer: Options.Silence must be longer than Options.Heartbeat")
	}
	return o.Identity.Check(o.Node, time.Now())
}

func (o *Options) defaults() {
	if o.QueueBytes == 0 {
		o.QueueBytes = defaultQueueBytes
	}
	for _, d := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&o.Heartbeat, defaultHeartbeat},
		{&o.Silence, defaultSilence},
		{&o.MembersEvery, defaultMembersEvery},
		{&o.Grace, defaultGrace},
		{&o.Forget, defaultForget},
		{&o.greet, greetTimeout},
	} {
		if *d.value == 0 {
			*d.value = d.unset
		}
	}
	if o.speaks == (versions{}) {
		o.speaks = versionsHere
	}
}
