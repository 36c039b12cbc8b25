package lossy

import (
	"context"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// inode is what the kernel knows of a node, for as long as a mount lasts.
type inode struct {
	fusefs.Inode
	fs *FS
	n  *node
}

// What the kernel may ask; the compiler would not miss one of them.
var _ interface {
	fusefs.NodeLookuper
	fusefs.NodeReaddirer
	fusefs.NodeCreater
	fusefs.NodeMkdirer
	fusefs.NodeSymlinker
	fusefs.NodeReadlinker
	fusefs.NodeLinker
	fusefs.NodeUnlinker
	fusefs.NodeRmdirer
	fusefs.NodeRenamer
	fusefs.NodeGetattrer
	fusefs.NodeSetattrer
	fusefs.NodeOpener
	fusefs.NodeReader
	fusefs.NodeWriter
	fusefs.NodeFsyncer
	fusefs.NodeAllocater
	fusefs.NodeStatfser
} = (*inode)(nil)

func (n *node) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = n.ino, n.mode, n.links
	out.Size, out.Blksize = uint64(n.file.live.size), pageSize
	if n.target != "" {
		out.Size = uint64(len(n.target))
	}
	out.Blocks = (out.Size + sectorSize - 1) / sectorSize
	out.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

// child answers with an inode for a node.
func (i *inode) child(ctx context.Context, n *node, out *fuse.EntryOut) *fusefs.Inode {
	n.attr(&out.Attr)
	return i.NewInode(ctx, &inode{fs: i.fs, n: n}, fusefs.StableAttr{Mode: n.mode & syscall.S_IFMT, Ino: n.ino})
}

// answer is child for what f finds or makes.
func (i *inode) answer(ctx context.Context, out *fuse.EntryOut, f func(t *tree) (*node, syscall.Errno)) (in *fusefs.Inode, errno syscall.Errno) {
	errno = i.fs.do(func(t *tree) syscall.Errno {
		n, errno := f(t)
		if errno == 0 {
			in = i.child(ctx, n, out)
		}
		return errno
	})
	return in, errno
}

func (i *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	return i.answer(ctx, out, func(*tree) (*node, syscall.Errno) {
		if n := i.n.names[name]; n != nil {
			return n, 0
		}
		return nil, syscall.ENOENT
	})
}

func (i *inode) Readdir(context.Context) (fusefs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	errno := i.fs.do(func(*tree) syscall.Errno {
		for name, n := range i.n.names {
			list = append(list, fuse.DirEntry{Name: name, Mode: n.mode, Ino: n.ino})
		}
		return 0
	})
	return fusefs.NewListDirStream(list), errno
}

func (i *inode) Create(ctx context.Context, name string, _ uint32, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	in, errno := i.answer(ctx, out, func(t *tree) (*node, syscall.Errno) {
		return t.add(i.n, name, syscall.S_IFREG|mode&0o7777)
	})
	return in, nil, fuse.FOPEN_KEEP_CACHE, errno
}

func (i *inode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	return i.answer(ctx, out, func(t *tree) (*node, syscall.Errno) {
		return t.add(i.n, name, syscall.S_IFDIR|mode&0o7777)
	})
}

func (i *inode) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	return i.answer(ctx, out, func(t *tree) (*node, syscall.Errno) {
		n, errno := t.add(i.n, name, syscall.S_IFLNK|0o777)
		if errno == 0 {
			n.target = target
		}
		return n, errno
	})
}

func (i *inode) Readlink(context.Context) (target []byte, errno syscall.Errno) {
	errno = i.fs.do(func(*tree) syscall.Errno {
		target = []byte(i.n.target)
		return 0
	})
	return target, errno
}

func (i *inode) Link(ctx context.Context, target fusefs.InodeEmbedder, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	return i.answer(ctx, out, func(t *tree) (*node, syscall.Errno) {
		n := target.(*inode).n
		if i.n.names[name] != nil {
			return nil, syscall.EEXIST
		}
		t.apply(change{i.n, name, n})
		return n, 0
	})
}

func (i *inode) Unlink(_ context.Context, name string) syscall.Errno {
	return i.fs.do(func(t *tree) syscall.Errno { return t.remove(i.n, name, false) })
}

func (i *inode) Rmdir(_ context.Context, name string) syscall.Errno {
	return i.fs.do(func(t *tree) syscall.Errno { return t.remove(i.n, name, true) })
}

func (i *inode) Rename(_ context.Context, name string, to fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	const noReplace = 1
	if flags&^noReplace != 0 {
		return syscall.EINVAL
	}
	return i.fs.do(func(t *tree) syscall.Errno {
		return t.rename(i.n, name, to.(*inode).n, newName, flags == 0)
	})
}

func (i *inode) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return i.fs.do(func(*tree) syscall.Errno {
		i.n.attr(&out.Attr)
		return 0
	})
}

// Setattr truncates, and takes permissions and times; who owns a file is
// nobody's concern here.
func (i *inode) Setattr(_ context.Context, _ fusefs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return i.fs.do(func(*tree) syscall.Errno {
		if mode, ok := in.GetMode(); ok {
			i.n.mode = i.n.mode&syscall.S_IFMT | mode&0o7777
		}
		if at, ok := in.GetMTime(); ok {
			i.n.mtime = at
		}
		if size, ok := in.GetSize(); ok {
			i.n.resize(int64(size))
			i.n.mtime = time.Now()
		}
		i.n.attr(&out.Attr)
		return 0
	})
}

func (i *inode) Open(context.Context, uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, i.fs.do(func(*tree) syscall.Errno { return 0 })
}

func (i *inode) Read(_ context.Context, _ fusefs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n := 0
	errno := i.fs.do(func(*tree) syscall.Errno {
		n = i.n.read(dest, off)
		return 0
	})
	return fuse.ReadResultData(dest[:n]), errno
}

func (i *inode) Write(_ context.Context, _ fusefs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	errno := i.fs.do(func(*tree) syscall.Errno {
		i.fs.stats.Writes++
		i.n.write(data, off)
		i.n.mtime = time.Now()
		return 0
	})
	return uint32(len(data)), errno
}

// Fsync is also fdatasync, and that of a folder.
func (i *inode) Fsync(context.Context, fusefs.FileHandle, uint32) syscall.Errno {
	return i.fs.do(func(t *tree) syscall.Errno {
		i.fs.stats.Syncs++
		t.sync(i.n)
		return 0
	})
}

// Allocate promises room, of which there is plenty.
func (i *inode) Allocate(_ context.Context, _ fusefs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	const keepSize = 1
	if mode&^keepSize != 0 {
		return syscall.EOPNOTSUPP
	}
	return i.fs.do(func(*tree) syscall.Errno {
		if end := int64(off + size); mode == 0 && end > i.n.file.live.size {
			i.n.resize(end)
		}
		return 0
	})
}

// Statfs tells of 64 GiB, all free.
func (i *inode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const blocks = 64 << 30 / pageSize
	out.Blocks, out.Bfree, out.Bavail = blocks, blocks, blocks
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Files, out.Ffree = 1<<20, 1<<20
	return 0
}
