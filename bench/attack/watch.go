package attack

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// page asks the operator's HTTP, under the name host unless that is empty.
func (s *scene) page(admin, path, host string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		return nil, err
	}
	req.Host = host
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return c.Do(req)
}

// metric sums the samples of a metric whose labels have all the values.
func (s *scene) metric(name string, labels ...string) (sum float64) {
	resp, err := s.page(s.srv.Admin, "/metrics", "")
	s.must(err)
	defer resp.Body.Close()
	found := false
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
next:
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		found = true
		for _, l := range labels {
			if !strings.Contains(rest, `"`+l+`"`) {
				continue next
			}
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		s.must(err)
		sum += v
	}
	s.must(lines.Err())
	if !found && len(labels) == 0 {
		s.fail("/metrics has no %s", name)
	}
	return sum
}

// resident is the memory of the server, in bytes.
func (s *scene) resident() int64 {
	if s.srv.Pid == 0 {
		s.must(fmt.Errorf("%w: the server's memory cannot be seen", ErrUnable))
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.srv.Pid))
	s.must(err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			s.must(err)
			return kb << 10
		}
	}
	s.fail("/proc/%d/status has no VmRSS", s.srv.Pid)
	return 0
}

// descriptors says whether n more files may be opened here.
func (s *scene) descriptors(n int) {
	opened, err := os.ReadDir("/proc/self/fd")
	s.must(err)
	limit, err := fileLimit()
	s.must(err)
	if len(opened)+n+200 > limit {
		s.must(fmt.Errorf("%w: needs %d more open files, the limit is %d (ulimit -n)", ErrUnable, n, limit))
	}
}
