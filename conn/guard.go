package conn

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFiles is 90% of what this process may open.
func maxFiles() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 900
	}
	return int(max(min(r.Cur, 1<<30)/10*9, 16))
}

// maxPeers is how many addresses without a live connection the guard remembers
// at most, for their rate. An attacker with more addresses than that makes it
// forget, which costs us the rate of addresses that can do without.
const maxPeers = 64 << 10

// guard counts connections by address.
type guard struct {
	mu    sync.Mutex
	peers map[uint64]peer
	swept stamp
}

type peer struct {
	opened bucket
	live   int32
}

// peerKey is an IPv4 address or an IPv6 /64. The high half of an IPv6 source
// never is ffff::/16, which is multicast.
func peerKey(a netip.Addr) uint64 {
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return 0xffff<<48 | uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

// enter counts a new connection of a; ReasonUnknown: it may stay, and leave
// must follow.
func (g *guard) enter(a netip.Addr, now stamp, lim *Limits) Reason {
	key := peerKey(a)
	g.mu.Lock()
	defer g.mu.Unlock()
	p, known := g.peers[key]
	if !known && len(g.peers) >= maxPeers {
		g.forget(now, lim)
	}
	if !p.opened.take(now, lim.PerIPRate, lim.PerIPRate) {
		g.peers[key] = p
		return ReasonPerIPRate
	}
	if int(p.live) >= lim.PerIPLive {
		g.peers[key] = p
		return ReasonPerIPLive
	}
	p.live++
	g.peers[key] = p
	return ReasonUnknown
}

// leave takes a connection back that enter has counted.
func (g *guard) leave(a netip.Addr) {
	key := peerKey(a)
	g.mu.Lock()
	defer g.mu.Unlock()
	if p, ok := g.peers[key]; ok {
		p.live--
		g.peers[key] = p
	}
}

// sweep forgets who has been quiet. Called on every tick, it works once a
// second.
func (g *guard) sweep(now stamp, lim *Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.since(g.swept) < 1000 {
		return
	}
	g.swept = now
	for key, p := range g.peers {
		if p.live <= 0 && p.opened.idle(now, lim.PerIPRate) {
			delete(g.peers, key)
		}
	}
}

// forget makes room for one more: map order is random enough.
func (g *guard) forget(now stamp, lim *Limits) {
	tries := 0
	for key, p := range g.peers {
		if p.live <= 0 {
			delete(g.peers, key)
			return
		}
		if tries++; tries == 64 {
			return // nearly all are live, and those are bounded by MaxFiles
		}
	}
}

func exempt(a netip.Addr, nets []netip.Prefix) bool {
	a = a.Unmap()
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
