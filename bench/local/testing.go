package local

import "context"

// TB is what TestMariaDB and TestRedis need of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
	Context() context.Context
}

// TestMariaDB starts a MariaDB for a test, which fails if there is none, and
// closes it after the test.
func TestMariaDB(t TB, opt MariaDBOptions) *MariaDB {
	t.Helper()
	return started(t, func(ctx context.Context) (*MariaDB, error) { return StartMariaDB(ctx, opt) })
}

// TestRedis starts a Redis for a test, which fails if there is none, and
// closes it after the test.
func TestRedis(t TB, opt RedisOptions) *Redis {
	t.Helper()
	return started(t, func(ctx context.Context) (*Redis, error) { return StartRedis(ctx, opt) })
}

func started[S interface{ Close() error }](t TB, start func(context.Context) (S, error)) S {
	t.Helper()
	s, err := start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return s
}
