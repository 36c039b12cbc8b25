package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a small file system in memory (tmpfs), which can be full. Its size is
// what is lowered, to what is used: there is no ballast to be written, and the
// moment is exact.
type Disk struct {
	dir  string
	size int64
}

// Mountable says why this process cannot mount anything; nil: it can.
func Mountable() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: a small file system has to be mounted")
	}
	return nil
}

// MountDisk mounts an empty disk of so many bytes on a folder, which is made if
// need be. What is on it takes memory.
func MountDisk(dir string, size int64) (*Disk, error) {
	if err := Mountable(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &Disk{dir: dir, size: size}
	if err := unix.Mount("small", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		return nil, fmt.Errorf("mounting a tmpfs on %s: %w", dir, err)
	}
	return d, nil
}

// Dir is where the disk is.
func (d *Disk) Dir() string { return d.dir }

// Fill leaves so many bytes free, at most; what is written meanwhile counts.
func (d *Disk) Fill(free int64) error {
	// A size that is too small by now is refused: somebody has written.
	for range 100 {
		used, err := d.used()
		if err != nil {
			return err
		}
		if err = d.resize(used + free); !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return fmt.Errorf("%s: its use changes all the time", d.dir)
}

// Free gives the disk its size back.
func (d *Disk) Free() error { return d.resize(d.size) }

// Close unmounts it, and what is on it is gone. Whoever has files open on it
// keeps those.
func (d *Disk) Close() error { return unix.Unmount(d.dir, unix.MNT_DETACH) }

func (d *Disk) used() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize, nil
}

func (d *Disk) resize(size int64) error {
	return unix.Mount("small", d.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_REMOUNT, fmt.Sprintf("size=%d", max(size, 1<<16)))
}

// Full leaves a disk as much free as is named, which may be a little, to see
// what somebody does who stops in time, or nothing.
func Full(name, about string, parts []Part[*Disk], free int64, least, most time.Duration) Fault {
	f := Fault{Name: name, About: about, Least: least, Most: most}
	return On(f, parts, func(_ context.Context, d *Disk) (Heal, error) {
		if err := d.Fill(free); err != nil {
			return nil, errors.Join(err, d.Free())
		}
		return func(context.Context) error { return d.Free() }, nil
	})
}
