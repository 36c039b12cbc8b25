package chat

import (
	"context"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// blockUser makes a block. To block again is Ok and no event.
func (c *Chat) blockUser(s *session, f *proto.Frame) bool {
	peer := storage.UserID(f.GetBlockUser().UserId)
	switch {
	case !peer.Valid():
		s.conn.Fail(f.Id, invalid("user_id is no user's"))
		return false
	case peer == s.id.user:
		s.conn.Fail(f.Id, invalid("user_id is the own one"))
		return false
	}
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		if err := c.mayBlock(ctx, s.id.user, peer); err != nil {
			return nil, err
		}
		return okFrame(), c.setBlock(ctx, s.id.user, peer, true)
	})
}

// mayBlock checks what is on the peer's shard, and the number of blocks, ahead
// of the transaction: two requests at once may go over it by one.
func (c *Chat) mayBlock(ctx context.Context, user, peer storage.UserID) error {
	account, err := c.account(ctx, peer)
	if err != nil {
		return err
	}
	if !account.Found {
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_FOUND, "no such user")
	}
	most := c.auth.limits.Blocks
	return c.store.View(ctx, user.Slot(), func(sn storage.Snap) error {
		b, err := sn.Block(storage.BlockKey{User: user, Peer: peer})
		if err != nil || b.Found {
			return err
		}
		bs, err := sn.BlocksOf(user, 0, most)
		if err == nil && len(bs) >= most {
			return proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED, "%d users are blocked, the most allowed: unblock some first", len(bs))
		}
		return err
	})
}

// unblockUser takes a block back. Without one it is Ok and no event.
func (c *Chat) unblockUser(s *session, f *proto.Frame) bool {
	peer := storage.UserID(f.GetUnblockUser().UserId)
	if !peer.Valid() {
		s.conn.Fail(f.Id, invalid("user_id is no user's"))
		return false
	}
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		return okFrame(), c.setBlock(ctx, s.id.user, peer, false)
	})
}

// setBlock writes the block and the event for the user's devices together.
func (c *Chat) setBlock(ctx context.Context, user, peer storage.UserID, on bool) error {
	rows := ownRows(user)
	key := storage.BlockKey{User: user, Peer: peer}
	rows.Blocks = []storage.BlockKey{key}
	return c.store.Update(ctx, rows, func(tx *storage.Tx) error {
		if tx.Block(key).Found == on {
			return nil
		}
		if on {
			tx.PutBlock(storage.Block{Key: key, Time: tx.Now()})
		} else {
			tx.DelBlock(key)
		}
		return appendOwn(tx, user, kindBlock, &proto.BlockMark{UserId: int64(peer), Blocked: on})
	})
}

// listBlocks pages through the own blocks.
func (c *Chat) listBlocks(s *session, f *proto.Frame) bool {
	req := f.GetListBlocks()
	limit := c.limits.Load().MaxIDs
	if req.Limit > 0 {
		limit = min(limit, int(req.Limit))
	}
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		var blocks []storage.Block
		err := c.store.View(ctx, s.id.user.Slot(), func(sn storage.Snap) (err error) {
			blocks, err = sn.BlocksOf(s.id.user, storage.UserID(req.After), limit+1)
			return err
		})
		if err != nil {
			return nil, err
		}
		page := new(proto.Blocks)
		for i, b := range blocks {
			if i == limit {
				page.Next = page.UserIds[i-1]
				break
			}
			page.UserIds = append(page.UserIds, int64(b.Key.Peer))
		}
		return &proto.Frame{Body: &proto.Frame_Blocks{Blocks: page}}, nil
	})
}
