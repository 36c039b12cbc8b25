//go:build !torture

package pebble

import (
	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// bug is a mistake that a server made with the build tag torture has on
// purpose: see bug_on.go. Any other server has none.
type bug struct{}

func openBug() bug { return bug{} }

func (bug) disk(fs vfs.FS) vfs.FS { return fs }

func (bug) writer(db *crdb.DB) func(*crdb.Batch, *crdb.WriteOptions) error { return db.ApplyNoSyncWait }
