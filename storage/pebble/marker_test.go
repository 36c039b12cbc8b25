package pebble

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A power cut right after a marker was made leaves data that opens, whichever
// of the files that were not synced yet are there.
func TestMarkerNamesWhatIsThere(t *testing.T) {
	mem := vfs.NewCrashableMem()
	cuts := &cutAtMarkers{FS: mem, mem: mem}
	for range 3 { // each start has markers of its own
		if err := open(t, Options{Dir: "data", FS: cuts}).Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(cuts.left) < 3*20 {
		t.Fatalf("%d cuts in three starts", len(cuts.left))
	}
	for i, disk := range cuts.left {
		s, err := Open(Options{Dir: "data", FS: disk})
		if err != nil {
			t.Fatalf("cut %d: %v", i, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// cutAtMarkers keeps what power cuts would leave behind every marker.
type cutAtMarkers struct {
	vfs.FS
	mem  *vfs.MemFS
	left []*vfs.MemFS
}

func (c *cutAtMarkers) Create(name string, k vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(name, k)
	if strings.HasPrefix(c.PathBase(name), markerPrefix+"manifest.") {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 0))
			c.left = append(c.left, c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}))
		}
	}
	return f, err
}

func TestMarkerWithoutItsFolder(t *testing.T) {
	fs := markerFS{vfs.NewMem()}
	for name, ok := range map[string]bool{"marker.x": true, "nowhere/marker.x": false} {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if (err == nil) != ok {
			t.Errorf("Create(%q): %v", name, err)
		}
		if f != nil {
			_ = f.Close()
		}
	}
	if _, err := fs.Stat("marker.x"); err != nil {
		t.Error(fmt.Errorf("the marker: %w", err))
	}
}
