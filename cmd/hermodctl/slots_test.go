package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/cmd/internal/slots"
)

// Slots move while no server runs, and by way of the server that runs on them.
func TestSlots(t *testing.T) {
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	defer srv.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "hermod.toml")
	text := fmt.Sprintf("[data]\ndir = %q\n[admin]\nlisten = %q\n[[storage.shard]]\nid = 1\nengine = 'embedded'\n[[storage.shard]]\nid = 2\nengine = 'embedded'\n",
		filepath.Join(dir, "data"), strings.TrimPrefix(srv.URL, "http://"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set := Settings{Config: file}
	var out bytes.Buffer
	if err := (&ShardsInit{set}).Run(&out); err != nil {
		t.Fatal(err)
	}
	both := slotSettings{Settings: set}
	move := func(c SlotsMove, want string) {
		t.Helper()
		out.Reset()
		c.slotSettings, c.Frozen = both, true
		if err := c.Run(&out); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	move(SlotsMove{Slots: "0-1", To: 2}, "2 slots are on shard 2")
	if err := (&SlotsMove{slotSettings: both, Slots: "0-1", To: 7}).Run(&out); err == nil || !strings.Contains(err.Error(), "shard 7") {
		t.Errorf("to a shard that is not there: %v", err)
	}

	cfg, err := set.load()
	if err != nil {
		t.Fatal(err)
	}
	shards, err := cfg.OpenShards(t.Context(), config.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	moves := slots.Handle(mux, shards, zerolog.Nop())
	move(SlotsMove{From: 2, Count: 3, To: 1}, "3 slots are on shard 1")
	if err := (&SlotsMove{slotSettings: both, Slots: "0-1", To: 7}).Run(&out); err == nil || !strings.Contains(err.Error(), "shard 7") {
		t.Errorf("the server has no such shard either: %v", err)
	}
	moves.Stop()
	for _, sh := range shards {
		if err := sh.Close(); err != nil {
			t.Error(err)
		}
	}
	out.Reset()
	if err := (&SlotsStatus{both}).Run(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2-2047,4093-4095", "0-1,2048-4092"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
