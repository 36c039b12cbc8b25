package config

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hermod-im/hermod/router/peer"
)

// Identity reads the files that [cluster] names, and the number of the node
// that they are for. An error says why the other nodes would not accept them.
func (cc *ClusterConfig) Identity() (id peer.Identity, node uint64, err error) {
	if cc.CA == "" || cc.Cert == "" || cc.Key == "" {
		return id, 0, errors.New("needs ca, cert and key; «hermodctl cluster ca» and «hermodctl cluster cert» make them")
	}
	if id, err = peer.LoadIdentity(cc.CA, cc.Cert, cc.Key); err != nil {
		return id, 0, err
	}
	if node, err = peer.NodeOf(id.Certificate.Leaf); err == nil {
		err = id.Check(node, time.Now())
	}
	if err != nil {
		return id, 0, fmt.Errorf("cert %s: %w; «hermodctl cluster cert» makes one", cc.Cert, err)
	}
	return id, node, nil
}

// Advertised is the address at which the other nodes reach this one.
func (cc *ClusterConfig) Advertised() (string, error) {
	addr := cc.Advertise
	if addr == "" {
		addr = cc.Listen
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is no address; write host:port, like 10.0.0.1:5190", addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return "", fmt.Errorf("cannot be taken from cluster.listen (%s), which names no host; write the address at which the other nodes reach this one, like 10.0.0.1:5190", addr)
	}
	if port == "0" {
		return "", fmt.Errorf("%q has no port that a node could connect to", addr)
	}
	return addr, nil
}
