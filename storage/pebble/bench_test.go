package pebble

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hermod-im/hermod/storage"
)

// BenchmarkMessages commits transactions as 1:1 messages make them (an entry, a
// dedupe row, two inbox rows, two user_convs, three heads each) on a real disk:
// the folder in HERMOD_BENCH_DIR, or a temporary one. Two committers, as many
// transactions in flight as the shard admits. One op is one message.
func BenchmarkMessages(b *testing.B) {
	for _, c := range []struct {
		name         string
		batch, pairs int
	}{{"batch=64/pairs=20000", 64, 20_000}, {"batch=128/pairs=20000", 128, 20_000}, {"batch=128/pairs=500000", 128, 500_000}} {
		b.Run(c.name, func(b *testing.B) { benchMessages(b, c.batch, c.pairs) })
	}
}

func benchMessages(b *testing.B, batch, pairs int) {
	dir := b.TempDir()
	if d := os.Getenv("HERMOD_BENCH_DIR"); d != "" {
		var err error
		if dir, err = os.MkdirTemp(d, "pebble"); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	s := open(b, Options{Dir: dir, FS: vfs.Default})
	convs := benchPairs(b, s, pairs)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	const committers = 2
	for n := range committers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 9))
			body := make([]byte, 100)
			for i := n * batch; i < b.N; i += committers * batch {
				m := newBenchBatch(r, convs[n*len(convs)/committers:(n+1)*len(convs)/committers], min(batch, b.N-i), body)
				began := time.Now()
				wg.Add(1)
				err := s.Commit(context.Background(), &m.locks, m.plan, func(err error) {
					defer wg.Done()
					if err != nil {
						b.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					took = append(took, time.Since(began))
				})
				if err != nil {
					b.Error(err)
					wg.Done()
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	m := s.db.Metrics()
	b.ReportMetric(float64(m.WAL.BytesWritten)/float64(b.N), "wal-B/msg")
	if os.Getenv("HERMOD_BENCH_DETAILS") != "" {
		os.Stdout.WriteString(m.String())
	}
	b.ReportMetric(float64(s.events.stalls.Load()), "stalls")
}

// benchPairs makes the heads of pairs conversations of pairs users, each user in two.
func benchPairs(b *testing.B, s *Shard, pairs int) []storage.ConvKey {
	r := rand.New(rand.NewPCG(1, 2))
	users := make([]storage.UserID, pairs)
	for i := range users {
		users[i] = storage.UserIDIn(storage.Slot(r.Uint32()%storage.Slots), r.Uint64())
	}
	convs := make([]storage.ConvKey, pairs)
	for i := range convs {
		convs[i] = storage.PairKey(users[i], users[(i+1)%pairs])
	}
	for first := 0; first < pairs; first += 500 {
		w := &storage.Writes{}
		for i := first; i < min(first+500, pairs); i++ {
			w.Users = append(w.Users, storage.UserHead{User: users[i], InboxEpoch: 1})
			w.Convs = append(w.Convs, storage.ConvHead{Conv: convs[i], Generation: 1})
		}
		write(b, s, w)
	}
	return convs
}

// benchBatch is a transaction of messages to different conversations.
type benchBatch struct {
	locks storage.Locks
	body  []byte
}

func newBenchBatch(r *rand.Rand, convs []storage.ConvKey, n int, body []byte) *benchBatch {
	m := &benchBatch{body: body}
	l := &m.locks
	for range n {
		k := convs[r.IntN(len(convs))]
		if slices.Contains(l.Convs, k) {
			continue
		}
		send := storage.SendKey{Conv: k, Sender: k.Home()}
		binary.BigEndian.PutUint64(send.SendID[:], uint64(time.Now().UnixMilli())<<16|0x7000)
		binary.BigEndian.PutUint64(send.SendID[8:], r.Uint64())
		l.Convs, l.Sends = append(l.Convs, k), append(l.Sends, send)
		l.Users = append(l.Users, k.Home(), k.Other())
		l.UserConvs = append(l.UserConvs, storage.UserConvKey{User: k.Home(), Conv: k}, storage.UserConvKey{User: k.Other(), Conv: k})
	}
	return m
}

func (m *benchBatch) plan(l *storage.Locked) (*storage.Writes, error) {
	n := len(l.Convs)
	w := &storage.Writes{
		Convs: l.Convs, Sends: l.Sends, UserConvs: l.UserConvs,
		Entries: make([]storage.Entry, 0, n), Inbox: make([]storage.InboxRow, 0, 2*n), Users: make([]storage.UserHead, 0, 2*n),
	}
	at := make(map[storage.UserID]int, 2*n)
	for i := range w.Convs {
		c, s := &w.Convs[i], &w.Sends[i]
		c.Rev, c.ConvSeq, c.LastTime = c.Rev+1, c.ConvSeq+1, max(l.Now, c.LastTime+1)
		s.Rev, s.ConvSeq, s.Time = c.Rev, c.ConvSeq, c.LastTime
		e := storage.Entry{Conv: c.Conv, Rev: c.Rev, ConvSeq: c.ConvSeq, Time: c.LastTime, Sender: s.Key.Sender, Kind: 1, SendID: s.Key.SendID, Body: m.body}
		w.Entries = append(w.Entries, e)
		e.Body = nil
		for j := 2 * i; j < 2*i+2; j++ {
			u, ok := at[l.Users[j].User]
			if !ok {
				u = len(w.Users)
				at[l.Users[j].User] = u
				w.Users = append(w.Users, l.Users[j])
			}
			h := &w.Users[u]
			h.Seq++
			w.Inbox = append(w.Inbox, storage.InboxRow{User: h.User, Seq: h.Seq, Entry: e})
			uc := &w.UserConvs[j]
			uc.Head, uc.HeadRev, uc.HeadTime = c.ConvSeq, c.Rev, c.LastTime
		}
		w.UserConvs[2*i].OwnSent = c.ConvSeq
	}
	return w, nil
}
