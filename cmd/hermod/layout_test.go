package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hermod-im/hermod"

// mayImport says which of our packages each of our packages may import. A
// package that is not named here may not exist: add it where it belongs.
var mayImport = map[string][]string{
	"proto":               {},
	"storage":             {},
	"storage/pebble":      {"storage"},
	"storage/mysql":       {"storage"},
	"storage/storagetest": {"storage"},
	"router":              {"proto"},
	"router/peer":         {"router", "proto"},
	"conn":                {"proto"},
	"conn/chat":           {"conn", "router", "storage", "proto"},
	"conn/client":         {"proto"},
	"bench":               {"proto", "conn/client", "bench/observe"},
	"bench/local":         {},
	"bench/observe":       {},
	"bench/fault":         {},
	"bench/lossy":         {},
	"bench/torture":       {"proto", "conn/client", "bench/fault"},
	"bench/attack":        {"proto", "bench/observe"},
	// What the commands share: the configuration, and clusters to play with.
	"cmd/internal/config":  {"storage", "storage/mysql", "storage/pebble", "router/peer"},
	"cmd/internal/cluster": {"cmd/internal/config", "router/peer", "bench/local", "bench/fault"},
	"cmd/internal/slots":   {"storage", "storage/mysql"},
	"cmd/hermod":           {"*"},
	"cmd/hermodctl":        {"*"},
	"cmd/hermod-bench":     {"*"},
}

// TestImportDirections holds the layering: conn and router meet only in
// conn/chat, storage knows nobody, and nothing imports what it is a part of.
func TestImportDirections(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("package %s is not in the layout", name)
		}
		for _, imp := range p.Imports {
			dep, ours := strings.CutPrefix(imp, module+"/")
			if ours && !slices.Contains(allowed, dep) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s; it may import %v", name, dep, allowed)
			}
		}
	}
	if seen < 5 {
		t.Fatalf("go list found %d packages", seen)
	}
}

// TestTopLevelFolders holds the layout of the repository.
func TestTopLevelFolders(t *testing.T) {
	out, err := exec.Command("git", "-C", "../..", "ls-tree", "-d", "--name-only", "HEAD").Output()
	if err != nil {
		t.Fatalf("git ls-tree: %v", err)
	}
	for _, dir := range strings.Fields(string(out)) {
		if !strings.HasPrefix(dir, ".") && !slices.Contains([]string{"proto", "conn", "router", "storage", "cmd", "bench"}, dir) {
			t.Errorf("top-level folder %s is not in the layout", dir)
		}
	}
}
