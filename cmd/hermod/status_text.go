package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// write prints st as tables.
func (st *clusterStatus) write(out io.Writer, now time.Time) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tHOST\tPEERS REACH IT AT\tSESSIONS\tUP\tVERSION\tLINKS\tSTATE")
	sessions := 0
	for _, n := range st.Nodes {
		sessions += n.Sessions
		if n.Silent {
			fmt.Fprintf(t, "%d\t\t%s\t\t\t\t\tholds a lease, says nothing\n", n.Node, n.Peer)
			continue
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", n.Node, n.Host, cmp.Or(n.Peer, "-"), n.Sessions,
			now.Sub(n.Started).Round(time.Second), n.Version, n.links(), n.state(st.Node))
	}
	fmt.Fprintln(t, "\nSHARD\tENGINE\tWHERE\tSLOTS\tTASKS\tLEASES\tROUND TRIP\tSTATE")
	for _, sh := range st.Shards {
		sh.row(t)
	}
	_ = t.Flush()
	fmt.Fprintf(out, "\n%d sessions on %d nodes", sessions, len(st.Nodes))
	if st.Redis != "" {
		fmt.Fprintf(out, ", Redis: %s", st.Redis)
	}
	fmt.Fprintln(out)
	for _, n := range st.Nodes {
		for _, l := range n.Links {
			if !l.Up {
				fmt.Fprintf(out, "node %d does not reach node %d since %s: %s\n", n.Node, l.Node, l.Since.Format(time.DateTime),
					cmp.Or(l.Error, "it has closed the link"))
			}
		}
	}
}

func (sh *shardStatus) row(t io.Writer) {
	if sh.Error != "" {
		fmt.Fprintf(t, "%d\t%s\t%s\t\t\t\t\t%s\n", sh.Shard, sh.Engine, sh.Where, strings.ReplaceAll(sh.Error, "\n", " "))
		return
	}
	slots, state := fmt.Sprint(sh.Slots), "ok"
	if sh.Frozen > 0 {
		slots += fmt.Sprintf(" + %d frozen", sh.Frozen)
		state = "slots are moving"
	}
	fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", sh.Shard, sh.Engine, sh.Where, slots, sh.Tasks, len(sh.Leases), sh.Trip.Round(10*time.Microsecond), state)
}

// links is how many of the node's links are up.
func (n *nodeStatus) links() string {
	up := 0
	for _, l := range n.Links {
		if l.Up {
			up++
		}
	}
	if len(n.Links) == 0 {
		return "-"
	}
	return fmt.Sprintf("%d of %d", up, len(n.Links))
}

func (n *nodeStatus) state(asked uint64) string {
	state := "ok"
	if n.Draining {
		state = "draining"
	}
	if n.Node == asked {
		state += " (asked)"
	}
	return state
}
