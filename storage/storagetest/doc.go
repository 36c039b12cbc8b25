// Package storagetest holds the tests that every storage engine passes, and
// those of storage itself that need real engines.
//
// RunShard checks an engine, one storage.Shard, against what the interface
// promises: every kind of row through every way to read it, order and errors of
// transactions, snapshots, fences, tasks and leases. RunCrash cuts its power at
// arbitrary moments and checks that nothing acknowledged is missing and no seq
// is given out twice.
//
// An engine's own test package calls them with a way to open it.
package storagetest
