package proto

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"testing"

	gproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// peerVector is a frame between nodes in both forms. One with a reason (Why) is
// read like that and never written.
type peerVector struct {
	Name string          `json:"name"`
	Why  string          `json:"why,omitempty"`
	JSON json.RawMessage `json:"json"`
	Hex  string          `json:"hex"`
}

func TestPeerVectors(t *testing.T) {
	vectors := load[peerVector](t, "peer.json")
	covered := map[protoreflect.FullName]bool{}
	for i := range vectors {
		v := &vectors[i]
		t.Run(v.Name, func(t *testing.T) {
			var want, got PeerFrame
			fromJSON(t, v.JSON, &want)
			cover(want.ProtoReflect(), covered)
			payload, err := gproto.MarshalOptions{Deterministic: true}.Marshal(&want)
			if err != nil {
				t.Fatal(err)
			}
			encoded := hex.EncodeToString(append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...))
			if *update && v.Why == "" {
				v.Hex = encoded
			}
			if encoded != v.Hex && v.Why == "" {
				t.Errorf("encoded:\n got %s\nwant %s", encoded, v.Hex)
			}
			payload, n, err := Next(unhex(t, v.Hex), MaxFramePeer)
			if err != nil || n != len(v.Hex)/2 {
				t.Fatalf("Next: n %d, %v", n, err)
			}
			if err := (gproto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(payload, &got); err != nil {
				t.Fatal(err)
			}
			if !gproto.Equal(&got, &want) {
				t.Errorf("decoded:\n got %v\nwant %v", &got, &want)
			}
		})
	}
	if *update {
		save(t, "peer.json", vectors)
	}
	for name := range reachable((*PeerFrame)(nil).ProtoReflect().Descriptor(), map[protoreflect.FullName]bool{}) {
		if !covered[name] {
			t.Errorf("no vector has %s", name)
		}
	}
}
