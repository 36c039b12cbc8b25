package router

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// oldestRedis is the oldest version that the scripts are known to work with.
const oldestRedis = "6.2"

// check looks once, when Redis answers for the first time, at what would spoil
// the directory in silence, and tells the operator. It asks for INFO, which
// managed services allow; where even that is refused nothing is said.
func (r *Redis) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.opt.Timeout)
	defer cancel()
	server := r.opt.Client
	if c, ok := server.(*redis.ClusterClient); ok {
		one, err := c.MasterForKey(ctx, r.layout.nodes)
		if err != nil {
			return
		}
		server = one
	}
	var info strings.Builder
	for _, section := range []string{"server", "memory"} {
		text, err := server.Info(ctx, section).Result()
		if err != nil {
			return
		}
		info.WriteString(text)
	}
	for _, text := range judgeRedis(info.String()) {
		r.opt.Log.Warn().Msg("directory: " + text)
	}
}

// judgeRedis finds what is wrong with a server that says this of itself.
func judgeRedis(info string) (wrong []string) {
	v := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			v[name] = value
		}
	}
	var major, minor, oldMajor, oldMinor int
	_, _ = fmt.Sscanf(oldestRedis, "%d.%d", &oldMajor, &oldMinor)
	if n, _ := fmt.Sscanf(v["redis_version"], "%d.%d", &major, &minor); n == 2 && (major < oldMajor || major == oldMajor && minor < oldMinor) {
		wrong = append(wrong, fmt.Sprintf("Redis is %s; %s is the oldest that is supported: update it", v["redis_version"], oldestRedis))
	}
	if policy := v["maxmemory_policy"]; v["maxmemory"] != "0" && policy != "" && policy != "noeviction" && !strings.HasPrefix(policy, "volatile-") {
		wrong = append(wrong, fmt.Sprintf("Redis removes keys when its memory is full (maxmemory-policy %s): users would be missing from the directory until the next round, and their messages late. "+
			"Set maxmemory-policy noeviction, and maxmemory to 64 bytes for each device online or more", policy))
	}
	return wrong
}
