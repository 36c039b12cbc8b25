package storagetest

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// testTasksOfOldPlaces: entries are still owed to a recipient when that moves,
// to a third shard or to the conversation's own; or the conversation moves,
// task and all. Later ones come after them all the same.
func testTasksOfOldPlaces(f *storeFix) {
	for i, moves := range [][]int{{2}, {0}, {2, 0}, {0, 2}} { // where the recipient goes
		a := f.userOn(0, 100+i)
		b := f.userOn(1, 300+i)
		for n := 0; storage.PairKey(a, b).Home() != a; n++ {
			b = f.userOn(1, 400+20*i+n)
		}
		f.owedWhileMoving(a, b, b.Slot(), moves)
	}
	for i, moves := range [][]int{{2}, {1}, {1, 0}} { // where the conversation goes
		a := f.userOn(0, 500+i)
		b := f.userOn(1, 700+i)
		for n := 0; storage.PairKey(a, b).Home() != a; n++ {
			b = f.userOn(1, 800+20*i+n)
		}
		f.owedWhileMoving(a, b, a.Slot(), moves)
	}
}

func (f *storeFix) owedWhileMoving(a, b storage.UserID, slot storage.Slot, moves []int) {
	f.Helper()
	k := storage.PairKey(a, b)
	var last storage.Appended
	want := []string{}
	say := func(body string) {
		last = f.send(message(a, b, body))
		want = append(want, body)
	}
	say("1")
	f.waitHead(b, 1)
	f.waitTasks(1)
	f.envs[0].Advance(time.Second)
	for _, sh := range f.shards { // alive, wherever its task will be
		if _, err := sh.Lease(f.ctx(), ghost, 1, time.Hour); err != nil {
			f.Fatal(err)
		}
	}
	f.ghostEntries(k, a, last, 2, 4)
	want = append(want, "ghost 2", "ghost 3", "ghost 4")
	m := f.mover(storage.MoverOptions{})
	for i, to := range moves {
		f.move(m, slot, to)
		f.head(a) // the Store learns where they are; else its task is the ghost's
		f.head(b)
		say(fmt.Sprintf("after move %d", i))
		say(fmt.Sprintf("and again %d", i))
	}
	f.closeMover(m)
	if slot == b.Slot() { // else what was sent is in the ghost's task, too
		f.waitHead(b, uint64(len(want)))
		if got := bodies(f.inbox(b)); !slices.Equal(got, want) {
			f.Errorf("moves %v of slot %d: the inbox is %q, want %q", moves, slot, got, want)
		}
	}
	for i := range f.envs {
		f.envs[i].Advance(2 * time.Hour) // the ghost is dead
	}
	f.waitTasks(1, ghost)
	f.contiguous(b, f.inbox(b))
	if got := bodies(f.inbox(b)); !slices.Equal(got, want) {
		f.Errorf("moves %v of slot %d, after the takeover: the inbox is %q, want %q", moves, slot, got, want)
	}
	say("the end")
	f.waitHead(b, uint64(len(want)))
	f.contiguous(a, f.inbox(a))
}

// testTaskFindsItsSlot: a task is due for somebody whose slot has moved since
// this node last looked, and who asks for nothing, nor does anybody else write:
// the task by itself has the node look again.
func testTaskFindsItsSlot(f *storeFix) {
	a, b := f.pairOn(0, 1)
	for i, to := range []int{0, 2} { // the conversation's own shard, or a third one
		for n := range 3 {
			f.send(message(a, b, fmt.Sprint(n))) // what is known of b now counts for seconds
		}
		f.waitTasks(1)
		m := f.mover(storage.MoverOptions{})
		f.move(m, b.Slot(), to)
		f.closeMover(m)
		f.send(message(a, b, "moved"))
		f.waitTasks(1)
		if got := bodies(f.inbox(b)); len(got) != 4*(i+1) || got[len(got)-1] != "moved" {
			f.Errorf("the inbox after move %d is %q", i, got)
		}
		m = f.mover(storage.MoverOptions{})
		f.move(m, b.Slot(), 1)
		f.closeMover(m)
	}
}

// testTwoNodes: two nodes append to the same users flat out.
func testTwoNodes(f *storeFix) {
	o := f.opt
	o.Node, o.Deliver = 2, f.deliver
	second := f.store(o)
	defer second.Close()
	var stop atomic.Bool
	f.twoNodes(second, f.users(3), 250, &stop)
}
