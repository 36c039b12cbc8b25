package torture

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// keepEvidence writes all that is known about a failed run:
//
//	summary.txt      one page: the verdict, the first violation, the life of
//	                 the messages concerned
//	report.json      the report
//	schedule.json    what was planned, and the seed
//	messages.tsv.gz  every send and how it ended
//	applied.tsv.gz   every event on every device
//	blocks.tsv.gz    who has blocked whom, and when
//	logs/            what the servers wrote
func (r *run) keepEvidence() error {
	dir := filepath.Join(r.opt.Evidence, fmt.Sprintf("torture-%s-seed%d", r.h.begun.UTC().Format("20060102-150405"), r.opt.Seed))
	logs := filepath.Join(dir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	r.rep.Evidence = dir
	return errors.Join(
		inFile(filepath.Join(dir, "summary.txt"), r.writePage),
		inFile(filepath.Join(dir, "report.json"), asJSON(r.rep)),
		inFile(filepath.Join(dir, "schedule.json"), asJSON(struct {
			Seed     uint64   `json:"seed"`
			Schedule []Strike `json:"schedule"`
		}{r.opt.Seed, r.schedule})),
		inFile(filepath.Join(dir, "messages.tsv.gz"), zipped(r.h.writeMessages)),
		inFile(filepath.Join(dir, "applied.tsv.gz"), zipped(r.h.writeApplied)),
		inFile(filepath.Join(dir, "blocks.tsv.gz"), zipped(r.h.writeBlocks)),
		r.opt.System.Logs(logs),
	)
}

// inFile writes a file.
func inFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	return errors.Join(write(b), b.Flush(), f.Close())
}

func asJSON(v any) func(io.Writer) error {
	return func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
}

func zipped(write func(io.Writer) error) func(io.Writer) error {
	return func(w io.Writer) error {
		z := gzip.NewWriter(w)
		return errors.Join(write(z), z.Close())
	}
}

// mostLives is how many messages the page tells about.
const mostLives = 8

// writePage writes the page that one reads first.
func (r *run) writePage(w io.Writer) error {
	err := r.rep.WriteSummary(w)
	if len(r.rep.Violations) == 0 {
		return err
	}
	first := r.rep.Violations[0]
	for _, v := range r.rep.Violations {
		if v.Invariant < first.Invariant {
			first = v
		}
	}
	fmt.Fprintf(w, "\nThe first violation, of %v\n  %s\n", first.Invariant, first.Text)
	for i, n := range first.Messages {
		if i < mostLives {
			r.h.writeLife(w, uint32(n))
		}
	}
	fmt.Fprintln(w, "\nStrikes")
	for _, s := range r.rep.Strikes {
		fmt.Fprintf(w, "  %9v … %9v  %s %s %s\n", s.At.Round(time.Millisecond), s.Healed.Round(time.Millisecond), s.Fault, s.Target, s.Error)
	}
	return err
}

var outcomeNames = [...]string{open: "unanswered", acked: "acknowledged", refused: "refused", unsent: "not sent"}

// writeLife tells everything that is known of a message.
func (h *History) writeLife(w io.Writer, n uint32) {
	m := h.at(n)
	fmt.Fprintf(w, "\nMessage %d, send id %x\n", n, m.id)
	fmt.Fprintf(w, "  %9v  device %d of %s sends it to %s\n", millis(m.begun), m.device, h.people[m.from].name, h.people[m.to].name)
	if m.again > 0 {
		fmt.Fprintf(w, "             and again, after %d restarts of the app\n", m.again)
	}
	if m.outcome != open {
		fmt.Fprintf(w, "  %9v  %s, code %d, rev %d, place %d of %v\n", millis(m.ended), outcomeNames[m.outcome], m.code, m.rev, m.convSeq, h.keys[m.conv])
	}
	for _, b := range h.blocks {
		if b.by == m.to && b.whom == m.from && b.asked <= max(m.ended, m.begun) && (b.over == 0 || b.over >= m.begun-10_000) {
			fmt.Fprintf(w, "  %9v  %s blocks %s: for certain from %v to %v; over at %v\n", millis(b.asked), h.people[b.by].name, h.people[b.whom].name, millis(b.from), millis(b.until), millis(b.over))
		}
	}
	for _, s := range h.struck {
		if inMillis(s.At) <= max(m.ended, m.begun)+10_000 && inMillis(s.Healed) >= m.begun-10_000 {
			fmt.Fprintf(w, "  %9v  to %v: %s on %s\n", s.At.Round(time.Millisecond), s.Healed.Round(time.Millisecond), s.Fault, s.Target)
		}
	}
	for _, d := range h.devices {
		for _, l := range d.lives {
			for _, s := range l.seen {
				if s.message == n {
					fmt.Fprintf(w, "  %9v  device %d of %s applies it: seq %d, rev %d, place %d\n", millis(s.at), d.number, h.people[d.person].name, s.seq, s.rev, s.convSeq)
				}
			}
		}
	}
}

func millis(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }

func (h *History) writeMessages(w io.Writer) error {
	fmt.Fprintln(w, "message\tsend_id\tdevice\tfrom\tto\tbegun_ms\tended_ms\toutcome\tcode\tconversation\trev\tconv_seq\tagain")
	for n := uint32(1); n < uint32(h.count); n++ {
		m := h.at(n)
		_, err := fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%d\t%v\t%d\t%d\t%d\n", n, hex.EncodeToString(m.id[:]), m.device,
			h.people[m.from].id, h.people[m.to].id, m.begun, m.ended, outcomeNames[m.outcome], m.code, h.keys[m.conv], m.rev, m.convSeq, m.again)
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *History) writeApplied(w io.Writer) error {
	fmt.Fprintln(w, "device\tuser\tlife\tseq\tmessage\tconversation\trev\tconv_seq\tat_ms")
	for _, d := range h.devices {
		for i, l := range d.lives {
			for _, s := range l.seen {
				_, err := fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%v\t%d\t%d\t%d\n", d.number, h.people[d.person].id, i, s.seq, s.message, h.keys[s.conv], s.rev, s.convSeq, s.at)
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (h *History) writeBlocks(w io.Writer) error {
	fmt.Fprintln(w, "by\twhom\tasked_ms\tfrom_ms\tuntil_ms\tover_ms")
	for _, b := range h.blocks {
		if _, err := fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\n", h.people[b.by].id, h.people[b.whom].id, b.asked, b.from, b.until, b.over); err != nil {
			return err
		}
	}
	return nil
}
