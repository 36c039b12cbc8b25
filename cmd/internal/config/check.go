package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Problem is something an operator has to know before the server runs.
type Problem struct {
	Key   string
	Text  string // what is wrong, and what to do
	Fatal bool   // the server refuses to start
}

func (p Problem) String() string {
	kind := "warning"
	if p.Fatal {
		kind = "error"
	}
	return fmt.Sprintf("%-7s  %s: %s", kind, p.Key, p.Text)
}

// Problems is a list in the making.
type Problems []Problem

func (ps *Problems) fail(key, format string, args ...any) {
	*ps = append(*ps, Problem{key, fmt.Sprintf(format, args...), true})
}

func (ps *Problems) warn(key, format string, args ...any) {
	*ps = append(*ps, Problem{key, fmt.Sprintf(format, args...), false})
}

// Fatal reports whether the server would refuse to start.
func (ps Problems) Fatal() bool {
	for _, p := range ps {
		if p.Fatal {
			return true
		}
	}
	return false
}

// Check finds everything that is wrong with cfg on this machine, not only the
// first thing.
func (c *Config) Check() Problems {
	var ps Problems
	c.checkListen(&ps)
	c.checkTLS(&ps)
	c.checkLimits(&ps)
	c.checkRest(&ps)
	c.checkData(&ps)
	c.checkShards(&ps)
	c.checkRedis(&ps)
	c.checkCluster(&ps)
	return ps
}

func (c *Config) checkListen(ps *Problems) {
	addr := func(key, s string) (loopback bool) {
		host, _, err := net.SplitHostPort(s)
		if err != nil {
			ps.fail(key, "%q is no address; write host:port, like 127.0.0.1:5100 or :5101", s)
			return true
		}
		return IsLoopback(host)
	}
	l := &c.Listen
	if l.Plain == "" && l.TLS == "" && l.Proxy == "" {
		ps.fail("listen", "no listener is set; clients could not connect. Set listen.tls (or listen.plain on loopback)")
	}
	if l.Plain != "" && !addr("listen.plain", l.Plain) {
		if l.PlainInsecure {
			ps.warn("listen.plain_insecure", "plaintext is open to the network at %s: passwords and messages can be read on the way", l.Plain)
		} else {
			ps.fail("listen.plain", "%s is not loopback. Use listen.tls, or, if you accept that passwords travel readable, set listen.plain_insecure = true", l.Plain)
		}
	}
	if l.TLS != "" {
		addr("listen.tls", l.TLS)
	}
	if l.Proxy != "" {
		addr("listen.proxy", l.Proxy)
		if len(l.ProxyTrusted) == 0 {
			ps.fail("listen.proxy_trusted", "name the networks that your load balancers connect from, like [\"10.0.0.0/24\"]: whoever may connect here may claim any client address")
		}
	}
	checkNets(ps, "listen.proxy_trusted", l.ProxyTrusted)
	checkNets(ps, "limits.exempt", c.Limits.Exempt)
	switch {
	case c.Admin.Listen == "":
		ps.warn("admin.listen", "is empty: no health checks, metrics or profiles")
	case !addr("admin.listen", c.Admin.Listen):
		ps.fail("admin.listen", "%s is not loopback, and the admin port has no login. Keep 127.0.0.1:5180 and tunnel to it", c.Admin.Listen)
	}
}

// IsLoopback reports whether host, a name or an address without port, is this
// machine and nothing else.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// checkNets reports the texts of list that are no networks.
func checkNets(ps *Problems, key string, list []string) {
	for _, s := range list {
		if _, err := netip.ParsePrefix(s); err != nil {
			ps.fail(key, "%q is no network; write it like 10.0.0.0/24 or 192.0.2.7/32", s)
		}
	}
}

// Nets parses networks that Check has accepted. It never returns nil, which
// package conn takes for its default: no network means none.
func Nets(list []string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

func (c *Config) checkTLS(ps *Problems) {
	if c.Listen.TLS == "" {
		if c.TLS.Cert != "" || c.TLS.Key != "" {
			ps.warn("tls", "a certificate is set but listen.tls is empty, so it is not used")
		}
		return
	}
	if c.TLS.Cert == "" || c.TLS.Key == "" {
		ps.fail("tls", "listen.tls needs tls.cert and tls.key; «hermodctl cert dev» makes a pair for trying it")
		return
	}
	pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
	if err != nil {
		ps.fail("tls", "%v", err)
		return
	}
	if left := time.Until(pair.Leaf.NotAfter); left < 0 {
		ps.fail("tls.cert", "expired on %s", pair.Leaf.NotAfter.Format(time.DateOnly))
	} else if left < 14*24*time.Hour {
		ps.warn("tls.cert", "expires on %s; replace the file and send SIGHUP", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
}

func (c *Config) checkLimits(ps *Problems) {
	l := &c.Limits
	atLeast := func(key string, v, least int) {
		if v < least {
			ps.fail("limits."+key, "is %d; at least %d", v, least)
		}
	}
	atLeast("max_conns", l.MaxConns, 0)
	atLeast("conns_per_ip", l.ConnsPerIP, 1)
	atLeast("new_conns_per_ip", l.NewConnsPerIP, 1)
	atLeast("registers_per_ip", l.RegistersPerIP, 1)
	atLeast("frames_per_second", l.FramesPerSecond, 1)
	atLeast("syncs_per_second", l.SyncsPerSecond, 1)
	atLeast("max_in_flight", l.MaxInFlight, 1)
	atLeast("event_window", l.EventWindow, 16)
	atLeast("outbox_kib", l.OutboxKiB, 128)
	atLeast("handshakes_pending", l.HandshakePending, 1)
	for key, d := range map[string]Duration{
		"first_byte": l.FirstByte, "login": l.Login, "partial_frame": l.PartialFrame, "outbox_stall": l.OutboxStall,
	} {
		if d.Std() < time.Second || d.Std() > 10*time.Minute {
			ps.fail("limits."+key, "is %s; from 1s to 10m", d.Std())
		}
	}
	var fds unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &fds); err == nil {
		if l.MaxConns > 0 && uint64(l.MaxConns) > fds.Max/10*9 {
			ps.fail("limits.max_conns", "is %d, but the hard descriptor limit is %d and a tenth of it stays free; raise LimitNOFILE (ulimit -Hn)", l.MaxConns, fds.Max)
		} else if fds.Max < 4096 {
			ps.warn("limits.max_conns", "only %d descriptors are allowed; raise LimitNOFILE (ulimit -Hn) for more connections", fds.Max)
		}
	}
	for _, p := range Nets(l.Exempt) {
		if !p.Addr().IsLoopback() {
			ps.warn("limits.exempt", "%s may connect, register and send without rate limits", p)
		}
	}
}

func (c *Config) checkRest(ps *Problems) {
	if _, err := zerolog.ParseLevel(c.Log.Level); err != nil || c.Log.Level == "" {
		ps.fail("log.level", "%q is no level; use trace, debug, info, warn or error", c.Log.Level)
	}
	switch c.Log.Format {
	case "auto", "console", "json":
	default:
		ps.fail("log.format", "%q is no format; use auto, console or json", c.Log.Format)
	}
	if d := c.Auth.TokenLife.Std(); d < 15*time.Minute || d > time.Hour {
		ps.fail("auth.token_life", "is %s; from 15m to 60m: a stolen token works so long", d)
	}
	if a := c.Auth; a.Argon2Time < 1 || a.Argon2MemoryKiB < 64 || a.Argon2MemoryKiB > 1<<20 {
		ps.fail("auth.argon2_memory_kib", "%d KiB in %d passes is out of range; the default is 19456 KiB in 2 passes", a.Argon2MemoryKiB, a.Argon2Time)
	} else if uint64(a.Argon2MemoryKiB)*uint64(a.Argon2Time) < 19<<10*2 {
		ps.warn("auth.argon2_memory_kib", "password hashes are weaker than the usual minimum of 19456 KiB in 2 passes; fit for tests only")
	}
	s := c.Storage
	if s.CacheMiB < 8 {
		ps.fail("storage.cache_mib", "is %d; at least 8", s.CacheMiB)
	}
	if s.FreeReserveMiB < 64 {
		ps.fail("storage.free_reserve_mib", "is %d; at least 64: a full disk ends the process in the middle of a write", s.FreeReserveMiB)
	}
	if s.RetainAge.Std() < time.Hour || s.RetainEvents < 100 {
		ps.fail("storage.retain_age", "keep at least 1h and 100 events, or devices that were away could not catch up")
	}
	if d := c.Drain; d.Window.Std() < 0 || d.Timeout.Std() < d.Window.Std() {
		ps.fail("drain.timeout", "is %s; at least drain.window (%s)", d.Timeout.Std(), d.Window.Std())
	}
}

// checkData looks at the nearest existing folder above data.dir.
func (c *Config) checkData(ps *Problems) {
	dir := c.Data.Dir
	if dir == "" {
		ps.fail("data.dir", "is empty; name a folder on a local disk")
		return
	}
	at, err := filepath.Abs(dir)
	if err != nil {
		ps.fail("data.dir", "%v", err)
		return
	}
	for {
		st, err := os.Stat(at)
		if err == nil {
			if !st.IsDir() {
				ps.fail("data.dir", "%s is a file", at)
				return
			}
			break
		}
		if !os.IsNotExist(err) || filepath.Dir(at) == at {
			ps.fail("data.dir", "%v", err)
			return
		}
		at = filepath.Dir(at)
	}
	if unix.Access(at, unix.W_OK) != nil {
		ps.fail("data.dir", "%s is not writable by this user", at)
		return
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err == nil {
		free := fs.Bavail * uint64(fs.Bsize) >> 20
		if free < uint64(c.Storage.FreeReserveMiB) {
			ps.fail("storage.free_reserve_mib", "%d MiB are free at %s, less than the reserve of %d MiB: every write would be refused", free, at, c.Storage.FreeReserveMiB)
		}
	}
}
