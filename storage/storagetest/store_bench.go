package storagetest

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

const (
	benchUsers    = 2000
	benchPeers    = 8
	benchInFlight = 1024
)

func benchAppend(b *testing.B, env ShardEnv, size int) {
	sh := env.Open(b)
	defer func() { _ = sh.Close() }()
	delivered := 0
	s, err := storage.Open(context.Background(), storage.Options{
		Shards: []storage.Shard{sh}, Node: 1, ClaimSlots: true,
		// A database that writes a checkpoint may stand still for seconds: slow,
		// which is what is measured, and no reason to refuse.
		QueueWait: time.Minute, CommitTimeout: time.Minute,
		Deliver: func(ds []storage.Delivery) { delivered += len(ds) },
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	us := benchMakeUsers(b, s)
	body := make([]byte, size)
	tokens := make(chan struct{}, benchInFlight)
	failed := make(chan error, 1)
	done := func(_ storage.Appended, err error) {
		if err != nil {
			select {
			case failed <- err:
			default:
			}
		}
		<-tokens
	}
	send := func(from, to storage.UserID) {
		tokens <- struct{}{}
		s.Append(storage.Append{
			Conv: storage.PairKey(from, to), Sender: from, Kind: 1, Counts: true, SendID: benchSendID(),
			UnlessBlocked: storage.BlockKey{User: to, Peer: from}, Body: body,
		}, done)
	}
	settle := func() {
		for range benchInFlight {
			tokens <- struct{}{}
		}
		for range benchInFlight {
			<-tokens
		}
	}
	// Everybody talks to a few others and has done so before: conversations
	// are mostly old ones.
	for n := range us {
		for peer := range benchPeers {
			send(us[n], us[(n+1+peer)%len(us)])
		}
	}
	settle()
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	cpu := cpuTime()
	for range b.N {
		n := rand.IntN(len(us))
		send(us[n], us[(n+1+rand.IntN(benchPeers))%len(us)])
	}
	settle()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "msg/s")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/msg")
	select {
	case err := <-failed:
		b.Fatal(err)
	default:
	}
}

// cpuTime is what this process has used: the machine may have other work.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchMakeUsers(b *testing.B, s *storage.Store) (us []storage.UserID) {
	done := make(chan error)
	for i := range benchUsers {
		u := storage.UserIDIn(storage.Slot(i*37), rand.Uint64())
		us = append(us, u)
		go func() {
			done <- s.Update(context.Background(), storage.Reads{Users: []storage.UserID{u}}, func(tx *storage.Tx) error {
				tx.PutUser(tx.User(u))
				return nil
			})
		}()
	}
	for range us {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	return us
}

// benchSendID makes a UUIDv7 more cheaply than the system's random numbers do:
// clients pay for those, not the server.
func benchSendID() (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], uint64(time.Now().UnixMilli())<<16|0x7000|rand.Uint64()&0xfff)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|1<<63)
	return id
}
