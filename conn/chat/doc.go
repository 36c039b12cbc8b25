// Package chat is what a connected person may ask: accounts, devices, messages.
// Business rules live here and nowhere else. The edge (conn) brings frames in
// and knows none of them; storage keeps rows and does not read them; the router
// carries bytes.
//
// A Chat implements conn.Handler, where frames arrive, and router.Local, where
// events for this node's sessions arrive.
//
// # One message
//
// send.go checks a SendRequest and starts storage.Append. Nobody waits: when
// the commit completes, sending.complete answers SendAck on the committer's own
// goroutine. The same commit's deliveries come back through AppendDeliveries
// (entry.go: an entry's bytes become the wire's Event by putting tags in front
// of them) and the router as Push (pump.go).
//
// # What a session gets, and in which order
//
// Events leave one connection in seq order without gaps. flow (flow.go) is that
// rule without any I/O: a live push is forwarded only if it is exactly the next
// one, the window has room and nobody reads storage for the session. Otherwise
// it is dropped, and the one mechanism for everything else, the pump, reads what
// follows from storage: after a Hello, after a gap, when acks open a full window
// and when the audit (audit.go) finds a session behind. An earlier design kept
// a queue of undelivered events per session: it had to be bounded, and then
// needed the pump all the same.
//
// The window is counted in events and in bytes from what was put into the
// outbox to what the device has acknowledged. A window that was full is filled
// again when half of it is free.
//
// # Sends keep their order
//
// order.go: after a retryable refusal the session's later sends to the same
// conversation are refused too, until one says resume_order.
//
// # Who is where
//
// directory.go is what this node tells the directory, and what it does while
// that does not answer: go on.
//
// session.go holds the table of sessions and what a session is; admit.go turns
// an authenticated Hello into one and takes it apart again. Accounts, logins
// and devices are in the account_, auth_ and device_ files; hello.go is where a
// connection proves who it is.
//
// # When a part fails
//
// What waits for one storage shard is kept from what waits for another: calls
// (the store's readers), the audit's lanes, the workers of delivered marks, the
// backlog of pumps. A shard that answers nobody is given up by the store, and
// faultOf makes UNAVAILABLE of that, with the time after which it is worth
// coming again; a queue that is full, or waits for too long, is OVERLOADED.
// Before it comes to that, shed.go leaves out what matters less.
//
// What several shards make together is given without the parts that are
// missing where it is worth having all the same (a list of conversations without
// a last message, a page of the inbox that ends early), and refused where the
// rest would lie (profiles: who is left out does not exist).
//
// # Locks
//
// A table shard's lock, session.mu, markFlusher.mu, rejoiner.mu and backlog.mu,
// in this order; the edge's own lock is inside them all. None is held across I/O.
package chat
