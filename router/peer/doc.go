// Package peer links the nodes of a fleet: it carries to other nodes what the
// router has for users who are attached there (router.Peers), and hands to this
// node's router what others send (router.Receiver).
//
// # Links
//
// Every node listens, and dials every other member that the directory lists
// (router.Fleet). A connection carries pushes, hints and kicks from the one that
// dialled to the one that accepted; the other way come echoes and NotHere only.
// So a pair of nodes has two connections. One for both directions was weighed:
// it needs a rule for two that cross, and that rule has to agree with itself
// while one end restarts.
//
// Nothing here is durable, and nobody waits for it. What a node owes another is
// a queue of bytes, bounded, encoded when it is handed over; when it is full, the
// newest is dropped and counted, and a session there finds the gap and reads
// storage. A slow or dead node costs nobody but itself: each link has its own
// queue and goroutines. While a link is down, things wait for it as long as
// Options.Grace; afterwards they are dropped at once until it is up again (the
// link's breaker). Hints do not wait at all.
//
// Kicks are different, since nothing else would end the second connection of one
// and the same login. They are kept and told again on every new connection until
// a heartbeat that was sent behind them is echoed: the other end answers in
// order. To tell one twice does no harm, since it names the very connection.
//
// Everything is for one run (incarnation) of a node. When a later one is known,
// from the hello, the members or a directory entry, what waits for the earlier
// is dropped.
//
// One hop: what was received is pushed to the sessions here and never forwarded.
// The places (device slot, connection) that a push names and that are not here
// go back as NotHere; the sender's router removes those very entries from the
// directory.
//
// Order: what is handed over for a run arrives in that order. When a node
// reconnects, its former connection is read no further before the new one is.
// What a connection had not written when it broke is missing.
//
// # Protocol
//
// TLS 1.3, ALPN "hermod-peer", both ends with a certificate of the cluster's
// authority, good for server and client authentication, with exactly one URI
// hermod://node/<id in decimal>. The dialler wants the node that it dialled;
// host names are not looked at. There are no tickets: every connection proves
// itself anew.
//
// Then frames as in proto/README.md (4 bytes of length, big-endian; 0 is a
// heartbeat), each a PeerFrame of proto/hermod/v1/peer.proto. A frame is at most
// 4 KiB while hellos are exchanged and 1 MiB afterwards, refused on its header.
// It holds at most 16,384 recipients, places, hints and kicks. Senders keep to 64
// KiB, unless one event is larger.
//
//	dialler                            acceptor
//	PeerFrame{hello}            →
//	                            ←      PeerFrame{hello}, or {hello, refusal} and close
//	PeerFrame{push…, hint…, kick…}  →
//	heartbeat, every 3 s        →
//	                            ←      heartbeat: all before yours was handed on
//	                            ←      PeerFrame{not_here…}
//
// Each hello names the range of versions that the node speaks. Both ends use the
// highest that both have; none in common is a refusal, and a line in the log that
// says which node to update. Fields and elements that a node does not know, it
// passes over; what needs no more than that, needs no new version. Either end
// closes after 10 s of silence.
//
// proto/testdata/peer.json has every message as JSON and as bytes.
//
// # Where to start
//
// links.go has the whole: Start, Forward, Kick, and following the members.
// link.go is what waits for one node, dial.go its connection; inbound.go the
// other end. encode.go and decode.go write and read what travels once a
// delivery, without allocating. hello.go decides about versions and identities,
// without I/O.
package peer
