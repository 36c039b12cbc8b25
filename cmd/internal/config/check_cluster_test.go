package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/cluster"
	"github.com/hermod-im/hermod/cmd/internal/config"
)

// fleet is the configuration of a node of a cluster that is in order.
func fleet(t *testing.T, dir string) config.Config {
	t.Helper()
	if _, err := cluster.MakeCA(cluster.CertOptions{Dir: dir, Life: 1000 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	pair, err := cluster.MakeCert(cluster.CertOptions{Dir: dir, Name: "node1", Node: 7, Life: 900 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Data.Dir = filepath.Join(dir, "data")
	cfg.Cluster = config.ClusterConfig{Listen: "10.0.0.1:5190", CA: filepath.Join(dir, cluster.CACert), Cert: pair.Cert, Key: pair.Key}
	cfg.Redis.Addrs, cfg.Redis.TLS, cfg.Redis.PasswordFile = []string{"10.0.0.5:6379"}, true, secret(t, dir, "redis", "pass")
	cfg.Storage.Shards = []config.ShardConfig{
		{ID: 2, DSNFile: secret(t, dir, "dsn2", "hermod:geheim@tcp(10.0.0.6:3306)/hermod_2")},
		{ID: 1, Engine: config.MySQL, DSN: "hermod:geheim@tcp(10.0.0.6:3306)/hermod_1"},
	}
	return cfg
}

// secret writes a file that only its owner can read.
func secret(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckCluster(t *testing.T) {
	dir := t.TempDir()
	good := fleet(t, dir)
	if ps := good.Check(); len(ps) != 0 {
		t.Fatalf("a cluster in order has problems: %v", ps)
	}
	shard := func(f func(*config.ShardConfig)) func(*config.Config) {
		return func(c *config.Config) { f(&c.Storage.Shards[0]) }
	}
	dsn := func(s string) func(*config.Config) {
		return shard(func(sc *config.ShardConfig) { sc.DSNFile, sc.DSN = "", s })
	}
	open := secret(t, dir, "open", "x")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	fleet(t, other)
	soon, err := cluster.MakeCert(cluster.CertOptions{Dir: dir, Name: "soon", Node: 7, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := cluster.MakeCert(cluster.CertOptions{Dir: dir, Name: "nobody", Life: 900 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*config.Config)
		key    string
		text   string
		fatal  bool
	}{
		"no Redis":              {func(c *config.Config) { c.Redis = config.RedisConfig{} }, "redis.addrs", "remove cluster.listen", true},
		"no shards":             {func(c *config.Config) { c.Storage.Shards = nil }, "storage.shard", "Add a [[storage.shard]]", true},
		"Redis alone":           {func(c *config.Config) { c.Cluster = config.ClusterConfig{} }, "cluster.listen", "Set it", true},
		"idle cluster settings": {func(c *config.Config) { c.Cluster.Listen, c.Redis = "", config.RedisConfig{} }, "cluster", "no listen", false},
		"idle Redis settings":   {func(c *config.Config) { c.Cluster, c.Redis.Addrs = config.ClusterConfig{}, nil }, "redis", "no addrs", false},
		"no advertised host":    {func(c *config.Config) { c.Cluster.Listen = ":5190" }, "cluster.advertise", "names no host", true},
		"unspecified host":      {func(c *config.Config) { c.Cluster.Advertise = "0.0.0.0:5190" }, "cluster.advertise", "names no host", true},
		"advertised port 0":     {func(c *config.Config) { c.Cluster.Listen = "10.0.0.1:0" }, "cluster.advertise", "no port", true},
		"no cluster address":    {func(c *config.Config) { c.Cluster.Listen = "5190" }, "cluster.listen", "host:port", true},
		"no certificate":        {func(c *config.Config) { c.Cluster.Cert = "" }, "cluster", "hermodctl cluster ca", true},
		"another CA":            {func(c *config.Config) { c.Cluster.CA = filepath.Join(other, cluster.CACert) }, "cluster", "unknown authority", true},
		"names no node":         {func(c *config.Config) { c.Cluster.Cert, c.Cluster.Key = nobody.Cert, nobody.Key }, "cluster", "names no node", true},
		"another's key":         {func(c *config.Config) { c.Cluster.Key = soon.Key }, "cluster", "private key", true},
		"ends soon":             {func(c *config.Config) { c.Cluster.Cert, c.Cluster.Key = soon.Cert, soon.Key }, "cluster.cert", "SIGHUP", false},

		"bad prefix":          {func(c *config.Config) { c.Redis.Prefix = "a b" }, "redis.prefix", "a word", true},
		"bad buckets":         {func(c *config.Config) { c.Redis.Buckets = 1000 }, "redis.buckets", "power of two", true},
		"Redis in plaintext":  {func(c *config.Config) { c.Redis.TLS = false }, "redis.tls", "insecure = true", true},
		"Redis insecure":      {func(c *config.Config) { c.Redis.TLS = false; c.Redis.Insecure = true }, "redis.insecure", "can be read", false},
		"Redis unguarded":     {func(c *config.Config) { c.Redis.PasswordFile = "" }, "redis.password_file", "requirepass", false},
		"no Redis password":   {func(c *config.Config) { c.Redis.PasswordFile = filepath.Join(dir, "none") }, "redis", "no such file", true},
		"open Redis password": {func(c *config.Config) { c.Redis.PasswordFile = open }, "redis", "chmod 600", true},
		"no Redis CA":         {func(c *config.Config) { c.Redis.CA = open }, "redis", "no certificate", true},
		"no Redis address":    {func(c *config.Config) { c.Redis.Addrs = []string{"10.0.0.5"} }, "redis.addrs", "host:port", true},

		"shard 0":        {shard(func(sc *config.ShardConfig) { sc.ID = 0 }), "storage.shard 0: id", "from 1", true},
		"shard twice":    {shard(func(sc *config.ShardConfig) { sc.ID = 1 }), "storage.shard 1: id", "twice", true},
		"database twice": {dsn("x:y@tcp(10.0.0.6:3306)/hermod_1"), "storage.shard 1: dsn", "shard 2's already", true},
		"unknown engine": {shard(func(sc *config.ShardConfig) { sc.Engine = "oracle" }), "storage.shard 2: engine", "mysql or embedded", true},
		"embedded in a cluster": {shard(func(sc *config.ShardConfig) { *sc = config.ShardConfig{ID: 2, Engine: config.Embedded} }),
			"storage.shard 2: engine", "slots move", true},
		"embedded with a DSN": {shard(func(sc *config.ShardConfig) { sc.Engine = config.Embedded }), "storage.shard 2: dsn", "remove it", true},
		"no DSN":              {dsn(""), "storage.shard 2: dsn", "set dsn_file", true},
		"two DSNs":            {shard(func(sc *config.ShardConfig) { sc.DSN = "x" }), "storage.shard 2: dsn", "keep one", true},
		"open DSN":            {shard(func(sc *config.ShardConfig) { sc.DSNFile = open }), "storage.shard 2: dsn", "chmod 600", true},
		"bad DSN":             {dsn("hermod:geheim@10.0.0.6/x"), "storage.shard 2: dsn", "cannot be read", true},
		"no database":         {dsn("hermod:geheim@tcp(10.0.0.6:3306)/"), "storage.shard 2: dsn", "/hermod_2", true},
		"TLS for show":        {dsn("hermod:geheim@tcp(10.0.0.6:3306)/x?tls=skip-verify"), "storage.shard 2: dsn", "insecure = true", true},
		"no database CA":      {shard(func(sc *config.ShardConfig) { sc.CA = open }), "storage.shard 2: dsn", "no certificate", true},
		"database insecure":   {shard(func(sc *config.ShardConfig) { sc.Insecure = true }), "storage.shard 2: insecure", "can be read", false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			cfg.Storage.Shards = append([]config.ShardConfig(nil), good.Storage.Shards...)
			c.change(&cfg)
			ps := cfg.Check()
			if len(ps) != 1 || ps[0].Key != c.key || ps[0].Fatal != c.fatal || !strings.Contains(ps[0].Text, c.text) {
				t.Errorf("problems %v, want one with %s: %q (fatal %v)", ps, c.key, c.text, c.fatal)
			}
			for _, p := range ps {
				if strings.Contains(p.String(), "geheim") {
					t.Errorf("a password is shown: %s", p)
				}
			}
		})
	}
}

// What leaves the machine is encrypted and checked; what does not need not be.
func TestDatabaseTLS(t *testing.T) {
	dir := t.TempDir()
	fleet(t, dir)
	ca := filepath.Join(dir, cluster.CACert)
	for name, c := range map[string]struct {
		shard  config.ShardConfig
		server string // whose certificate is wanted; "": plaintext
	}{
		"remote":            {config.ShardConfig{DSN: "u:p@tcp(db1.example:3306)/x"}, "db1.example"},
		"remote, own CA":    {config.ShardConfig{DSN: "u:p@tcp(10.0.0.6:3306)/x", CA: ca}, "10.0.0.6"},
		"loopback":          {config.ShardConfig{DSN: "u:p@tcp(127.0.0.1:3306)/x"}, ""},
		"loopback, own CA":  {config.ShardConfig{DSN: "u:p@tcp(127.0.0.1:3306)/x", CA: ca}, "127.0.0.1"},
		"socket":            {config.ShardConfig{DSN: "u:p@unix(/run/mysqld.sock)/x"}, ""},
		"insecure by name":  {config.ShardConfig{DSN: "u:p@tcp(10.0.0.6:3306)/x", Insecure: true}, ""},
		"remote, port left": {config.ShardConfig{DSN: "u:p@tcp(10.0.0.6)/x"}, "10.0.0.6"},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := c.shard.Database()
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.server == "" && db.TLS != nil, c.server != "" && db.TLS == nil:
				t.Errorf("TLS %v", db.TLS)
			case db.TLS != nil && (db.TLS.ServerName != c.server || db.TLS.InsecureSkipVerify || (db.TLS.RootCAs != nil) != (c.shard.CA != "")):
				t.Errorf("TLS for %q, unchecked %v, own roots %v", db.TLS.ServerName, db.TLS.InsecureSkipVerify, db.TLS.RootCAs != nil)
			}
		})
	}
}

func TestShardsFromFileAndEnvironment(t *testing.T) {
	path := secret(t, t.TempDir(), "hermod.toml", "[storage]\ncache_mib = 9\n[[storage.shard]]\nid = 1\ndsn = 'a:b@tcp(h:1)/one'\n[[storage.shard]]\nid = 2\nengine = 'embedded'\n")
	cfg, err := config.Load(path, []string{"HERMOD_STORAGE_SHARD_3_DSN_FILE=/x", "HERMOD_STORAGE_SHARD_1_DSN=c:d@tcp(h:1)/uno", "HERMOD_STORAGE_SHARD_1_INSECURE=true"})
	if err != nil {
		t.Fatal(err)
	}
	want := []config.ShardConfig{{ID: 1, DSN: "c:d@tcp(h:1)/uno", Insecure: true}, {ID: 2, Engine: config.Embedded}, {ID: 3, DSNFile: "/x"}}
	got := cfg.Shards()
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("shards %+v", got)
	}
	if cfg.Storage.CacheMiB != 9 {
		t.Errorf("cache_mib %d", cfg.Storage.CacheMiB)
	}
	for _, bad := range []string{"HERMOD_STORAGE_SHARD_1_DSNFILE=x", "HERMOD_STORAGE_SHARD_x_DSN=x", "HERMOD_STORAGE_SHARD_01_DSN=x", "HERMOD_STORAGE_SHARD_1_ID=3", "HERMOD_STORAGE_SHARD=1"} {
		if _, err := config.Load(path, []string{bad}); err == nil || !strings.Contains(err.Error(), "names no setting") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if d := config.Default(); len(d.Shards()) != 1 || d.Shards()[0].ID != 1 || d.Shards()[0].Engine != config.Embedded {
		t.Errorf("without any: %+v", d.Shards())
	}
}

// What Explain prints of a cluster is a configuration again, without secrets.
func TestExplainCluster(t *testing.T) {
	dir := t.TempDir()
	cfg := fleet(t, dir)
	var out bytes.Buffer
	cfg.Explain(&out)
	if strings.Contains(out.String(), "geheim") || !strings.Contains(out.String(), "hermod:…@tcp(10.0.0.6:3306)/hermod_1") {
		t.Errorf("the password is shown, or more is hidden:\n%s", out.String())
	}
	back, err := config.Load(secret(t, dir, "hermod.toml", out.String()), nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	var again bytes.Buffer
	back.Explain(&again)
	if again.String() != out.String() {
		t.Errorf("read back differently:\n%s\n%s", out.String(), again.String())
	}
}
