package local

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// RedisOptions says how a Redis is started; the zero value will do.
type RedisOptions struct {
	// Dir is the server's folder; empty: a temporary one, removed by Close.
	Dir string
	// Password for the default user; empty: one is made for the run.
	Password string
	// Cluster starts a Redis Cluster of this one server, which owns all hash
	// slots: commands that would not work on a real one fail here as well.
	Cluster bool
	// Args are appended to the server's command line, like
	// "--maxmemory", "64mb".
	Args []string
}

// Redis is a private Redis server. It keeps nothing on disk: a restart is a
// flush.
type Redis struct {
	Server
	password string
	cluster  bool
}

// StartRedis starts an empty server and returns when it answers. ctx bounds
// the start only.
func StartRedis(ctx context.Context, opt RedisOptions) (*Redis, error) {
	if err := Require(ctx, "redis"); err != nil {
		return nil, err
	}
	dir, own, err := folder(opt.Dir, "redis")
	if err != nil {
		return nil, err
	}
	r := &Redis{password: opt.Password, cluster: opt.Cluster}
	if r.password == "" {
		r.password = rand.Text()
	}
	r.Server = Server{name: "redis", dir: dir, ownDir: own, ready: r.answers}
	r.command = func(port int) *exec.Cmd {
		args := append([]string{r.config(), "--port", strconv.Itoa(port)}, opt.Args...)
		cmd := exec.Command(find("redis-server", "redis-check-rdb"), args...)
		cmd.Args[0] = "redis-server" // one program, which looks at its name
		return cmd
	}
	err = r.writeConfig()
	if err == nil {
		err = r.first(ctx)
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Redis) config() string { return filepath.Join(r.dir, "redis.conf") }

// writeConfig: the password is in a file, since everybody may read a command
// line.
func (r *Redis) writeConfig() error {
	lines := []string{
		"bind 127.0.0.1", "requirepass " + r.password,
		"dir " + strconv.Quote(r.dir), `save ""`, "appendonly no", "daemonize no",
	}
	if r.cluster {
		lines = append(lines, "cluster-enabled yes", "cluster-require-full-coverage no")
	}
	return os.WriteFile(r.config(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// Password is the default user's.
func (r *Redis) Password() string { return r.password }

// Do runs one command and returns its answer. It looks first whether anybody
// listens: the client, once it has failed to connect, leaves a goroutine behind
// for a second, which tests take for a leak.
func (r *Redis) Do(ctx context.Context, args ...any) (any, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.Addr())
	if err != nil {
		return nil, err
	}
	_ = conn.Close()
	c := redis.NewClient(&redis.Options{Addr: r.Addr(), Password: r.password, PoolSize: 1, MaxRetries: -1, DialerRetries: 1})
	defer c.Close()
	return c.Do(ctx, args...).Result()
}

// answers returns nil once commands work; a cluster gives itself its hash
// slots first.
func (r *Redis) answers(ctx context.Context) error {
	if _, err := r.Do(ctx, "PING"); err != nil || !r.cluster {
		return err
	}
	info, err := r.Do(ctx, "CLUSTER", "INFO")
	if err != nil {
		return err
	}
	state := fmt.Sprint(info)
	if strings.Contains(state, "cluster_slots_assigned:0\r") {
		if _, err := r.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", 0, 16383); err != nil {
			return err
		}
	}
	if !strings.Contains(state, "cluster_state:ok") {
		return fmt.Errorf("local: the cluster of one is not up yet")
	}
	return nil
}
