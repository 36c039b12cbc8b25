package conn

// bucket is a token bucket, filled from what it held last. The zero bucket is
// full.
type bucket struct {
	last stamp
	used float32 // tokens taken and not grown back yet
}

// take takes a token if there is one. rate is tokens a second, burst how many
// the bucket holds.
func (b *bucket) take(now stamp, rate, burst int) bool {
	if ms := now.since(b.last); ms > 0 {
		b.used = max(0, b.used-float32(ms)*float32(rate)/1000)
	}
	b.last = now
	if b.used+1 > float32(burst) {
		return false
	}
	b.used++
	return true
}

// idle reports whether the bucket would be full at now.
func (b *bucket) idle(now stamp, rate int) bool {
	ms := now.since(b.last)
	return ms < 0 || float32(ms)*float32(rate)/1000 >= b.used
}
