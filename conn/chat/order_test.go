package chat

import (
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

func TestOrderHold(t *testing.T) {
	conv, other := storage.PairKey(1, 2), storage.PairKey(1, 3)
	type step struct {
		refuse bool // a refusal: by the edge if id is set
		id     uint64
		resume bool
		want   bool
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"nothing held", []step{{id: 1, want: true}, {id: 2, resume: true, want: true}}},
		{"held until resumed", []step{
			{refuse: true}, {id: 4}, {id: 5}, {id: 6, resume: true, want: true}, {id: 7, want: true}}},
		{"held again", []step{
			{refuse: true}, {id: 6, resume: true, want: true}, {refuse: true}, {id: 7}, {id: 8, resume: true, want: true}, {id: 9, want: true}}},
		{"what came before the edge's refusal passes", []step{
			{refuse: true, id: 10}, {id: 8, want: true}, {id: 9, want: true}, {id: 11}, {id: 12, resume: true, want: true}, {id: 13, want: true}}},
		{"a resume from before does not lift the edge's refusal", []step{
			{refuse: true}, {refuse: true, id: 10}, {id: 8, resume: true, want: true}, {id: 11}, {id: 12, resume: true, want: true}, {id: 13, want: true}}},
		{"a resume between two refusals of the edge", []step{
			{refuse: true, id: 10}, {refuse: true, id: 14}, {id: 11, resume: true, want: true}, {id: 12}, {id: 15}, {id: 16, resume: true, want: true}, {id: 17, want: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(session)
			for i, st := range tt.steps {
				if st.refuse {
					s.hold(conv, st.id)
					continue
				}
				if got := s.pass(conv, st.id, st.resume); got != st.want {
					t.Errorf("step %d: pass(%d, %v) is %v", i, st.id, st.resume, got)
				}
				if !s.pass(other, st.id, false) {
					t.Errorf("step %d: another conversation is held", i)
				}
			}
			if s.more != nil {
				t.Errorf("holds are left: %v", s.more.held)
			}
		})
	}
}

func TestOrderHoldsAreBounded(t *testing.T) {
	s := new(session)
	for i := range maxHeld {
		if !s.hold(storage.PairKey(1, storage.UserID(2+i)), 0) {
			t.Fatalf("hold %d refused", i)
		}
	}
	if s.hold(storage.PairKey(1, 1<<40), 0) {
		t.Error("one too many was taken")
	}
	if !s.hold(storage.PairKey(1, 2), 0) {
		t.Error("one that is held already was refused")
	}
}

// TestRefusedOnTheWay: an earlier send is refused while a later one, which has
// passed already, is on its way to storage. It must not overtake.
func TestRefusedOnTheWay(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	s := r.chat.sessionsOf(storage.UserID(a.d.user))[0]
	conv := storage.PairKey(storage.UserID(a.d.user), storage.UserID(b.d.user))
	const id = 1 << 20
	if !s.pass(conv, id, false) {
		t.Fatal("held from the start")
	}
	s.hold(conv, 0)
	r.chat.append(s, id, conv, textTo(b.d.user, "too early"), time.Now())
	if e := a.answer(id).GetError(); e.GetCode() == 0 || !e.GetRetryable() {
		t.Errorf("the later send was answered with %v", e)
	}
	again := textTo(b.d.user, "in order")
	again.ResumeOrder = true
	a.send(again)
	if ev := b.events(1)[0]; text(ev) != "in order" {
		t.Errorf("the recipient got %v", ev)
	}
}
