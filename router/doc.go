// Package router knows who is where and gets things there: the directory of
// attached connections, and delivery in batches to the node that owns each.
//
// It moves opaque bytes. What an event means, whether a session may have it and
// what to do about a gap is conn/chat's business; what is true is storage's. So
// everything here may be lost and is only counted: a lost push is repaired from
// storage by the session's owner within a minute.
//
// The pieces, from the inside out:
//
//   - Directory: user → one Entry per device slot. Order is (LoginEpoch,
//     AttachNo), the highest wins, and the loser is told to go. Memory is the
//     one for a node that runs alone; one that several nodes share (a Fleet)
//     stands behind the same interface and the same contract suite
//     (testDirectory).
//   - Local: the sessions of this node, implemented by conn/chat.
//   - Peers: the links to other nodes, implemented by router/peer, which hands
//     what it receives to the Router as its Receiver.
//   - Router: joins them. Deliver gives the whole batch to Local at once, which
//     knows best who is here: that needs no directory and goes on without one.
//     Users who have connections elsewhere are found in the directory, in
//     batches, and each other node gets one Forward with all that is for it.
//
// Where looking up takes a round trip (Fleet), it never happens on the
// goroutine that delivers: that is the one on which commits complete. Items wait
// in a few bounded lanes, a user always in the same one, so each user's events
// stay in order. Whatever came while one look-up was under way shares the next,
// and a user asked for ten times in it is looked up once. There is no timer. A
// full lane drops what is newest; hints give way first.
//
// What comes from another node goes to Local and no further: one hop. Where a
// route misled, the node says NotHere and the Router removes that very entry,
// if it still stands.
//
// # Redis
//
// Redis is the directory of a fleet. It holds nothing that is not known
// elsewhere: each node has its own connections in a mirror (a Memory).
//
//	hermod:u:<bucket>  hash  user and slot → 24 bytes: login epoch, attach
//	                         number, run of a node, connection
//	hermod:nodes       hash  node → "incarnation ends buckets address"
//
// A user's key hash picks one of 65,536 buckets, which Redis keeps as plain
// byte strings up to 100 entries: 44 bytes an entry with a million of them, all
// included (TestMemoryPerDevice, -devices 1000000). Every script and command
// has one key, so a Cluster will do; TestScriptsUseOneKey reads the wire.
//
// A node renews its lease every 3 s and learns from the answer who else is
// alive. Entries name the run that made them and need no refresh: when its lease
// is over, all of them are stale: not routed to, overwritten whatever their
// order, and swept after a while. The leases are fields of one hash and not keys
// with a TTL: one request renews and lists, on a Cluster too, and the scripts
// compare their ends with Redis's own clock.
//
// A node that finds its lease gone takes it for a sign that more is gone. It
// registers everything in its mirror anew, at 10,000 entries a second, under
// the old attach numbers: so an older connection does not come back to life,
// and a slot that went to another node meanwhile stays there (Rejoiner tells
// the loser). What was lost without the lease comes back within 10 minutes.
//
// When Redis does not answer, nobody waits for it: after 250 ms a call is
// answered by the mirror, after three such calls at once. Users of this node
// log in and are found; numbers are provisional, by this node's clock corrected
// by what Redis's last differed. Who is alive stays as it was last known. What
// Redis did not hear of is owed and paid when it answers again: one by one while
// that is little, everything otherwise. Lookup, Attach and Detach therefore
// never fail because of Redis; hermod_directory_mirrored_total counts them.
//
// An answer that was lost may have named a loser. Nobody else knows it then, so
// once the winner is registered for sure every other node is asked to register
// anew what it has for the slot: whoever lost finds out.
//
// Two designs failed. A string comparison in a script orders by the server's
// locale. And a script that looks at the lease of an entry's node would need a
// second key; so the node that lost to a dead run's entry runs the script again,
// with leave to overwrite that one value and no other.
//
// # What there is not
//
// A cache of routes is not kept. It would have to know at once when a user
// attaches on one more node: a route that is missing in it loses pushes in
// silence until the audit finds out. What it would save is little: a forwarded
// delivery with its look-up costs 6 µs, Redis, both nodes and TLS on two cores
// (BenchmarkLinkOverRedis); its commit before that costs MySQL some 80 µs. The
// directory is the cache, and NotHere corrects it.
//
// Other designs that failed: a callback per user makes the owner take its locks
// once a message instead of once a commit. Ordering by attach time alone lets an
// old login that reconnects throw out the newer one, and the two devices then
// throw each other out for ever.
package router
