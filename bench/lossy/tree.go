package lossy

import (
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// node is a file, a folder or a symbolic link.
type node struct {
	ino   uint64
	mode  uint32 // type and permissions
	links uint32 // names it has, as programs see it
	mtime time.Time

	file
	target string // of a symbolic link
	// names are those in a folder, as programs see them and as the disk has them.
	names, onDisk map[string]*node
}

func (n *node) isDir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

// change is one name of a folder that is somebody else's now; nil: nobody's.
type change struct {
	dir  *node
	name string
	to   *node
}

// tree is all that is in the file system. Who calls holds the lock of the FS.
type tree struct {
	root *node
	last uint64 // inode number
	// pending are the changes of names that the disk does not have yet, in the
	// order they were made; those of one call come together.
	pending [][]change
}

func newTree() *tree {
	t := &tree{}
	t.root = t.make(syscall.S_IFDIR | 0o755)
	t.root.links = 1
	return t
}

func (t *tree) make(mode uint32) *node {
	t.last++
	n := &node{ino: t.last, mode: mode, mtime: time.Now()}
	if n.isDir() {
		n.names, n.onDisk = make(map[string]*node), make(map[string]*node)
	}
	return n
}

// apply changes names for programs, and notes that the disk has yet to learn.
func (t *tree) apply(cs ...change) {
	for _, c := range cs {
		if old := c.dir.names[c.name]; old != nil {
			old.links--
		}
		put(c.dir.names, c)
		if c.to != nil {
			c.to.links++
		}
		c.dir.mtime = time.Now()
	}
	t.pending = append(t.pending, cs)
}

func put(names map[string]*node, c change) {
	if c.to == nil {
		delete(names, c.name)
	} else {
		names[c.name] = c.to
	}
}

// add makes something new.
func (t *tree) add(dir *node, name string, mode uint32) (*node, syscall.Errno) {
	if dir.names[name] != nil {
		return nil, syscall.EEXIST
	}
	n := t.make(mode)
	t.apply(change{dir, name, n})
	return n, 0
}

func (t *tree) remove(dir *node, name string, folder bool) syscall.Errno {
	n := dir.names[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case folder && !n.isDir():
		return syscall.ENOTDIR
	case !folder && n.isDir():
		return syscall.EISDIR
	case len(n.names) > 0:
		return syscall.ENOTEMPTY
	}
	t.apply(change{dir, name, nil})
	return 0
}

// rename moves a name, over another if there is one and that is allowed.
func (t *tree) rename(from *node, name string, to *node, newName string, replace bool) syscall.Errno {
	n, old := from.names[name], to.names[newName]
	switch {
	case n == nil:
		return syscall.ENOENT
	case old == n:
		return 0
	case old != nil && !replace:
		return syscall.EEXIST
	case old != nil && old.isDir() != n.isDir():
		if old.isDir() {
			return syscall.EISDIR
		}
		return syscall.ENOTDIR
	case old != nil && len(old.names) > 0:
		return syscall.ENOTEMPTY
	}
	t.apply(change{from, name, nil}, change{to, newName, n})
	return 0
}

// sync gives the disk a node: content, or names. Names that a rename connects
// are saved together, and in order, so that what was moved is not in two
// places, or in none.
func (t *tree) sync(n *node) {
	if !n.isDir() {
		n.file.sync()
		return
	}
	with := map[*node]bool{n: true}
	touches := func(cs []change) bool {
		return slices.ContainsFunc(cs, func(c change) bool { return with[c.dir] })
	}
	for grown := true; grown; {
		grown = false
		for _, cs := range t.pending {
			if !touches(cs) {
				continue
			}
			for _, c := range cs {
				grown = grown || !with[c.dir]
				with[c.dir] = true
			}
		}
	}
	t.pending = slices.DeleteFunc(t.pending, func(cs []change) bool {
		if !touches(cs) {
			return false
		}
		save(cs)
		return true
	})
}

func save(cs []change) {
	for _, c := range cs {
		put(c.dir.onDisk, c)
	}
}

// lose forgets what the disk does not have, but for what chance leaves of it,
// if it is not nil.
func (t *tree) lose(chance *rand.Rand) {
	if chance != nil {
		for _, cs := range t.pending[:chance.IntN(len(t.pending)+1)] {
			save(cs)
		}
	}
	t.pending = nil
	for _, n := range reachable(t.root) {
		n.file.lose(chance)
		n.names = maps.Clone(n.onDisk)
		n.links = 0
	}
	t.root.links = 1
	for _, n := range reachable(t.root) {
		for _, child := range n.names {
			child.links++
		}
	}
}

// syncAll is sync(2).
func (t *tree) syncAll() {
	for _, cs := range t.pending {
		save(cs)
	}
	t.pending = nil
	for _, n := range reachable(t.root) {
		n.file.sync()
	}
}

// reachable lists what the disk has under a folder, in a fixed order.
func reachable(root *node) []*node {
	seen := map[*node]bool{root: true}
	all := []*node{root}
	for i := 0; i < len(all); i++ {
		for _, name := range slices.Sorted(maps.Keys(all[i].onDisk)) {
			if n := all[i].onDisk[name]; !seen[n] {
				seen[n] = true
				all = append(all, n)
			}
		}
	}
	return all
}
