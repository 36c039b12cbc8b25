package storagetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// ShardEnv is one shard under test: a place for data and a clock.
type ShardEnv struct {
	// Open opens the shard. After Close it may be called again and finds the
	// same data. The test closes what it opened.
	Open func(t testing.TB) storage.Shard
	// Advance moves the shard's clock forward.
	Advance func(d time.Duration)
}

// RunShard checks everything that storage.Shard promises short of crashes (see
// RunCrash). env is called for each test and starts with no data; what it needs
// to clean up, it registers with t.Cleanup.
func RunShard(t *testing.T, env func(t testing.TB) ShardEnv) {
	tests := []struct {
		name string
		run  func(f *shardFix)
	}{
		{"Rows", testRows},
		{"LockedPositions", testLockedPositions},
		{"Deletions", testDeletions},
		{"CallersOwnBytes", testCallersOwnBytes},
		{"HeadsWithoutRows", testHeadsWithoutRows},
		{"HeadsFollowRows", testHeadsFollowRows},
		{"HeadsAfterTrim", testHeadsAfterTrim},
		{"ForgetSends", testForgetSends},
		{"InboxPages", testInboxPages},
		{"EntriesPages", testEntriesPages},
		{"UserConvPages", testUserConvPages},
		{"BlockPages", testBlockPages},
		{"UserPages", testUserPages},
		{"SnapshotIsolation", testSnapshotIsolation},
		{"SnapshotsAgree", testSnapshotsAgree},
		{"PlanError", testPlanError},
		{"EmptyWrites", testEmptyWrites},
		{"DoneOrder", testDoneOrder},
		{"ConcurrentCommits", testConcurrentCommits},
		{"ManyHeads", testManyHeads},
		{"SlotFence", testSlotFence},
		{"SlotFenceRace", testSlotFenceRace},
		{"Barrier", testBarrier},
		{"Tasks", testTasks},
		{"Leases", testLeases},
		{"Export", testExport},
		{"ExportLargeBodies", testExportLargeBodies},
		{"Purge", testPurge},
		{"PurgeMany", testPurgeMany},
		{"PurgeRefuses", testPurgeRefuses},
		{"Canceled", testCanceled},
		{"Closed", testClosed},
		{"CloseWaits", testCloseWaits},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			f := &shardFix{T: t, env: env(t)}
			f.s = f.env.Open(t)
			tt.run(f)
			if err := f.s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			goleak.VerifyNone(t, leaks)
		})
	}
}

// shardFix is a test's shard and short ways to use it; all but try fail the test.
type shardFix struct {
	*testing.T
	env ShardEnv
	s   storage.Shard
}

// shardWait is how long anything may take before a test calls it stuck.
const shardWait = 20 * time.Second

func (f *shardFix) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), shardWait)
	f.Cleanup(cancel)
	return ctx
}

// try commits and waits for done.
func (f *shardFix) try(l storage.Locks, plan func(*storage.Locked) (*storage.Writes, error)) error {
	f.Helper()
	done := make(chan error, 2)
	if err := f.s.Commit(f.ctx(), &l, plan, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-time.After(shardWait):
		return errors.New("done was not called")
	}
}

func (f *shardFix) commit(l storage.Locks, plan func(*storage.Locked) (*storage.Writes, error)) {
	f.Helper()
	if err := f.try(l, plan); err != nil {
		f.Fatalf("Commit: %v", err)
	}
}

func (f *shardFix) write(w storage.Writes) {
	f.Helper()
	f.commit(storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return &w, nil })
}

// locked returns what a transaction sees.
func (f *shardFix) locked(l storage.Locks) (rows storage.Locked) {
	f.Helper()
	f.commit(l, func(x *storage.Locked) (*storage.Writes, error) {
		rows = *x
		return &storage.Writes{}, nil
	})
	return rows
}

func (f *shardFix) view(read func(v storage.Snap), slots ...storage.SlotRef) {
	f.Helper()
	err := f.s.View(f.ctx(), slots, func(v storage.Snap) error {
		read(v)
		return nil
	})
	if err != nil {
		f.Fatalf("View: %v", err)
	}
}

func (f *shardFix) reopen() {
	f.Helper()
	if err := f.s.Close(); err != nil {
		f.Fatalf("Close: %v", err)
	}
	f.s = f.env.Open(f)
}

// twice runs check on the shard as it is, and again after opening it anew.
func (f *shardFix) twice(check func()) {
	f.Helper()
	check()
	f.reopen()
	check()
}

// must returns v, or fails the test.
func must[T any](v T, err error) func(f *shardFix) T {
	return func(f *shardFix) T {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
		return v
	}
}
