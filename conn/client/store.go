package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Session is what survives the process: who this device is and how far it has
// read. It holds secrets. The slices in it are never changed in place.
type Session struct {
	// DeviceID is 16 random bytes, made once and kept for the installation.
	DeviceID []byte `json:"device_id,omitempty"`
	UserID   int64  `json:"user_id,omitempty"`
	// Name is the account name as the server stores it.
	Name string `json:"name,omitempty"`
	// Secret is the device secret the server last confirmed. NextSecret is one
	// that was stored in order to be sent, and perhaps was: until a Welcome
	// confirms it, it is sent again together with Secret.
	Secret     []byte `json:"secret,omitempty"`
	NextSecret []byte `json:"next_secret,omitempty"`
	// Token is the access token, valid until TokenExpires by server time.
	Token        string    `json:"token,omitempty"`
	TokenExpires time.Time `json:"token_expires,omitzero"`
	// Cursor is the last event that was applied. HasCursor is false before the
	// first Reset was dealt with: there is nothing to continue then.
	Cursor    Cursor `json:"cursor"`
	HasCursor bool   `json:"has_cursor,omitempty"`
}

// Cursor is a place in the user's inbox.
type Cursor struct {
	Epoch uint64 `json:"epoch,string"`
	Seq   uint64 `json:"seq"`
}

// LoggedIn reports whether the session can be resumed without a password.
func (s *Session) LoggedIn() bool {
	return s.UserID > 0 && (len(s.Secret) > 0 || s.Token != "")
}

// lock drops what lets one in without a password.
func (s *Session) lock() {
	s.Secret, s.NextSecret = nil, nil
	s.Token, s.TokenExpires = "", time.Time{}
}

// Store keeps the Session. Calls come one at a time, from any goroutine.
//
// An application that writes events to a database of its own in OnEvents can
// make "exactly once" hold across crashes of its process too: keep the seq in
// the same transaction, and return it as the Cursor in Load.
type Store interface {
	// Load returns the stored session, the zero Session if there is none.
	Load() (Session, error)
	// Save returns when s is safe. The client sends no device secret and
	// acknowledges no event before that; if Save fails, it closes the
	// connection and tries again later.
	Save(s Session) error
}

// MemoryStore keeps the session in memory: for tests, load, and throw-away
// logins. Its zero value is empty and ready.
type MemoryStore struct {
	mu sync.Mutex
	s  Session
}

// Load returns the session last saved.
func (m *MemoryStore) Load() (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.s, nil
}

// Save keeps s.
func (m *MemoryStore) Save(s Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s = s
	return nil
}

// FileStore keeps the session in one JSON file that only its owner may read.
// Save replaces the file as a whole: a crash leaves the old or the new one.
type FileStore struct {
	// Path is the file; its folder is made (0700) if need be.
	Path string
}

// Load reads the file. It fails if others may read it, or if it is damaged.
func (f FileStore) Load() (Session, error) {
	var s Session
	info, err := os.Stat(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return s, fmt.Errorf("%s holds secrets and others may read it: chmod 600 it", f.Path)
	}
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return Session{}, fmt.Errorf("%s is damaged, remove it and log in again: %w", f.Path, err)
	}
	return s, nil
}

// Save writes the file anew: temporary file, fsync, rename, fsync of the folder.
func (f FileStore) Save(s Session) error {
	b, err := json.MarshalIndent(&s, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(f.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(f.Path)+".*.tmp") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once it is renamed
	if _, err = tmp.Write(append(b, '\n')); err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), f.Path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
