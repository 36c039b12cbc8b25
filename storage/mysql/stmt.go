package mysql

import (
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"strconv"
)

// stmt is the text of one round trip: statements, separated by semicolons.
//
// Values are written into it as literals. Prepared statements would need one
// round trip each, and cannot carry several statements. Numbers are digits and
// bytes are hexadecimal, so nothing that a client sent can be read as SQL.
type stmt struct {
	b []byte
	// first: the next item of a list has no comma before it.
	first bool
}

func (s *stmt) reset()           { s.b = s.b[:0] }
func (s *stmt) add(text string)  { s.b = append(s.b, text...) }
func (s *stmt) i64(v int64)      { s.b = strconv.AppendInt(s.b, v, 10) }
func (s *stmt) u64(v uint64)     { s.b = strconv.AppendUint(s.b, v, 10) }
func (s *stmt) end()             { s.b = append(s.b, ';') }
func (s *stmt) open(text string) { s.add(text); s.first = true }

// sep is a comma, but before the first item.
func (s *stmt) sep(with string) {
	if !s.first {
		s.add(with)
	}
	s.first = false
}

func (s *stmt) bytes(v []byte) {
	s.add("X'")
	s.b = hex.AppendEncode(s.b, v)
	s.add("'")
}

// text returns a copy, as the driver wants a string.
func (s *stmt) text() string { return string(s.b) }

// row reads the columns of a result's row one after the other. What does not
// fit is remembered: err tells at the end.
type row struct {
	v   []driver.Value
	at  int
	err error
}

func (r *row) next() driver.Value {
	if r.at >= len(r.v) {
		r.fail("a column is missing")
		return nil
	}
	v := r.v[r.at]
	r.at++
	return v
}

func (r *row) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("mysql: column %d: %s", r.at, what)
	}
}

func (r *row) i64() int64 {
	switch v := r.next().(type) {
	case int64:
		return v
	case uint64:
		return int64(v)
	case []byte:
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			r.fail("not a number")
		}
		return n
	}
	r.fail("not a number")
	return 0
}

// null reports whether the next column is NULL, which u64 takes for 0.
func (r *row) null() bool { return r.at < len(r.v) && r.v[r.at] == nil }

func (r *row) u64() uint64 {
	switch v := r.next().(type) {
	case nil:
		return 0
	case int64:
		return uint64(v)
	case uint64:
		return v
	case []byte:
		n, err := strconv.ParseUint(string(v), 10, 64)
		if err != nil {
			r.fail("not a number")
		}
		return n
	}
	r.fail("not a number")
	return 0
}

// bytes returns a copy, nil for NULL.
func (r *row) bytes() []byte {
	switch v := r.next().(type) {
	case nil:
		return nil
	case []byte:
		return append(make([]byte, 0, len(v)), v...)
	}
	r.fail("not bytes")
	return nil
}

// into copies bytes of a fixed length.
func (r *row) into(dst []byte) {
	v, ok := r.next().([]byte)
	if !ok || len(v) != len(dst) {
		r.fail(fmt.Sprintf("not %d bytes", len(dst)))
		return
	}
	copy(dst, v)
}
