package main

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// nodeFile holds who this node is, in the data folder.
const nodeFile = "node.json"

// nodeIdentity names a node for good and counts its starts. Leases, tasks and
// directory entries carry both, so that what an earlier run left behind is
// told from what this one did.
type nodeIdentity struct {
	ID          uint64 `json:"id"`
	Incarnation uint64 `json:"incarnation"`
}

// dataFolder is this process's claim on its data folder.
type dataFolder struct {
	lock  *os.File
	node  nodeIdentity
	first bool // the folder is new
}

// openData takes the folder for this process alone, and counts this start in
// it. number is the node's, as its certificate has it; 0: any. Two processes on
// one folder would be one node twice: each would take the other's tasks and
// connections for its own.
func openData(dir string, number uint64) (*dataFolder, error) {
	if err := makeFolder(dir); err != nil {
		return nil, fmt.Errorf("data.dir: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("data.dir: %w", err)
	}
	d := &dataFolder{lock: lock}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("data.dir: another hermod runs on this data (%s); stop it, or give this one a folder of its own", dir)
	}
	if err == nil {
		_, missing := os.Stat(filepath.Join(dir, nodeFile))
		d.first = errors.Is(missing, fs.ErrNotExist)
		d.node, err = startNode(dir, number)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// close gives the folder back; a second time does nothing.
func (d *dataFolder) close() error {
	if err := d.lock.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// startNode reads the identity from dir, making it at the first start, and
// counts this start durably before it returns.
func startNode(dir string, number uint64) (nodeIdentity, error) {
	path := filepath.Join(dir, nodeFile)
	var n nodeIdentity
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &n); err != nil || n.ID == 0 {
			return n, fmt.Errorf("%s is damaged (%v); restore it from a backup, or delete it to give this node a new identity", path, err)
		}
		if number != 0 && n.ID != number {
			return n, fmt.Errorf("data.dir is node %d's, but cluster.cert is for node %d; make a certificate for this node («hermodctl cluster cert --node %[1]d NAME»), or name the right folder", n.ID, number)
		}
	case errors.Is(err, fs.ErrNotExist):
		if number != 0 {
			// A folder that was lost must not count from 1 again: others may
			// remember the starts before.
			n = nodeIdentity{ID: number, Incarnation: uint64(time.Now().Unix())}
			break
		}
		var r [8]byte
		if _, err := rand.Read(r[:]); err != nil {
			return n, err
		}
		n.ID = binary.BigEndian.Uint64(r[:])>>1 | 1
	default:
		return n, err
	}
	n.Incarnation++
	b, err = json.MarshalIndent(n, "", "  ")
	if err != nil {
		return n, err
	}
	return n, writeFileDurably(path, append(b, '\n'))
}

// writeFileDurably replaces path with b: after a crash there is the old file
// or the new one, never half of one.
func writeFileDurably(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// makeFolder makes a folder, and those above it that are missing, so that they
// are there after a power loss, too: all that is ever promised will be in it. A
// new name is on the disk when the folder that it is in has been synced.
func makeFolder(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	var missing []string
	for above := dir; ; above = filepath.Dir(above) {
		if _, err := os.Stat(above); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, above)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, made := range missing {
		if err := syncDir(filepath.Dir(made)); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
