// Package mysql is a shard on a MySQL or MariaDB database: storage.Shard over
// tables that an operator can query (migrations/ has them, with comments).
// MariaDB 10.11+, MySQL 8.0+ and 9 take the same SQL; a test holds that.
//
// # A transaction
//
// Commit is two round trips (DESIGN's aim), each a text of several statements:
//
//	START TRANSACTION; SELECT version FROM fence … LOCK IN SHARE MODE;
//	SELECT … FROM convs … FOR UPDATE; … user_heads …; sends, user_convs, …
//	                          ← plan runs here, on the rows that are locked
//	INSERT … VALUES (…),(…),… ; …; COMMIT
//
// at READ COMMITTED, in the order of R2: slots, conversation heads, user heads,
// then everything else, each table's rows in the order of their keys. Numbers
// are written as digits and bytes in hexadecimal. Prepared statements were the
// first thought: they take one round trip each.
//
// The slots are behind one row, the fence: who relies on slots share-locks it,
// who changes one counts its version up. So a batch over 200 slots locks one row
// instead of 200, and reads the slots only when the version is new to the node.
//
// A row that does not exist cannot be locked. A missing conversation head is
// therefore written first, with no generation, which readers take for none. Of
// other missing rows (a name at registration) two transactions may both see
// nothing; the second then fails on the key and is run again. It sees the row.
//
// # Durability
//
// done is called when COMMIT has returned, so it means what the server means by
// that: with innodb_flush_log_at_trx_commit=1, and sync_binlog=1 where there is
// a binary log, it is on the disk. Check says whether that is so. Barrier is a
// commit of its own: everything visible is before it in the log.
//
// The dones of transactions that share rows keep their order (see order), though
// their COMMITs may return in any.
//
// # Errors
//
// A deadlock or a duplicate key: run again, three times. A lock wait: rolled
// back and ErrBusy. No connection, before the writes were sent: ErrBusy. After
// that, without an answer: ErrUnknown. A full disk: ErrFull. What the server
// refuses otherwise is for good.
//
// # What was left out
//
// inbox has no UNIQUE (user_id, conv, rev): that an event comes once is held by
// user_convs.head_rev, which is written under the same lock, and the second
// index would be a random read and write for every delivery.
package mysql
