package wire

import (
	"encoding/binary"
	"maps"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// Encoder appends fields to a buffer. Its methods leave out zero values, as
// proto3 does for a field without presence. The zero value is ready to use.
type Encoder struct {
	b   []byte
	bad *string // the first string that is not UTF-8
}

// NewEncoder returns an Encoder that appends to b.
func NewEncoder(b []byte) Encoder { return Encoder{b: b} }

// Finish returns the buffer, or an EncodeError that names the message.
func (e *Encoder) Finish(message string) ([]byte, error) {
	if e.bad != nil {
		return nil, &EncodeError{Message: message, Value: *e.bad}
	}
	return e.b, nil
}

// Len returns the length of the buffer.
func (e *Encoder) Len() int { return len(e.b) }

func (e *Encoder) varint(v uint64) {
	if v < 0x80 {
		e.b = append(e.b, byte(v))
		return
	}
	e.b = binary.AppendUvarint(e.b, v)
}

// Uint appends a number, if it is not 0.
func (e *Encoder) Uint(num int, v uint64) {
	if v != 0 {
		e.varint(tag(num, Varint))
		e.varint(v)
	}
}

// Bool appends true.
func (e *Encoder) Bool(num int, v bool) {
	if v {
		e.varint(tag(num, Varint))
		e.b = append(e.b, 1)
	}
}

// Double appends a number, if it is not 0. Negative zero is written.
func (e *Encoder) Double(num int, v float64) {
	if v := math.Float64bits(v); v != 0 {
		e.varint(tag(num, Fixed64))
		e.b = binary.LittleEndian.AppendUint64(e.b, v)
	}
}

// Bytes appends v, if it is not empty.
func (e *Encoder) Bytes(num int, v []byte) {
	if len(v) > 0 {
		e.Message(num, len(v))
		e.b = append(e.b, v...)
	}
}

// String appends v, if it is not empty.
func (e *Encoder) String(num int, v string) {
	if v != "" {
		e.anyString(num, v)
	}
}

// OptionalString appends the string at v, unless v is nil.
func (e *Encoder) OptionalString(num int, v *string) {
	if v != nil {
		e.anyString(num, *v)
	}
}

// Strings appends each element of v.
func (e *Encoder) Strings(num int, v []string) {
	for _, s := range v {
		e.anyString(num, s)
	}
}

func (e *Encoder) anyString(num int, v string) {
	if !utf8.ValidString(v) {
		e.fail(v)
	}
	e.Message(num, len(v))
	e.b = append(e.b, v...)
}

// fail has a parameter of its own that escapes; the parameters of its callers do
// not.
func (e *Encoder) fail(v string) {
	if e.bad == nil {
		e.bad = &v
	}
}

// number is an element of a packed field.
type number interface{ ~int32 | ~uint64 }

// AppendPacked appends the numbers in packed form, if there are any.
func AppendPacked[T number](e *Encoder, num int, v []T) {
	if len(v) == 0 {
		return
	}
	e.Message(num, sizePacked(v))
	for _, n := range v {
		e.varint(uint64(n))
	}
}

// StringMap appends the entries of m in the order of their keys.
func (e *Encoder) StringMap(num int, m map[string]string) {
	if len(m) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.Message(num, sizeEntry(k, m[k]))
		e.anyString(1, k)
		e.anyString(2, m[k])
	}
}

// Message appends the head of a message of the given size. The caller appends its
// fields.
func (e *Encoder) Message(num, size int) {
	e.varint(tag(num, Bytes))
	e.varint(uint64(size))
}

// Nested appends the message that m has been given, an empty one too.
func (e *Encoder) Nested(num int, m Encoder) {
	if e.bad == nil {
		e.bad = m.bad
	}
	e.Message(num, len(m.b))
	e.b = append(e.b, m.b...)
}

func tag(num int, wireType uint64) uint64 { return uint64(num)<<3 | wireType }

func sizeVarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func sizeTag(num int) int { return sizeVarint(tag(num, 0)) }

// SizeUint returns how many bytes Encoder.Uint appends.
func SizeUint(num int, v uint64) int {
	if v == 0 {
		return 0
	}
	return sizeTag(num) + sizeVarint(v)
}

// SizeBool returns how many bytes Encoder.Bool appends.
func SizeBool(num int, v bool) int {
	if !v {
		return 0
	}
	return sizeTag(num) + 1
}

// SizeDouble returns how many bytes Encoder.Double appends.
func SizeDouble(num int, v float64) int {
	if math.Float64bits(v) == 0 {
		return 0
	}
	return sizeTag(num) + 8
}

// SizeBytes returns how many bytes Encoder.Bytes appends.
func SizeBytes(num int, v []byte) int {
	if len(v) == 0 {
		return 0
	}
	return SizeMessage(num, len(v))
}

// SizeString returns how many bytes Encoder.String appends.
func SizeString(num int, v string) int {
	if v == "" {
		return 0
	}
	return SizeMessage(num, len(v))
}

// SizeOptionalString returns how many bytes Encoder.OptionalString appends.
func SizeOptionalString(num int, v *string) int {
	if v == nil {
		return 0
	}
	return SizeMessage(num, len(*v))
}

// SizeStrings returns how many bytes Encoder.Strings appends.
func SizeStrings(num int, v []string) int {
	n := 0
	for _, s := range v {
		n += SizeMessage(num, len(s))
	}
	return n
}

// SizePacked returns how many bytes AppendPacked appends.
func SizePacked[T number](num int, v []T) int {
	if len(v) == 0 {
		return 0
	}
	return SizeMessage(num, sizePacked(v))
}

// SizeStringMap returns how many bytes Encoder.StringMap appends.
func SizeStringMap(num int, m map[string]string) int {
	n := 0
	for k, v := range m {
		n += SizeMessage(num, sizeEntry(k, v))
	}
	return n
}

// SizeMessage returns the size of a message of the given size with its head.
func SizeMessage(num, size int) int {
	return sizeTag(num) + sizeVarint(uint64(size)) + size
}

func sizePacked[T number](v []T) int {
	n := 0
	for _, x := range v {
		n += sizeVarint(uint64(x))
	}
	return n
}

func sizeEntry(k, v string) int { return SizeMessage(1, len(k)) + SizeMessage(2, len(v)) }
