package conn

import (
	"sync"

	"github.com/hermod-im/hermod/proto"
)

// mailbox holds the frames of one connection that are decoded and not served.
// It exists only while it is not empty; session.admit bounds it.
type mailbox struct {
	items []letter
	head  int
	bytes int
}

type letter struct {
	frame *proto.Frame
	size  int
}

func (m *mailbox) push(f *proto.Frame, size int) {
	if len(m.items) == cap(m.items) && m.head >= m.len() {
		// At least half of it was served: move up instead of growing, or a
		// mailbox that is never empty would grow for ever.
		n := copy(m.items, m.items[m.head:])
		clear(m.items[n:])
		m.items, m.head = m.items[:n], 0
	}
	m.items = append(m.items, letter{f, size})
	m.bytes += size
}

func (m *mailbox) pop() *proto.Frame {
	l := m.items[m.head]
	m.items[m.head] = letter{}
	m.head++
	m.bytes -= l.size
	return l.frame
}

func (m *mailbox) len() int { return len(m.items) - m.head }

// mailboxes is the pool of empty ones.
type mailboxes struct{ pool sync.Pool }

func (p *mailboxes) get() *mailbox {
	if m, ok := p.pool.Get().(*mailbox); ok {
		return m
	}
	return &mailbox{items: make([]letter, 0, 8)}
}

func (p *mailboxes) put(m *mailbox) {
	clear(m.items)
	m.items, m.head, m.bytes = m.items[:0], 0, 0
	p.pool.Put(m)
}
