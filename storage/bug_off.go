//go:build !torture

package storage

// bug is a mistake that a server made with the build tag torture has on
// purpose: see bug_on.go. Any other server has none. Then what is asked here is
// constant, and the compiler drops the question with the answer.
type bug struct{}

// earlySends is what a bug keeps between two transactions.
type earlySends struct{}

func openBug() bug { return bug{} }

func (bug) planned(*batch)                 {}
func (bug) lookEarly(c *committer)         { c.w.early = earlySends{} }
func (bug) sent(w *work, at int32) SendRow { return *w.sends.row(at) }
func (bug) nextSeq(u *UserHead) uint64     { return u.Seq + 1 }
func (bug) forgetsTask(uint64) bool        { return false }
func (bug) disorder([]Entry)               {}
func (bug) waitsForMore([]Entry) bool      { return false }
func (bug) skipsRevs() bool                { return false }
func (bug) trustsYoung() bool              { return false }
func (bug) keepFloor(*UserHead, UserHead)  {}
