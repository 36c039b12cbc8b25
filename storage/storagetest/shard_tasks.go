package storagetest

import (
	"slices"
	"time"

	"github.com/hermod-im/hermod/storage"
)

func (f *shardFix) tasksOf(owner storage.NodeID, after *storage.TaskKey, limit int) []storage.Task {
	f.Helper()
	tasks, err := f.s.Tasks(f.ctx(), owner, after, limit)
	if err != nil {
		f.Fatalf("Tasks: %v", err)
	}
	return tasks
}

func testTasks(f *shardFix) {
	var all []storage.Task
	for i := range 12 {
		k := storage.TaskKey{Conv: storage.SelfKey(storage.UserIDIn(storage.Slot(i/3*1000), 5)), Target: storage.ShardID(i % 3)}
		all = append(all, storage.Task{Key: k, NextRev: 1, ToRev: uint64(i) + 1, Owner: 5, Incarnation: uint64(i), Found: true})
	}
	shuffled := slices.Concat(all[7:], all[:7])
	shuffled = append(shuffled, storage.Task{Key: storage.TaskKey{Conv: all[0].Key.Conv, Target: 9}, Owner: 6, Found: true})
	f.write(storage.Writes{Tasks: shuffled})
	f.twice(func() {
		f.expect("all", f.tasksOf(5, nil, 100), all)
		f.expect("first page", f.tasksOf(5, nil, 5), all[:5])
		f.expect("second page", f.tasksOf(5, &all[4].Key, 5), all[5:10])
		f.expect("last page", f.tasksOf(5, &all[9].Key, 5), all[10:])
		f.expect("after the last", f.tasksOf(5, &all[11].Key, 5), []storage.Task(nil))
		f.expect("no limit, none", f.tasksOf(5, nil, 0), []storage.Task(nil))
		f.expect("another owner", f.tasksOf(6, nil, 5), shuffled[12:])
		f.expect("a stranger", f.tasksOf(7, nil, 5), []storage.Task(nil))
	})
	// Raised, taken over, finished.
	raised, taken := all[0], all[1]
	raised.ToRev, taken.Owner, taken.Incarnation = 99, 6, 1
	f.write(storage.Writes{Tasks: []storage.Task{raised, taken}, DelTasks: []storage.TaskKey{all[2].Key}})
	f.twice(func() {
		f.expect("the rest", f.tasksOf(5, nil, 100), append([]storage.Task{raised}, all[3:]...))
		f.expect("taken over", f.tasksOf(6, nil, 100), []storage.Task{taken, shuffled[12]})
	})
}

func testLeases(f *shardFix) {
	task := func(owner storage.NodeID) storage.Task {
		return storage.Task{Key: storage.TaskKey{Conv: storage.SelfKey(storage.UserIDIn(1, uint64(owner))), Target: 1}, ToRev: 1, Owner: owner, Found: true}
	}
	lease := func(node storage.NodeID, ttl time.Duration, want ...storage.NodeID) {
		f.Helper()
		dead, err := f.s.Lease(f.ctx(), node, 1, ttl)
		if err != nil {
			f.Fatalf("Lease: %v", err)
		}
		slices.Sort(dead)
		f.expect("dead", dead, want)
	}
	f.write(storage.Writes{Tasks: []storage.Task{task(1), task(2)}})
	lease(1, 10*time.Second)
	lease(2, 20*time.Second)
	lease(3, 10*time.Second) // has no tasks
	lease(9, time.Hour)
	f.env.Advance(9 * time.Second)
	lease(9, time.Hour)
	f.env.Advance(2 * time.Second)
	lease(9, time.Hour, 1) // 3's has run out as well, but it owns nothing
	f.reopen()
	lease(9, time.Hour, 1)
	lease(1, 10*time.Second) // oneself is not dead; and back alive
	lease(9, time.Hour)
	f.env.Advance(time.Minute)
	lease(9, time.Hour, 1, 2)
	f.write(storage.Writes{DelTasks: []storage.TaskKey{task(1).Key}})
	lease(9, time.Hour, 2)
	took := task(2)
	took.Owner = 9
	f.write(storage.Writes{Tasks: []storage.Task{took}})
	lease(9, time.Hour)
}
