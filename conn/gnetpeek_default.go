//go:build !poll_opt

package conn

// pollCallsBack: gnet's poller finds a connection by its descriptor.
const pollCallsBack = false
