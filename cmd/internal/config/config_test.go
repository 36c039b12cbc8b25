package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(dir, "hermod.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Run("environment over file over defaults", func(t *testing.T) {
		path := file("[listen]\nplain = \"127.0.0.1:1\"\ntls = \":2\"\n[limits]\nfirst_byte = \"9s\"\n")
		cfg, err := Load(path, []string{"PATH=/bin", "HERMOD_LISTEN_TLS=:3", "HERMOD_LIMITS_EXEMPT=10.0.0.0/8,::1/128", "HERMOD_LISTEN_PLAIN_INSECURE=true", "HERMOD_DRAIN_WINDOW=1m", "HERMOD_AUTH_ARGON2_TIME=3"})
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Listen.Plain != "127.0.0.1:1" || cfg.Listen.TLS != ":3" || !cfg.Listen.PlainInsecure {
			t.Errorf("listen: %+v", cfg.Listen)
		}
		if cfg.Limits.FirstByte.Std() != 9*time.Second || cfg.Limits.Login.Std() != 10*time.Second || len(cfg.Limits.Exempt) != 2 {
			t.Errorf("limits: %+v", cfg.Limits)
		}
		if cfg.Drain.Window.Std() != time.Minute || cfg.Auth.Argon2Time != 3 {
			t.Errorf("drain %+v auth %+v", cfg.Drain, cfg.Auth)
		}
	})
	for name, c := range map[string]struct{ file, env, want string }{
		"unknown key":         {"[limits]\nmax_cons = 5\n", "", `line 2: unknown key "limits.max_cons"`},
		"unknown section":     {"[limit]\nmax_conns = 5\n", "", "unknown key"},
		"wrong type":          {"[limits]\nmax_conns = \"five\"\n", "", "line 2"},
		"bad duration":        {"[drain]\nwindow = \"soon\"\n", "", "write it like 30s"},
		"no TOML":             {"limits {\n", "", "line 1"},
		"unknown environment": {"", "HERMOD_LIMIT_MAX_CONNS=5", "HERMOD_LIMIT_MAX_CONNS names no setting"},
		"bad number":          {"", "HERMOD_LIMITS_MAX_CONNS=many", "no whole number"},
		"bad bool":            {"", "HERMOD_LISTEN_PLAIN_INSECURE=maybe", "neither true nor false"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(file(c.file), []string{c.env})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	t.Run("a named file must exist", func(t *testing.T) {
		if _, err := Load(filepath.Join(dir, "none.toml"), nil); err == nil {
			t.Error("accepted")
		}
	})
}

func TestEverySettingHasHelpAndPrintsAsTOML(t *testing.T) {
	cfg := Default()
	for _, s := range settings(&cfg) {
		if s.help == "" {
			t.Errorf("%s has no help", s.key)
		}
	}
	var out bytes.Buffer
	cfg.Explain(&out)
	var back Config
	if err := decodeTOML(out.Bytes(), &back); err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	var again bytes.Buffer
	back.Explain(&again)
	if again.String() != out.String() {
		t.Errorf("read back differently:\n%s\n%s", out.String(), again.String())
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	cases := map[string]struct {
		change func(*Config)
		key    string
		fatal  bool
	}{
		"plain off loopback":     {func(c *Config) { c.Listen.Plain = ":5100" }, "listen.plain", true},
		"insecure by name":       {func(c *Config) { c.Listen.Plain = ":5100"; c.Listen.PlainInsecure = true }, "listen.plain_insecure", false},
		"no listener":            {func(c *Config) { c.Listen.Plain = "" }, "listen", true},
		"no address":             {func(c *Config) { c.Listen.Plain = "5100" }, "listen.plain", true},
		"TLS without pair":       {func(c *Config) { c.Listen.TLS = ":5101" }, "tls", true},
		"TLS with missing files": {func(c *Config) { c.Listen.TLS = ":1"; c.TLS.Cert = "x"; c.TLS.Key = "y" }, "tls", true},
		"pair without TLS":       {func(c *Config) { c.TLS.Cert = "x" }, "tls", false},
		"proxy without networks": {func(c *Config) { c.Listen.Proxy = ":5102" }, "listen.proxy_trusted", true},
		"bad network":            {func(c *Config) { c.Limits.Exempt = []string{"10.0.0.1"} }, "limits.exempt", true},
		"wide exemption":         {func(c *Config) { c.Limits.Exempt = []string{"10.0.0.0/8"} }, "limits.exempt", false},
		"admin off loopback":     {func(c *Config) { c.Admin.Listen = "0.0.0.0:5180" }, "admin.listen", true},
		"too many connections":   {func(c *Config) { c.Limits.MaxConns = 1 << 30 }, "limits.max_conns", true},
		"negative limit":         {func(c *Config) { c.Limits.ConnsPerIP = -1 }, "limits.conns_per_ip", true},
		"endless login":          {func(c *Config) { c.Limits.Login = Duration(time.Hour) }, "limits.login", true},
		"level":                  {func(c *Config) { c.Log.Level = "loud" }, "log.level", true},
		"format":                 {func(c *Config) { c.Log.Format = "xml" }, "log.format", true},
		"token life":             {func(c *Config) { c.Auth.TokenLife = Duration(24 * time.Hour) }, "auth.token_life", true},
		"weak argon2":            {func(c *Config) { c.Auth.Argon2MemoryKiB = 64 }, "auth.argon2_memory_kib", false},
		"no argon2":              {func(c *Config) { c.Auth.Argon2Time = 0 }, "auth.argon2_memory_kib", true},
		"cache":                  {func(c *Config) { c.Storage.CacheMiB = 1 }, "storage.cache_mib", true},
		"reserve":                {func(c *Config) { c.Storage.FreeReserveMiB = 1 }, "storage.free_reserve_mib", true},
		"reserve over free":      {func(c *Config) { c.Storage.FreeReserveMiB = 1 << 40 }, "storage.free_reserve_mib", true},
		"retention":              {func(c *Config) { c.Storage.RetainEvents = 1 }, "storage.retain_age", true},
		"drain":                  {func(c *Config) { c.Drain.Timeout = 0 }, "drain.timeout", true},
		"data is a file":         {func(c *Config) { c.Data.Dir = os.Args[0] }, "data.dir", true},
		"no data":                {func(c *Config) { c.Data.Dir = "" }, "data.dir", true},
	}
	good := Default()
	good.Data.Dir = filepath.Join(dir, "a", "b")
	if ps := good.Check(); len(ps) != 0 {
		t.Fatalf("the defaults have problems: %v", ps)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			ps := cfg.Check()
			if len(ps) != 1 || ps[0].Key != c.key || ps[0].Fatal != c.fatal || ps.Fatal() != c.fatal {
				t.Errorf("problems %v, want one with %s (fatal %v)", ps, c.key, c.fatal)
			}
		})
	}
}
