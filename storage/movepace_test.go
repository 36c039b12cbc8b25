package storage

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Pages are as large as pageTime lets them be, whatever is the same for every
// page, and after each there is a rest.
func TestPace(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name                 string
		fixed, row           time.Duration
		leastRows, mostRows  int // where it settles
		leastRest, mostRests time.Duration
	}{
		{"nothing costs anything", 0, 0, 500, 500, 0, 0},
		{"quick", 3 * ms, 5 * time.Microsecond, 500, 500, 4 * ms, 6 * ms},
		{"rows are dear", 0, 100 * time.Microsecond, 50, 100, 2 * ms, 10 * ms},
		{"rows are very dear", 0, 10 * ms, 50, 50, 250 * ms, 500 * ms},
		{"any commit is slow", 60 * ms, 5 * time.Microsecond, 500, 500, 10 * ms, 10 * ms},
		{"far away", 500 * ms, 5 * time.Microsecond, 500, 500, 10 * ms, 10 * ms},
		{"both", 500 * ms, 100 * time.Microsecond, 50, 100, 10 * ms, 10 * ms},
		{"nobody would wait so long", 0, time.Minute, 50, 50, maxRest, maxRest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPace(500)
			for i := range 100 {
				rest := p.done(tt.fixed + time.Duration(p.next())*tt.row)
				if i < 20 {
					continue
				}
				if p.rows < tt.leastRows || p.rows > tt.mostRows {
					t.Fatalf("page %d: %d rows, want %d to %d", i, p.rows, tt.leastRows, tt.mostRows)
				}
				if rest < tt.leastRest || rest > tt.mostRests {
					t.Fatalf("page %d: a rest of %v, want %v to %v", i, rest, tt.leastRest, tt.mostRests)
				}
			}
		})
	}
}

// A disk whose commits take anything between 1 and 100 ms leaves pages large
// enough to end some day.
func TestPaceNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := newPace(500)
	rows := 0
	for range 2000 {
		n := p.next()
		rows += n
		p.done(time.Duration(1+r.IntN(100))*time.Millisecond + time.Duration(n)*5*time.Microsecond)
	}
	t.Logf("%d rows a page", rows/2000)
	if rows < 2000*100 {
		t.Errorf("%d rows a page", rows/2000)
	}
}

func TestPaceOfSmallPages(t *testing.T) {
	p := newPace(1)
	for range 10 {
		if p.next() != 1 {
			t.Fatalf("%d rows where one is the most", p.next())
		}
		p.done(time.Hour)
	}
}
