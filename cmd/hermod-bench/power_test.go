package main

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench/lossy"
	"github.com/hermod-im/hermod/bench/torture"
	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// TestPowerLoss takes the power from a node and its disk in the middle of
// traffic: nothing that was acknowledged may be missing afterwards, whatever the
// disk kept of the rest.
func TestPowerLoss(t *testing.T) {
	if !canLosePower(t) {
		return
	}
	sys := startOnLossyDisk(t, serverBinary(t, ""), "")
	cut := torture.Strike{After: 2 * time.Second, Fault: "power-cut", Target: "node", Last: 100 * time.Millisecond}
	rep, err := torture.Run(t.Context(), torture.Options{
		System: sys, Schedule: []torture.Strike{cut, cut, cut, cut}, People: 12, Rate: 200, Restless: -1, Ghosts: -1,
		Calm: 2 * time.Second, Duration: time.Second, Patience: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if !rep.OK() || rep.Acked < 300 || len(rep.Strikes) != 4 {
		var text bytes.Buffer
		_ = rep.WriteSummary(&text)
		t.Errorf("%s", &text)
	}
	disk := sys.disk.lossy.Stats()
	if disk.Cuts != 4 || disk.Lost == 0 || disk.Syncs < 50 {
		t.Errorf("%+v: the cuts have not cut anything off", disk)
	}
	t.Logf("%d acknowledged, %+v", rep.Acked, disk)
}

// TestPowerLossTellsServersApart: one that answers before the disk has synced
// loses what it acknowledged, and is found out; or the test above would prove
// nothing.
func TestPowerLossTellsServersApart(t *testing.T) {
	if !canLosePower(t) {
		return
	}
	const sent = 50
	for bug, lost := range map[string]int{"": 0, "ack-before-sync": sent} {
		t.Run("bug "+bug, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			sys := startOnLossyDisk(t, serverBinary(t, "torture"), bug)
			c, err := client.Dial(ctx, client.Options{
				Endpoints:   sys.Endpoints(),
				Device:      client.Device{Slot: proto.DeviceSlot_DEVICE_SLOT_PHONE, Platform: "test"},
				Credentials: client.Credentials{Name: "alice", Password: "correct horse battery", Register: true},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			sys.disk.lossy.Sync() // Alice stays in any case
			var last client.Ack
			for range sent {
				if last, err = c.Send(ctx, client.User(c.UserID()), &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: []byte("m")}); err != nil {
					t.Fatal(err)
				}
			}
			sys.disk.lossy.PowerCut(0)
			sys.Kill()
			if err := sys.disk.lossy.PowerOn(); err != nil {
				t.Fatal(err)
			}
			if err := sys.Start(ctx); err != nil {
				t.Fatal(err)
			}
			stores, err := sys.Stores(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stores.Close() }()
			log, err := stores.Log(ctx, torture.ConvKey(last.Conversation))
			if err != nil {
				t.Fatal(err)
			}
			kept := 0
			for _, e := range log.Entries {
				if e.Kind == torture.KindMessage {
					kept++
				}
			}
			if got := sent - kept; got != lost {
				t.Errorf("%d of %d acknowledged messages are lost; want %d", got, sent, lost)
			}
		})
	}
}

// canLosePower says in so many words if the test cannot run here; root can.
func canLosePower(t *testing.T) bool {
	t.Helper()
	err := lossy.Available()
	if err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	if err != nil {
		t.Logf("NOT RUN: %v", err)
	}
	return err == nil
}

// startOnLossyDisk starts a node, which ends with the test.
func startOnLossyDisk(t *testing.T, binary, bug string) *single {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sys, err := startSingle(ctx, binary, t.TempDir(), func(s *single) {
		s.kind = lossyDisk
		if bug != "" {
			s.environ = append(s.environ, "HERMOD_TORTURE_BUG="+bug)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sys.Close(); err != nil {
			t.Error(err)
		}
	})
	return sys
}
