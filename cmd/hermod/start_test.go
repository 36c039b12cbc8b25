package main

import (
	"net"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

// TestFailedStartLeavesNothing: what had started before the part that failed
// is closed again, so that the next try finds data folder and ports free.
func TestFailedStartLeavesNothing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := config.Default()
	cfg.Data.Dir = t.TempDir()
	cfg.Storage.FreeReserveMiB = 64
	for name, c := range map[string]struct{ plain, admin string }{
		"listen.plain in use": {ln.Addr().String(), "127.0.0.1:0"},
		"admin.listen in use": {"127.0.0.1:0", ln.Addr().String()},
	} {
		cfg.Listen.Plain, cfg.Admin.Listen = c.plain, c.admin
		if s, err := Start(cfg, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s: server %v, error %v", name, s, err)
		}
	}
	cfg.Listen.Plain, cfg.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0"
	s, err := Start(cfg, zerolog.Nop())
	if err != nil {
		t.Fatalf("after the failed starts: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
