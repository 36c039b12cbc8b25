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

// startNode reads the identity from dir, making it at the first start, and
// counts this start durably before it returns. The caller holds the engine's
// lock on dir, so no two starts count at once.
func startNode(dir string) (nodeIdentity, error) {
	path := filepath.Join(dir, nodeFile)
	var n nodeIdentity
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &n); err != nil || n.ID == 0 {
			return n, fmt.Errorf("%s is damaged (%v); restore it from a backup, or delete it to give this node a new identity", path, err)
		}
	case errors.Is(err, fs.ErrNotExist):
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
