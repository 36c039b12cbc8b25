package conn

import "testing"

// A mailbox that is never empty, as with a client that pipelines all the time,
// takes no more room than what waits in it.
func TestMailboxStaysSmall(t *testing.T) {
	const waiting = 20
	m := new(mailboxes).get()
	next, pushed := uint64(0), uint64(0)
	push := func() { m.push(request(pushed), 10); pushed++ }
	for range waiting {
		push()
	}
	for range 10_000 {
		push()
		if f := m.pop(); f.GetId() != next {
			t.Fatalf("got frame %d, want %d", f.GetId(), next)
		}
		next++
	}
	if m.len() != waiting || m.bytes != 10*waiting {
		t.Errorf("%d frames of %d bytes wait, want %d", m.len(), m.bytes, waiting)
	}
	if c := cap(m.items); c > 8*waiting {
		t.Errorf("room for %d", c)
	}
}
