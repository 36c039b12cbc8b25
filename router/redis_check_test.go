package router

import (
	"context"
	"strings"
	"testing"

	"github.com/hermod-im/hermod/bench/local"
)

func TestJudgeRedis(t *testing.T) {
	for info, want := range map[string]string{
		"":                         "",
		"redis_version:7.2.4\r\n":  "",
		"redis_version:6.2.0\r\n":  "",
		"redis_version:6.0.16\r\n": "6.2 is the oldest",
		"redis_version:5.0.7\r\n":  "Redis is 5.0.7",
		"redis_version:unstable":   "",
		"maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n":      "",
		"maxmemory:1000\r\nmaxmemory_policy:noeviction\r\n":    "",
		"maxmemory:1000\r\nmaxmemory_policy:volatile-ttl\r\n":  "",
		"maxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n":   "maxmemory-policy allkeys-lru",
		"maxmemory:1000\r\nmaxmemory_policy:allkeys-lfu\r\nx:": "allkeys-lfu",
	} {
		got := strings.Join(judgeRedis("# Section\r\n"+info), "; ")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", info, got, want)
		}
	}
}

// The operator is told, once, also where Redis comes later than the node.
func TestRedisThatForgets(t *testing.T) {
	for name, opt := range map[string]local.RedisOptions{
		"alone":   {Args: []string{"--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"}},
		"cluster": {Cluster: true, Args: []string{"--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"}},
		"good":    {Args: []string{"--maxmemory", "64mb"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, opt)
			f.server.Kill()
			a := f.start(1, 1, impatient(f), func(o *RedisOptions) {
				_ = o.Client.Close()
				o.Client = f.client(opt.Cluster, o.Timeout)
			})
			must(t, f.server.Start(context.Background()))
			eventually(t, func() bool { ms, err := a.Members(context.Background()); return err == nil && len(ms) == 1 }, func() any { return a.log })
			f.do("FLUSHALL")
			eventually(t, func() bool { return a.losses.Load() >= 2 }, func() any { return a.log })
			want := 1
			if name == "good" {
				want = 0
			}
			eventually(t, func() bool { return strings.Count(a.log.String(), "Redis removes keys") == want }, func() any { return a.log })
		})
	}
}
