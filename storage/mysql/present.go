package mysql

import "github.com/hermod-im/hermod/storage"

// present tells which of the rows that were to be locked existed. A row that
// did not is locked by nobody: two transactions may both find nothing and both
// write it. So it is inserted, never replaced; the second fails on the key, runs
// again, and sees the first one's row. (Replacing lost a name key when two nodes
// started at once on an empty database.) Heads of conversations are not here:
// they are made before they are locked.
type present struct {
	users, userConvs, tasks, accounts, blocks, meta []bool
}

// presentIn is taken before a plan runs: the rows are the plan's to change.
func presentIn(l *storage.Locked) present {
	return present{
		users:     found(l.Users, func(h *storage.UserHead) bool { return h.Found }),
		userConvs: found(l.UserConvs, func(c *storage.UserConv) bool { return c.Found }),
		tasks:     found(l.Tasks, func(t *storage.Task) bool { return t.Found }),
		accounts:  found(l.Accounts, func(a *storage.Account) bool { return a.Found }),
		blocks:    found(l.Blocks, func(b *storage.Block) bool { return b.Found }),
		meta:      found(l.Meta, func(m *storage.MetaRow) bool { return m.Found }),
	}
}

func found[R any](rows []R, is func(*R) bool) []bool {
	had := make([]bool, len(rows))
	for i := range rows {
		had[i] = is(&rows[i])
	}
	return had
}

// put writes rows: those whose keys were locked and had no row are inserted,
// all others replace what there is.
func put[R any, K comparable](s *stmt, t *table[R], rows []R, keys []K, had []bool, keyOf func(*R) K) {
	if len(rows) == 0 {
		return
	}
	var missing map[K]bool
	for i, k := range keys {
		if !had[i] {
			if missing == nil {
				missing = make(map[K]bool)
			}
			missing[k] = true
		}
	}
	if missing == nil {
		t.insert(s, rows, true)
		return
	}
	var old, fresh []R
	for i := range rows {
		if missing[keyOf(&rows[i])] {
			fresh = append(fresh, rows[i])
		} else {
			old = append(old, rows[i])
		}
	}
	t.insert(s, old, true)
	t.insert(s, fresh, false)
}
