package peer

import (
	"fmt"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
)

// versions is a range of protocol versions, both ends included.
type versions struct{ min, max uint32 }

// versionsHere is what this code speaks. A new version is added at the top; the
// bottom goes up when no fleet has nodes of it any more. What older nodes may
// ignore is a new field and needs no version.
var versionsHere = versions{1, 1}

// common returns the highest version of both.
func (v versions) common(o versions) (uint32, bool) {
	highest := min(v.max, o.max)
	return highest, highest >= max(v.min, o.min) && highest > 0
}

// refusal is why a connection is not taken. It is an error at both ends: one
// made it, the other read it.
type refusal struct {
	reason proto.PeerRefusalReason
	text   string
}

func (r *refusal) Error() string { return "peer: refused: " + r.text }

func refuse(reason proto.PeerRefusalReason, format string, args ...any) *refusal {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// hello is what is left of a PeerHello that was found good.
type hello struct {
	run     router.Run
	version uint32
}

func (o *Options) hello() *proto.PeerHello {
	return &proto.PeerHello{
		MinVersion: o.speaks.min, MaxVersion: o.speaks.max, Node: o.Node, Incarnation: o.Incarnation,
	}
}

// greeted checks the hello of the node that the certificate has proved.
func (o *Options) greeted(h *proto.PeerHello, node uint64) (hello, *refusal) {
	if h == nil {
		return hello{}, refuse(proto.PeerRefusalReason_PEER_REFUSAL_REASON_BAD_FRAME, "the first frame is no hello")
	}
	theirs := versions{h.MinVersion, h.MaxVersion}
	version, ok := o.speaks.common(theirs)
	switch {
	case h.Node != node:
		return hello{}, refuse(proto.PeerRefusalReason_PEER_REFUSAL_REASON_NODE, "hello of node %d with the certificate of node %d", h.Node, node)
	case h.Node == o.Node:
		return hello{}, refuse(proto.PeerRefusalReason_PEER_REFUSAL_REASON_NODE, "both ends are node %d; two nodes have one identity", node)
	case !ok:
		return hello{}, refuse(proto.PeerRefusalReason_PEER_REFUSAL_REASON_VERSION,
			"one end speaks versions %d to %d, the other %d to %d: update the older node", o.speaks.min, o.speaks.max, theirs.min, theirs.max)
	}
	return hello{run: router.Run{Node: node, Incarnation: h.Incarnation}, version: version}, nil
}
