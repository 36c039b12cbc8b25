// Package storage keeps what is true: conversations, inboxes, accounts and the
// deliveries still owed. It is written for somebody who must trust it.
//
// Store is what the server uses. It decides what rows mean: order, exactly-once,
// fan-out, retention. Shard is what an engine implements (storage/pebble is one):
// transactions over typed rows. Payloads are opaque bytes to both. Package
// storagetest has the tests that every engine, and Store on top of it, must pass.
//
// # What is promised
//
//   - An answer means durable. Append's done(nil), Update's nil and every read
//     leave only when what they rest on is on the disk of the shard concerned,
//     the task of delivering it elsewhere included.
//   - Exactly once. A send id is a UUIDv7 made on server time. Within 29 days the
//     same id of the same sender in the same conversation gets the first result
//     (Duplicate); with another kind or body ErrConflict. Older: ErrIDExpired;
//     over 10 minutes ahead: ErrIDInvalid. Dedupe rows are kept 30 days, so
//     there is no moment at which an old id is accepted as new.
//   - No holes. An inbox is a log: seq 1, 2, 3, … without a gap. A seq is given
//     in the transaction that inserts its row, under the lock of the user's
//     head; so N+1 is never visible before N.
//   - One order. A conversation is a log by rev; its messages also count
//     conv_seq; its times never run backwards. Everybody displays by conv_seq.
//     Inbox order is arrival order, which may differ between users.
//   - Appends to one conversation keep the order of the calls, retries inside
//     Store included, also while its slot moves. When one is refused with an
//     error that may be retried, so is everything of its conversation that
//     queued behind it.
//   - Deliveries (Options.Deliver) may be lost or, around a takeover, missing:
//     they are a hint. Inboxes are the truth.
//
// # Ids, and why these
//
// A message is named by (conversation, rev), an event by (user, seq): counters
// that are rows under the lock that the write needs anyway. The others were:
//
//   - Snowflake (time ‖ worker ‖ sequence): unique, but neither dense nor in
//     commit order. A reader that has N cannot tell whether something below N
//     is still being committed, so holes cannot be told from slowness. It needs
//     worker ids, which must never be used twice, and clocks that never jump.
//   - Database step (a node reserves 1,000 numbers at a time): dense at best
//     until a node dies with some left; and two nodes interleave out of order.
//   - Redis counter: one more thing that must be durable. After a failover that
//     loses a second, a seq means two things.
//   - UUID: made anywhere without asking. That is what a client needs for a
//     retry, hence send ids, version 7 so that age can be told from the id
//     alone and dedupe rows fall into time order. Useless as an order.
//
// User and group ids are random, behind the slot in the top 12 bits, drawn again
// on collision. A user's slot is an HMAC of the account name (NameSlot), so that
// a name is unique by a row of one shard; the key is in every shard's meta and
// compared at Open. A conversation's key has its home's id first: everything
// that one of its transactions locks is on the home's shard.
//
// # Two libraries
//
// The conversation log, (conversation, rev) → entry, is history and stays. The
// inbox, (user, seq) → event, is what devices sync: every recipient, the sender
// too, gets a row for each entry, carrying its body or pointing to the log.
// Retention cuts inboxes only. UserConv is a user's view of a conversation; it
// is written with the inbox row, and unread is computed from it.
//
// # The rules
//
// R1, visible is not durable. Another transaction sees rows whose commit is not
// on the disk yet. So an operation is answered when its batch's done has fired,
// even if it wrote nothing: a dedupe hit rests on a row of somebody's earlier
// commit, and our done is later than that one's. Reads note how young the rows
// are that they saw, and end with Shard.Barrier. Only entries, and inbox rows
// that cannot have come by a task, have a time that tells their age; everything
// else always counts as young. A task begins when the commit that raised it is
// durable.
//
// R2, order inside a transaction: slots, conversation heads, user heads, then
// duplicates, then permissions, then inserts. Locks names every row that a plan
// reads; engines lock in this order.
//
// R3, permission is checked where it is committed. A block on the home shard is
// read under lock; one on another shard is read before the send is queued and
// at most BlockStale old then. If that shard cannot be asked, the send is
// refused with ErrUnavailable, not let through.
//
// R4, tasks. What recipients on another shard are owed is a row, (conversation,
// target shard) → next_rev … to_rev, written with the entry. It is owned by the
// node that raised it last. When the commit at home is durable that node commits
// the entries, which it still has in memory, at the target, and only when that
// is durable, and then not at once, deletes the row: TaskLinger later, many
// together, unless the conversation goes on and raises it again. So a delivery
// costs one commit at the target, and mostly no other.
// The target skips revs up to UserConv.HeadRev, so delivering twice does no
// harm. Nor does it matter what a task says once a side has moved, or which of
// two nodes that add to a conversation delivers first: both sides of a pair get
// every entry, so where rev HeadRev+1 is not the first to be delivered, it is
// read at home with all that follow it. So is what memory had no room for. An
// entry that finds its recipient on the same shard, but behind, becomes a task
// as well instead of a row.
// A node takes up its own tasks at Open and looks again every TaskRescan; tasks
// of a node whose lease ran out are taken over by any other, which looks again
// at every renewal, because a node that only slept may wake and commit what it
// had begun.
//
// R5, slots. A shard owns a slot at an epoch; every transaction and every view
// names the slots it touches with the epoch that this node knows, and the engine
// answers ErrSlotMoved if that is old. Store then reads the map again and sends
// the operation to where the slot is now. Mover moves slots: the slot is frozen,
// its rows copied, counted, compared, and only then the target's. Whatever needs
// a frozen slot is parked, for CommitTimeout at most, and goes on in the same
// order at the new place (adopt.go); nothing else waits for it.
//
// R6, retention. UserHead.Floor is the highest seq deleted, raised in the
// transaction that deletes. Sync returns the head and the rows of one snapshot;
// a reader below the floor must rebuild from the logs. By count the floor moves
// with an append, a chunk at a time; by age with a paced sweep.
//
// R7, epochs. UserHead.InboxEpoch and ConvHead.Generation are random and change
// only when a restore brings back an older state.
//
// # How a write runs
//
// Every shard has a few committers, and hash(slot) picks one. It takes whatever
// queued while its last commit ran, at most MaxBatch operations, merges their
// locks, runs their plans one after the other on one working set, and commits
// once. Engines that can return from Commit before the disk has synced, so the
// next batch is planned meanwhile. The first design had a timer (wait 2 ms for
// company); it added 2 ms at low load and nothing at high load.
//
// # When something fails
//
//	ErrUnknown        the same operations again, in order, before anything newer.
//	                  Sends are guarded by their dedupe rows, appends without a
//	                  send id by one made here, updates by a token.
//	ErrBusy           again after a pause; after CommitTimeout ErrUnavailable.
//	ErrSlotMoved      again, where the slot is now, once it is somewhere.
//	ErrFull           sends are refused at once; reads go on, and what needs no
//	                  room.
//	any other error   the batch is bisected, and the operation that the engine
//	                  refuses for good gets the engine's error.
//
// A shard that has answered nothing for BreakAfter, or has kept a commit for
// StallTimeout, is given up: its reads, its barrier or its commits, each by
// themselves, are refused at once with ErrUnavailable (RetryAfter says when to
// come again), but for one now and then that finds out whether it is back. One
// that is slow refuses with ErrBusy what would wait longer than QueueWait. What
// waits for one shard holds nothing that another needs: queues and readers are
// per shard, and a reader that has to ask another shard gives up its place
// meanwhile (Leave).
//
// After ErrUnavailable the outcome may be unknown; the same send id finds out.
// A send that was committed under an unknown outcome is not pushed: its
// recipients find it when they sync.
//
// # What an engine must guarantee
//
// It is said on Shard, and tested by storagetest.RunShard: Commit is atomic and
// isolated for the rows that were locked; done is called in the order of
// commits that share rows, and not before the disk has them; what failed is not
// built upon; a View is one snapshot; errors are the five that are named, or
// for good. Retrying, batching, order and meaning are not its business.
//
// # Limits
//
// Queues are bounded in operations and bytes, and so is what is parked at a
// committer, apart from its queue; in-flight batches by MaxFlying, waiting reads
// per shard by ReaderQueue, remembered tasks by TaskMemory and their entries by
// carryBytes (the rows are the truth), knowledge about far users by time. Open
// needs all shards; afterwards one that is down stops only what lives on it.
// Every node sweeps every shard.
package storage
