package pebble

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
)

func TestValidate(t *testing.T) {
	if err := (Options{Dir: "x"}).Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "Dir is empty"},
		{Options{Dir: "x", CacheBytes: 5}, "CacheBytes"},
		{Options{Dir: "x", MemTableBytes: 2 << 30}, "MemTableBytes"},
		{Options{Dir: "x", HeadCacheBytes: 1}, "HeadCacheBytes"},
		{Options{Dir: "x", MaxOpenFiles: 3}, "MaxOpenFiles"},
		{Options{Dir: "x", Compactions: -1}, "Compactions"},
		{Options{Dir: "x", MaxInFlight: 5000}, "MaxInFlight"},
		{Options{Dir: "x", DiskCheckEvery: 1}, "DiskCheckEvery"},
	} {
		if err := tt.o.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want a word on %s", tt.o, err, tt.want)
		}
		if _, err := Open(tt.o); err == nil {
			t.Errorf("Open took %+v", tt.o)
		}
	}
}

func refused(t *testing.T, o Options, want string) {
	t.Helper()
	s, err := Open(o)
	if err == nil {
		t.Errorf("Open succeeded, want %q", want)
		_ = s.Close()
		return
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("Open: %v, want %q", err, want)
	}
}

func TestOneProcess(t *testing.T) {
	o := Options{Dir: t.TempDir(), FS: vfs.Default}
	s := open(t, o)
	refused(t, o, "another hermod runs on this data")
	another := func() (string, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), openDir+"="+o.Dir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := another(); err == nil || !strings.Contains(out, "another hermod runs on this data") {
		t.Errorf("another process: %v, %s", err, out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := another(); err != nil {
		t.Errorf("another process, after Close: %v, %s", err, out)
	}
	open(t, o)

	mem := Options{Dir: "data", FS: vfs.NewMem()}
	open(t, mem)
	refused(t, mem, "another hermod runs on this data")
}

func TestWhoseData(t *testing.T) {
	o := Options{Dir: "data", FS: vfs.NewMem(), ID: 7}
	s := open(t, o)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.ID = 8
	refused(t, o, "holds shard 7, not 8")

	o.ID = 7
	db, err := crdb.Open(o.Dir, o.withDefaults().engine(&listener{}))
	if err != nil {
		t.Fatal(err)
	}
	if got := db.FormatMajorVersion(); got != formatVersion {
		t.Errorf("file format %d, pinned is %d", got, formatVersion)
	}
	if err := db.Set(start(nil, tableShard), []byte{99}, crdb.Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	refused(t, o, "a newer hermod's?")
}

// TestPinnedFormat: changing it is a decision, not an upgrade of a library.
func TestPinnedFormat(t *testing.T) {
	if formatVersion != 21 {
		t.Errorf("format %d: stores written by older versions stay readable, but older hermods cannot open what this one touched", formatVersion)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	fs := vfs.NewMem()
	s := open(t, Options{FS: fs, Metrics: reg, ID: 3})
	open(t, Options{FS: vfs.NewMem(), Metrics: reg, ID: 4}) // side by side
	for range 3 {
		write(t, s, meta("x"))
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range all {
		seen[f.GetName()] = true
		for _, m := range f.Metric {
			if l := m.Label[0]; l.GetName() != "shard" || l.GetValue() != "3" && l.GetValue() != "4" {
				t.Errorf("%s: labels %v", f.GetName(), m.Label)
			}
		}
		if n := f.Metric[0].GetHistogram().GetSampleCount(); f.GetName() == "hermod_pebble_commit_seconds" && n != 3 {
			t.Errorf("%d commits counted, 3 were made", n)
		}
	}
	for _, name := range []string{"commit_seconds", "commit_bytes_total", "wal_sync_seconds", "compaction_debt_bytes", "disk_bytes", "l0_files", "write_stalls_total", "in_flight", "disk_full"} {
		if !seen["hermod_pebble_"+name] {
			t.Errorf("no metric %s", name)
		}
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	refused(t, Options{Dir: "other", FS: fs, Metrics: reg, ID: 3}, "register metrics")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Options{FS: fs, Metrics: reg, ID: 3}) // the name is free again
}

func TestListener(t *testing.T) {
	var buf bytes.Buffer
	fatal := 0
	l := &listener{log: zerolog.New(&buf), fatal: func(error) { fatal++ }}
	l.Infof("routine")
	if buf.Len() > 0 {
		t.Errorf("routine is logged: %s", &buf)
	}
	e := l.events()
	e.WriteStallBegin(crdb.WriteStallBeginInfo{Reason: "memtable count limit reached"})
	e.WriteStallEnd()
	e.DiskSlow(crdb.DiskSlowInfo{Path: "000002.log", Duration: 5 * time.Second})
	e.LowDiskSpace(crdb.LowDiskSpaceInfo{AvailBytes: 1})
	e.DataCorruption(crdb.DataCorruptionInfo{Path: "000004.sst", Details: ErrCorrupt})
	e.BackgroundError(ErrCorrupt)
	l.Errorf("%d", 5)
	for _, want := range []string{"memtable count", "000002.log", "000004.sst", "corrupt row", `"free_bytes":1`, "writes go on"} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("not in the log: %s", want)
		}
	}
	if l.stalls.Load() != 1 || l.slow.Load() != 1 {
		t.Error("stalls or slow operations are not counted")
	}
	defer func() {
		if r := recover(); r == nil || fatal != 1 {
			t.Errorf("Fatalf: recovered %v, fatal called %d times", r, fatal)
		}
	}()
	l.Fatalf("the end")
}

// TestLimits: rows that could hurt are refused before anything is allocated for them.
func TestLimits(t *testing.T) {
	s := open(t, Options{})
	u := storage.UserIDIn(1, 1)
	big := make([]byte, maxBody+1)
	for what, w := range map[string]*storage.Writes{
		"body":        {Entries: []storage.Entry{{Conv: storage.SelfKey(u), Rev: 1, Body: big}}},
		"inline body": {Inbox: []storage.InboxRow{{User: u, Seq: 1, Inline: true, Entry: storage.Entry{Body: big}}}},
		"name":        {Names: []storage.NameRow{{Name: string(big[:maxText+1])}}},
		"meta":        {Meta: []storage.MetaRow{{Name: "m", Value: big}}},
		"slot":        {Slots: []storage.SlotRow{{Slot: storage.Slots}}},
	} {
		if err := commit(s, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return w, nil }); err == nil {
			t.Errorf("too much of %s was accepted", what)
		}
	}
	view(t, s, func(v storage.Snap) {
		if rows, err := v.Entries(storage.SelfKey(u), 0, 9, 9, 9, false); err != nil || len(rows) > 0 {
			t.Errorf("%d rows, %v", len(rows), err)
		}
	})
}
