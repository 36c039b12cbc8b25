package main

import (
	"os"
	"runtime"
)

// spareProcs is how many of the runtime's processors there are beyond the CPUs.
const spareProcs = 2

// spareProcessors gives the Go scheduler more processors than there are CPUs,
// unless the operator has set GOMAXPROCS.
//
// A thread that waits in a system call keeps its processor until the runtime's
// monitor takes it away, and at a light load the monitor looks only every few
// milliseconds. Every idle event loop waits like that, and so does whoever syncs
// the disk. With one processor a CPU they held all of them: at 500 messages/s
// one ack in a hundred took 3 to 5 ms, though the disk needed 0.3. With two more
// there is always one for the goroutine that an answer is waiting for: p99 is
// 1.1 ms, and the most messages per second are the same. Making the monitor's
// work unnecessary, by a blocking wait in the loops, would need another gnet.
func spareProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareProcs)
	}
}
