package mysql

import (
	"bytes"
	"strings"
)

// table says how a kind of row is kept: its columns in one order for writing
// and reading, the key's first.
type table[R any] struct {
	name string
	keys []string
	cols []string // without the keys
	put  func(*stmt, *R)
	get  func(*row) R
}

// columns is the list for SELECT and INSERT.
func (t *table[R]) columns(s *stmt) {
	s.first = true
	for _, c := range t.keys {
		s.sep(",")
		s.add(c)
	}
	for _, c := range t.cols {
		s.sep(",")
		s.add(c)
	}
}

// insert adds one statement for all rows, none if there are none. Replace
// overwrites the columns of rows that exist; else such a row is an error.
func (t *table[R]) insert(s *stmt, rows []R, replace bool) {
	if len(rows) == 0 {
		return
	}
	s.add("INSERT INTO " + t.name + " (")
	t.columns(s)
	s.open(") VALUES ")
	for i := range rows {
		s.sep(",")
		s.open("(")
		t.put(s, &rows[i])
		s.add(")")
	}
	if replace {
		s.open(" ON DUPLICATE KEY UPDATE ")
		for _, c := range t.cols {
			s.sep(",")
			s.add(c + "=VALUES(" + c + ")")
		}
	}
	s.end()
}

// from begins SELECT columns FROM table WHERE.
func (t *table[R]) from(s *stmt) {
	s.add("SELECT ")
	t.columns(s)
	s.add(" FROM " + t.name + " WHERE ")
}

// byKey begins a SELECT that finds its rows by the primary key, whatever the
// server's statistics say: of a small table it would rather read (and lock)
// everything.
func (t *table[R]) byKey(s *stmt) {
	s.add("SELECT ")
	t.columns(s)
	s.add(" FROM " + t.name + " FORCE INDEX (PRIMARY) WHERE ")
}

// remove deletes rows by their keys: a statement each, and column by column. Of
// anything else (lists of keys, rows of columns, the syntax for joined tables
// with FORCE INDEX) MariaDB makes a walk over the whole of a small table, which
// it locks, waiting for everybody else's rows.
func remove[K any](s *stmt, table string, by *key[K], keys []K) {
	var values stmt
	for i := range keys {
		values.reset()
		values.first = true
		by.put(&values, &keys[i])
		s.add("DELETE FROM " + table)
		rest := values.b // no value has a comma in it
		for n, col := range strings.Split(by.cols, ",") {
			s.add([...]string{" WHERE ", " AND "}[min(n, 1)] + col + "=")
			var value []byte
			value, rest, _ = bytes.Cut(rest, []byte(","))
			s.b = append(s.b, value...)
		}
		s.end()
	}
}

// vi, vu and vb write an item of a VALUES list.
func (s *stmt) vi(v int64)  { s.sep(","); s.i64(v) }
func (s *stmt) vu(v uint64) { s.sep(","); s.u64(v) }
func (s *stmt) vb(v []byte) { s.sep(","); s.bytes(v) }
