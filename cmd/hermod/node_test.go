package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNodeIdentityLastsAndCountsStarts(t *testing.T) {
	dir := t.TempDir()
	a, err := startNode(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := startNode(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a.ID == 0 || a.ID != b.ID || a.Incarnation != 1 || b.Incarnation != 2 {
		t.Errorf("first %+v, then %+v", a, b)
	}
	other, err := startNode(t.TempDir(), 0)
	if err != nil || other.ID == a.ID {
		t.Errorf("another folder: %+v %v", other, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("files left: %v", left)
	}
}

func TestDamagedNodeFileStopsTheStart(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "{", "{}", `{"id":-1}`} {
		if err := os.WriteFile(filepath.Join(dir, nodeFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := startNode(dir, 0); err == nil {
			t.Errorf("%q read as %+v", text, n)
		}
	}
}
