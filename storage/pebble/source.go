package pebble

import (
	"bytes"
	"errors"
	"math"
	"slices"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// source reads rows from the database or one snapshot of it. One goroutine at a
// time; close it. It keeps its iterators: making one costs more than a seek.
type source struct {
	r        crdb.Reader
	it       *crdb.Iterator // for ranges
	points   *crdb.Iterator // for rows that are likely not there: see seek
	key      []byte
	low, upp []byte
}

func (s *source) close() (err error) {
	if s.it != nil {
		err = s.it.Close()
	}
	if s.points != nil {
		err = errors.Join(err, s.points.Close())
	}
	return err
}

// find reads one row. decode must copy what it keeps.
func find[T any](s *source, key []byte, decode func(key, val []byte) (T, error)) (row T, ok bool, err error) {
	val, closer, err := s.r.Get(key)
	if errors.Is(err, crdb.ErrNotFound) {
		return row, false, nil
	}
	if err != nil {
		return row, false, err
	}
	row, err = decode(key, val)
	if cerr := closer.Close(); err == nil {
		err = cerr
	}
	return row, err == nil, err
}

// seek is find for rows that are most likely not there: a new message's dedupe
// row. A plain Get does not ask the filters of the last level, where nearly all
// rows are, and reads a block there for each.
func seek[T any](s *source, key []byte, decode func(key, val []byte) (T, error)) (row T, ok bool, err error) {
	if s.points == nil {
		if s.points, err = s.r.NewIter(&crdb.IterOptions{UseL6Filters: true}); err != nil {
			return row, false, err
		}
	}
	if !s.points.SeekPrefixGE(key) {
		return row, false, s.points.Error()
	}
	val, err := s.points.ValueAndErr()
	if err != nil {
		return row, false, err
	}
	row, err = decode(key, val)
	return row, err == nil, err
}

// bounds restricts the iterator to low ≤ key < upp.
func (s *source) bounds(low, upp []byte) error {
	if s.it != nil {
		s.it.SetBounds(low, upp)
		return nil
	}
	it, err := s.r.NewIter(&crdb.IterOptions{LowerBound: low, UpperBound: upp})
	s.it = it
	return err
}

// last returns the greatest row whose key begins with prefix.
func last[T any](s *source, prefix []byte, decode func(key, val []byte) (T, error)) (row T, ok bool, err error) {
	s.upp = upperBound(s.upp, prefix)
	if err := s.bounds(prefix, s.upp); err != nil {
		return row, false, err
	}
	if !s.it.Last() {
		return row, false, s.it.Error()
	}
	val, err := s.it.ValueAndErr()
	if err != nil {
		return row, false, err
	}
	row, err = decode(s.it.Key(), val)
	return row, err == nil, err
}

// scan calls each for the rows with low ≤ key < upp, ascending, or descending,
// until it answers false.
func (s *source) scan(low, upp []byte, desc bool, each func(key, val []byte) (bool, error)) error {
	if err := s.bounds(low, upp); err != nil {
		return err
	}
	first, next := s.it.First, s.it.Next
	if desc {
		first, next = s.it.Last, s.it.Prev
	}
	for ok := first(); ok; ok = next() {
		val, err := s.it.ValueAndErr()
		if err != nil {
			return err
		}
		if more, err := each(s.it.Key(), val); err != nil || !more {
			return err
		}
	}
	return s.it.Error()
}

// collect decodes up to limit rows with low ≤ key < upp.
func collect[T any](s *source, low, upp []byte, limit int, decode func(key, val []byte) (T, error)) (rows []T, err error) {
	if limit <= 0 {
		return nil, nil
	}
	err = s.scan(low, upp, false, func(key, val []byte) (bool, error) {
		r, err := decode(key, val)
		if err != nil {
			return false, err
		}
		rows = append(rows, r)
		return len(rows) < limit, nil
	})
	return rows, err
}

// conv recovers a conversation's head: what seldom changes from its row, the
// end of the log from the log's newest entry, which is not written twice.
func (s *source) conv(k storage.ConvKey) (storage.ConvHead, error) {
	s.key = convKey(s.key, tableConvs, k)
	h, ok, err := find(s, s.key, decodeConv)
	if err != nil || !ok {
		return storage.ConvHead{Conv: k}, err
	}
	s.key = convKey(s.key, tableEntries, k)
	e, ok, err := last(s, s.key, decodeEntryEnd)
	if err == nil && ok && e.Rev > h.Rev {
		h.Rev, h.ConvSeq, h.LastTime = e.Rev, e.ConvSeq, e.Time
	}
	return h, err
}

// user recovers a user's head likewise. Of an inbox that retention has emptied,
// only the floor is left to tell the newest seq.
func (s *source) user(u storage.UserID) (storage.UserHead, error) {
	s.key = userKey(s.key, tableUsers, u)
	h, ok, err := find(s, s.key, decodeUser)
	if err != nil || !ok {
		return storage.UserHead{User: u}, err
	}
	s.key = userKey(s.key, tableInbox, u)
	seq, _, err := last(s, s.key, decodeInboxSeq)
	h.Seq = max(h.Seq, h.Floor, seq)
	return h, err
}

func (s *source) userConv(k storage.UserConvKey) (storage.UserConv, error) {
	s.key = userConvKey(s.key, k)
	c, _, err := find(s, s.key, decodeUserConv)
	c.Key = k
	return c, err
}

// sends answers position by position, but looks in the order of the keys: each
// seek then starts where the one before ended.
func (s *source) sends(keys []storage.SendKey) ([]storage.SendRow, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	order := make([]sendAt, len(keys))
	for i := range keys {
		sendKey(order[i].key[:0], keys[i])
		order[i].at = i
	}
	slices.SortFunc(order, func(a, b sendAt) int { return bytes.Compare(a.key[:], b.key[:]) })
	rows := make([]storage.SendRow, len(keys))
	for i := range order {
		o := &order[i]
		r, _, err := seek(s, o.key[:], decodeSend)
		if err != nil {
			return nil, err
		}
		r.Key = keys[o.at]
		rows[o.at] = r
	}
	return rows, nil
}

type sendAt struct {
	key [sendKeyLen]byte
	at  int
}

func (s *source) task(k storage.TaskKey) (storage.Task, error) {
	s.key = taskKey(s.key, k)
	t, _, err := find(s, s.key, decodeTask)
	t.Key = k
	return t, err
}

func (s *source) name(name string) (storage.NameRow, error) {
	s.key = textKey(s.key, tableNames, name)
	n, _, err := find(s, s.key, decodeName)
	n.Name = name
	return n, err
}

func (s *source) account(u storage.UserID) (storage.Account, error) {
	s.key = userKey(s.key, tableAccounts, u)
	a, _, err := find(s, s.key, decodeAccount)
	a.User = u
	return a, err
}

func (s *source) devices(u storage.UserID) ([]storage.Device, error) {
	s.low = userKey(s.low, tableDevices, u)
	s.upp = upperBound(s.upp, s.low)
	return collect(s, s.low, s.upp, math.MaxInt, decodeDevice)
}

func (s *source) block(k storage.BlockKey) (storage.Block, error) {
	s.key = blockKey(s.key, k)
	b, _, err := find(s, s.key, decodeBlock)
	b.Key = k
	return b, err
}

func (s *source) meta(name string) (storage.MetaRow, error) {
	s.key = textKey(s.key, tableMeta, name)
	m, _, err := find(s, s.key, decodeMeta)
	m.Name = name
	return m, err
}
