package chat

import (
	"bytes"
	"cmp"
	"context"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

const (
	maxDisplayName = 64  // characters
	maxAvatarURL   = 512 // bytes
	// profileReads is how many slots one GetProfiles reads at a time.
	profileReads = 16
	// profileOverhead is what a Profile takes besides in a frame.
	profileOverhead = 4
)

// checkDisplayName: empty means the account name.
func checkDisplayName(s string) error {
	switch {
	case len(s) > 4*maxDisplayName || utf8.RuneCountInString(s) > maxDisplayName:
		return invalid("display_name has more than %d characters", maxDisplayName)
	case !plainText(s):
		return invalid("display_name has control characters")
	case s != "" && strings.TrimSpace(s) == "":
		return invalid("display_name is blank")
	}
	return nil
}

// checkAvatarURL: empty means none. Clients fetch it, so it must not be
// another scheme, nor carry credentials.
func checkAvatarURL(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > maxAvatarURL {
		return invalid("avatar_url has %d bytes, at most %d are allowed", len(s), maxAvatarURL)
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || !plainText(s) {
		return invalid("avatar_url must be an http or https address")
	}
	return nil
}

// profileOf is what others see of an account. A row that cannot be read leaves
// the name.
func profileOf(a *storage.Account) *proto.Profile {
	p := new(proto.Profile)
	if gproto.Unmarshal(a.Profile, p) != nil {
		p = new(proto.Profile)
	}
	p.UserId, p.Name = int64(a.User), a.Name
	p.DisplayName = cmp.Or(p.DisplayName, a.Name)
	return p
}

// profilesFrame takes as many profiles as fit into a frame.
func profilesFrame(ps ...*proto.Profile) *proto.Frame {
	answer, size := &proto.Profiles{}, 0
	for i, p := range ps {
		if size += gproto.Size(p) + profileOverhead; size > pageBytes && i > 0 {
			answer.More = true
			break
		}
		answer.Profiles = append(answer.Profiles, p)
	}
	return &proto.Frame{Body: &proto.Frame_Profiles_{Profiles_: answer}}
}

func (c *Chat) account(ctx context.Context, user storage.UserID) (a storage.Account, err error) {
	err = c.store.View(ctx, user.Slot(), func(sn storage.Snap) (err error) {
		a, err = sn.Account(user)
		return err
	})
	return a, err
}

// lookupUser finds an account by its exact name.
func (c *Chat) lookupUser(s *session, f *proto.Frame) bool {
	nobody := proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_FOUND, "no such user")
	name, err := normalizeName(f.GetLookupUser().Name)
	if err != nil {
		s.conn.Fail(f.Id, nobody) // nobody can have that name
		return false
	}
	slot := c.store.NameSlot(name)
	return c.read(s, f.Id, slot, func(ctx context.Context) (*proto.Frame, error) {
		var account storage.Account
		err := c.store.View(ctx, slot, func(sn storage.Snap) error {
			row, err := sn.Name(name)
			if err != nil {
				return err
			}
			if !row.Found {
				return nobody
			}
			account, err = sn.Account(row.User)
			return err
		})
		if err != nil {
			return nil, err
		}
		return profilesFrame(profileOf(&account)), nil
	})
}

// getProfiles reads profiles of users on any shards, in the order asked for,
// without those that do not exist.
func (c *Chat) getProfiles(s *session, f *proto.Frame) bool {
	ids := f.GetGetProfiles().UserIds
	if most := c.limits.Load().MaxIDs; len(ids) > most {
		s.conn.Fail(f.Id, invalid("%d user_ids, at most %d are allowed", len(ids), most))
		return false
	}
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		ps, err := c.profiles(ctx, ids)
		return profilesFrame(ps...), err
	})
}

func (c *Chat) profiles(ctx context.Context, ids []int64) ([]*proto.Profile, error) {
	var users []storage.UserID
	for _, id := range ids {
		if u := storage.UserID(id); u.Valid() {
			users = append(users, u)
		}
	}
	sorted := slices.Compact(slices.Sorted(slices.Values(users)))
	accounts := make([]storage.Account, len(sorted))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(profileReads)
	for i := 0; i < len(sorted); {
		from, slot := i, sorted[i].Slot()
		for i < len(sorted) && sorted[i].Slot() == slot {
			i++
		}
		part, dst := sorted[from:i], accounts[from:i]
		g.Go(func() error {
			return c.store.View(ctx, slot, func(sn storage.Snap) (err error) {
				for j, u := range part {
					if dst[j], err = sn.Account(u); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var ps []*proto.Profile
	for _, u := range users {
		i, _ := slices.BinarySearch(sorted, u)
		if accounts[i].Found {
			ps = append(ps, profileOf(&accounts[i]))
			accounts[i].Found = false // once, however often it was asked for
		}
	}
	return ps, nil
}

// updateProfile replaces the own profile; the user's other devices learn it
// as an event.
func (c *Chat) updateProfile(s *session, f *proto.Frame) bool {
	req := f.GetUpdateProfile()
	err := checkDisplayName(req.DisplayName)
	if err == nil {
		err = checkAvatarURL(req.AvatarUrl)
	}
	if err != nil {
		s.conn.Fail(f.Id, err)
		return false
	}
	user := s.id.user
	return c.read(s, f.Id, user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		stored, err := gproto.MarshalOptions{Deterministic: true}.Marshal(&proto.Profile{DisplayName: req.DisplayName, AvatarUrl: req.AvatarUrl})
		if err != nil {
			return nil, err
		}
		var profile *proto.Profile
		err = c.store.Update(ctx, ownRows(user), func(tx *storage.Tx) error {
			account := tx.Account(user)
			if bytes.Equal(account.Profile, stored) {
				profile = profileOf(&account)
				return nil
			}
			account.Profile = stored
			profile = profileOf(&account)
			tx.PutAccount(account)
			return appendOwn(tx, user, kindProfile, profile)
		})
		if err != nil {
			return nil, err
		}
		return profilesFrame(profile), nil
	})
}
