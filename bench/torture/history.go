package torture

import (
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// History is everything that was asked and everything that was seen, in memory:
// about 100 bytes a message, and 28 for each device that applies it. Numbers of
// messages, people, devices and conversations are places in its lists; message
// and conversation 0 are none.
type History struct {
	run   uint64
	begun time.Time

	mu       sync.Mutex
	people   []account
	byUser   map[int64]int32
	messages []*[chunk]message
	count    int // messages, the zeroth included
	byID     map[[16]byte]uint32
	convs    map[ConvKey]uint32
	keys     []ConvKey
	devices  []*record
	reads    map[place]uint64 // acknowledged read marks, conv_seq
	blocks   []*block
	acked    int
	fickle   []uint32 // acknowledged, and answered otherwise when sent again
	struck   []Struck
}

// chunk is how many messages lie together: the list grows without copying.
const chunk = 4096

// account is one person.
type account struct {
	id   int64
	name string
}

// place is a person in a conversation.
type place struct {
	person int32
	conv   uint32
}

// outcome is what a device was told of a send.
type outcome uint8

const (
	open outcome = iota // nothing yet, or never
	acked
	refused // for good, by code
	unsent  // never handed over: the client would not take it
)

// message is one send.
type message struct {
	id           [16]byte
	begun, ended int32 // ms since History.begun
	from, to     int32
	device       int32
	conv         uint32 // if acked
	rev, convSeq uint32 // if acked
	code         int32  // if refused
	outcome      outcome
	again        uint8 // times that a restarted app handed it over again
}

// record is what one installation of an app saw.
type record struct {
	number, person int32
	slot           int32

	mu    sync.Mutex
	lives []*life
	spans []span
	ended bool // replaced by another installation
}

// life is what an installation applied since it last rebuilt.
type life struct {
	at, ended int32 // ms; the end is that of the rebuild
	epoch     uint64
	base      uint64 // the place in the inbox that the rebuild stands for
	rebuilt   []rebuilt
	seen      []sight
}

// rebuilt is a conversation as a rebuild read it: the newest entries.
type rebuilt struct {
	conv     uint32
	rev      uint64 // of the first of messages
	head     uint64 // rev
	messages []uint32
}

// sight is an event that was applied.
type sight struct {
	seq, rev, convSeq uint32
	conv              uint32
	message           uint32 // 0: none that was ever sent
	at                int32  // ms
	kind              sightKind
}

// sightKind is what a device takes an event for.
type sightKind uint8

const (
	sawMessage sightKind = iota
	sawOther
	sawDamaged // a message whose content is not the one that was sent
)

// span is a time in which a device was online and had caught up, in ms; to is 0
// while it lasts. left: its user, or a kill of the app, had part in its end or
// in the time until the next one.
type span struct {
	from, to int32
	left     bool
}

// block is a time, in ms, in which by has blocked whom: for certain between from
// and until, perhaps between asked and over. from 0: never for certain; over 0:
// it may last.
type block struct {
	by, whom                 int32
	asked, from, until, over int32
}

// NewHistory makes an empty one that begins now.
func NewHistory(run uint64) *History {
	h := &History{run: run, begun: time.Now(), byID: make(map[[16]byte]uint32), convs: make(map[ConvKey]uint32), byUser: make(map[int64]int32), reads: make(map[place]uint64)}
	h.keys = make([]ConvKey, 1)
	h.messages = append(h.messages, new([chunk]message))
	h.count = 1
	return h
}

// now is the time in ms since the beginning.
func (h *History) now() int32 { return int32(time.Since(h.begun) / time.Millisecond) }

// person adds an account; its id is told once it is known.
func (h *History) person(name string) int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.people = append(h.people, account{name: name})
	return int32(len(h.people) - 1)
}

func (h *History) identify(person int32, id int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.people[person].id = id
	h.byUser[id] = person
}

// user is the id of a person.
func (h *History) user(person int32) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.people[person].id
}

// device adds an installation.
func (h *History) device(person, slot int32) *record {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &record{number: int32(len(h.devices)), person: person, slot: slot}
	h.devices = append(h.devices, r)
	return r
}

// begin adds a message that is about to be sent.
func (h *History) begin(id [16]byte, from *record, to int32) uint32 {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.count
	if n%chunk == 0 {
		h.messages = append(h.messages, new([chunk]message))
	}
	h.messages[n/chunk][n%chunk] = message{id: id, begun: now, from: from.person, to: to, device: from.number}
	h.count++
	h.byID[id] = uint32(n)
	return uint32(n)
}

// at is message n, with mu held or when nobody writes any more.
func (h *History) at(n uint32) *message { return &h.messages[n/chunk][n%chunk] }

// idOf is the send id of message n.
func (h *History) idOf(n uint32) (id [16]byte, to int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.at(n)
	return m.id, m.to
}

// answer notes how message n ended; change sets the rest. The first ack holds: an
// app that died right behind it asks again, and has to be told the same.
func (h *History) answer(n uint32, how outcome, change func(*message)) {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.at(n)
	next := *m
	if change != nil {
		change(&next)
	}
	if m.outcome == acked {
		if how == acked && next != *m || how == refused && next.code != int32(proto.ErrorCode_ERROR_CODE_INTERNAL) {
			h.fickle = append(h.fickle, n)
		}
		return
	}
	*m = next
	m.outcome, m.ended = how, now
	if how == acked {
		h.acked++
	}
}

// repeat notes that an app that started again has handed n over again.
func (h *History) repeat(n uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.at(n); m.again < 255 {
		m.again++
	}
}

// conv is the number of a conversation, with mu held.
func (h *History) conv(key []byte) uint32 {
	if len(key) != len(ConvKey{}) {
		return 0
	}
	k := ConvKey(key)
	n, ok := h.convs[k]
	if !ok {
		n = uint32(len(h.keys))
		h.keys = append(h.keys, k)
		h.convs[k] = n
	}
	return n
}

// read notes an acknowledged read mark.
func (h *History) read(person int32, conv []byte, convSeq uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := place{person, h.conv(conv)}
	h.reads[p] = max(h.reads[p], convSeq)
}

// block notes that by is about to block whom.
func (h *History) block(by, whom int32) *block {
	b := &block{by: by, whom: whom, asked: h.now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blocks = append(h.blocks, b)
	return b
}

// totals counts messages by outcome.
func (h *History) totals() (count [unsent + 1]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := 1; n < h.count; n++ {
		count[h.at(uint32(n)).outcome]++
	}
	return count
}

// ackedSoFar is how many messages are acknowledged.
func (h *History) ackedSoFar() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked
}

// current is the life that a record is in, nil before the first.
func (r *record) current() *life {
	if len(r.lives) == 0 {
		return nil
	}
	return r.lives[len(r.lives)-1]
}

// last is the last seq that a life stands for.
func (l *life) last() uint64 {
	if len(l.seen) == 0 {
		return l.base
	}
	return uint64(l.seen[len(l.seen)-1].seq)
}

// caughtUp notes that the device has all there is, lost that its connection is
// gone. Both may be told more than once.
func (r *record) caughtUp(now int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.spans); n == 0 || r.spans[n-1].to != 0 {
		r.spans = append(r.spans, span{from: now})
	}
}

func (r *record) lost(now int32, left bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.spans)
	if n == 0 {
		return
	}
	s := &r.spans[n-1]
	s.left = s.left || left
	if s.to == 0 {
		s.to = max(now, 1)
	}
}

// online reports whether the device is caught up now.
func (r *record) online() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.spans)
	return n > 0 && r.spans[n-1].to == 0
}
