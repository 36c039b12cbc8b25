package bench

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	lat, err := Disk(context.Background(), DiskConfig{Dir: dir, Rate: 500, Size: 700, Duration: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if lat.Count != 100 || lat.P99 < lat.P50 || lat.Max < lat.P99 {
		t.Errorf("%+v", lat)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Disk(ctx, DiskConfig{Dir: dir, Rate: 1, Size: 1, Duration: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, c := range []DiskConfig{
		{Rate: 1, Size: 1, Duration: 1}, {Dir: dir, Size: 1, Duration: 1}, {Dir: dir, Rate: 1, Duration: 1}, {Dir: dir, Rate: 1, Size: 1},
	} {
		if _, err := Disk(context.Background(), c); err == nil {
			t.Errorf("%+v: accepted", c)
		}
	}
}
