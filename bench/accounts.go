package bench

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hermod-im/hermod/proto"
)

// account is one user of the tool and its one device. Its session owns it;
// changes go to the state through save.
type account struct {
	N      int    `json:"n"`
	UserID int64  `json:"user,omitempty"`
	Device []byte `json:"device,omitempty"`
	// Secret is what the server knows, Next what it may know already: it is
	// written down before it is sent.
	Secret []byte `json:"secret,omitempty"`
	Next   []byte `json:"next,omitempty"`
	Token  string `json:"token,omitempty"`
	// Expires is the token's end in server time, microseconds.
	Expires int64 `json:"expires,omitempty"`
}

// accounts is a family of users under one prefix, kept in a file so that later
// runs log in without passwords: a password costs the server tens of
// milliseconds. The file has one JSON object a line, the last one of a user
// counts; it is rewritten at every start. One process at a time may use it.
type accounts struct {
	prefix   string
	password string

	mu   sync.Mutex
	list map[int]*account
	file *os.File // nil: memory only
	lock *os.File
}

// header is the first line of the file.
type header struct {
	Prefix   string `json:"prefix"`
	Password string `json:"password"`
}

var prefixRule = regexp.MustCompile(`^[a-z][a-z0-9]{1,23}$`)

// openAccounts reads the state of prefix in dir, "" for none. password "" takes
// the one in the state, or makes a new one.
func openAccounts(dir, prefix, password string) (*accounts, error) {
	if !prefixRule.MatchString(prefix) {
		return nil, fmt.Errorf("bench: users prefix %q: 2 to 24 characters a-z and 0-9, a letter first", prefix)
	}
	a := &accounts{prefix: prefix, password: password, list: make(map[int]*account)}
	if dir == "" {
		a.choosePassword("")
		return a, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("bench: state: %w", err)
	}
	path := filepath.Join(dir, prefix+".jsonl")
	if err := a.takeLock(path + ".lock"); err != nil {
		return nil, err
	}
	if err := a.load(path); err != nil {
		a.close()
		return nil, fmt.Errorf("bench: state %s: %w", path, err)
	}
	return a, nil
}

func (a *accounts) takeLock(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("bench: state: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("bench: another run uses the users %q: give --users-prefix or --state of its own (%s: %w)", a.prefix, path, err)
	}
	a.lock = f
	return nil
}

func (a *accounts) load(path string) error {
	saved, err := a.read(path)
	if err != nil {
		return err
	}
	a.choosePassword(saved)
	tmp, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(tmp)
	enc := json.NewEncoder(w)
	err = enc.Encode(header{Prefix: a.prefix, Password: a.password})
	for _, acc := range a.list {
		err = errors.Join(err, enc.Encode(acc))
	}
	err = errors.Join(err, w.Flush(), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	a.file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	return err
}

// read fills list and returns the saved password. A torn last line is dropped:
// the process was ended while it wrote.
func (a *accounts) read(path string) (password string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	var torn error
	for n := 1; lines.Scan(); n++ {
		if torn != nil {
			return "", torn
		}
		if n == 1 {
			var h header
			if err := json.Unmarshal(lines.Bytes(), &h); err != nil || h.Prefix != a.prefix {
				return "", errors.New("not a state file of these users; remove it, or give another --state")
			}
			password = h.Password
			continue
		}
		acc := new(account)
		if err := json.Unmarshal(lines.Bytes(), acc); err != nil {
			torn = fmt.Errorf("line %d: %w", n, err)
			continue
		}
		a.list[acc.N] = acc
	}
	return password, lines.Err()
}

func (a *accounts) choosePassword(saved string) {
	if a.password == "" {
		a.password = saved
	}
	if a.password == "" {
		a.password = rand.Text()
	}
}

// get returns user n, made up if the state has none.
func (a *accounts) get(n int) *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	acc := a.list[n]
	if acc == nil {
		acc = &account{N: n, Device: randomBytes(proto.DeviceIDLen)}
		a.list[n] = acc
	}
	return acc
}

// name is the user's account name; the same for ever.
func (a *accounts) name(n int) string { return fmt.Sprintf("%s%07d", a.prefix, n) }

// save writes a user down. After it returns the system has it, if not the disk.
func (a *accounts) save(acc *account) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	line, err := json.Marshal(acc)
	if err != nil {
		return err
	}
	_, err = a.file.Write(append(line, '\n'))
	return err
}

func (a *accounts) close() error {
	var err error
	if a.file != nil {
		err = a.file.Close()
	}
	if a.lock != nil {
		err = errors.Join(err, a.lock.Close()) // which releases it
	}
	return err
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: it ends the process instead
	return b
}

// forgetBut makes all users but one unknown: the server has new data.
func (a *accounts) forgetBut(but *account) error {
	a.mu.Lock()
	var list []*account
	for _, acc := range a.list {
		if acc != but && acc.UserID != 0 {
			*acc = account{N: acc.N, Device: acc.Device}
			list = append(list, acc)
		}
	}
	a.mu.Unlock()
	for _, acc := range list {
		if err := a.save(acc); err != nil {
			return err
		}
	}
	return nil
}
