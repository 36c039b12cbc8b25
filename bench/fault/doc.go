// Package fault makes things go wrong: processes die or freeze, links are cut,
// slow or drip, disks fill up, clocks step, descriptors run out. Everything
// that it does can be undone.
//
// A [Fault] is one kind of trouble, the targets it may hit and how to strike
// and heal. Whoever owns a system (a cluster on this machine, a single server)
// offers a list of them; whoever tortures it picks from the list by a seeded
// schedule:
//
//	heal, err := f.Strike(ctx, f.Targets[0])
//	…
//	err = heal(ctx)
//
// The package knows processes, sockets and disks, and nothing of Hermod.
package fault
