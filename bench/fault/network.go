package fault

import (
	"context"
	"time"
)

// Bad gives all links of a part a trouble, which is gone when it heals.
func Bad(f Fault, parts []Part[[]*Link], t Trouble) Fault {
	return On(f, parts, func(_ context.Context, links []*Link) (Heal, error) {
		removes := make([]func(), len(links))
		for i, l := range links {
			removes[i] = l.Add(t)
		}
		return func(context.Context) error {
			for _, remove := range removes {
				remove()
			}
			return nil
		}, nil
	})
}

// Breaks resets all connections of all links of a part, once.
func Breaks(f Fault, parts []Part[[]*Link]) Fault {
	return On(f, parts, func(_ context.Context, links []*Link) (Heal, error) {
		for _, l := range links {
			l.Break()
		}
		return nil, nil
	})
}

// Network is what can be wrong with a single link, any of these:
//
//	link-cut      connections are reset, new ones too
//	link-silent   nothing gets through, and nobody is told
//	link-deaf     what the connecting side says is lost; answers arrive
//	link-mute     answers are lost; what is said arrives
//	link-slow     each way takes 150 ms longer
//	link-drip     each way carries 2,000 bytes a second
func Network(links []*Link) []Fault {
	parts := make([]Part[[]*Link], len(links))
	for i, l := range links {
		parts[i] = Part[[]*Link]{l.Name, []*Link{l}}
	}
	held, slow, drip := Way{Held: true}, Way{Delay: 150 * time.Millisecond}, Way{Rate: 2000}
	var out []Fault
	for _, f := range []struct {
		name, about string
		t           Trouble
	}{
		{"link-cut", "a link is cut: connections are reset", Trouble{Refused: true}},
		{"link-silent", "a link falls silent, both ways", Trouble{Up: held, Down: held}},
		{"link-deaf", "a link loses requests, one way", Trouble{Up: held}},
		{"link-mute", "a link loses answers, one way", Trouble{Down: held}},
		{"link-slow", "a link is slow: 300 ms there and back", Trouble{Up: slow, Down: slow}},
		{"link-drip", "a link drips: 2,000 bytes a second", Trouble{Up: drip, Down: drip}},
	} {
		out = append(out, Bad(Fault{Name: f.name, About: f.about, Least: time.Second, Most: 20 * time.Second}, parts, f.t))
	}
	return out
}
