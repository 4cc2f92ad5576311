package api_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/larkshim/lark/internal/api"
)

var deterministic = proto.MarshalOptions{Deterministic: true}

// fresh returns new messages of pair i, ours and the official one.
func fresh(i int) (api.Message, proto.Message) {
	ours := reflect.New(reflect.TypeOf(pairs[i].ours).Elem()).Interface().(api.Message)
	return ours, pairs[i].official.ProtoReflect().New().Interface()
}

// decodesAlike checks that both messages of pair i accept or refuse b alike, have
// the same values then and write the same bytes. It returns whether b was
// accepted.
func decodesAlike(t *testing.T, i int, b []byte) bool {
	t.Helper()
	ours, official := fresh(i)
	err := ours.Unmarshal(b)
	// The unknown fields are what ours drop and the official messages would keep.
	officialErr := proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, official)
	if (err == nil) != (officialErr == nil) {
		t.Fatalf("%s: %x: %v, and the official message: %v", ours.FullName(), b, err, officialErr)
	}
	if err != nil {
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), ours.FullName()) {
			t.Fatalf("%s: %x: %v is of no class or names no message", ours.FullName(), b, err)
		}
		return false
	}
	if diff := differ(reflect.ValueOf(ours).Elem(), reflect.ValueOf(official).Elem()); diff != "" {
		t.Fatalf("%s: %x: %s", ours.FullName(), b, diff)
	}
	encodesAlike(t, ours, official)
	return true
}

// encodesAlike checks that both messages are written as the same bytes or refused
// alike. It returns whether they were written.
func encodesAlike(t *testing.T, ours api.Message, official proto.Message) bool {
	t.Helper()
	want, officialErr := deterministic.Marshal(official)
	got, err := ours.Marshal()
	if (err == nil) != (officialErr == nil) {
		t.Fatalf("%s: %+v: Marshal: %v, and the official one: %v", ours.FullName(), ours, err, officialErr)
	}
	if err != nil {
		return false
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: %+v\nis written as %x\nand officially as %x", ours.FullName(), ours, got, want)
	}
	if ours.Size() != len(got) {
		t.Fatalf("%s: %+v: Size is %d, Marshal writes %d", ours.FullName(), ours, ours.Size(), len(got))
	}
	after, err := ours.Append([]byte("before"))
	if err != nil || !bytes.Equal(after, append([]byte("before"), want...)) {
		t.Fatalf("%s: Append: %x, %v", ours.FullName(), after, err)
	}
	return true
}

// differ compares the struct of a generated message with that of an official one
// and says where they differ.
func differ(ours, official reflect.Value) string {
	for _, f := range reflect.VisibleFields(official.Type()) {
		if !f.IsExported() {
			continue
		}
		mine := ours.FieldByName(f.Name)
		if !mine.IsValid() {
			return f.Name + " is missing"
		}
		if diff := differValue(mine, official.FieldByIndex(f.Index)); diff != "" {
			return f.Name + "." + diff
		}
	}
	return ""
}

func differValue(ours, official reflect.Value) string {
	switch official.Kind() {
	case reflect.Pointer:
		if ours.IsNil() != official.IsNil() {
			return fmt.Sprintf("nil is %v, not %v", ours.IsNil(), official.IsNil())
		}
		if ours.IsNil() {
			return ""
		}
		return differValue(ours.Elem(), official.Elem())
	case reflect.Struct:
		return differ(ours, official)
	case reflect.Slice:
		if ours.Len() != official.Len() {
			return fmt.Sprintf("len is %d, not %d", ours.Len(), official.Len())
		}
		for i := range ours.Len() {
			if diff := differValue(ours.Index(i), official.Index(i)); diff != "" {
				return fmt.Sprintf("[%d]: %s", i, diff)
			}
		}
		return ""
	case reflect.Float64:
		if math.Float64bits(ours.Float()) != math.Float64bits(official.Float()) {
			return fmt.Sprintf("%v, not %v", ours, official)
		}
		return ""
	case reflect.Map:
		if ours.Len() != official.Len() || ours.Len() > 0 && !reflect.DeepEqual(ours.Interface(), official.Interface()) {
			return fmt.Sprintf("%v, not %v", ours, official)
		}
		return ""
	}
	if !ours.Convert(official.Type()).Equal(official) {
		return fmt.Sprintf("%v, not %v", ours, official)
	}
	return ""
}

// assign sets a generated message's struct to what the official one has.
func assign(ours, official reflect.Value) {
	switch official.Kind() {
	case reflect.Pointer:
		if !official.IsNil() {
			ours.Set(reflect.New(ours.Type().Elem()))
			assign(ours.Elem(), official.Elem())
		}
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(official.Type()) {
			if f.IsExported() {
				assign(ours.FieldByName(f.Name), official.FieldByIndex(f.Index))
			}
		}
	case reflect.Slice:
		ours.Set(reflect.MakeSlice(ours.Type(), official.Len(), official.Len()))
		for i := range official.Len() {
			assign(ours.Index(i), official.Index(i))
		}
	default:
		ours.Set(official.Convert(ours.Type()))
	}
}

// filler sets messages to values that a seed chooses.
type filler struct {
	*rand.Rand
	badUTF8 bool // strings may be no UTF-8
}

func newFiller(seed uint64) filler { return filler{Rand: rand.New(rand.NewPCG(seed, 1))} }

func (r filler) fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case r.IntN(3) == 0:
		case fd.IsMap():
			for range r.IntN(4) {
				m.Mutable(fd).Map().Set(r.scalar(fd.MapKey()).MapKey(), r.scalar(fd.MapValue()))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range r.IntN(4) {
				if fd.Message() != nil {
					r.fill(list.AppendMutable().Message())
					continue
				}
				list.Append(r.scalar(fd))
			}
		case fd.Message() != nil:
			r.fill(m.Mutable(fd).Message())
		default:
			m.Set(fd, r.scalar(fd))
		}
	}
}

func (r filler) scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	n := r.Uint64() >> r.UintN(64) // of every length
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(r.text())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(r.text()))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(n)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64([]float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), 1.5}[n%5])
	}
	panic("a field of a kind that the filler does not know: " + fd.Kind().String())
}

func (r filler) text() string {
	texts := []string{"", "a", "\u00e4\u20ac\U0001f426", "\x00", strings.Repeat("x", r.IntN(300))}
	if r.badUTF8 {
		texts = append(texts, "\xff", "a\xc3")
	}
	return texts[r.IntN(len(texts))]
}

// disturb returns b with an unknown field in front, a changed byte or the end cut
// off.
func (r filler) disturb(b []byte) []byte {
	b = bytes.Clone(b)
	switch kind := r.IntN(4); {
	case kind == 0 || len(b) == 0:
		return append(r.unknown(), b...)
	case kind == 1:
		b[r.IntN(len(b))] = byte(r.Uint32())
	case kind == 2:
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	default:
		b = b[:r.IntN(len(b))]
	}
	return b
}

func (r filler) unknown() []byte {
	num := protowire.Number(1 + r.IntN(50))
	switch typ := protowire.Type(r.IntN(8)); typ {
	case protowire.VarintType:
		return protowire.AppendVarint(protowire.AppendTag(nil, num, typ), r.Uint64())
	case protowire.Fixed32Type:
		return protowire.AppendFixed32(protowire.AppendTag(nil, num, typ), r.Uint32())
	case protowire.Fixed64Type:
		return protowire.AppendFixed64(protowire.AppendTag(nil, num, typ), r.Uint64())
	case protowire.StartGroupType:
		inner := r.unknown()
		return protowire.AppendTag(append(protowire.AppendTag(nil, num, typ), inner...), num, protowire.EndGroupType)
	case protowire.BytesType:
		return protowire.AppendString(protowire.AppendTag(nil, num, typ), r.text())
	default: // an end of no group, and types that do not exist
		return protowire.AppendTag(nil, num, typ)
	}
}
