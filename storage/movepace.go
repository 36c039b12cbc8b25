package storage

import (
	"context"
	"time"
)

// pageTime is how long the rows of a page should take, and maxRest how long a
// Mover rests at most.
const (
	pageTime = 10 * time.Millisecond
	maxRest  = time.Second
	minRows  = 50
)

// pace keeps a Mover from having its shards to itself. Copying without pause
// took all of a small database's processors, and the p99 of everybody whose
// slot stays doubled. So a page has as many rows as can be done in pageTime, and
// after each the Mover rests: the slower a shard is, the smaller the pages and
// the longer the pauses. The price is paid by those whose slot moves: they wait
// up to twice as long.
//
// Only the rows count. To look at how long a page took as a whole was the first
// design: a disk that needs 50 ms for any commit, or a network that is slow,
// made pages of a few rows, which helped nobody, and a move took minutes. Every
// second page is half as large; the difference between the two is what rows
// cost, and what is left is the same for every page.
type pace struct {
	rows, most  int
	small       bool          // the page under way is a half one
	full, half  time.Duration // averages of the two kinds, 0 before the first
	perFullPage time.Duration // what the rows of a full page cost
}

func newPace(most int) pace { return pace{rows: most, most: most} }

// next is how many rows the next page should have.
func (p *pace) next() int {
	if p.small {
		return max(p.rows/2, 1)
	}
	return p.rows
}

// done counts a page as large as next said, and says how long to rest after it.
func (p *pace) done(took time.Duration) time.Duration {
	mine := p.perFullPage
	if p.small {
		p.half = average(p.half, took)
		p.perFullPage = 2 * (p.full - p.half)
		p.resize()
		mine /= 2
	} else {
		p.full = average(p.full, took)
	}
	p.small = !p.small
	if took < pageTime/20 {
		return 0 // no burden to anybody
	}
	return min(took, max(mine, pageTime), maxRest)
}

func average(sofar, took time.Duration) time.Duration {
	if sofar == 0 {
		return took
	}
	return sofar + (took-sofar)/4
}

// resize follows a pair of pages.
func (p *pace) resize() {
	before := p.rows
	switch {
	case p.perFullPage > pageTime:
		p.rows = max(p.rows/2, min(minRows, p.most))
	case p.perFullPage < pageTime/2:
		p.rows = min(p.rows+p.rows/2+1, p.most)
	}
	if p.rows == before {
		return
	}
	// What the averages would be with the new size.
	fixed := max(p.half-p.perFullPage/2, 0)
	p.perFullPage = p.perFullPage * time.Duration(p.rows) / time.Duration(before)
	p.full, p.half = fixed+p.perFullPage, fixed+p.perFullPage/2
}

// rest follows a page.
func (p *pace) rest(ctx context.Context, took time.Duration) {
	if d := p.done(took); d > 0 {
		sleep(ctx.Done(), d)
	}
}
