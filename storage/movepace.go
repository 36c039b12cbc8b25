package storage

import (
	"context"
	"time"
)

// pageTime is how long a page of a move should take, and maxRest how long a
// Mover rests at most.
const (
	pageTime = 10 * time.Millisecond
	maxRest  = time.Second
	minRows  = 25
)

// pace keeps a Mover from having its shards to itself. Copying without pause
// took all of a small database's processors, and the p99 of everybody whose
// slot stays doubled. So a page is as large as can be done in pageTime, and
// after each the Mover rests for as long as it took: the slower a shard is, the
// smaller the pages and the longer the pauses. The price is paid by those whose
// slot moves: they wait twice as long.
type pace struct {
	rows, most int
}

func newPace(most int) pace { return pace{rows: most, most: most} }

// rest follows a page.
func (p *pace) rest(ctx context.Context, took time.Duration) {
	switch {
	case took > pageTime:
		p.rows = max(p.rows/2, min(minRows, p.most))
	case took < pageTime/2:
		p.rows = min(p.rows+p.rows/4+1, p.most)
	}
	if took > pageTime/20 { // less is no burden to anybody
		sleep(ctx.Done(), min(took, maxRest))
	}
}
