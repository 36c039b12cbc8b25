package proto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// A vector's json and name are written by people; `go test ./proto -update`
// computes its hex and lays out the json.
var update = flag.Bool("update", false, "rewrite the hex in testdata/frames.json and contents.json, and the tables of README.md")

// frameVector is a frame in both forms. Hex is all its bytes, header included.
type frameVector struct {
	Name string `json:"name"`
	// Spec is the heading in README.md that it illustrates.
	Spec string          `json:"spec"`
	JSON json.RawMessage `json:"json"`
	Hex  string          `json:"hex"`
}

// contentVector is what goes into Content.body for a kind.
type contentVector struct {
	Name    string          `json:"name"`
	Spec    string          `json:"spec"`
	Kind    string          `json:"kind"`
	Message string          `json:"message"`
	JSON    json.RawMessage `json:"json"`
	Hex     string          `json:"hex"`
}

// lenientVector is a frame that must be read, and is never written like that.
type lenientVector struct {
	Name string          `json:"name"`
	Spec string          `json:"spec"`
	Why  string          `json:"why"`
	Hex  string          `json:"hex"`
	JSON json.RawMessage `json:"json"`
}

// badVector is bytes that hold no good frame: error is MORE if they may yet
// become one.
type badVector struct {
	Name  string `json:"name"`
	Spec  string `json:"spec"`
	Max   int    `json:"max"`
	Hex   string `json:"hex"`
	Error string `json:"error"`
}

func load[T any](t testing.TB, name string) (vectors []T) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&vectors); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return vectors
}

func save(t *testing.T, name string, vectors any) {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(vectors); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name), buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("hex: %v", err)
	}
	return b
}

func fromJSON(t testing.TB, raw []byte, m gproto.Message) {
	t.Helper()
	if err := protojson.Unmarshal(raw, m); err != nil {
		t.Fatalf("json: %v", err)
	}
}

// encodeVector frames f as the vectors have it: fields by number.
func encodeVector(t testing.TB, f *Frame) []byte {
	t.Helper()
	out, err := AppendFrame(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFrameVectors(t *testing.T) {
	vectors := load[frameVector](t, "frames.json")
	names := map[string]bool{}
	covered := map[protoreflect.FullName]bool{}
	for i := range vectors {
		v := &vectors[i]
		if names[v.Name] {
			t.Errorf("two vectors are called %q", v.Name)
		}
		names[v.Name] = true
		t.Run(v.Name, func(t *testing.T) {
			var want Frame
			fromJSON(t, v.JSON, &want)
			cover(want.ProtoReflect(), covered)
			encoded := encodeVector(t, &want)
			if *update {
				v.Hex = hex.EncodeToString(encoded)
			}
			if got := hex.EncodeToString(encoded); got != v.Hex {
				t.Errorf("encoded:\n got %s\nwant %s", got, v.Hex)
			}
			payload, n, err := Next(unhex(t, v.Hex), MaxFrameSession)
			if err != nil || n != len(v.Hex)/2 {
				t.Fatalf("Next: n %d, %v", n, err)
			}
			var got Frame
			if err := Decode(payload, &got); err != nil {
				t.Fatal(err)
			}
			if !gproto.Equal(&got, &want) {
				t.Errorf("decoded:\n got %v\nwant %v", &got, &want)
			}
		})
	}
	if *update {
		save(t, "frames.json", vectors)
	}
	// Every member of every oneof that a Frame can hold, and every message.
	for name := range reachable((*Frame)(nil).ProtoReflect().Descriptor(), map[protoreflect.FullName]bool{}) {
		if !covered[name] {
			t.Errorf("no vector has %s", name)
		}
	}
}

// cover notes the messages and oneof members that are set anywhere in m.
func cover(m protoreflect.Message, covered map[protoreflect.FullName]bool) {
	covered[m.Descriptor().FullName()] = true
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.ContainingOneof() != nil {
			covered[fd.FullName()] = true
		}
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				cover(v.List().Get(i).Message(), covered)
			}
		default:
			cover(v.Message(), covered)
		}
		return true
	})
}

// reachable collects what cover can note, from the descriptors.
func reachable(md protoreflect.MessageDescriptor, found map[protoreflect.FullName]bool) map[protoreflect.FullName]bool {
	if found[md.FullName()] {
		return found
	}
	found[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.ContainingOneof() != nil {
			found[fd.FullName()] = true
		}
		if fd.Message() != nil {
			reachable(fd.Message(), found)
		}
	}
	return found
}

func TestContentVectors(t *testing.T) {
	vectors := load[contentVector](t, "contents.json")
	kinds := map[string]bool{}
	for i := range vectors {
		v := &vectors[i]
		t.Run(v.Name, func(t *testing.T) {
			if _, ok := ContentKind_value[v.Kind]; !ok {
				t.Fatalf("no kind %s", v.Kind)
			}
			kinds[v.Kind] = true
			mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(v.Message))
			if err != nil {
				t.Fatal(err)
			}
			want, got := mt.New().Interface(), mt.New().Interface()
			fromJSON(t, v.JSON, want)
			encoded, err := gproto.MarshalOptions{Deterministic: true}.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				v.Hex = hex.EncodeToString(encoded)
			}
			if hex.EncodeToString(encoded) != v.Hex {
				t.Errorf("encoded:\n got %x\nwant %s", encoded, v.Hex)
			}
			if err := gproto.Unmarshal(unhex(t, v.Hex), got); err != nil || !gproto.Equal(got, want) {
				t.Errorf("decoded:\n got %v (%v)\nwant %v", got, err, want)
			}
		})
	}
	if *update {
		save(t, "contents.json", vectors)
	}
	for kind := range ContentKind_value {
		opaque := kind == "CONTENT_KIND_UNSPECIFIED" || kind == "CONTENT_KIND_CUSTOM" || kind == "CONTENT_KIND_ENCRYPTED"
		if !opaque && !kinds[kind] {
			t.Errorf("no vector for %s", kind)
		}
	}
}

func TestLenientVectors(t *testing.T) {
	for _, v := range load[lenientVector](t, "lenient.json") {
		t.Run(v.Name, func(t *testing.T) {
			var want, got Frame
			fromJSON(t, v.JSON, &want)
			buf := unhex(t, v.Hex)
			payload, n, err := Next(buf, MaxFrameSession)
			if err != nil || n != len(buf) {
				t.Fatalf("Next: n %d, %v", n, err)
			}
			if err := Decode(payload, &got); err != nil {
				t.Fatal(err)
			}
			if !gproto.Equal(&got, &want) {
				t.Errorf("decoded:\n got %v\nwant %v", &got, &want)
			}
		})
	}
}

func TestBadVectors(t *testing.T) {
	for _, v := range load[badVector](t, "bad.json") {
		t.Run(v.Name, func(t *testing.T) {
			buf := unhex(t, v.Hex)
			payload, n, err := Next(buf, v.Max)
			f := Frame{Id: 77}
			if err == nil && n > 0 {
				err = Decode(payload, &f)
				if err != nil && !gproto.Equal(&f, &Frame{}) {
					t.Errorf("a frame that failed is not empty: %v", &f)
				}
			}
			if v.Error == "MORE" {
				if err != nil || n != 0 {
					t.Fatalf("n %d, %v; want more bytes", n, err)
				}
				return
			}
			var bad *FrameError
			if !errors.As(err, &bad) {
				t.Fatalf("n %d, %v; want a *FrameError with %s", n, err, v.Error)
			}
			if bad.Code.Short() != v.Error {
				t.Fatalf("%v, want %s", err, v.Error)
			}
			if AsFault(err).Code != bad.Code || !AsFault(err).Closes() {
				t.Errorf("as a fault: %+v", AsFault(err))
			}
		})
	}
}
