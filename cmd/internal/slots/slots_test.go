package slots

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

func TestCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		job  Job
		want string // part of the error; empty: none
	}{
		"ranges":        {Job{Slots: "0-1023, 2000,4095", To: 2}, ""},
		"a shard's":     {Job{From: 1, To: 2}, ""},
		"some":          {Job{From: 1, Count: 5, To: 2}, ""},
		"nowhere":       {Job{Slots: "1"}, "--to"},
		"nothing":       {Job{To: 1}, "which slots"},
		"both":          {Job{Slots: "1", From: 1, To: 2}, "which slots"},
		"count alone":   {Job{Slots: "1", Count: 3, To: 2}, "--count"},
		"negative":      {Job{From: 1, Count: -3, To: 2}, "--count"},
		"to itself":     {Job{From: 2, To: 2}, "already"},
		"no number":     {Job{Slots: "x", To: 2}, `"x"`},
		"too high":      {Job{Slots: "4096", To: 2}, `"4096"`},
		"backwards":     {Job{Slots: "9-1", To: 2}, `"9-1"`},
		"empty part":    {Job{Slots: "1,,2", To: 2}, `""`},
		"minus a slot":  {Job{Slots: "-1", To: 2}, `"-1"`},
		"half a range":  {Job{Slots: "1-", To: 2}, `"1-"`},
		"another range": {Job{Slots: "1-2-3", To: 2}, `"1-2-3"`},
	} {
		err := tt.job.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := parse("5,1-3,2,4095")
	if err != nil || ranges(got) != "1-3,5,4095" {
		t.Errorf("%v, %v", got, err)
	}
}

func two(t *testing.T) []storage.Shard {
	t.Helper()
	shards := []storage.Shard{storagetest.NewMem(1, storagetest.MemOptions{}), storagetest.NewMem(2, storagetest.MemOptions{})}
	t.Cleanup(func() {
		for _, sh := range shards {
			_ = sh.Close()
		}
	})
	if err := storage.Prepare(t.Context(), shards, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	return shards
}

func status(t *testing.T, shards []storage.Shard) string {
	t.Helper()
	var out bytes.Buffer
	if err := Status(t.Context(), shards, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestMove(t *testing.T) {
	shards := two(t)
	move := func(j Job) string {
		t.Helper()
		var out bytes.Buffer
		if err := Move(t.Context(), shards, j, zerolog.Nop(), &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := move(Job{Slots: "0-2", To: 2}); !strings.Contains(got, "slot 2: shard 1 → 2") || !strings.Contains(got, "3 slots are on shard 2") {
		t.Error(got)
	}
	if got := move(Job{Slots: "2-3", To: 2}); !strings.Contains(got, "slot 2 is on shard 2\n") || !strings.Contains(got, "slot 3: shard 1 → 2") {
		t.Error(got)
	}
	move(Job{From: 2, Count: 2, To: 1})
	if got := status(t, shards); !strings.Contains(got, "4-2047,4094-4095") || !strings.Contains(got, "0-3,2048-4093") || strings.Contains(got, "wait") {
		t.Error(got)
	}
	for what, j := range map[string]Job{"no shard": {From: 9, To: 1}, "no such target": {Slots: "1", To: 9}, "too many": {From: 1, Count: 4000, To: 2}} {
		if err := Move(t.Context(), shards, j, zerolog.Nop(), io.Discard); err == nil {
			t.Error(what)
		}
	}
}

func TestStatusOfMoveCutOff(t *testing.T) {
	shards := two(t)
	done := make(chan error, 1)
	err := shards[0].Commit(t.Context(), &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) {
		return &storage.Writes{Slots: []storage.SlotRow{{Slot: 7, State: storage.SlotFrozen, Epoch: 2}, {Slot: 8, State: storage.SlotAbsent, Epoch: 2}}}, nil
	}, func(err error) { done <- err })
	if err != nil || <-done != nil {
		t.Fatal(err)
	}
	if got := status(t, shards); !strings.Contains(got, "move them back") || !strings.Contains(got, "left over") {
		t.Error(got)
	}
}

func TestHandle(t *testing.T) {
	shards := two(t)
	mux := http.NewServeMux()
	moves := Handle(mux, shards, zerolog.Nop())
	srv := httptest.NewServer(mux)
	defer srv.Close()
	post := func(path string, own bool) (status int, body, trailer string) {
		t.Helper()
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if own {
			req.Header.Set(Header, "1")
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.Trailer.Get(Trailer)
	}
	for _, tt := range []struct {
		path    string
		own     bool
		status  int
		body    string
		trailer string
	}{
		{"/slots/status", false, http.StatusForbidden, "hermodctl", ""},
		{"/slots/move?slots=1&to=2", false, http.StatusForbidden, "hermodctl", ""},
		{"/slots/move?slots=x&to=2", true, http.StatusBadRequest, `"x"`, ""},
		{"/slots/move?slots=1&to=2", true, http.StatusOK, "slot 1: shard 1 → 2", ""},
		{"/slots/move?slots=1&to=9", true, http.StatusOK, "", "no shard 9"},
		{"/slots/status", true, http.StatusOK, "1,2048-4095", ""},
	} {
		status, body, trailer := post(tt.path, tt.own)
		if status != tt.status || !strings.Contains(body, tt.body) || !strings.Contains(trailer, tt.trailer) || (trailer == "") != (tt.trailer == "") {
			t.Errorf("%s: %d, %q, %q", tt.path, status, body, trailer)
		}
	}
	moves.Stop()
	if status, body, _ := post("/slots/status", true); status != http.StatusServiceUnavailable {
		t.Errorf("after Stop: %d, %q", status, body)
	}
}
