// Package slots is «hermodctl slots» for whoever has the shards open: the tool
// itself, or the server, where a shard is embedded in that and the tool has to
// ask for it.
//
// Move moves slots one after the other. The users of the one that is moving
// wait; everybody else goes on. Ctrl-C gives the slot that is moving back and
// ends; the same command then goes on with the rest. Status shows which shard
// has what, and what a move that was cut off has left.
package slots
