package observe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxPage bounds a page, in bytes.
	maxPage = 16 << 20
	// timeout is how long a server may take to show its page.
	timeout = 10 * time.Second
)

// Page is the samples of a Prometheus page, by name and labels as they stand
// there.
type Page map[string]float64

// Get reads the page of a server by the address of its admin HTTP, like
// http://127.0.0.1:5180. It takes 10 s at most, and leaves no connection open.
func Get(ctx context.Context, admin string) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("observe: admin address: %w", err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("observe: server metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("observe: server metrics: %s", resp.Status)
	}
	return Parse(io.LimitReader(resp.Body, maxPage))
}

// Parse reads a page. A sample that is no number is an error.
func Parse(r io.Reader) (Page, error) {
	page := make(Page)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		cut := strings.LastIndexByte(line, ' ')
		if cut < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[cut+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("observe: server metrics: %q: %w", line, err)
		}
		page[line[:cut]] = v
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("observe: server metrics: %w", err)
	}
	return page, nil
}

// Sum adds up the samples of a metric whose labels have all the values. It
// reports whether the page has the metric at all, with whatever labels.
func (p Page) Sum(name string, labels ...string) (sum float64, found bool) {
next:
	for series, v := range p {
		rest, ok := strings.CutPrefix(series, name)
		if !ok || rest != "" && rest[0] != '{' {
			continue
		}
		found = true
		for _, l := range labels {
			if !strings.Contains(rest, `"`+l+`"`) {
				continue next
			}
		}
		sum += v
	}
	return sum, found
}
