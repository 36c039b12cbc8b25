package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermod-im/hermod/bench/observe"
)

// usage is what a process uses at one moment, in bytes.
type usage struct {
	RSS uint64
	// PSS and Anon come from smaps_rollup; 0 where that was not read.
	PSS, Anon uint64
	CPU       time.Duration // user and system, since it started
	// started tells one process from its successor.
	started string
}

// probe reads the server's figures: from /proc by pid, or else from the
// Prometheus page of its admin HTTP.
type probe struct {
	pid   int
	admin string
}

// newProbe returns nil if there is nothing to read from.
func newProbe(pid int, admin string) *probe {
	if pid == 0 && admin == "" {
		return nil
	}
	return &probe{pid: pid, admin: strings.TrimRight(admin, "/")}
}

func (p *probe) source() string {
	if p.pid != 0 {
		return fmt.Sprintf("/proc/%d", p.pid)
	}
	return p.admin + "/metrics"
}

// read samples the process; detailed adds PSS and Anon, which makes the kernel
// walk the page tables.
func (p *probe) read(ctx context.Context, detailed bool) (usage, error) {
	if p.pid == 0 {
		return p.readMetrics(ctx)
	}
	return readProc("/proc/"+strconv.Itoa(p.pid), detailed)
}

// userHz is the unit of times in /proc/PID/stat: 100 on every Linux.
const userHz = 100

func readProc(dir string, detailed bool) (usage, error) {
	var u usage
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, fmt.Errorf("bench: server process: %w", err)
	}
	// The command name may hold anything, brackets too.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 22 {
		return u, fmt.Errorf("bench: %s/stat: %d fields", dir, len(fields))
	}
	utime, err1 := strconv.ParseUint(fields[11], 10, 64)
	stime, err2 := strconv.ParseUint(fields[12], 10, 64)
	pages, err3 := strconv.ParseUint(fields[21], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return u, fmt.Errorf("bench: %s/stat: %w", dir, err)
	}
	u.CPU = time.Duration(utime+stime) * time.Second / userHz
	u.RSS = pages * uint64(os.Getpagesize())
	u.started = fields[19]
	// VmRSS is exact where the count in stat is batched per thread.
	if v, err := observe.ReadKB(dir+"/status", "VmRSS:"); err == nil {
		u.RSS = v["VmRSS:"]
	}
	if detailed {
		v, err := observe.ReadKB(dir+"/smaps_rollup", "Rss:", "Pss:", "Anonymous:")
		if err != nil {
			return u, fmt.Errorf("bench: server process: %w", err)
		}
		u.PSS, u.Anon = v["Pss:"], v["Anonymous:"]
	}
	return u, nil
}

// pageTimeout is how long the server's page may take: a sample that comes later
// says nothing of its moment.
const pageTimeout = 3 * time.Second

func (p *probe) readMetrics(ctx context.Context) (usage, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	page, err := observe.Get(ctx, p.admin)
	if err != nil {
		return usage{}, err
	}
	return usageOn(page)
}

// usageOn is what a page says of its process.
func usageOn(page observe.Page) (usage, error) {
	rss, ok1 := page["process_resident_memory_bytes"]
	cpu, ok2 := page["process_cpu_seconds_total"]
	started, ok3 := page["process_start_time_seconds"]
	if !ok1 || !ok2 || !ok3 {
		return usage{}, errors.New("bench: the admin page has no process metrics: give --pid")
	}
	return usage{RSS: uint64(rss), CPU: time.Duration(cpu * float64(time.Second)), started: strconv.FormatFloat(started, 'g', -1, 64)}, nil
}

// ownCPU is what this process has used so far.
func ownCPU() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
