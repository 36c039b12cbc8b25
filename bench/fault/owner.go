package fault

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Owner returns which of some processes, by id, has the socket whose own
// address this is; 0: none of them. It reads /proc, which takes a millisecond
// or more: for links that few connections go through. Only TCP over IPv4.
func Owner(own net.Addr, pids []int) int {
	inode := inodeOf(own)
	if inode == "" {
		return 0
	}
	want := "socket:[" + inode + "]"
	for _, pid := range pids {
		if pid == 0 {
			continue
		}
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && to == want {
				return pid
			}
		}
	}
	return 0
}

// inodeOf looks up a socket by its own address; "" if there is none. A line is
// «sl local_address rem_address st … inode …», addresses as in 0100007F:13EC.
func inodeOf(own net.Addr) string {
	ap, err := netip.ParseAddrPort(own.String())
	if err != nil || !ap.Addr().Unmap().Is4() {
		return ""
	}
	ip := ap.Addr().Unmap().As4()
	local := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), ap.Port())
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) > 9 && f[1] == local && f[9] != "0" {
			return f[9]
		}
	}
	return ""
}
