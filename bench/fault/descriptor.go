package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
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
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return nil, err
		}
		var old unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
			return nil, err
		}
		low := unix.Rlimit{Cur: min(old.Cur, uint64(len(open)+spare)), Max: old.Max}
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
