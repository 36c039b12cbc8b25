package bench

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

func TestStormConfig(t *testing.T) {
	type server struct{ StormServer }
	ok := StormConfig{Server: server{}}
	if err := ok.Validate(); err != nil || ok.Clients != 15_000 || !slices.Equal(ok.Cuts, []Cut{CutKill, CutDrain}) {
		t.Errorf("defaults: %+v, %v", ok, err)
	}
	for name, c := range map[string]StormConfig{
		"no server":       {},
		"one client":      {Server: server{}, Clients: 1},
		"no such cut":     {Server: server{}, Cuts: []Cut{"scissors"}},
		"negative time":   {Server: server{}, Within: -1},
		"nobody logs in":  {Server: server{}, Logins: -1},
		"far too many":    {Server: server{}, Clients: 1e9},
		"nothing arrives": {Server: server{}, Delivery: -1},
	} {
		if c.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Each way in which an inbox can be wrong is counted.
func TestStormSeesWhatIsWrong(t *testing.T) {
	text := func(seq uint64, text string) *proto.Event {
		return &proto.Event{Seq: seq, ActorId: 7, Body: &proto.Event_Message{Message: &proto.Message{Content: client.Text(text)}}}
	}
	for _, tt := range []struct {
		name     string
		events   []*proto.Event
		wrong    uint64
		complete bool
	}{
		{"right", []*proto.Event{text(4, stormText(0, 1)), text(5, stormText(0, 2))}, 0, true},
		{"one missing", []*proto.Event{text(4, stormText(0, 2))}, 0, false},
		{"twice", []*proto.Event{text(4, stormText(0, 1)), text(5, stormText(0, 1))}, 1, false},
		{"a hole", []*proto.Event{text(4, stormText(0, 1)), text(6, stormText(0, 2))}, 1, true},
		{"an event twice", []*proto.Event{text(4, stormText(0, 1)), text(4, stormText(0, 2))}, 1, true},
		{"somebody else's", []*proto.Event{text(4, stormText(1, 1))}, 1, false},
		{"a round that was not", []*proto.Event{text(4, stormText(0, 3))}, 1, false},
		{"nobody's", []*proto.Event{text(4, stormText(99, 1)), text(5, stormText(-1, 1))}, 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &storm{}
			for n := range 2 {
				s.clients = append(s.clients, &stormClient{s: s, n: n, c: new(client.Client)})
			}
			c := s.clients[1]
			c.expect(2)
			c.acked = 2
			c.events(tt.events)
			if got := s.wrong.Load(); got != tt.wrong || c.complete() != tt.complete {
				t.Errorf("%d wrong, complete is %v; want %d, %v", got, c.complete(), tt.wrong, tt.complete)
			}
		})
	}
}

// Whoever is not online now is not back, whatever it once caught up with.
func TestStormBack(t *testing.T) {
	c, begin := &stormClient{}, time.Now()
	c.caughtUp()
	if at := c.backAt(begin); !at.IsZero() {
		t.Errorf("offline and back at %v", at)
	}
	c.online = true
	if at := c.backAt(begin); at.IsZero() {
		t.Error("online, caught up, and not back")
	}
	if at := c.backAt(time.Now()); !at.IsZero() {
		t.Error("back by what it caught up with before")
	}
}

// A drain that cuts everybody off at one moment is told from one whose window is
// kept; a kill has none.
func TestStormSpread(t *testing.T) {
	cutAt := time.Now()
	for name, c := range map[string]struct {
		kind Cut
		left func(i int) time.Duration
		peak int
		ok   bool
	}{
		"spread":         {CutDrain, func(i int) time.Duration { return time.Duration(1+40*i) * time.Millisecond }, 25, true},
		"all at the end": {CutDrain, func(int) time.Duration { return 4 * time.Second }, 100, false},
		"killed":         {CutKill, func(int) time.Duration { return time.Millisecond }, 100, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &storm{rep: newStormReport(&StormConfig{})}
			for i := range 100 {
				s.clients = append(s.clients, &stormClient{lost: cutAt.Add(c.left(i))})
			}
			res := StormCut{Kind: c.kind}
			gone := cutAt.Add(4 * time.Second)
			s.times(&res, cutAt, gone, gone)
			if res.LeftPeak != c.peak || (len(s.rep.Problems) == 0) != c.ok {
				t.Errorf("%d left at once: %v", res.LeftPeak, s.rep.Problems)
			}
		})
	}
	c := &stormClient{}
	c.setOnline(true)
	c.setOnline(false)
	lost := c.lostAt()
	if c.setOnline(false); lost.Before(cutAt) || c.lostAt() != lost {
		t.Errorf("lost at %v, then at %v", lost, c.lostAt())
	}
}

func TestStormFigures(t *testing.T) {
	at := []time.Duration{0, 100, 900, 1000, 1099, 1100, 5000}
	for i := range at {
		at[i] *= time.Millisecond
	}
	if got := peakWithin(at, time.Second); got != 4 {
		t.Errorf("peak %d, want 4", got)
	}
	if got := timesOf(at); got != (Times{P50: 1, P95: 5, Max: 5}) {
		t.Errorf("times %+v", got)
	}
	if got := labelValues(`{credentials="token",result="OK"}`); got != "token OK" {
		t.Errorf("label values %q", got)
	}
	var b strings.Builder
	rep := newStormReport(&StormConfig{Clients: 3})
	rep.Cuts = []StormCut{{Kind: CutKill, Back: 2}}
	rep.problem("one is missing")
	if err := rep.WriteSummary(&b); err != nil || !strings.Contains(b.String(), "one is missing") || !strings.Contains(b.String(), "FAILED") {
		t.Errorf("%v, %s", err, b.String())
	}
}
