package router

import "math/bits"

// row is a user's entry; user 0 is a free place.
type row struct {
	user int64
	packed
}

// rows is a hash table from users, all above 0, to packed entries: open
// addressing, linear probing, 40 to 50 bytes for each of 32. A Go map doubles,
// so it takes 36 to 72 of them, and rarely the 36.
type rows struct {
	places []row
	count  int
}

// minPlaces is what a table begins with.
const minPlaces = 8

// home is where a user's row is looked for first. The top 6 bits of the hash
// have chosen the shard.
func (t *rows) home(user int64) int {
	hi, _ := bits.Mul64(memoryHash(user)<<6, uint64(len(t.places)))
	return int(hi)
}

// find returns the place of the user's row, or the free one where it belongs.
func (t *rows) find(user int64) (at int, found bool) {
	for at = t.home(user); t.places[at].user != 0; {
		if t.places[at].user == user {
			return at, true
		}
		if at++; at == len(t.places) {
			at = 0
		}
	}
	return at, false
}

func (t *rows) get(user int64) (packed, bool) {
	if t.count == 0 {
		return packed{}, false
	}
	at, found := t.find(user)
	return t.places[at].packed, found
}

// put writes the user's row, new or not.
func (t *rows) put(user int64, p packed) {
	if 5*(t.count+1) > 4*len(t.places) {
		t.grow()
	}
	at, found := t.find(user)
	if !found {
		t.count++
	}
	t.places[at] = row{user, p}
}

// grow makes a quarter more room, so the table is filled to 64 % to 80 %.
func (t *rows) grow() {
	old := t.places
	t.places = make([]row, max(len(old)+len(old)/4, minPlaces))
	for _, r := range old {
		if r.user != 0 {
			at, _ := t.find(r.user)
			t.places[at] = r
		}
	}
}

// remove takes the user's row out. What probing had pushed on moves up, so that
// no search ends at the gap.
func (t *rows) remove(user int64) {
	if t.count == 0 {
		return
	}
	gap, found := t.find(user)
	if !found {
		return
	}
	n := len(t.places)
	for at := (gap + 1) % n; t.places[at].user != 0; at = (at + 1) % n {
		// It may move to the gap unless its home lies behind that.
		if home := t.home(t.places[at].user); (at-home+n)%n >= (at-gap+n)%n {
			t.places[gap] = t.places[at]
			gap = at
		}
	}
	t.places[gap] = row{}
	t.count--
}
