package attack

import (
	"context"
	"crypto/x509"
	"net/netip"
)

// Site starts what is attacked. Its servers are real ones; it ends whatever was
// not closed when it is closed itself.
type Site interface {
	// Serve starts a server: the embedded engine on a new data folder, default
	// limits, nobody exempt, all three kinds of listeners on loopback.
	Serve(ctx context.Context, o Wish) (*Server, error)
	// Fleet starts a cluster of at least two nodes. It is called once at most.
	Fleet(ctx context.Context) (*Fleet, error)
}

// Wish says what is special about a server.
type Wish struct {
	// Settings are added to its environment, like HERMOD_LIMITS_EXEMPT=::1/128.
	Settings []string
	// Files, if set, is how many files it may have open.
	Files int
}

// Server is one that runs. Addresses are host:port.
type Server struct {
	Plain, TLS, Proxy string
	// Admin is the operator's HTTP.
	Admin string
	// Balancer is the one address that may speak PROXY.
	Balancer netip.Addr
	// Roots trusts the TLS listener, which is called 127.0.0.1.
	Roots *x509.CertPool
	// Pid is its process, to see its memory; 0: that cannot be seen.
	Pid int
	// Keys is the folder of the keys that sign access tokens.
	Keys string
	// Close ends it.
	Close func() error
}

// Fleet is a cluster that runs.
type Fleet struct {
	Nodes []Node
	// Roots trusts the nodes' listeners for clients; nil: they are plaintext.
	Roots *x509.CertPool
	// CACert and CAKey are the files of the cluster's authority: what an
	// attacker must not get. The scripts make certificates with them that are
	// nearly good.
	CACert, CAKey string
	// Cut parts the nodes from each other: nothing that one tells the others
	// arrives until it is mended. Databases and clients stay connected.
	Cut func(ctx context.Context) (mend func() error, err error)
}

// Node is one of a Fleet.
type Node struct {
	// Addr is for clients, Peer for other nodes, Admin for the operator.
	Addr, Peer, Admin string
	Number            uint64
	// Incarnation is this run of it.
	Incarnation uint64
}
