//go:build poll_opt

package conn

// pollCallsBack: gnet's poller calls what it finds in the connection.
const pollCallsBack = true
