package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Descriptors takes from a process the right to open any more files or
// connections than it has, and a few: its limit is lowered while it runs
// (prlimit), to be raised again. Whoever reads his limit at the start only, and
// relies on it, is surprised; so he would be by a whole machine that has no more.
func Descriptors(name, about string, parts []Part[Process], least, most time.Duration) Fault {
	const spare = 4
	f := Fault{Name: name, About: about, Least: least, Most: most}
	return On(f, parts, func(_ context.Context, p Process) (Heal, error) {
		pid := p.Pid()
		if pid == 0 {
			return nil, nil // one that does not run lacks nothing
		}
		limit, err := limitWith(pid, spare)
		if err != nil {
			return nil, err
		}
		var old unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
			return nil, err
		}
		low := unix.Rlimit{Cur: min(old.Cur, limit), Max: old.Max}
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &low, nil); err != nil {
			return nil, err
		}
		return func(context.Context) error {
			if p.Pid() != pid {
				return nil // another process by now, which never had the limit
			}
			err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil)
			if errors.Is(err, unix.ESRCH) {
				return nil // it has ended of this; see Revived
			}
			return err
		}, nil
	})
}

// limitWith is the limit below which a process has so many numbers free. It is
// one of numbers and not of how many there are: those who have gone leave free
// ones between the others.
func limitWith(pid, spare int) (limit uint64, err error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, err
	}
	taken := make(map[string]bool, len(open))
	for _, e := range open {
		taken[e.Name()] = true
	}
	for free := 0; free < spare; limit++ {
		if !taken[strconv.FormatUint(limit, 10)] {
			free++
		}
	}
	return limit, nil
}
