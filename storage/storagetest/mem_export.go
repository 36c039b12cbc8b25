package storagetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/hermod-im/hermod/storage"
)

// kept is a row of a slot: a name that orders it among the others, and a way
// into a page.
type kept struct {
	name string
	add  func(*storage.Writes)
}

// keep adds the rows of one kind.
func keep[K comparable, V any](dst []kept, kind string, rows map[K]V, in func(K, V) bool, add func(*storage.Writes, V)) []kept {
	for k, v := range rows {
		if in(k, v) {
			dst = append(dst, kept{name: fmt.Sprintf("%s %v", kind, k), add: func(w *storage.Writes) { add(w, v) }})
		}
	}
	return dst
}

// Export implements storage.Snap; a place is the name of a row.
func (s *memSnap) Export(slot storage.Slot, after []byte, limit int) (w storage.Writes, next []byte, err error) {
	rows := s.keptUnder(slot)
	slices.SortFunc(rows, func(a, b kept) int { return cmp.Compare(a.name, b.name) })
	from := 0
	if after != nil {
		at, found := slices.BinarySearchFunc(rows, string(after), func(r kept, name string) int { return cmp.Compare(r.name, name) })
		if from = at; found {
			from++
		}
	}
	to := from
	for size := 0; to < len(rows) && to-from < limit && size < 1<<20; to++ {
		entries, inbox := len(w.Entries), len(w.Inbox)
		rows[to].add(&w)
		for _, e := range w.Entries[entries:] {
			size += len(e.Body)
		}
		for _, r := range w.Inbox[inbox:] {
			size += len(r.Entry.Body)
		}
		next = []byte(rows[to].name)
	}
	if to == len(rows) {
		next = nil
	}
	return *clone(&w), next, nil
}

func (s *memState) keptUnder(slot storage.Slot) (rows []kept) {
	rows = keep(rows, "conv", s.convs, func(k storage.ConvKey, _ storage.ConvHead) bool { return k.Slot() == slot },
		func(w *storage.Writes, v storage.ConvHead) { w.Convs = append(w.Convs, v) })
	rows = keep(rows, "user", s.users, func(u storage.UserID, _ storage.UserHead) bool { return u.Slot() == slot },
		func(w *storage.Writes, v storage.UserHead) { w.Users = append(w.Users, v) })
	rows = keep(rows, "entry", s.entries, func(k entryKey, _ storage.Entry) bool { return k.conv.Slot() == slot },
		func(w *storage.Writes, v storage.Entry) { w.Entries = append(w.Entries, v) })
	rows = keep(rows, "inbox", s.inbox, func(k inboxKey, _ storage.InboxRow) bool { return k.user.Slot() == slot },
		func(w *storage.Writes, v storage.InboxRow) { w.Inbox = append(w.Inbox, v) })
	rows = keep(rows, "send", s.sends, func(k storage.SendKey, _ storage.SendRow) bool { return k.Conv.Slot() == slot },
		func(w *storage.Writes, v storage.SendRow) { w.Sends = append(w.Sends, v) })
	rows = keep(rows, "user_conv", s.userConvs, func(k storage.UserConvKey, _ storage.UserConv) bool { return k.User.Slot() == slot },
		func(w *storage.Writes, v storage.UserConv) { w.UserConvs = append(w.UserConvs, v) })
	rows = keep(rows, "task", s.tasks, func(k storage.TaskKey, _ storage.Task) bool { return k.Conv.Slot() == slot },
		func(w *storage.Writes, v storage.Task) { w.Tasks = append(w.Tasks, v) })
	rows = keep(rows, "name", s.names, s.nameOf(slot), func(w *storage.Writes, v storage.NameRow) { w.Names = append(w.Names, v) })
	rows = keep(rows, "account", s.accounts, func(u storage.UserID, _ storage.Account) bool { return u.Slot() == slot },
		func(w *storage.Writes, v storage.Account) { w.Accounts = append(w.Accounts, v) })
	rows = keep(rows, "device", s.devices, func(k storage.DeviceKey, _ storage.Device) bool { return k.User.Slot() == slot },
		func(w *storage.Writes, v storage.Device) { w.Devices = append(w.Devices, v) })
	return keep(rows, "block", s.blocks, func(k storage.BlockKey, _ storage.Block) bool { return k.User.Slot() == slot },
		func(w *storage.Writes, v storage.Block) { w.Blocks = append(w.Blocks, v) })
}

// nameOf tells the names of a slot: those of its accounts.
func (s *memState) nameOf(slot storage.Slot) func(string, storage.NameRow) bool {
	return func(n string, r storage.NameRow) bool {
		return r.User.Slot() == slot && s.accounts[r.User].Found && s.accounts[r.User].Name == n
	}
}

// purge deletes what keptUnder finds.
func (s *memState) purge(slot storage.Slot) {
	maps.DeleteFunc(s.names, s.nameOf(slot))
	maps.DeleteFunc(s.convs, func(k storage.ConvKey, _ storage.ConvHead) bool { return k.Slot() == slot })
	maps.DeleteFunc(s.users, func(u storage.UserID, _ storage.UserHead) bool { return u.Slot() == slot })
	maps.DeleteFunc(s.entries, func(k entryKey, _ storage.Entry) bool { return k.conv.Slot() == slot })
	maps.DeleteFunc(s.inbox, func(k inboxKey, _ storage.InboxRow) bool { return k.user.Slot() == slot })
	maps.DeleteFunc(s.sends, func(k storage.SendKey, _ storage.SendRow) bool { return k.Conv.Slot() == slot })
	maps.DeleteFunc(s.userConvs, func(k storage.UserConvKey, _ storage.UserConv) bool { return k.User.Slot() == slot })
	maps.DeleteFunc(s.tasks, func(k storage.TaskKey, _ storage.Task) bool { return k.Conv.Slot() == slot })
	maps.DeleteFunc(s.accounts, func(u storage.UserID, _ storage.Account) bool { return u.Slot() == slot })
	maps.DeleteFunc(s.devices, func(k storage.DeviceKey, _ storage.Device) bool { return k.User.Slot() == slot })
	maps.DeleteFunc(s.blocks, func(k storage.BlockKey, _ storage.Block) bool { return k.User.Slot() == slot })
}
