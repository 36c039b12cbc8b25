package attack

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/hermod-im/hermod/bench/observe"
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
func (s *scene) metric(name string, labels ...string) float64 {
	page, err := observe.Get(s.ctx, "http://"+s.srv.Admin)
	s.must(err)
	sum, found := page.Sum(name, labels...)
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
	rss, err := observe.Resident(s.srv.Pid)
	s.must(err)
	return int64(rss)
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
