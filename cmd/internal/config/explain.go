package config

import (
	"fmt"
	"io"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Explain prints, as TOML, what hermod would run with: every setting, its
// value, and whether it is the default. Passwords are left out.
func (c *Config) Explain(w io.Writer) {
	def := Default()
	standard := settings(&def)
	section := ""
	for i, s := range settings(c) {
		name, _, _ := strings.Cut(s.key, ".")
		if name != section {
			if section == "storage" {
				c.explainShards(w)
			}
			fmt.Fprintf(w, "\n[%s]\n", name)
			section = name
		}
		line(w, "", s, standard[i])
	}
}

// explainShards prints [[storage.shard]]; where there is none, what one looks
// like.
func (c *Config) explainShards(w io.Writer) {
	var none ShardConfig
	if len(c.Storage.Shards) == 0 {
		fmt.Fprintf(w, "\n# [[storage.shard]]  # one block for each; none: one embedded shard in data.dir\n")
		for _, s := range shardSettings(&none) {
			line(w, "# ", s, s)
		}
	}
	for i := range c.Storage.Shards {
		fmt.Fprintf(w, "\n[[storage.shard]]\n")
		for _, s := range shardSettings(&c.Storage.Shards[i]) {
			line(w, "", s, s)
		}
	}
}

// line prints one setting beside what it is by default.
func line(w io.Writer, prefix string, s, standard setting) {
	_, key, _ := strings.Cut(s.key, ".")
	mark := ""
	value, was := text(s), text(standard)
	if value != was {
		mark = "  (default " + was + ")"
	}
	fmt.Fprintf(w, "%s%-20s = %-24s # %s%s\n", prefix, key, value, s.help, mark)
}

// text writes a setting's value as it stands in the file.
func text(s setting) string {
	v := s.value.Interface()
	if s.secret {
		v = redactDSN(s.value.String())
	}
	b, err := toml.Marshal(map[string]any{"k": v})
	if err != nil {
		return fmt.Sprint(v)
	}
	_, out, _ := strings.Cut(strings.TrimSpace(string(b)), "= ")
	return out
}
