package chat

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Signing keys are PKCS#8 PEM files named after the moment they were made, so
// that names sort by age. The newest signs; the one before is still accepted;
// older ones are dead weight. Nodes of one installation have the same files.
const (
	keyPattern = "token-*.pem"
	keyLayout  = "token-20060102T150405.000000Z.pem"
	keyBlock   = "PRIVATE KEY"
)

// signingKey is one Ed25519 key. Its id is made from the public half, so that
// a file that was renamed stays the same key.
type signingKey struct {
	id      string
	private ed25519.PrivateKey
}

func (k signingKey) public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// liveKeys is one generation of the folder: current first, then at most one
// previous.
type liveKeys []signingKey

func (ks liveKeys) find(id string) (signingKey, bool) {
	i := slices.IndexFunc(ks, func(k signingKey) bool { return k.id == id })
	if i < 0 {
		return signingKey{}, false
	}
	return ks[i], true
}

// keyring is the live keys of a folder. Readers never wait for its changes.
type keyring struct {
	dir  string
	mu   sync.Mutex // one reload or rotation at a time
	live atomic.Pointer[liveKeys]
}

// openKeyring reads the folder; it makes the folder and a first key if there
// are none.
func openKeyring(dir string, now time.Time) (*keyring, error) {
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			// Its name is to survive a power loss as its keys do.
			err = syncFolder(filepath.Dir(dir))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("chat: key folder: %w", err)
	}
	r := &keyring{dir: dir}
	names, err := r.names()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return r, r.rotate(now)
	}
	return r, r.reload()
}

func (r *keyring) keys() liveKeys { return *r.live.Load() }

// reload takes what is in the folder now. On an error the keys stay as they
// were.
func (r *keyring) reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load()
}

func (r *keyring) load() error {
	names, err := r.names()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("chat: no %s in %s", keyPattern, r.dir)
	}
	var live liveKeys
	for _, name := range names[max(0, len(names)-2):] {
		k, err := readKey(filepath.Join(r.dir, name))
		if err != nil {
			return err
		}
		live = slices.Insert(live, 0, k)
	}
	r.live.Store(&live)
	return nil
}

// rotate makes a new current key and deletes those that nothing is accepted
// from any more.
func (r *keyring) rotate(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	names, err := r.names()
	if err != nil {
		return err
	}
	now = now.UTC().Truncate(time.Microsecond)
	if n := len(names); n > 0 {
		// Also if the clock was set back, the new one is the newest.
		if last, err := time.Parse(keyLayout, names[n-1]); err == nil && !now.After(last) {
			now = last.Add(time.Microsecond)
		}
	}
	if err := writeKey(r.dir, now.Format(keyLayout)); err != nil {
		return err
	}
	if err := r.load(); err != nil {
		return err
	}
	for _, name := range names[:max(0, len(names)-1)] {
		err = errors.Join(err, os.Remove(filepath.Join(r.dir, name)))
	}
	return err
}

// names returns the key files, oldest first.
func (r *keyring) names() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(r.dir, keyPattern))
	if err != nil {
		return nil, fmt.Errorf("chat: key folder: %w", err)
	}
	names := make([]string, 0, len(paths))
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	slices.Sort(names)
	return names, nil
}

func readKey(path string) (signingKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return signingKey{}, fmt.Errorf("chat: signing key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return signingKey{}, fmt.Errorf("chat: signing key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return signingKey{}, fmt.Errorf("chat: %s can be read by others (mode %04o): whoever has read it can log in as anyone; rotate it if that may have happened, then chmod 600 it", path, st.Mode().Perm())
	}
	const maxKey = 4 << 10
	if st.Size() > maxKey {
		return signingKey{}, fmt.Errorf("chat: %s has %d bytes, which is no key", path, st.Size())
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return signingKey{}, fmt.Errorf("chat: signing key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != keyBlock {
		return signingKey{}, fmt.Errorf("chat: %s holds no PEM block %q", path, keyBlock)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return signingKey{}, fmt.Errorf("chat: %s: %w", path, err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return signingKey{}, fmt.Errorf("chat: %s is a %T, needed is an Ed25519 key", path, parsed)
	}
	return newSigningKey(private), nil
}

func newSigningKey(private ed25519.PrivateKey) signingKey {
	sum := sha256.Sum256(private.Public().(ed25519.PublicKey))
	return signingKey{id: hex.EncodeToString(sum[:8]), private: private}
}

// writeKey makes a key that is on the disk, with its name, or not there at all.
func writeKey(dir, name string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("chat: signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("chat: signing key: %w", err)
	}
	tmp := filepath.Join(dir, "."+name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("chat: signing key: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: keyBlock, Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		if rm := os.Remove(tmp); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, rm)
		}
		return fmt.Errorf("chat: signing key: %w", err)
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
