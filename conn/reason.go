package conn

import "strconv"

// Reason says why a connection was closed. It is a label of
// hermod_conn_closed_total; the client learns a proto.ErrorCode instead.
type Reason uint8

const (
	// ReasonUnknown is never counted for a connection that was opened.
	ReasonUnknown Reason = iota

	// What the other side did.

	ReasonPeerClosed // the client closed, or the network did
	ReasonIOError    // reading or writing failed

	// What did not come in time.

	ReasonFirstByte    // no byte within Limits.FirstByte
	ReasonLogin        // no accepted Hello within Limits.Login
	ReasonPartialFrame // a frame was begun and not finished
	ReasonIdle         // no frame for one and a half heartbeats
	ReasonStalled      // output did not move for Limits.OutboxStall

	// What the edge did not put up with.

	ReasonBadFrame      // bytes that are no frame
	ReasonFrameTooLarge // a length over the cap of the phase
	ReasonHelloExpected // the first frame was not Hello
	ReasonHelloRepeated // a second Hello
	ReasonLoginBytes    // more than Limits.LoginBytes before login
	ReasonRateLimited   // ten times the frame rate
	ReasonBusy          // kept sending over its credits
	ReasonSlowConsumer  // output over Limits.OutboxBytes

	// What was refused at the door.

	ReasonMaxConns       // Limits.MaxConns, or descriptors running out
	ReasonPerIPRate      // new connections per second of one address
	ReasonPerIPLive      // live connections of one address
	ReasonHandshakesFull // too many pending TLS handshakes
	ReasonTLS            // handshake or record failed
	ReasonProxyUntrusted // PROXY header from an address that is not trusted
	ReasonProxyHeader    // bytes that are no PROXY v2 header

	// What the server did.

	ReasonDraining // the node drains
	ReasonShutdown // the server was closed
	ReasonPanic    // a panic was caught while serving this connection

	// For the Handler.

	ReasonUnauthenticated // Hello was refused
	ReasonRevoked         // the device or its token was revoked
	ReasonKicked          // a newer login took the device slot
	ReasonReplaced        // the same device connected again
	ReasonLogout          // the client logged out
	ReasonProtocol        // a well-formed frame that the handler cannot accept
	ReasonInternal        // the handler's own trouble

	numReasons
)

var reasonNames = [numReasons]string{
	ReasonUnknown: "unknown", ReasonPeerClosed: "peer_closed", ReasonIOError: "io_error",
	ReasonFirstByte: "first_byte", ReasonLogin: "login_timeout", ReasonPartialFrame: "partial_frame",
	ReasonIdle: "idle", ReasonStalled: "stalled",
	ReasonBadFrame: "bad_frame", ReasonFrameTooLarge: "frame_too_large", ReasonHelloExpected: "hello_expected",
	ReasonHelloRepeated: "hello_repeated", ReasonLoginBytes: "login_bytes", ReasonRateLimited: "rate_limited",
	ReasonBusy: "busy", ReasonSlowConsumer: "slow_consumer",
	ReasonMaxConns: "max_conns", ReasonPerIPRate: "per_ip_rate", ReasonPerIPLive: "per_ip_live",
	ReasonHandshakesFull: "handshakes_full", ReasonTLS: "tls", ReasonProxyUntrusted: "proxy_untrusted",
	ReasonProxyHeader: "proxy_header",
	ReasonDraining:    "draining", ReasonShutdown: "shutdown", ReasonPanic: "panic",
	ReasonUnauthenticated: "unauthenticated", ReasonRevoked: "revoked", ReasonKicked: "kicked",
	ReasonReplaced: "replaced", ReasonLogout: "logout", ReasonProtocol: "protocol", ReasonInternal: "internal",
}

// String is the label value of the metric, in snake case.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "reason_" + strconv.Itoa(int(r))
}

// Drop says why something was thrown away without a connection being closed
// for it. It is a label of hermod_conn_dropped_total.
type Drop uint8

const (
	DropClosed    Drop = iota // Send or Reply on a connection that is closing
	DropUnserved              // frames in the mailbox of a connection that closed
	DropUnsent                // outboxes thrown away at close (one each)
	DropTooLarge              // an outgoing frame over proto.MaxFrameSession
	DropEncode                // an outgoing frame that could not be encoded
	DropHeartbeat             // heartbeats over the frame rate, not answered
	numDrops
)

var dropNames = [numDrops]string{"closed", "unserved", "unsent", "too_large", "encode", "heartbeat"}

// String is the label value of the metric, in snake case.
func (d Drop) String() string {
	if d < numDrops {
		return dropNames[d]
	}
	return "drop_" + strconv.Itoa(int(d))
}
