// Package torture breaks a Hermod system while many users talk through it, and
// then proves, or disproves, that nothing was lost. cmd/hermod-bench is its
// command line; tests call [Run] themselves.
//
//	rep, err := torture.Run(ctx, torture.Options{System: sys, Seed: 1, Faults: 100})
//	rep.WriteSummary(os.Stdout)
//	if !rep.OK() { … }
//
// # What is tortured
//
// A [System]: real processes, with faults to strike them with, and stores to
// look into at the end. This package knows no process, no database and no
// engine; whoever starts a system hands it in.
//
// # The traffic
//
// People with one to three devices each write to a few others through
// conn/client, as apps do: with retries under one id, across connections, nodes
// and restarts of the app. Devices read, block, go away and come back, are
// killed and start again from what they had stored (session, inbox, outbox), or
// are replaced by a new one that rebuilds from the conversations. Everything
// that a device was told goes into the [History]: when each send began, how it
// ended, and every event that each device applied.
//
// # The faults
//
// [Plan] draws a schedule from a seed: which fault, on which target, for how
// long, how long after the one before. The same seed, faults and options give
// the same schedule. When a fault strikes, the people write on.
//
// # The check
//
// When all is healed and quiet, three sides are compared: what was acknowledged,
// what devices applied, and what the stores hold (invariants I1 to I9, see
// [Invariant]). The stores are read row by row, not asked through the server
// that is on trial. The checker does no I/O but reading the stores, and has
// tests of its own: each invariant violated once, in a history made by hand.
//
// # Times
//
// Beside the invariants, which hold always, a run measures how long it takes
// until everything works again ([Options].Times). A loaded machine makes those
// fail without anything being wrong, so tests leave them out.
package torture
