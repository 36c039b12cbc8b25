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
//     one for a node that runs alone; a shared one serves a fleet behind the
//     same interface and the same contract suite (testDirectory).
//   - Local: the sessions of this node, implemented by conn/chat.
//   - Router: joins the two. Deliver looks a whole batch of users up at once,
//     hands what is local to Local in one call, and counts what it could not
//     place.
//
// Two designs failed before this one. A callback per user makes the owner take
// its locks once a message instead of once a commit. Ordering by attach time
// alone lets an old login that reconnects throw out the newer one, and the two
// devices then throw each other out for ever.
package router
