package pebble

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// markerFS syncs a folder before Pebble makes a marker in it, the file whose
// name says which manifest is in force. Pebble up to 2.1.7 makes the manifest,
// then the marker, and syncs both at once: a power cut between, on a file system
// that keeps no order among the files of a folder, can leave a marker that names
// a manifest which is not there, and the data does not open (cockroachdb/pebble
// #5825, mended after that version). A marker is made at each start and each new
// manifest, so this costs nothing.
type markerFS struct{ vfs.FS }

// markerPrefix is how the names of markers begin.
const markerPrefix = "marker."

func (fs markerFS) Unwrap() vfs.FS { return fs.FS }

func (fs markerFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasPrefix(fs.PathBase(name), markerPrefix) {
		if err := fs.syncFolder(fs.PathDir(name)); err != nil {
			return nil, err
		}
	}
	return fs.FS.Create(name, c)
}

func (fs markerFS) syncFolder(dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
