package fault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermod-im/hermod/bench/local"
)

// TestProcessFaults strikes a Redis with everything that can happen to a
// process, and wants it back.
func TestProcessFaults(t *testing.T) {
	r := local.TestRedis(t, local.RedisOptions{})
	parts := []Part[Process]{{"redis", r}}
	answers := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := r.Do(ctx, "PING")
		return err == nil
	}
	for _, tt := range []struct {
		f    Fault
		gone bool // while it lasts
		pid  bool // is another process afterwards
	}{
		{Kill("kill", "", parts, 0, 0), true, true},
		{Pause("pause", "", parts, 0, 0), true, false},
		{Restart("restart", "", parts, 0, 0), true, true},
		{Rolling("rolling", "", parts), false, true},
		{Revived(Descriptors("descriptors", "", parts, 0, 0), parts), false, false},
	} {
		pid := r.Pid()
		heal, err := tt.f.Strike(t.Context(), tt.f.Targets[0])
		must(t, err)
		if answers() == tt.gone {
			t.Errorf("%s: answers: %v", tt.f.Name, tt.gone)
		}
		must(t, heal(t.Context()))
		if !answers() || (r.Pid() != pid) != tt.pid {
			t.Errorf("%s: healed, answers: %v, pid %d → %d", tt.f.Name, answers(), pid, r.Pid())
		}
	}
	f := Revived(Fault{Name: "none", Targets: []string{"redis"}, Strike: func(context.Context, string) (Heal, error) {
		return func(context.Context) error { return nil }, nil
	}}, parts)
	heal, err := f.Strike(t.Context(), "redis")
	must(t, err)
	must(t, syscall.Kill(r.Pid(), syscall.SIGKILL)) // it ends by itself
	waitFor(t, "the end", func() bool { return !answers() })
	waitFor(t, "word of the end", func() bool {
		select {
		case <-r.Ended():
			return true
		default:
			return false
		}
	})
	must(t, heal(t.Context()))
	if !answers() {
		t.Error("nobody has revived it")
	}
	if _, err := Kill("kill", "", parts, 0, 0).Strike(t.Context(), "redos"); err == nil || !strings.Contains(err.Error(), `"redis"`) {
		t.Errorf("an unknown target: %v", err)
	}
}

func TestDescriptors(t *testing.T) {
	p := &self{}
	var before, during, after unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	// Many have come and most have gone: their numbers are free.
	var crowd []*os.File
	for range 60 {
		g, err := os.Open("/dev/null")
		must(t, err)
		crowd = append(crowd, g)
	}
	for i, g := range crowd {
		if i < 40 {
			must(t, g.Close())
		} else {
			defer g.Close()
		}
	}
	f := Descriptors("descriptors", "", []Part[Process]{{"self", p}}, 0, 0)
	heal, err := f.Strike(t.Context(), "self")
	must(t, err)
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &during))
	var open []*os.File
	for err == nil {
		var g *os.File
		if g, err = os.Open("/dev/null"); err == nil {
			open = append(open, g)
		}
	}
	must(t, heal(t.Context()))
	for _, g := range open {
		must(t, g.Close())
	}
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &after))
	if !errors.Is(err, syscall.EMFILE) || len(open) > 10 || after != before || during.Cur >= before.Cur {
		t.Errorf("%v after %d files; limits %v, %v, %v", err, len(open), before, during, after)
	}
}

// self is this process.
type self struct{ Process }

func (*self) Pid() int { return os.Getpid() }

func TestFullDisk(t *testing.T) {
	if err := Mountable(); err != nil {
		t.Logf("NOT RUN: %v", err)
		return
	}
	d, err := MountDisk(filepath.Join(t.TempDir(), "disk"), 8<<20)
	must(t, err)
	defer func() { must(t, d.Close()) }()
	write := func(size int) error { return os.WriteFile(filepath.Join(d.Dir(), "f"), make([]byte, size), 0o600) }
	must(t, write(4<<20))
	heal, err := Full("full", "", []Part[*Disk]{{"disk", d}}, 64<<10, 0, 0).Strike(t.Context(), "disk")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(d.Dir(), "small"), []byte("fits"), 0o600))
	if err := write(5 << 20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v on a full disk", err)
	}
	must(t, heal(t.Context()))
	must(t, write(7<<20))
	if err := write(9 << 20); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v: more than there is", err)
	}
}

func TestClockFile(t *testing.T) {
	c := Clock{File: filepath.Join(t.TempDir(), "node1.clock")}
	must(t, c.Right()) // it is
	heal, err := Step("step", "", []Part[Clock]{{"node1", c}}, -5*time.Minute, 0, 0).Strike(t.Context(), "node1")
	must(t, err)
	if text, err := os.ReadFile(c.File); err != nil || string(text) != "-5m0s" {
		t.Errorf("%q, %v", text, err)
	}
	must(t, heal(t.Context()))
	if _, err := os.Stat(c.File); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("healed, and %v", err)
	}
}
