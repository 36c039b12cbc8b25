// Package cluster makes clusters: the certificates that nodes know each other
// by, for any cluster, and whole clusters on this machine, for people to play
// with (`make cluster`) and for tests that kill parts of one.
//
//	ca, err := cluster.MakeCA(cluster.CertOptions{Dir: dir, Life: year})
//	c, err := cluster.Start(ctx, cluster.Options{Dir: dir, Binary: "bin/hermod"})
//	defer c.Close()
//	c.Nodes[1].Kill()
//
// A cluster on this machine has real parts: MariaDB servers, a Redis, and nodes
// that are processes of their own with a hermod.toml each, as an operator would
// write them. Everything dies with the process that started it (bench/local).
package cluster
