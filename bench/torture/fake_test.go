package torture

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"

	"github.com/hermod-im/hermod/bench/fault"
)

// fakeSystem is one that is not there.
type fakeSystem struct {
	faults    []fault.Fault
	endpoints []string
	place     map[int64]string
	stopped   error // what Stores says, beside the stores
}

func (f *fakeSystem) About() string                                     { return "nothing" }
func (f *fakeSystem) Endpoints() []string                               { return f.endpoints }
func (f *fakeSystem) TLS() *tls.Config                                  { return nil }
func (f *fakeSystem) Faults() []fault.Fault                             { return f.faults }
func (f *fakeSystem) Sessions(context.Context) (int, error)             { return 0, nil }
func (f *fakeSystem) Tasks(context.Context) (int, error)                { return 0, nil }
func (f *fakeSystem) Routes(context.Context) (int, error)               { return 0, nil }
func (f *fakeSystem) Memory(context.Context) (map[string]uint64, error) { return nil, nil }
func (f *fakeSystem) Place(user int64) string                           { return f.place[user] }
func (f *fakeSystem) Stores(context.Context) (Stores, error)            { return &held{}, f.stopped }
func (f *fakeSystem) Logs(dir string) error {
	return os.WriteFile(filepath.Join(dir, "node.log"), []byte("it was not me\n"), 0o600)
}
