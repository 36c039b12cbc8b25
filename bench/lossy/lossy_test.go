package lossy

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a mounted file system, empty at first.
type rig struct {
	*FS
	t *testing.T
}

func newRig(t *testing.T) *rig {
	t.Helper()
	goleak.VerifyNone(t)
	s, err := Mount(t.TempDir())
	must(t, err)
	t.Cleanup(func() {
		must(t, s.Close())
		goleak.VerifyNone(t)
	})
	return &rig{s, t}
}

func (r *rig) path(name string) string { return filepath.Join(r.Dir(), name) }

// put writes a file's content from an offset, and syncs it if that is wanted.
func (r *rig) put(name, text string, off int64, sync bool) {
	r.t.Helper()
	f, err := os.OpenFile(r.path(name), os.O_CREATE|os.O_WRONLY, 0o600)
	must(r.t, err)
	_, err = f.WriteAt([]byte(text), off)
	must(r.t, err)
	if sync {
		must(r.t, f.Sync())
	}
	must(r.t, f.Close())
}

// save is the fsync of a file or a folder.
func (r *rig) save(name string) {
	r.t.Helper()
	f, err := os.Open(r.path(name))
	must(r.t, err)
	must(r.t, f.Sync())
	must(r.t, f.Close())
}

// cycle cuts the power and turns it on again.
func (r *rig) cycle(seed uint64) {
	r.t.Helper()
	r.PowerCut(seed)
	must(r.t, r.PowerOn())
}

// has wants exactly these files, «name=content», folders as «name/».
func (r *rig) has(want ...string) {
	r.t.Helper()
	var got []string
	must(r.t, filepath.WalkDir(r.Dir(), func(path string, e os.DirEntry, err error) error {
		name := strings.TrimPrefix(strings.TrimPrefix(path, r.Dir()), "/")
		switch {
		case err != nil || name == "":
			return err
		case e.IsDir():
			got = append(got, name+"/")
		default:
			b, err := os.ReadFile(path)
			got = append(got, name+"="+string(b))
			return err
		}
		return nil
	}))
	if !slices.Equal(got, want) {
		r.t.Errorf("the disk has %q, want %q", got, want)
	}
}

func TestContent(t *testing.T) {
	r := newRig(t)
	r.put("a", "saved", 0, true)
	r.save("")
	r.put("a", "SAVED and more", 0, false)
	r.put("b", "nobody synced the folder", 0, true)
	if b, err := os.ReadFile(r.path("a")); err != nil || string(b) != "SAVED and more" {
		t.Errorf("before the cut: %q, %v", b, err)
	}
	r.cycle(0)
	r.has("a=saved")

	must(t, os.Truncate(r.path("a"), 2))
	r.cycle(0)
	r.has("a=saved")
	must(t, os.Truncate(r.path("a"), 2))
	r.save("a")
	r.put("a", "x", 4, true)
	r.cycle(0)
	r.has("a=sa\x00\x00x")
	if st := r.Stats(); st.Cuts != 3 || st.Syncs < 4 || st.Writes < 4 || st.Lost == 0 {
		t.Errorf("%+v", st)
	}
}

func TestNames(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(r *rig)
		want []string
	}{
		"created":               {func(r *rig) { r.put("new", "", 0, true) }, []string{"d/", "d/f=f", "e/"}},
		"created, synced":       {func(r *rig) { r.put("new", "x", 0, true); r.save("") }, []string{"d/", "d/f=f", "e/", "new=x"}},
		"content forgotten":     {func(r *rig) { r.put("new", "x", 0, false); r.save("") }, []string{"d/", "d/f=f", "e/", "new="}},
		"removed":               {func(r *rig) { must(r.t, os.Remove(r.path("d/f"))) }, []string{"d/", "d/f=f", "e/"}},
		"removed, synced":       {func(r *rig) { must(r.t, os.Remove(r.path("d/f"))); r.save("d") }, []string{"d/", "e/"}},
		"removed, other synced": {func(r *rig) { must(r.t, os.Remove(r.path("d/f"))); r.save("e") }, []string{"d/", "d/f=f", "e/"}},
		"renamed":               {func(r *rig) { must(r.t, os.Rename(r.path("d/f"), r.path("e/g"))) }, []string{"d/", "d/f=f", "e/"}},
		"renamed, from synced":  {func(r *rig) { must(r.t, os.Rename(r.path("d/f"), r.path("e/g"))); r.save("d") }, []string{"d/", "e/", "e/g=f"}},
		"renamed, to synced":    {func(r *rig) { must(r.t, os.Rename(r.path("d/f"), r.path("e/g"))); r.save("e") }, []string{"d/", "e/", "e/g=f"}},
		"replaced": {func(r *rig) {
			r.put("d/tmp", "better", 0, true)
			must(r.t, os.Rename(r.path("d/tmp"), r.path("d/f")))
			r.save("d")
		}, []string{"d/", "d/f=better", "e/"}},
		"created, moved away, synced there": {func(r *rig) {
			r.put("d/tmp", "x", 0, true)
			must(r.t, os.Rename(r.path("d/tmp"), r.path("e/x")))
			r.save("e")
			r.save("d")
		}, []string{"d/", "d/f=f", "e/", "e/x=x"}},
		"linked": {func(r *rig) { must(r.t, os.Link(r.path("d/f"), r.path("e/l"))); r.save("e") }, []string{"d/", "d/f=f", "e/", "e/l=f"}},
		"folder": {func(r *rig) { must(r.t, os.Mkdir(r.path("n"), 0o700)); r.put("n/x", "x", 0, true); r.save("n") }, []string{"d/", "d/f=f", "e/"}},
		"folder and its own, synced": {func(r *rig) {
			must(r.t, os.Mkdir(r.path("n"), 0o700))
			r.put("n/x", "x", 0, true)
			r.save("n")
			r.save("")
		}, []string{"d/", "d/f=f", "e/", "n/", "n/x=x"}},
		"folder removed":    {func(r *rig) { must(r.t, os.RemoveAll(r.path("d"))); r.save("") }, []string{"e/"}},
		"everything synced": {func(r *rig) { r.put("new", "x", 0, false); r.Sync(); r.put("new", "y", 0, false) }, []string{"d/", "d/f=f", "e/", "new=x"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for _, dir := range []string{"d", "e"} {
				must(t, os.Mkdir(r.path(dir), 0o700))
			}
			r.put("d/f", "f", 0, false)
			r.Sync()
			tt.do(r)
			r.cycle(0)
			r.has(tt.want...)
		})
	}
}

func TestWithoutPowerNothingWorks(t *testing.T) {
	r := newRig(t)
	r.put("a", "a", 0, true)
	f, err := os.OpenFile(r.path("a"), os.O_RDWR, 0)
	must(t, err)
	r.PowerCut(0)
	_, w := f.Write([]byte("x"))
	_, o := os.Create(r.path("b"))
	_, l := os.ReadDir(r.Dir())
	for what, err := range map[string]error{
		"write": w, "sync": f.Sync(), "create": o, "list": l,
		"remove": os.Remove(r.path("a")), "rename": os.Rename(r.path("a"), r.path("c")), "truncate": f.Truncate(0),
	} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_ = f.Close()
	must(t, r.PowerOn())
	r.has()
}

func TestBehavesAsAFileSystem(t *testing.T) {
	r := newRig(t)
	r.put("a", "0123456789", 0, false)
	must(t, os.Symlink("a", r.path("s")))
	must(t, os.Link(r.path("a"), r.path("l")))
	r.has("a=0123456789", "l=0123456789", "s=0123456789")
	must(t, os.Mkdir(r.path("d"), 0o700))
	must(t, os.Mkdir(r.path("d/sub"), 0o700))
	for what, err := range map[error]error{
		syscall.ENOTEMPTY: os.Remove(r.path("d")),
		syscall.EEXIST:    os.Mkdir(r.path("d"), 0o700),
		syscall.ENOENT:    os.Remove(r.path("x")),
		syscall.ENOTDIR:   os.Rename(r.path("d"), r.path("a")),
	} {
		if !errors.Is(err, what) {
			t.Errorf("%v, want %v", err, what)
		}
	}
	// A file that is removed stays for whoever has it open.
	f, err := os.OpenFile(r.path("a"), os.O_RDWR|os.O_APPEND, 0)
	must(t, err)
	must(t, os.Remove(r.path("a")))
	must(t, os.Remove(r.path("l")))
	_, err = f.WriteString("ab")
	must(t, err)
	must(t, syscall.Fallocate(int(f.Fd()), 0, 0, 20))
	b := make([]byte, 30)
	if n, _ := f.ReadAt(b, 5); string(b[:n]) != "56789ab"+string(make([]byte, 8)) {
		t.Errorf("%q", b[:n])
	}
	must(t, f.Close())

	// Anything that is written in pieces reads as it was written.
	rnd := rand.New(rand.NewPCG(1, 2))
	want := make([]byte, 300_000)
	f, err = os.Create(r.path("big"))
	must(t, err)
	for range 300 {
		piece := want[rnd.IntN(len(want)):]
		piece = piece[:min(len(piece), rnd.IntN(20_000))]
		for i := range piece {
			piece[i] = byte(rnd.Uint32())
		}
		_, err := f.WriteAt(piece, int64(len(want)-cap(piece)))
		must(t, err)
		if rnd.IntN(10) == 0 {
			must(t, f.Sync())
		}
	}
	must(t, f.Truncate(int64(len(want))))
	must(t, f.Sync())
	must(t, f.Close())
	r.save("")
	r.cycle(0)
	got, err := os.ReadFile(r.path("big"))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the file is another after all")
	}
}

// TestSeedsLeaveSome writes pages that are told apart, and counts what a seeded
// cut leaves of them.
func TestSeedsLeaveSome(t *testing.T) {
	const pages = 200
	left := func(seed uint64) (old, new, torn, names int, all string) {
		tr := newTree()
		f, _ := tr.add(tr.root, "f", syscall.S_IFREG)
		write := func(b byte) {
			for i := range pages {
				f.write(bytes.Repeat([]byte{b}, pageSize), int64(i*pageSize))
			}
		}
		write('a')
		tr.syncAll()
		write('b')
		for i := range 100 {
			_, _ = tr.add(tr.root, fmt.Sprintf("n%03d", i), syscall.S_IFREG)
		}
		tr.lose(rand.New(rand.NewPCG(seed, seed)))
		b := make([]byte, pages*pageSize)
		if n := f.read(b, 0); n != len(b) {
			t.Fatalf("%d bytes", n)
		}
		for p := range slices.Chunk(b, pageSize) {
			switch n := bytes.Count(p, []byte("b")); {
			case n == 0:
				old++
			case n == pageSize:
				new++
			case n%sectorSize == 0 && bytes.Count(p[:n], []byte("b")) == n:
				torn++
			default:
				t.Fatalf("a page with %d new bytes", n)
			}
		}
		list := slices.Sorted(maps.Keys(tr.root.names))
		for i, name := range list[1:] {
			if name != fmt.Sprintf("n%03d", i) {
				t.Fatalf("names %v: not the earlier ones", list)
			}
		}
		return old, new, torn, len(list) - 1, string(b)
	}
	seen := make(map[int]bool)
	for seed := range uint64(20) {
		old, new, torn, names, all := left(seed + 1)
		if old < 20 || new < 20 || torn < 2 {
			t.Errorf("seed %d: %d old, %d new, %d torn", seed, old, new, torn)
		}
		seen[names] = true
		if _, _, _, again, other := left(seed + 1); again != names || all != other {
			t.Errorf("seed %d leaves something else the second time", seed)
		}
	}
	if len(seen) < 5 {
		t.Errorf("names left: %v", seen)
	}
}

// TestModel does the same to two trees, of which one is synced all the time
// and a copy of it kept: what a cut with seed 0 leaves is that copy.
func TestModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		tr := newTree()
		f, _ := tr.add(tr.root, "f", syscall.S_IFREG)
		tr.syncAll()
		var synced, live []byte
		for range 40 {
			switch rnd.IntN(4) {
			case 0:
				size := rnd.IntN(3 * pageSize)
				f.resize(int64(size))
				live = append(live[:min(size, len(live))], make([]byte, max(0, size-len(live)))...)
			case 1:
				tr.sync(f)
				synced = bytes.Clone(live)
			default:
				off, data := rnd.IntN(3*pageSize), bytes.Repeat([]byte{byte(1 + rnd.IntN(255))}, 1+rnd.IntN(pageSize))
				f.write(data, int64(off))
				live = append(live, make([]byte, max(0, off+len(data)-len(live)))...)
				copy(live[off:], data)
			}
			got := make([]byte, len(live)+10)
			if n := f.read(got, 0); !bytes.Equal(got[:n], live) {
				t.Fatal("programs read something else")
			}
		}
		tr.lose(nil)
		got := make([]byte, len(synced)+10)
		if n := f.read(got, 0); !bytes.Equal(got[:n], synced) {
			t.Fatal("the disk has something else")
		}
	}
}
