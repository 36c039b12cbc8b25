package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hermod-im/hermod/bench/lossy"
)

// lossyDisk is a disk that can lose power, or nil where none can be had: then
// the test is not run, and says so. Root can have one.
func lossyDisk(t *testing.T) *lossy.FS {
	t.Helper()
	if err := lossy.Available(); err != nil {
		if os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Logf("NOT RUN: %v", err)
		return nil
	}
	disk, err := lossy.Mount(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	return disk
}

// TestDataFolderSurvivesPowerLoss: the folders that a first start makes are on
// the disk before anything in them is promised to anybody.
func TestDataFolderSurvivesPowerLoss(t *testing.T) {
	disk := lossyDisk(t)
	if disk == nil {
		return
	}
	dir := filepath.Join(disk.Dir(), "var", "hermod")
	start := func() nodeIdentity {
		t.Helper()
		d, err := openData(dir, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
		return d.node
	}
	first := start()
	disk.PowerCut(0)
	if err := disk.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if second := start(); second.ID != first.ID || second.Incarnation != first.Incarnation+1 {
		t.Errorf("node %+v, after the cut %+v: it has forgotten itself", first, second)
	}
}
