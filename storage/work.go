package storage

import "slices"

// A work is the working set of one batch: every row that its operations named,
// once. It is built while locks are merged, filled by each run of the plan,
// and changed by one operation after the other, so that the second sees the
// first's heads, dedupe rows and marks. It belongs to one committer and is
// used again for every batch: at the rates this runs, a map made per batch
// was a quarter of the CPU time.
type work struct {
	s     *Store
	shard *shard
	slots *slotMap
	batch *batch
	early earlySends

	locks    Locks
	slotSeen [Slots / 64]uint64

	convs     index[ConvKey, ConvHead]
	users     index[UserID, UserHead]
	sends     index[SendKey, SendRow]
	userConvs index[UserConvKey, UserConv]
	tasks     index[TaskKey, Task]
	names     index[string, NameRow]
	accounts  index[UserID, Account]
	devices   index[UserID, []deviceRow]
	blocks    index[BlockKey, Block]

	now    int64
	locked *Locked
	owed   []Task // see owe
	// carried are the entries that tasks are to deliver; raisedAt says which of
	// batch.raised a locked task is, -1: none.
	carried  []carried
	raisedAt []int32
	out      Writes
}

// carried is an entry for recipients on another shard, and its task's position.
type carried struct {
	task  int32
	entry Entry
}

// deviceRow is a device, and whether the plan changed it.
type deviceRow struct {
	Device
	dirty bool
}

// index keeps rows by key and by position.
type index[K comparable, V any] struct {
	at   map[K]int32
	keys []K
	rows []workRow[V]
}

type workRow[V any] struct {
	v     V
	dirty bool
}

// add names a row and returns its position.
func (x *index[K, V]) add(k K) int32 {
	if i, ok := x.at[k]; ok {
		return i
	}
	if x.at == nil {
		x.at = make(map[K]int32)
	}
	i := int32(len(x.keys))
	x.at[k] = i
	x.keys = append(x.keys, k)
	return i
}

func (x *index[K, V]) reset() {
	if len(x.keys) > 0 {
		clear(x.at)
		clear(x.rows) // frees what the last batch's rows point to
		x.keys = x.keys[:0]
		x.rows = x.rows[:0]
	}
}

// load takes the rows that the engine locked.
func (x *index[K, V]) load(vs []V) {
	x.rows = slices.Grow(x.rows[:0], len(vs))[:len(vs)]
	for i := range vs {
		x.rows[i] = workRow[V]{v: vs[i]}
	}
}

// touch returns the row at i, to be changed.
func (x *index[K, V]) touch(i int32) *V {
	x.rows[i].dirty = true
	return &x.rows[i].v
}

func (x *index[K, V]) row(i int32) *V { return &x.rows[i].v }

// reset forgets the last batch.
func (w *work) reset(b *batch, slots *slotMap) {
	w.batch, w.slots = b, slots
	clear(w.slotSeen[:])
	w.locks.Slots = w.locks.Slots[:0]
	w.convs.reset()
	w.users.reset()
	w.sends.reset()
	w.userConvs.reset()
	w.tasks.reset()
	w.names.reset()
	w.accounts.reset()
	w.devices.reset()
	w.blocks.reset()
	w.locked = nil
}

// here reports whether a slot is on this shard.
func (w *work) here(slot Slot) bool { return int(w.slots.owner[slot]) == w.shard.idx }

// useSlot names a slot that an operation touches.
func (w *work) useSlot(slot Slot) {
	if bit := uint64(1) << (slot % 64); w.slotSeen[slot/64]&bit == 0 {
		w.slotSeen[slot/64] |= bit
		w.locks.Slots = append(w.locks.Slots, w.slots.ref(slot))
	}
}

func (w *work) merged() *Locks {
	l := &w.locks
	l.Convs, l.Users, l.Sends = w.convs.keys, w.users.keys, w.sends.keys
	l.UserConvs, l.Tasks, l.Names = w.userConvs.keys, w.tasks.keys, w.names.keys
	l.Accounts, l.DevicesOf, l.Blocks = w.accounts.keys, w.devices.keys, w.blocks.keys
	return l
}

// load starts a run of the plan: everything an earlier run did is forgotten.
func (w *work) load(l *Locked) {
	w.locked, w.now = l, l.Now
	w.convs.load(l.Convs)
	w.users.load(l.Users)
	w.sends.load(l.Sends)
	w.userConvs.load(l.UserConvs)
	w.tasks.load(l.Tasks)
	w.names.load(l.Names)
	w.accounts.load(l.Accounts)
	w.blocks.load(l.Blocks)
	w.devices.rows = w.devices.rows[:0]
	for _, ds := range l.Devices {
		var rows []deviceRow
		for _, d := range ds {
			rows = append(rows, deviceRow{Device: d})
		}
		w.devices.rows = append(w.devices.rows, workRow[[]deviceRow]{v: rows})
	}
	o := &w.out
	clear(o.Entries)
	clear(o.Inbox)
	*o = Writes{
		Convs: o.Convs[:0], Users: o.Users[:0], Entries: o.Entries[:0], Inbox: o.Inbox[:0], Sends: o.Sends[:0],
		UserConvs: o.UserConvs[:0], Tasks: o.Tasks[:0], DelTasks: o.DelTasks[:0], Trims: o.Trims[:0],
	}
	w.batch.deliveries = w.batch.deliveries[:0]
	w.batch.raised = w.batch.raised[:0]
	w.owed = w.owed[:0]
	clear(w.carried)
	w.carried = w.carried[:0]
}

// mergeOwed joins what is owed to a conversation's recipient with its task row,
// where that is among the locked ones.
func (w *work) mergeOwed() {
	for i := range w.owed {
		t := w.owed[i]
		for j := range w.owed[:i] {
			if w.owed[j].Key == t.Key {
				w.owed[j].ToRev, t.Found = max(w.owed[j].ToRev, t.ToRev), false
			}
		}
		w.owed[i].Found = t.Found
	}
	for _, t := range w.owed {
		if at, ok := w.tasks.at[t.Key]; ok && t.Found {
			*w.tasks.touch(at) = t
		} else if t.Found {
			w.out.Tasks = append(w.out.Tasks, t)
			w.batch.raised = append(w.batch.raised, owing{Task: t})
		}
	}
}

// writes collects what the operations changed.
func (w *work) writes() *Writes {
	o := &w.out
	w.mergeOwed()
	o.Convs = changed(&w.convs, o.Convs)
	o.Users = changed(&w.users, o.Users)
	o.Sends = changed(&w.sends, o.Sends)
	o.UserConvs = changed(&w.userConvs, o.UserConvs)
	o.Names = changed(&w.names, o.Names)
	o.Accounts = changed(&w.accounts, o.Accounts)
	for i := range o.Users {
		u := &o.Users[i]
		if was := w.locked.Users[w.users.at[u.User]]; was.Found && u.Floor > was.Floor {
			o.Trims = append(o.Trims, Trim{User: u.User, Floor: u.Floor})
			w.s.bug.keepFloor(u, was)
		}
	}
	w.taskWrites()
	for i := range w.blocks.rows {
		if r := &w.blocks.rows[i]; r.dirty && r.v.Found {
			o.Blocks = append(o.Blocks, r.v)
		} else if r.dirty {
			o.DelBlocks = append(o.DelBlocks, r.v.Key)
		}
	}
	w.deviceWrites()
	return o
}

// taskWrites also says which tasks this node has to deliver, and what.
func (w *work) taskWrites() {
	o := &w.out
	w.raisedAt = w.raisedAt[:0]
	for i := range w.tasks.rows {
		at := int32(-1)
		if r := &w.tasks.rows[i]; r.dirty && r.v.Found {
			o.Tasks = append(o.Tasks, r.v)
			if r.v.Owner == w.s.opt.Node {
				at = int32(len(w.batch.raised))
				w.batch.raised = append(w.batch.raised, owing{Task: r.v})
			}
		} else if r.dirty {
			o.DelTasks = append(o.DelTasks, r.v.Key)
		}
		w.raisedAt = append(w.raisedAt, at)
	}
	for i := range w.carried {
		if at := w.raisedAt[w.carried[i].task]; at >= 0 {
			r := &w.batch.raised[at]
			r.entries = append(r.entries, w.carried[i].entry)
		}
	}
}

func changed[K comparable, V any](x *index[K, V], dst []V) []V {
	for i := range x.rows {
		if x.rows[i].dirty {
			dst = append(dst, x.rows[i].v)
		}
	}
	return dst
}

// deviceWrites compares each changed list with the one that was locked.
func (w *work) deviceWrites() {
	for i := range w.devices.rows {
		r := &w.devices.rows[i]
		if !r.dirty {
			continue
		}
		for _, d := range r.v {
			if d.dirty {
				w.out.Devices = append(w.out.Devices, d.Device)
			}
		}
		for _, was := range w.locked.Devices[i] {
			if !slices.ContainsFunc(r.v, func(d deviceRow) bool { return d.Key == was.Key }) {
				w.out.DelDevices = append(w.out.DelDevices, was.Key)
			}
		}
	}
}
