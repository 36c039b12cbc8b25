package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hermod-im/hermod/bench/fault"
	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/bench/lossy"
)

// Disks that a single node's data may be on.
const (
	plainDisk = ""      // whatever --dir is on
	smallDisk = "small" // in memory, and can be full
	lossyDisk = "lossy" // in memory, and loses what was not synced with the power
)

// smallDiskSize is much more than the short tortures write that use it.
const smallDiskSize = 2 << 30

// disk is one that was mounted for a node; at most one of the two is.
type disk struct {
	small *fault.Disk
	lossy *lossy.FS
	cuts  uint64 // how often the power failed, and the seed of the last time
}

// mountDisk puts what will be in a folder on a disk of that kind.
func mountDisk(kind, dir string) (d disk, err error) {
	if kind != plainDisk {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return d, err
	}
	switch kind {
	case plainDisk:
	case smallDisk:
		d.small, err = fault.MountDisk(dir, smallDiskSize)
	case lossyDisk:
		d.lossy, err = lossy.Mount(dir)
	default:
		err = fmt.Errorf("there is no disk %q; there are %s and %s", kind, smallDisk, lossyDisk)
	}
	return d, err
}

// close unmounts; nobody uses the disk any more.
func (d *disk) close() error {
	switch {
	case d.small != nil:
		return d.small.Close()
	case d.lossy != nil:
		return d.lossy.Close()
	}
	return nil
}

// about names the disk in reports.
func (d *disk) about() string {
	switch {
	case d.small != nil:
		return ", on a small disk"
	case d.lossy != nil:
		return ", on a disk that loses power"
	}
	return ""
}

// faults are what can happen to the disk under a node.
func (d *disk) faults(node *local.Server) []fault.Fault {
	return []fault.Fault{d.full(node), d.powerCut(node)}
}

func (d *disk) full(node *local.Server) fault.Fault {
	var disks []fault.Part[*fault.Disk]
	if d.small != nil {
		disks = []fault.Part[*fault.Disk]{{Name: "node", It: d.small}}
	}
	f := fault.Revived(fault.Full("disk-full", "the node's disk is full", disks, 64<<10, time.Second, 10*time.Second),
		[]fault.Part[fault.Process]{{Name: "node", It: node}})
	f.Unable = func() error {
		if d.small != nil {
			return nil
		}
		return cmp.Or(fault.Mountable(), errors.New("the data is on no disk of its own: --disk="+smallDisk))
	}
	return f
}

// powerCut takes the disk's power, and then the node's: as long as it runs, it
// gets errors. The first cut leaves nothing that was not synced, each later one
// something else.
func (d *disk) powerCut(node *local.Server) fault.Fault {
	f := fault.Fault{
		Name: "power-cut", About: "the machine loses power, and with it what was not synced", Most: 2 * time.Second,
		Unable: func() error {
			if d.lossy != nil {
				return nil
			}
			return cmp.Or(lossy.Available(), errors.New("the data is on no disk that loses power: --disk="+lossyDisk))
		},
	}
	return fault.On(f, []fault.Part[*disk]{{Name: "node", It: d}}, func(_ context.Context, d *disk) (fault.Heal, error) {
		d.lossy.PowerCut(d.cuts)
		d.cuts++
		node.Kill()
		return func(ctx context.Context) error {
			if err := d.lossy.PowerOn(); err != nil {
				return err
			}
			return node.Start(ctx)
		}, nil
	})
}

// mount puts the data folder on the disk that is wanted.
func (s *single) mount() (err error) {
	dir := filepath.Join(s.dir, "disk")
	if s.disk, err = mountDisk(s.kind, dir); err == nil && s.kind != plainDisk {
		s.cfg.Data.Dir = filepath.Join(dir, "data")
	}
	return err
}
