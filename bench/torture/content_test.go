package torture

import (
	"testing"

	"github.com/hermod-im/hermod/proto"
)

func TestContent(t *testing.T) {
	s := stamp{run: 1 << 60, number: 77, from: 5, to: 1 << 62}
	for _, size := range []int{0, bodyLen, 128, 3000} {
		c := s.content(size)
		if got, ok := readStamp(c); !ok || got != s || len(c.Body) != max(size, bodyLen) {
			t.Errorf("size %d: %d bytes say %+v, %v", size, len(c.Body), got, ok)
		}
		for i := range c.Body {
			c.Body[i] ^= 4
			if _, ok := readStamp(c); ok {
				t.Fatalf("size %d: byte %d is damaged, and nobody sees it", size, i)
			}
			c.Body[i] ^= 4
		}
	}
}

func FuzzStamp(f *testing.F) {
	f.Add(stamp{1, 2, 3, 4}.content(64).Body)
	f.Add([]byte("HTOR"))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, ok := readStamp(&proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: body})
		_, _ = readStored(body)
		if ok && (len(body) < bodyLen || s.content(len(body)) == nil) {
			t.Errorf("%d bytes say %+v", len(body), s)
		}
	})
}
