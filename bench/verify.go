package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hermod-im/hermod/proto"
)

// verify asks the storage, through the protocol, for what every inbox holds
// behind its cursor. What turns up was committed and not pushed. What still
// misses is looked for in the conversation; it is lost either way, but where
// it got lost is worth knowing.
func (p *pairsRun) verify(ctx context.Context) {
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		var g errgroup.Group
		g.SetLimit(32)
		for _, pr := range p.pairs {
			g.Go(func() error {
				pr.verify(ctx)
				return nil
			})
		}
		_ = g.Wait() // it has no errors: they are counted per user
	}()
	p.watch(ctx, "verify", 0, func() bool {
		select {
		case <-finished:
			return true
		default:
			return false
		}
	}, p.fill)
	<-finished
}

func (pr *pair) verify(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pr.run.cfg.Verify)
	defer cancel()
	for _, sd := range pr.sides {
		err := sd.sync(ctx)
		if err == nil {
			err = sd.search(ctx)
		}
		if err != nil {
			pr.run.errorSeen(err)
			pr.run.examples.note(fmt.Sprintf("user %s could not be verified: %v", pr.run.accounts.name(sd.s.acc.N), err))
			pr.mu.Lock()
			pr.count.unverified++
			pr.mu.Unlock()
		}
	}
}

// ask calls until there is an answer or the context ends: the connection may
// be on its way back, and refusals may pass.
func (sd *side) ask(ctx context.Context, f func() *proto.Frame) (*proto.Frame, error) {
	for {
		answer, err := sd.s.call(ctx, f())
		if err == nil || ctx.Err() != nil {
			return answer, err
		}
		wait := 50 * time.Millisecond
		var fault *proto.Fault
		if errors.As(err, &fault) {
			if !fault.Retryable {
				return nil, err
			}
			wait = max(wait, fault.RetryAfter)
		}
		if sd.s.ended() {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// sync reads the inbox behind the cursor until it is caught up.
func (sd *side) sync(ctx context.Context) error {
	for {
		answer, err := sd.ask(ctx, func() *proto.Frame {
			sd.pair.mu.Lock()
			defer sd.pair.mu.Unlock()
			return &proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{
				Cursor: &proto.Cursor{Epoch: sd.s.epoch, Seq: sd.cursor()},
				Limit:  200,
			}}}
		})
		if err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		r := answer.GetSyncResponse()
		if r == nil {
			return fmt.Errorf("sync: answered by %T", answer.GetBody())
		}
		if sd.synced(r) {
			return nil
		}
	}
}

// synced takes a page over and reports whether it was the last.
func (sd *side) synced(r *proto.SyncResponse) bool {
	sd.pair.mu.Lock()
	defer sd.pair.mu.Unlock()
	if reset := r.GetReset_(); reset != nil {
		sd.s.epoch = reset.GetResume().GetEpoch()
		sd.pair.check.Start(sd.n, reset.GetResume().GetSeq(), true)
		return false
	}
	sd.syncing = true
	defer func() { sd.syncing = false }()
	at := sd.pair.run.since()
	for _, ev := range r.GetEvents() {
		// A gap in the storage's own answer is final: the second time it is
		// skipped over.
		if e := viewOf(ev); !sd.event(at, e) {
			sd.event(at, e)
		}
	}
	sd.burst(at)
	return r.GetCaughtUp() || len(r.GetEvents()) == 0
}

// search looks for acknowledged messages that the inbox does not have in the
// conversation's log.
func (sd *side) search(ctx context.Context) error {
	sd.pair.mu.Lock()
	missing := sd.pair.check.Missing(sd.n)
	conv := sd.pair.conv
	sd.pair.mu.Unlock()
	for _, m := range missing {
		found, err := sd.inLog(ctx, conv, m)
		if err != nil {
			return fmt.Errorf("history: %w", err)
		}
		sd.pair.mu.Lock()
		if found {
			sd.pair.check.FoundInLog(sd.n, m)
		} else {
			sd.pair.check.LostEverywhere(sd.n, m)
		}
		sd.pair.mu.Unlock()
	}
	return nil
}

func (sd *side) inLog(ctx context.Context, conv []byte, m Missing) (bool, error) {
	answer, err := sd.ask(ctx, func() *proto.Frame {
		return &proto.Frame{Body: &proto.Frame_GetHistory{GetHistory: &proto.GetHistory{
			Conversation: conv, FromRev: m.Rev, ToRev: m.Rev, Limit: 1,
		}}}
	})
	var fault *proto.Fault
	if errors.As(err, &fault) && fault.Code == proto.ErrorCode_ERROR_CODE_NOT_FOUND {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, ev := range answer.GetHistory_().GetEntries() {
		counter, ok := sendIDCounter(ev.GetMessage().GetSendId(), sd.pair.run.id)
		if ok && counter == m.Counter && ev.GetRev() == m.Rev {
			st, intact := readContent(ev.GetMessage().GetContent().GetBody())
			return intact && int(st.From) == m.From && st.Counter == m.Counter, nil
		}
	}
	return false, nil
}

// note keeps a remark among the examples.
func (e *examples) note(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.text) < e.most {
		e.text = append(e.text, what)
	}
}
