// Package local runs private MariaDB and Redis servers on this machine: real
// ones for tests, for `make cluster` and for taking faults.
//
// A server is this process's own: a folder of its own, a free port of
// 127.0.0.1, a password made for the run, no configuration file of the
// machine's, no service. [StartMariaDB] and [StartRedis] return once the server
// answers (under two seconds). It can then be killed, stopped, paused and
// started again on the same port and the same data:
//
//	db, err := local.StartMariaDB(ctx, local.MariaDBOptions{})
//	defer db.Close()
//	err = db.CreateDatabase(ctx, "shard1")
//	pool, err := sql.Open("mysql", db.DSN("shard1"))
//
// In a test, [TestMariaDB] and [TestRedis] do that and clean up.
//
// # If the packages are missing
//
// They are installed where this process is root and has apt-get; otherwise the
// error names the command to run ([Require]). Only packages without a service
// are asked for, so nothing is left running on a developer's machine.
//
// # Who dies with whom
//
// A server must not outlive the process that wanted it, not even one that was
// killed with -9. PR_SET_PDEATHSIG looks made for that and is not: it fires when
// the *thread* that forked ends, and Go ends threads as it likes. So each
// server has a watchdog, a shell that reads from a pipe whose other end this
// process holds: end of file means that this process is gone, and the watchdog
// kills the server. Servers have a process group of their own, so a Ctrl-C in
// the terminal reaches this process only, which then stops them in order.
package local
