package chat

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// secretHash stands for the hash of secret n; 0: none.
func secretHash(n int) (h [32]byte) {
	binary.BigEndian.PutUint64(h[:], uint64(n))
	return h
}

func TestJudgeSecret(t *testing.T) {
	const a, b, c, d = 1, 2, 3, 4
	for _, tt := range []struct {
		what               string
		stored, prev       int // on the server
		current, next      int // shown
		want               secretVerdict
		storedTo, prevToBe int
	}{
		{"first rotation", a, 0, a, b, secretGood, b, a},
		{"its answer lost", b, a, a, b, secretRepeat, b, a},
		{"next alone", b, a, b, c, secretGood, c, b},
		{"previous with another next", b, a, a, d, secretReused, b, a},
		{"older than previous", c, b, a, b, secretWrong, c, b},
		{"unknown", b, a, d, c, secretWrong, b, a},
		{"unknown with the right next", b, a, d, b, secretWrong, b, a},
		{"zero against no previous", a, 0, 0, a, secretWrong, a, 0},
		{"a device without a secret", 0, 0, 0, a, secretWrong, 0, 0},
	} {
		dev := storage.Device{SecretHash: secretHash(tt.stored), PrevHash: secretHash(tt.prev)}
		if got := judgeSecret(&dev, secretHash(tt.current), secretHash(tt.next)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
}

// rotating is a server and a client that follow the rule, joined by a network
// that loses and repeats.
type rotating struct {
	dev           storage.Device
	current, next int // the client's; 0: no next yet
	made          int
	sent          [][2]int
	failed        string
}

func newRotating() *rotating {
	return &rotating{dev: storage.Device{SecretHash: secretHash(1)}, current: 1, made: 1}
}

func (r *rotating) server(pair [2]int) secretVerdict {
	v := judgeSecret(&r.dev, secretHash(pair[0]), secretHash(pair[1]))
	if v == secretGood {
		r.dev.PrevHash, r.dev.SecretHash = r.dev.SecretHash, secretHash(pair[1])
	}
	return v
}

// pair is what the client shows: it has stored next before.
func (r *rotating) pair() [2]int {
	if r.next == 0 {
		r.made++
		r.next = r.made
	}
	p := [2]int{r.current, r.next}
	r.sent = append(r.sent, p)
	return p
}

func (r *rotating) asks() {
	if v := r.server(r.pair()); v != secretGood && v != secretRepeat {
		r.failed = fmt.Sprintf("the owner is answered %d", v)
	}
}

// late delivers the n-th last Hello once more.
func (r *rotating) late(n int) {
	if len(r.sent) < n {
		return
	}
	if v := r.server(r.sent[len(r.sent)-n]); v == secretReused {
		r.failed = "an old packet revokes the device"
	}
}

var rotatingSteps = []func(*rotating){
	func(r *rotating) { r.asks(); r.current, r.next = r.next, 0 },                     // all arrives
	func(r *rotating) { r.pair() },                                                    // the Hello is lost
	func(r *rotating) { r.asks() },                                                    // the answer is lost
	func(r *rotating) { r.asks(); r.late(1); r.current, r.next = r.next, 0 },          // the Hello arrives twice
	func(r *rotating) { r.late(1) },                                                   // the last one comes late
	func(r *rotating) { r.late(2) },                                                   // an older one comes late
	func(r *rotating) { p := r.pair(); r.asks(); r.server(p); r.server(r.sent[0]) },   // a burst of retries, answers lost
	func(r *rotating) { r.asks(); r.current, r.next = r.next, 0; r.asks(); r.pair() }, // two in a row, the second lost
}

// TestEveryInterleavingOfLostAnswers: whatever is lost, repeated or late, in
// every order of six steps, the device is never revoked nor locked out.
func TestEveryInterleavingOfLostAnswers(t *testing.T) {
	const depth = 6
	total := 1
	for range depth {
		total *= len(rotatingSteps)
	}
	for n := range total {
		r := newRotating()
		for i, x := 0, n; i < depth && r.failed == ""; i, x = i+1, x/len(rotatingSteps) {
			rotatingSteps[x%len(rotatingSteps)](r)
		}
		if r.failed == "" {
			r.asks()
		}
		if r.failed != "" {
			t.Fatalf("steps %o (last first): %s", n, r.failed)
		}
	}
}

// TestCopiedSecretIsFound: of two installations with one state, the second to
// move on is found, at whatever point the copy was made.
func TestCopiedSecretIsFound(t *testing.T) {
	for n := range len(rotatingSteps) * len(rotatingSteps) {
		owner := newRotating()
		rotatingSteps[n%len(rotatingSteps)](owner)
		rotatingSteps[n/len(rotatingSteps)](owner)
		owner.asks()
		owner.current, owner.next = owner.next, 0

		thief := *owner
		thief.made += 100
		owner.asks()
		owner.current, owner.next = owner.next, 0
		if v := owner.server(thief.pair()); v != secretReused {
			t.Errorf("steps %d: the copy is answered %d, want reused", n, v)
		}
	}
}

func TestStandingOfTokens(t *testing.T) {
	head := storage.UserHead{User: 5, Found: true, TokenGen: 3, LoginEpoch: 9, SlotEpochs: [7]uint64{1: 9, 2: 4}}
	dev := storage.Device{Slot: 1, LoginEpoch: 9}
	tok := access{user: 5, slot: 1, loginEpoch: 9, tokenGen: 3}
	for _, tt := range []struct {
		what   string
		change func(st *standing, a *access)
		want   proto.ErrorCode
	}{
		{"good", func(*standing, *access) {}, 0},
		{"no such user", func(st *standing, _ *access) { st.head = storage.UserHead{}; st.found = false }, proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED},
		{"device revoked", func(st *standing, _ *access) { st.found = false }, proto.ErrorCode_ERROR_CODE_REVOKED},
		{"device revoked, generation raised", func(st *standing, _ *access) { st.found = false; st.head.TokenGen++ }, proto.ErrorCode_ERROR_CODE_REVOKED},
		{"another device revoked", func(st *standing, _ *access) { st.head.TokenGen++ }, proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED},
		{"generation of a lost store", func(_ *standing, a *access) { a.tokenGen++ }, proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED},
		{"newer login of another device", func(st *standing, _ *access) { st.head.SlotEpochs[1] = 10 }, proto.ErrorCode_ERROR_CODE_KICKED},
		{"kicked and generation raised", func(st *standing, _ *access) { st.head.SlotEpochs[1] = 10; st.head.TokenGen++ }, proto.ErrorCode_ERROR_CODE_KICKED},
		{"newer login in another slot", func(st *standing, _ *access) { st.head.SlotEpochs[2] = 10 }, 0},
		{"newer login of this device", func(st *standing, _ *access) { st.head.SlotEpochs[1] = 10; st.dev.LoginEpoch = 10 }, proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED},
		{"epoch of a lost store", func(_ *standing, a *access) { a.loginEpoch++ }, proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED},
	} {
		st, a := standing{head: head, dev: dev, found: true}, tok
		tt.change(&st, &a)
		if err := st.access(a); proto.CodeOf(err) != tt.want {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
	}
}
