package ttrpc

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	official "github.com/containerd/ttrpc"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func toGRPC(err error) error   { return errgrpc.ToGRPC(err) }
func toNative(err error) error { return errgrpc.ToNative(err) }

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// malformed are bytes that a message of either kind may not have, or may.
var malformed = [][]byte{
	nil, {0}, {0x0a}, {0x0a, 0xff}, {0x0a, 1, 0xff}, {0x0b, 0x0c}, {0x0b}, {0x0c},
	{0x08, 1}, {0x0d, 1, 2, 3, 4}, {0x09, 1, 2, 3, 4, 5, 6, 7, 8}, {0x20, 0x80}, {0x22, 1, 'x'},
	{0x2a, 3, 0x0a, 1, 0xff}, {0x2a, 3, 0x12, 1, 0xff}, {0x2a, 1, 0}, {0x1a, 1, 0xff},
	{0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	{0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2},
	{0xf8, 0xff, 0xff, 0xff, 0x0f, 1}, {0xf8, 0xff, 0xff, 0xff, 0x1f, 1}, {0x8a, 0x80, 0, 0},
	{0x0a, 2, 0x08, 5, 0x0a, 4, 0x12, 2, 'h', 'i'}, {0x0a, 3, 0x1a, 1, 0},
}

// FuzzRequest: the official library and this package take the same bytes for a
// Request, see the same in it, and make the same bytes of it.
func FuzzRequest(f *testing.F) {
	f.Add(marshal(f, &official.Request{
		Service: "s", Method: "m", Payload: []byte{1}, TimeoutNano: -1,
		Metadata: []*official.KeyValue{{Key: "k", Value: "v"}, {}, {Key: "k", Value: "w"}},
	}))
	for _, b := range malformed {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want official.Request
		wantErr := proto.Unmarshal(b, &want)
		var got request
		if err := got.parse(b); (err == nil) != (wantErr == nil) {
			t.Fatalf("% x: %v, officially %v", b, err, wantErr)
		}
		if wantErr != nil {
			return
		}
		if string(got.service) != want.Service || string(got.method) != want.Method || !bytes.Equal(got.payload, want.Payload) || got.timeout != want.TimeoutNano {
			t.Errorf("% x: %+v, officially %v", b, got, &want)
		}
		md := map[string]string{}
		var pairs []KeyValue
		for _, kv := range want.Metadata {
			if _, ok := md[kv.Key]; !ok {
				md[kv.Key] = kv.Value
			}
			pairs = append(pairs, KeyValue{kv.Key, kv.Value})
		}
		for k, v := range md {
			if got, ok := findMetadata(b, k); !ok || string(got) != v {
				t.Errorf("% x: metadata %q is %q, officially %q", b, k, got, v)
			}
		}
		if v, ok := findMetadata(b, "not"+strings.Repeat("x", len(b))); ok {
			t.Errorf("% x: metadata %q", b, v)
		}
		discardUnknown(&want)
		made := appendRequest(nil, want.Service, want.Method, want.Payload, want.TimeoutNano, pairs)
		if official := marshal(t, &want); !bytes.Equal(made, official) {
			t.Errorf("made % x, officially % x", made, official)
		}
	})
}

func discardUnknown(m *official.Request) {
	m.ProtoReflect().SetUnknown(nil)
	for _, kv := range m.Metadata {
		kv.ProtoReflect().SetUnknown(nil)
	}
}

// FuzzResponse is the same for a Response.
func FuzzResponse(f *testing.F) {
	f.Add(marshal(f, &official.Response{Payload: []byte{1}, Status: &spb.Status{
		Code: 5, Message: "no", Details: []*anypb.Any{{TypeUrl: statusURL, Value: []byte{8, 1}}, {}},
	}}))
	f.Add(marshal(f, &official.Response{Status: &spb.Status{Code: -3}}))
	for _, b := range malformed {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want official.Response
		wantErr := proto.Unmarshal(b, &want)
		payload, st, err := parseResponse(b)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("% x: %v, officially %v", b, err, wantErr)
		}
		if wantErr != nil {
			return
		}
		if !bytes.Equal(payload, want.Payload) || (st == nil) != (want.Status == nil) {
			t.Errorf("% x: %q, %v, officially %v", b, payload, st, &want)
		}
		clean := &official.Response{Payload: want.Payload}
		if st != nil {
			clean.Status = &spb.Status{Code: want.Status.Code, Message: want.Status.Message}
			for _, d := range want.Status.Details {
				clean.Status.Details = append(clean.Status.Details, &anypb.Any{TypeUrl: d.TypeUrl, Value: d.Value})
			}
		}
		if made, official := appendResponse(nil, st, payload), marshal(t, clean); !bytes.Equal(made, official) {
			t.Errorf("made % x, officially % x", made, official)
		}
	})
}

// An error of any class and shape is the status that package errgrpc makes of
// it, and has the class that errgrpc reads from it.
func TestStatusOf(t *testing.T) {
	for name, err := range errNamed {
		got := StatusOf(err)
		st, _ := status.FromError(toGRPC(err))
		if made, official := got.append(nil), marshal(t, st.Proto()); !bytes.Equal(made, official) {
			t.Errorf("%s: %q, officially %q", name, made, official)
		}
		native := toNative(status.ErrorProto(&spb.Status{Code: int32(got.Code), Message: got.Message}))
		if got.Error() != native.Error() || errdefs.Resolve(got) != errdefs.Resolve(native) {
			t.Errorf("%s: %q of class %v, officially %q of %v", name, got, errdefs.Resolve(got), native, errdefs.Resolve(native))
		}
		if again := StatusOf(got); again != got {
			t.Errorf("%s: the status of the status is %v", name, again)
		}
	}
	if s := StatusOf(nil); s != nil {
		t.Errorf("nil: %v", s)
	}
	if s := StatusOf(&Status{}); s.Code != Unknown {
		t.Errorf("an error that says OK: %v", s)
	}
}

// A text that is no text, or far too long, still reaches the client.
func TestStatusOfHostileText(t *testing.T) {
	long := strings.Repeat("a\xff", MaxText)
	leaf, text := errdefs.ErrNotFound.WithMessage(long), errors.New(long)
	for name, err := range map[string]error{
		"an error": leaf, "a status": &Status{Code: NotFound, Message: long}, "details": errors.Join(leaf, text, text, text, text, text, text),
	} {
		b := appendResponse(nil, StatusOf(err), nil)
		var resp official.Response
		if err := proto.Unmarshal(b, &resp); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(resp.GetStatus().GetMessage()); n == 0 || len(b) > 4*MaxText || resp.GetStatus().GetCode() != int32(NotFound) {
			t.Errorf("%s: text of %d bytes, %d in all, code %d", name, n, len(b), resp.GetStatus().GetCode())
		}
	}
}
