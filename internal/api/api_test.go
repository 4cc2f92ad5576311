package api_test

import (
	"bytes"
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/larkshim/lark/internal/api"
	"github.com/larkshim/lark/internal/api/wire"
)

// Messages of official make are read, written and, disturbed, refused as the
// official messages are.
func TestSameAsOfficial(t *testing.T) {
	accepted, refused := 0, 0
	for i := range pairs {
		for seed := range uint64(20) {
			r := newFiller(seed)
			ours, official := fresh(i)
			r.fill(official.ProtoReflect())
			assign(reflect.ValueOf(ours).Elem(), reflect.ValueOf(official).Elem())
			if !encodesAlike(t, ours, official) {
				t.Fatalf("%s: refused: %v", ours.FullName(), official)
			}
			b, err := deterministic.Marshal(official)
			if err != nil {
				t.Fatal(err)
			}
			if !decodesAlike(t, i, b) {
				t.Fatalf("%s: refused: %x", ours.FullName(), b)
			}
			for range 20 {
				if b := r.disturb(b); decodesAlike(t, i, b) {
					accepted++
				} else {
					refused++
				}
			}
		}
	}
	if accepted == 0 || refused == 0 {
		t.Errorf("of what was disturbed, %d were accepted and %d refused: one side is not tested", accepted, refused)
	}
}

// A message that ends too early is refused wherever it ends, unless between two
// fields.
func TestTruncated(t *testing.T) {
	for i := range pairs {
		r := newFiller(uint64(i))
		_, official := fresh(i)
		r.fill(official.ProtoReflect())
		b, err := deterministic.Marshal(official)
		if err != nil {
			t.Fatal(err)
		}
		for n := range min(len(b), 300) {
			decodesAlike(t, i, b[:n])
		}
	}
}

// A string that is not UTF-8 is refused in both directions.
func TestNotUTF8(t *testing.T) {
	refused := 0
	for i := range pairs {
		for seed := range uint64(10) {
			r := newFiller(seed)
			r.badUTF8 = true
			ours, official := fresh(i)
			r.fill(official.ProtoReflect())
			assign(reflect.ValueOf(ours).Elem(), reflect.ValueOf(official).Elem())
			if !encodesAlike(t, ours, official) {
				refused++
			}
			// The official Marshal writes no such string; a peer may.
			b := protowire.AppendString(protowire.AppendTag(nil, protowire.Number(1+seed), protowire.BytesType), "a\xff")
			decodesAlike(t, i, b)
		}
	}
	if refused == 0 {
		t.Error("no message had a string that is not UTF-8")
	}
	bad := &api.UpdateTaskRequest{Annotations: map[string]string{"a": "\xff"}}
	if _, err := bad.Marshal(); !errors.Is(err, wire.ErrUTF8) || !strings.Contains(err.Error(), `"\xff"`) || !strings.HasPrefix(err.Error(), bad.FullName()) {
		t.Errorf("Marshal: %v; want the message and the string", err)
	}
}

// The edges of the format that random messages seldom meet.
func TestEdges(t *testing.T) {
	const unknown = 1000
	nested := func(depth int) []byte {
		var b []byte
		for range depth {
			b = protowire.AppendTag(b, unknown, protowire.StartGroupType)
		}
		for range depth {
			b = protowire.AppendTag(b, unknown, protowire.EndGroupType)
		}
		return b
	}
	entry := func(b ...byte) []byte { return protowire.AppendBytes([]byte{3<<3 | 2}, b) }
	for name, b := range map[string][]byte{
		"empty":                           {},
		"number 0":                        {0, 0},
		"largest number":                  protowire.AppendVarint(nil, (1<<29-1)<<3),
		"largest number with a value":     append(protowire.AppendVarint(nil, (1<<29-1)<<3), 1),
		"number too large":                append(protowire.AppendVarint(nil, 1<<32), 1),
		"number too large, in a group":    append(protowire.AppendVarint([]byte{9<<3 | 3}, 1<<32), 1, 9<<3|4),
		"number far too large":            append(protowire.AppendVarint(nil, 1<<63), 1),
		"number far too large in a group": append(protowire.AppendVarint([]byte{9<<3 | 3}, 1<<34), 1, 9<<3|4),
		"tag longer than need be":         {1<<3 | 2 | 0x80, 0x80, 0x80, 0x00, 1, 'a'},
		"tag of eleven bytes":             append(bytes.Repeat([]byte{0x80}, 10), 1),
		"varint too large":                append(append([]byte{4 << 3}, bytes.Repeat([]byte{0xff}, 9)...), 2),
		"largest varint":                  append(append([]byte{4 << 3}, bytes.Repeat([]byte{0xff}, 9)...), 1),
		"length beyond the end":           {1<<3 | 2, 200, 'a'},
		"largest length":                  protowire.AppendVarint([]byte{1<<3 | 2}, 1<<64-1),
		"length that overflows":           protowire.AppendVarint([]byte{1<<3 | 2}, 1<<63-1),
		"end of no group":                 {1<<3 | 4},
		"group without end":               {9<<3 | 3},
		"group with another's end":        {9<<3 | 3, 8<<3 | 4},
		"reserved type 6":                 {9<<3 | 6, 0},
		"reserved type 7":                 {9<<3 | 7, 0},
		"groups as deep as may be":        nested(10001),
		"groups too deep":                 nested(10002),
		"message longer than the outer":   {10<<3 | 2, 3, 1<<3 | 2, 9, 'a'},
		"message twice":                   {10<<3 | 2, 3, 1<<3 | 2, 1, 'a', 10<<3 | 2, 3, 2<<3 | 2, 1, 'b'},
		"map entry, empty":                entry(),
		"map entry, key only":             entry(1<<3|2, 1, 'k'),
		"map entry, value only":           entry(2<<3|2, 1, 'v'),
		"map entry, key twice":            entry(1<<3|2, 1, 'k', 1<<3|2, 1, 'l'),
		"map entry, unknown field":        entry(1<<3|2, 1, 'k', 9<<3, 1),
		"map entry, key of another type":  entry(1<<3, 1, 2<<3|2, 1, 'v'),
		"map entry, key not UTF-8":        entry(1<<3|2, 1, 0xff),
		"map entry, truncated":            entry(1<<3|2, 5, 'k'),
		"map entry, end of a group":       entry(1<<3 | 4),
		"map entry, number too large":     entry(append(protowire.AppendVarint(nil, 1<<32), 1)...),
		"packed":                          {4<<3 | 2, 3, 1, 0x80, 1},
		"packed, empty":                   {4<<3 | 2, 0},
		"packed, truncated":               {4<<3 | 2, 2, 1, 0x80},
		"packed and not":                  {4<<3 | 2, 1, 1, 4 << 3, 2, 4<<3 | 2, 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range pairs {
				decodesAlike(t, i, b)
			}
		})
	}
}

// A nil element of a list is an empty message, as it is officially; a nil message
// is empty.
func TestNil(t *testing.T) {
	for i := range pairs {
		ours, official := fresh(i)
		for _, m := range []any{ours, official} {
			v := reflect.ValueOf(m).Elem()
			for _, f := range reflect.VisibleFields(v.Type()) {
				if f.IsExported() && f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Pointer {
					v.FieldByIndex(f.Index).Set(reflect.MakeSlice(f.Type, 2, 2))
				}
			}
		}
		encodesAlike(t, ours, official)
		none := reflect.Zero(reflect.TypeOf(ours)).Interface().(api.Message)
		if b, err := none.Marshal(); len(b) != 0 || err != nil {
			t.Errorf("nil %T: %x, %v", none, b, err)
		}
	}
}

// Each message has the official name, whose twin in version 3 of the task API has
// another.
func TestNames(t *testing.T) {
	for _, p := range pairs {
		want := strings.Replace(string(p.official.ProtoReflect().Descriptor().FullName()), "containerd.task.v3.", "containerd.task.v2.", 1)
		if p.ours.FullName() != want {
			t.Errorf("%T is %s, want %s", p.ours, p.ours.FullName(), want)
		}
	}
}

// Unmarshal into a message that was used before leaves nothing of that.
func TestUnmarshalForgets(t *testing.T) {
	m := api.KillRequest{ID: "a", Signal: 9, All: true}
	if err := m.Unmarshal([]byte{1<<3 | wire.Bytes, 1, 'b'}); err != nil || m != (api.KillRequest{ID: "b"}) {
		t.Errorf("%+v, %v", m, err)
	}
}

// The memory of a message is its own, but for a ttrpc frame's payload.
func TestMemory(t *testing.T) {
	b := []byte{1<<3 | wire.Bytes, 1, 'u', 2<<3 | wire.Bytes, 1, 'v', 9<<3 | wire.Varint, 1}
	var a api.Any
	var frame api.Response
	if err := a.Unmarshal(b); err != nil {
		t.Fatal(err)
	}
	if err := frame.Unmarshal(b[3:]); err != nil {
		t.Fatal(err)
	}
	clear(b)
	if a.TypeUrl != "u" || string(a.Value) != "v" {
		t.Errorf("the input's memory is in %+v", &a)
	}
	if string(frame.Payload) != "\x00" {
		t.Errorf("the payload %q was copied", frame.Payload)
	}
	if cap(frame.Payload) != len(frame.Payload) {
		t.Error("an append to the payload would write into the input")
	}
}

func TestKnown(t *testing.T) {
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Unix(1<<40, 999999999), time.Unix(-5, 7)} {
		official := timestamppb.New(at)
		ours := api.NewTimestamp(at)
		encodesAlike(t, ours, official)
		if !ours.AsTime().Equal(at) || ours.AsTime() != official.AsTime() {
			t.Errorf("%v became %v, officially %v", at, ours.AsTime(), official.AsTime())
		}
	}
	if got, want := (*api.Timestamp)(nil).AsTime(), (*timestamppb.Timestamp)(nil).AsTime(); got != want {
		t.Errorf("nil: %v, officially %v", got, want)
	}
	a, err := api.NewAny(&api.TaskOOM{ContainerID: "c"})
	if err != nil || a.TypeUrl != "containerd.events.TaskOOM" || string(a.Value) != "\x0a\x01c" {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := api.NewAny(&api.TaskOOM{ContainerID: "\xff"}); err == nil {
		t.Errorf("%+v has a string that is not UTF-8", a)
	}
}

// The packages link nothing of protobuf or of containerd's messages.
func TestLinksNoProtobuf(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		if p != "github.com/containerd/errdefs" && !strings.HasPrefix(p, "github.com/larkshim/lark/internal/api") {
			t.Errorf("%s is linked", p)
		}
	}
	if !strings.Contains(string(out), "internal/api/wire") {
		t.Errorf("go list says only %s", out)
	}
}

// Bytes that both accept or refuse; the first says which message they are.
func FuzzUnmarshal(f *testing.F) {
	for i := range pairs {
		_, official := fresh(i)
		newFiller(uint64(i)).fill(official.ProtoReflect())
		b, err := proto.Marshal(official)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Add(uint8(0), []byte{9<<3 | 3, 8<<3 | 3, 8<<3 | 4, 9<<3 | 4})
	f.Fuzz(func(t *testing.T, i uint8, b []byte) { decodesAlike(t, int(i)%len(pairs), b) })
}

// Messages of any values, with strings that are not UTF-8 too, are written or
// refused alike.
func FuzzMarshal(f *testing.F) {
	for i := range pairs {
		f.Add(uint8(i), uint64(i), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, i uint8, seed uint64, badUTF8 bool) {
		r := newFiller(seed)
		r.badUTF8 = badUTF8
		ours, official := fresh(int(i) % len(pairs))
		r.fill(official.ProtoReflect())
		assign(reflect.ValueOf(ours).Elem(), reflect.ValueOf(official).Elem())
		if encodesAlike(t, ours, official) {
			b, err := ours.Marshal()
			if err != nil || !decodesAlike(t, int(i)%len(pairs), b) {
				t.Fatalf("what it writes it does not read: %x, %v", b, err)
			}
		}
	})
}
