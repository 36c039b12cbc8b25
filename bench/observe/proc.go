package observe

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Resident is what a process has in memory, in bytes.
func Resident(pid int) (uint64, error) {
	v, err := ReadKB(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
	return v["VmRSS:"], err
}

// ReadKB reads lines such as «VmRSS:  123 kB» of a file in /proc, in bytes. It
// is an error if a name is missing.
func ReadKB(path string, names ...string) (map[string]uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values := make(map[string]uint64, len(names))
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		for _, name := range names {
			if f[0] == name {
				n, err := strconv.ParseUint(f[1], 10, 64)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", path, err)
				}
				values[name] = n << 10
			}
		}
	}
	if len(values) != len(names) {
		return nil, fmt.Errorf("%s: not all of %v are there", path, names)
	}
	return values, nil
}
