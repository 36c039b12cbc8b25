// Package attack attacks Hermod servers the way strangers, thieves and other
// users would: over the wire, from outside, against the release limits.
//
//	report, err := attack.Run(ctx, attack.Options{Site: site})
//	report.WriteSummary(os.Stdout)
//	if !report.OK { os.Exit(1) }
//
// An Attack is a claim ("who says nothing is closed after 5 s") and a script
// that tries to break it. It ends in one of four ways: the claim held, and a
// number was measured; somebody got through (a breach); it could not be run
// here, and says why; or it failed for a reason that proves nothing, which
// counts as a failure of the run too.
//
// # What is attacked
//
// A Site starts the servers; cmd/hermod-bench has the one that starts real
// processes. Most attacks share one server with the default limits and nobody
// exempt. Each takes loopback addresses of its own (127.x.y.z), so to the
// server they are different people and the limits per address do not mix. What
// wears a whole server down (descriptors, handshakes, memory) gets one of its
// own.
//
// The tests of the server's packages attack the same rules from inside, with
// limits made short and a look into the metrics. Here it is the whole system
// and the numbers of the release.
//
// # Where to start
//
// attack.go says what an attack is, list.go lists them all; scene.go and wire.go
// are what scripts are written with. Scripts stop by panicking with a stop,
// which run recovers: a script of thirty steps would otherwise be sixty lines of
// error handling. A new request of the protocol needs an attack in cross_try.go:
// the run fails until there is one.
//
// The package's own test lets all of it loose on a server that lets everybody
// in, and wants to hear of it.
package attack
