package mysql

import (
	"context"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// Status is the work on a shard, for an operator to look at.
type Status struct {
	// Server is what the database calls its version.
	Server string
	// Tasks is how many conversations have entries that are still to be
	// delivered to another shard.
	Tasks int
	// Leases are the nodes that the shard has heard of.
	Leases []Lease
}

// Lease is a node's claim to be alive.
type Lease struct {
	Node        storage.NodeID
	Incarnation uint64
	// Left is how long it lasts, by the database's clock; below 0 it has run
	// out.
	Left time.Duration
}

// Status reads it.
func (s *Shard) Status(ctx context.Context) (Status, error) {
	var st Status
	if err := s.db.QueryRowContext(ctx, "SELECT VERSION(), COUNT(*) FROM tasks").Scan(&st.Server, &st.Tasks); err != nil {
		return st, wrap("count the tasks", err)
	}
	rows, err := s.db.QueryContext(ctx, "SELECT node, incarnation, until_us-"+now+" FROM leases ORDER BY node")
	if err != nil {
		return st, wrap("read the leases", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var l Lease
		var left int64
		if err := rows.Scan(&l.Node, &l.Incarnation, &left); err != nil {
			return st, wrap("read the leases", err)
		}
		l.Left = time.Duration(left)*time.Microsecond - s.opt.Skew()
		st.Leases = append(st.Leases, l)
	}
	return st, wrap("read the leases", rows.Err())
}
