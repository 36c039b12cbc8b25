package lossy

import (
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

// page is a piece of a file. One that the disk has is shared with it and is
// never changed again; whoever writes makes another.
type page struct {
	data   [pageSize]byte
	onDisk bool
}

// content is what is in a file; a page that is nil is zeros.
type content struct {
	size  int64
	pages []*page
}

// file has its content as programs see it and as the disk has it.
type file struct {
	live, disk content
	// dirty are the pages that differ.
	dirty map[int]struct{}
}

func (f *file) touch(i int) {
	if f.dirty == nil {
		f.dirty = make(map[int]struct{})
	}
	f.dirty[i] = struct{}{}
}

func pagesOf(size int64) int { return int((size + pageSize - 1) / pageSize) }

// get returns a page; nil: zeros.
func (c *content) get(i int) *page {
	if i < len(c.pages) {
		return c.pages[i]
	}
	return nil
}

func (c *content) set(i int, p *page) {
	for len(c.pages) <= i {
		c.pages = append(c.pages, nil)
	}
	c.pages[i] = p
}

// own returns a page that may be changed.
func (f *file) own(i int) *page {
	p := f.live.get(i)
	switch {
	case p == nil:
		p = new(page)
	case p.onDisk:
		p = &page{data: p.data}
	}
	f.live.set(i, p)
	f.touch(i)
	return p
}

func (f *file) write(data []byte, off int64) {
	end := off + int64(len(data))
	for len(data) > 0 {
		i, at := int(off/pageSize), int(off%pageSize)
		n := copy(f.own(i).data[at:], data)
		data, off = data[n:], off+int64(n)
	}
	f.live.size = max(f.live.size, end)
}

// read fills b from off, and returns how much there was.
func (f *file) read(b []byte, off int64) int {
	n := int(min(int64(len(b)), max(0, f.live.size-off)))
	b = b[:n]
	for len(b) > 0 {
		at := int(off % pageSize)
		k := min(len(b), pageSize-at)
		if p := f.live.get(int(off / pageSize)); p != nil {
			copy(b[:k], p.data[at:])
		} else {
			clear(b[:k])
		}
		b, off = b[k:], off+int64(k)
	}
	return n
}

// resize cuts off or adds zeros.
func (f *file) resize(size int64) {
	if size < f.live.size {
		keep := pagesOf(size)
		for i := keep; i < len(f.live.pages); i++ {
			f.touch(i)
		}
		f.live.pages = f.live.pages[:min(keep, len(f.live.pages))]
		if at := size % pageSize; at > 0 && f.live.get(keep-1) != nil {
			clear(f.own(keep - 1).data[at:])
		}
	}
	f.live.size = size
}

// sync gives the disk everything.
func (f *file) sync() {
	for i := range f.dirty {
		f.save(i)
	}
	clear(f.dirty)
	f.disk.size = f.live.size
	f.disk.trim()
}

// save gives the disk one page.
func (f *file) save(i int) {
	p := f.live.get(i)
	if p != nil {
		p.onDisk = true
	}
	f.disk.set(i, p)
}

// trim drops pages behind the end, and what the last one has there.
func (c *content) trim() {
	keep := pagesOf(c.size)
	c.pages = c.pages[:min(keep, len(c.pages))]
	at := c.size % pageSize
	if at == 0 {
		return
	}
	if p := c.get(keep - 1); p != nil && slices.ContainsFunc(p.data[at:], func(b byte) bool { return b != 0 }) {
		q := &page{data: p.data, onDisk: true}
		clear(q.data[at:])
		c.pages[keep-1] = q
	}
}

// lose leaves the disk with what it had and, if there is chance, some of what
// it was about to get.
func (f *file) lose(chance *rand.Rand) {
	if chance != nil {
		for _, i := range slices.Sorted(maps.Keys(f.dirty)) {
			switch chance.IntN(8) {
			case 0:
				f.tear(i, sectorSize*chance.IntN(pageSize/sectorSize))
			case 1, 2, 3:
			default:
				f.save(i)
			}
		}
		if chance.IntN(2) == 0 {
			f.disk.size = f.live.size
		}
		f.disk.trim()
	}
	clear(f.dirty)
	f.live = content{size: f.disk.size, pages: slices.Clone(f.disk.pages)}
}

// tear gives the disk the first bytes of a page.
func (f *file) tear(i, upTo int) {
	torn := &page{onDisk: true}
	if p := f.disk.get(i); p != nil {
		torn.data = p.data
	}
	if p := f.live.get(i); p != nil {
		copy(torn.data[:upTo], p.data[:])
	} else {
		clear(torn.data[:upTo])
	}
	f.disk.set(i, torn)
}
