package local

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMariaDBKeepsDataThroughKillStopAndPause(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx := t.Context()
	begin := time.Now()
	db, err := StartMariaDB(ctx, MariaDBOptions{Args: []string{"--max-connections=77"}})
	must(t, err)
	t.Logf("started in %v", time.Since(begin))
	must(t, db.CreateDatabase(ctx, "shard"))
	must(t, db.CreateDatabase(ctx, "shard"))
	value := func() (n int) {
		t.Helper()
		pool, err := sql.Open("mysql", db.DSN("shard"))
		must(t, err)
		defer pool.Close()
		must(t, pool.QueryRowContext(ctx, "SELECT v FROM t").Scan(&n))
		return n
	}
	must(t, db.Exec(ctx, "CREATE TABLE shard.t (v INT)"))
	must(t, db.Exec(ctx, "INSERT INTO shard.t SELECT @@max_connections"))

	addr, pid := db.Addr(), db.Pid()
	db.Kill()
	if db.Pid() != 0 || db.Exec(ctx, "SELECT 1") == nil {
		t.Fatal("killed, and it answers")
	}
	must(t, db.Start(ctx))
	if db.Addr() != addr || db.Pid() == pid || value() != 77 {
		t.Fatalf("after a crash: %s (was %s), pid %d (was %d), value %d", db.Addr(), addr, db.Pid(), pid, value())
	}
	must(t, db.Pause())
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	if err := db.Exec(short, "SELECT 1"); err == nil {
		t.Error("paused, and it answers")
	}
	cancel()
	must(t, db.Continue())
	must(t, db.Stop())
	must(t, db.Stop())
	must(t, db.Start(ctx))
	if value() != 77 || db.Start(ctx) == nil {
		t.Error("started twice, or the data is gone")
	}
	if tail := db.LogTail(100); len(tail) == 0 || len(tail) > 100 {
		t.Errorf("log tail %q", tail)
	}
	dir := db.Dir()
	must(t, db.Close())
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder is left behind")
	}
}

func TestRedisLife(t *testing.T) {
	defer goleak.VerifyNone(t)
	for name, opt := range map[string]RedisOptions{"single": {}, "cluster": {Cluster: true}, "own folder": {Dir: t.TempDir(), Password: "p"}} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			r, err := StartRedis(ctx, opt)
			must(t, err)
			set := func(want any) {
				t.Helper()
				v, err := r.Do(ctx, "GET", "k")
				if err != nil && want != nil || err == nil && v != want {
					t.Fatalf("k is %v (%v), want %v", v, err, want)
				}
				_, err = r.Do(ctx, "SET", "k", "v")
				must(t, err)
			}
			set(nil)
			set("v")
			must(t, r.Pause())
			must(t, r.Continue())
			set("v")
			must(t, r.Stop())
			must(t, r.Start(ctx))
			set(nil)
			r.Kill()
			must(t, r.Start(ctx))
			set(nil)
			if opt.Password != "" && r.Password() != opt.Password {
				t.Errorf("password %q", r.Password())
			}
			dir := r.Dir()
			must(t, r.Close())
			if _, err := os.Stat(dir); (err == nil) != (opt.Dir != "") {
				t.Errorf("folder after Close: %v", err)
			}
		})
	}
}

// TestMain can be a process that starts a Redis and then waits to be killed.
func TestMain(m *testing.M) {
	dir := os.Getenv("HERMOD_LOCAL_ORPHAN")
	if dir == "" {
		os.Exit(m.Run())
	}
	r, err := StartRedis(context.Background(), RedisOptions{})
	if err != nil {
		panic(err)
	}
	// In two steps, so that whoever waits for the file finds all of it.
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte(fmt.Sprintln(r.Pid(), r.Dir())), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "up")); err != nil {
		panic(err)
	}
	select {}
}

func TestServersDieWithAKilledProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HERMOD_LOCAL_ORPHAN="+dir)
	must(t, cmd.Start())
	waitFor(t, "the other process's Redis", func() bool { _, err := os.Stat(filepath.Join(dir, "up")); return err == nil })
	text, err := os.ReadFile(filepath.Join(dir, "up"))
	must(t, err)
	var pid int
	var folder string
	_, err = fmt.Sscan(string(text), &pid, &folder)
	must(t, err)
	must(t, syscall.Kill(pid, 0))
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	waitFor(t, "the orphan to die", func() bool { return syscall.Kill(pid, 0) != nil })
	waitFor(t, "its folder to go", func() bool { _, err := os.Stat(folder); return err != nil })
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	_, err := StartRedis(t.Context(), RedisOptions{Args: []string{"--no-such-option", "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("error %v; it lacks the server's own words", err)
	}
}

func TestRequireNamesTheCommand(t *testing.T) {
	must(t, Require(t.Context(), "mariadb", "redis"))
	if err := Require(t.Context(), "oracle"); err == nil {
		t.Error("an unknown product is there")
	}
	packages := products()["mariadb"].packages
	if err := missingError(packages, nil); !strings.Contains(err.Error(), "apt-get install") || !strings.Contains(err.Error(), packages[0]) {
		t.Errorf("%v", err)
	}
	if slices.Contains(packages, "mariadb-server") {
		t.Error("mariadb-server starts a service")
	}
}
