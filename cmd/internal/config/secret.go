package config

import (
	"fmt"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// maxSecret is far above any password or DSN.
const maxSecret = 64 << 10

// readSecret returns the one line of a file that nobody but its owner may
// read.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others (mode %04o); chmod 600 it", path, mode)
	}
	if st.Size() > maxSecret {
		return "", fmt.Errorf("%s has %d bytes, which is no secret", path, st.Size())
	}
	b := make([]byte, st.Size())
	n, err := f.Read(b)
	if err != nil && st.Size() > 0 {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	secret := strings.TrimSpace(string(b[:n]))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	if strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("%s has several lines; write the secret alone", path)
	}
	return secret, nil
}

// redactDSN returns dsn without its password.
func redactDSN(dsn string) string {
	if dsn == "" {
		return ""
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return "unreadable"
	}
	if cfg.Passwd != "" {
		cfg.Passwd = "…"
	}
	return cfg.FormatDSN()
}
