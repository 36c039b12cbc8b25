package chat

import (
	"slices"
	"testing"

	"github.com/hermod-im/hermod/proto"
)

func block(user int64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_BlockUser{BlockUser: &proto.BlockUser{UserId: user}}}
}

func unblock(user int64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_UnblockUser{UnblockUser: &proto.UnblockUser{UserId: user}}}
}

func (p *peer) blocked(after int64, limit uint32) *proto.Blocks {
	p.t.Helper()
	f := p.call(&proto.Frame{Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{After: after, Limit: limit}}})
	if f.GetBlocks() == nil {
		p.t.Fatalf("answered with %v", f)
	}
	return f.GetBlocks()
}

func TestBlocks(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.chat.Accounts.Blocks = 3 })
	a := r.app("alice", phone)
	p := a.in(a.registers())
	p.caughtUp()
	var ids []int64
	for _, name := range []string{"bob", "carol", "dave", "erin"} {
		x := r.app(name, phone)
		x.in(x.registers())
		ids = append(ids, x.user)
	}
	marks := func() (n int) {
		f := p.call(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cursor(p, 0)}}})
		for _, ev := range f.GetSyncResponse().GetEvents() {
			if ev.GetBlock() != nil {
				n++
			}
		}
		return n
	}
	p.refused(block(a.user), codeInvalid)
	p.refused(block(0), codeInvalid)
	p.refused(block(-1), codeInvalid)
	p.refused(unblock(0), codeInvalid)
	p.refused(block(ids[0]^1), codeNotFound)
	p.ok(block(ids[0]))
	p.ok(block(ids[0]))
	p.ok(unblock(ids[1])) // there was none
	if n := marks(); n != 1 {
		t.Errorf("%d events for one change", n)
	}
	p.ok(block(ids[1]))
	p.ok(block(ids[2]))
	p.refused(block(ids[3]), codeForbidden)
	p.ok(block(ids[0])) // there already
	p.ok(unblock(ids[2]))
	p.ok(block(ids[3]))
	if n := marks(); n != 5 {
		t.Errorf("%d events for five changes", n)
	}

	want := slices.Sorted(slices.Values([]int64{ids[0], ids[1], ids[3]}))
	if all := p.blocked(0, 0); !slices.Equal(all.UserIds, want) || all.Next != 0 {
		t.Errorf("blocks %v, want %v", all, want)
	}
	var paged []int64
	for after := int64(0); ; {
		page := p.blocked(after, 2)
		if len(page.UserIds) > 2 {
			t.Fatalf("page %v", page)
		}
		paged = append(paged, page.UserIds...)
		if after = page.Next; after == 0 {
			break
		}
	}
	if !slices.Equal(paged, want) {
		t.Errorf("paged %v, want %v", paged, want)
	}
}
