// Package pebble is the embedded storage engine: one process, one folder, one
// shard on the log-structured tree of cockroachdb/pebble. It is the default
// engine, durable, and the fastest.
//
// # What is on disk
//
// keys.go lists the tables. A key is a version byte, a table byte, and ids in
// big-endian order, so that a slot is one key range in every table (names
// excepted). A value is a version byte and hand-packed fields (rows*.go). Pebble's
// own file format is pinned (formatVersion): a newer library does not rewrite
// the files by itself.
//
// Heads are not rewritten for every message. What changes with a message (rev,
// conv_seq and time of a conversation, seq of an inbox) is told by the newest
// entry or inbox row, found by one backward seek; the row of a head holds the
// rest and is written only when that changes. A head's rev and seq never fall.
// The newest heads and user_convs stay in RAM, in a cache of fixed size.
//
// # A transaction
//
// Three stages: reading the locked rows and planning, applying the rows as one
// batch, syncing the log. One transaction at a time is in each of the first two,
// in the same order; the next one plans while one is applied and others are
// synced, on rows that can be seen but are not durable yet. One goroutine waits
// for the syncs in commit order and calls done, so that done never vouches for
// less than everything before it. Pebble syncs once for all that wait. See
// Shard.Commit and pipeline.
//
// Reads take a snapshot. What they see may not be durable yet: Barrier waits for
// it. After a kill, the page cache may hold rows that were never synced; Open
// replays and syncs them before anything can be read, so that no answer of the
// new process rests on them alone.
//
// # When the disk fails
//
// Below Options.FreeReserveBytes of free space, writes that need room get
// ErrFull; reads, retention, finished tasks and revocations go on. Keep the
// reserve: Pebble has no way back from a failed write to its log. If one fails,
// every transaction in flight gets ErrUnknown and Options.Fatal is called, which
// ends the process: memory then shows rows that the disk may not have, and a
// later sync that succeeds proves nothing about earlier ones. Pebble itself may
// panic first. On restart the disk tells what happened, and retries are safe.
//
// # Memory
//
// CacheBytes, HeadCacheBytes, up to four memtables under load (one small one at
// rest), and 1 … 2 MiB for the rest. Built without cgo, caches and memtables are
// ordinary Go memory: at the default GOGC the process may grow to twice their
// sum before the collector runs. GOMEMLIMIT bounds that. An idle shard takes 26
// MB at the defaults, nearly all of it HeadCacheBytes, and no more for more users;
// under full load the whole process was seen at 160 MiB with cgo, 230 without.
//
// # Cost
//
// A message costs 440 bytes of log and some 35 µs of CPU, half of that for six
// places in a memtable's skiplist and a quarter for compactions. Two virtual
// cores, shared with other work, made 30,000 to 40,000 durable messages a second
// in batches of 128:
//
//	HERMOD_BENCH_DIR=/a/disk go test ./storage/pebble -run - -bench Messages -benchtime 300000x
package pebble
