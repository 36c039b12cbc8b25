package pebble

import (
	"sync"
	"testing"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// TestPlanWhileApplying: while a transaction is being applied, the next plan
// runs if all that it reads of it is in the caches, and waits otherwise. Either
// way it sees the rows.
func TestPlanWhileApplying(t *testing.T) {
	u, other := storage.UserIDIn(1, 1), storage.UserIDIn(1, 2)
	self := storage.SelfKey(u)
	head := func(seq uint64) []storage.UserHead { return []storage.UserHead{{User: u, Seq: seq}} }
	send := storage.SendKey{Conv: self, Sender: u, SendID: [16]byte{1}}
	fresh := storage.SendKey{Conv: self, Sender: other}
	device := storage.Device{Key: storage.DeviceKey{User: u}, Slot: 1}
	message := storage.Writes{Users: head(1), Sends: []storage.SendRow{{Key: send, Rev: 5}}, Inbox: []storage.InboxRow{{User: u, Seq: 1}}}
	for _, tt := range []struct {
		name  string
		write storage.Writes
		locks storage.Locks
		waits bool
		seen  func(l *storage.Locked) bool
	}{
		{"cached head", message, storage.Locks{Users: []storage.UserID{u}, Sends: []storage.SendKey{fresh}}, false,
			func(l *storage.Locked) bool { return l.Users[0].Seq == 1 && !l.Sends[0].Found }},
		{"nothing shared", message, storage.Locks{Meta: []string{"m"}, DevicesOf: []storage.UserID{u}}, false,
			func(l *storage.Locked) bool { return !l.Meta[0].Found }},
		{"same send", message, storage.Locks{Sends: []storage.SendKey{send}}, true,
			func(l *storage.Locked) bool { return l.Sends[0].Rev == 5 }},
		{"head not cached", message, storage.Locks{Users: []storage.UserID{other, u}}, true,
			func(l *storage.Locked) bool { return !l.Users[0].Found && l.Users[1].Seq == 1 }},
		{"meta", storage.Writes{Meta: meta("new").Meta}, storage.Locks{Meta: []string{"m"}}, true,
			func(l *storage.Locked) bool { return string(l.Meta[0].Value) == "new" }},
		{"task", storage.Writes{Tasks: []storage.Task{{Key: storage.TaskKey{Conv: self}, ToRev: 3}}}, storage.Locks{Tasks: []storage.TaskKey{{Conv: self}}}, true,
			func(l *storage.Locked) bool { return l.Tasks[0].ToRev == 3 }},
		{"device", storage.Writes{Devices: []storage.Device{device}}, storage.Locks{DevicesOf: []storage.UserID{u}}, true,
			func(l *storage.Locked) bool { return len(l.Devices[0]) == 1 }},
		{"block", storage.Writes{Blocks: []storage.Block{{Key: storage.BlockKey{User: u, Peer: other}}}}, storage.Locks{Blocks: []storage.BlockKey{{User: u, Peer: other}}}, true,
			func(l *storage.Locked) bool { return l.Blocks[0].Found }},
		{"slot", storage.Writes{Slots: []storage.SlotRow{{Slot: 9, State: storage.SlotOwned, Epoch: 4}}}, storage.Locks{Slots: []storage.SlotRef{{Slot: 9, Epoch: 4}}}, true,
			func(*storage.Locked) bool { return true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, Options{HeadCacheBytes: 64 << 10})
			write(t, s, &storage.Writes{Users: head(0)})
			apply, hold, entered := s.write, make(chan struct{}), make(chan struct{})
			s.write = func(b *crdb.Batch, o *crdb.WriteOptions) error {
				close(entered)
				<-hold
				return apply(b, o)
			}
			var wg sync.WaitGroup
			wg.Go(func() { write(t, s, &tt.write) })
			<-entered
			planned := make(chan bool, 1)
			wg.Go(func() {
				err := commit(s, &tt.locks, func(l *storage.Locked) (*storage.Writes, error) {
					planned <- tt.seen(l)
					return nil, nil
				})
				if err != nil {
					t.Error(err)
				}
			})
			if tt.waits {
				select {
				case <-planned:
					t.Error("the plan did not wait for the rows")
					planned <- true
				case <-time.After(20 * time.Millisecond):
				}
				close(hold)
			}
			if !<-planned {
				t.Error("the plan did not see what was written before it")
			}
			if !tt.waits {
				close(hold)
			}
			wg.Wait()
		})
	}
}
