// Package bench loads a Hermod server as its clients would, measures it, and
// verifies every message. cmd/hermod-bench is its command line; tests call
// [Pairs] and [Idle] themselves.
//
// # What is measured
//
// Everything is measured from the client's side of real connections, by this
// process. An ack latency contains both directions of the network, the
// server's work, the commit, and this tool's own scheduling. Two processes on
// one machine share its processors: the report says what either used, and how
// late the tool itself was.
//
// Acks and arrivals are stamped when the read that brought them returned.
// Quantiles come from an HdrHistogram in microseconds with three digits.
//
// # Open and closed loop
//
// With a rate ([PairsConfig].Rate) the load is an open loop: message k is due at
// k/rate, evenly spaced, the writers taking turns, and it is offered then
// whether or not earlier ones were answered. Its latency counts from the moment
// when it was *due*, not from the write. A tool that waits for an answer before
// it goes on, and counts from the write, leaves out exactly the messages that
// a stalled server would have delayed (coordinated omission): one second of
// standstill at 500/s is one slow sample for such a tool, and 500 of them here.
// What cannot be written yet, because so much is in flight or the connection is
// gone, queues here, and the wait counts.
//
// Flat out (Rate 0) is a closed loop: every writer always has InFlight sends
// unanswered. It finds the throughput. Its latencies count from the write and
// are those of a full pipeline (Little's law makes them in-flight divided by
// throughput), so they say nothing about a lighter load.
//
// The warm-up is offered and verified like the rest. Throughput counts acks
// that come within the measured time; latencies are those of the messages that
// were due within it, however late their ack. Server CPU per message is the
// growth of user and system time between the two ends of the measured time,
// divided by the acks between them: it contains the pushes, delivery acks and
// whatever else the server did.
//
// # What is verified
//
// Every body names its run, pair, sender and number and carries a checksum, and
// the send id names run and number too, so that also the sender's own event,
// which comes without a body, can be matched. Both inboxes of a pair are
// followed by a [Checker] from the end that they had at login. It looks for the
// broken promises that [Violation] lists, over the whole run, reconnects
// included.
//
// Clients behave as the specification asks: they reconnect with backoff, repeat
// unanswered sends under the same id and in their order, honour resume_order,
// acknowledge deliveries, heartbeat. A server may be killed and started again
// in the middle: the run goes on, and what was acknowledged must be there.
//
// At the end the tool waits for stragglers ([PairsConfig].Drain), then asks the
// server for every inbox behind its cursor. What turns up only there was
// committed and not pushed: counted, and no violation, since the server repairs
// a lost push within 60 s. What is missing there is looked for in the
// conversation, which tells an inbox that lost a row from a lost message. Both
// are violations. A user that cannot be asked is unverified, and the run fails:
// it is not known to be right.
//
// # Idle connections
//
// An idle connection is a distinct user, logged in, caught up, heartbeating.
// [Idle] opens From of them, waits until the server's memory stands still,
// notes it, and does the same at To. Bytes per connection are the growth of the
// whole process between the two points divided by the connections between
// them, so what a server needs before the first client does not count, and what
// the kernel holds for its sockets does not either. Accounts are made before
// the first point; hashing passwords takes memory of its own, so make them in a
// run before ([MakeUsers]) and restart the server. Everybody logs in and leaves
// once before the first point ([IdleConfig].Warm), a few at a time: what the
// storage's caches then hold, they hold without the connections too. Without
// that a cache that fills between the two points counts as connections.
//
// # How it is built
//
// A session is one user's connection: one goroutine that reads, and comes back
// after a break. What it hears goes to a sink: a side of a pair, or an idle
// user. All state of a pair is under one mutex, taken once per read, and never
// held while bytes are read or written; who wants to write while another
// goroutine writes leaves its bytes to it. The frames that come once a message
// are encoded and decoded by hand (wire.go), because the tool's own processor
// time is what the server lacks: conn/client, which keeps a message in several
// structures on its way to an app, was not built for that and is not used here.
package bench
