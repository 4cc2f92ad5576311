package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf8"
)

// Decoder reads the fields of a message one after the other:
//
//	d := wire.NewDecoder(b)
//	for d.Next() {
//		switch d.Tag() {
//		case 1<<3 | wire.Bytes:
//			m.ID = d.String()
//		default:
//			d.Skip()
//		}
//	}
//	return d.Finish(name)
//
// After each Next exactly one method that reads the value is called. The tag
// includes the wire type, so a known field with another wire type is skipped as
// an unknown one is. After an error Next returns false.
type Decoder struct {
	b          []byte
	start      int // of the field
	pos, limit int // what is left of the message
	tag        uint64
	err        error
}

// NewDecoder returns a Decoder that reads b.
func NewDecoder(b []byte) Decoder { return Decoder{b: b, limit: len(b)} }

// Finish returns the first error as a DecodeError that names the message.
func (d *Decoder) Finish(message string) error {
	if d.err == nil {
		return nil
	}
	return &DecodeError{Message: message, Offset: d.start, cause: d.err}
}

// Next reads the tag of the next field and returns whether there is one.
func (d *Decoder) Next() bool {
	if d.err != nil || d.pos == d.limit {
		return false
	}
	d.start = d.pos
	d.tag = d.Uint()
	if n := d.tag >> 3; n < 1 || n > maxNumber {
		d.fail(errMalformed)
	}
	return d.err == nil
}

// Tag returns the field's number, shifted left by three, and its wire type.
func (d *Decoder) Tag() uint64 { return d.tag }

// fail keeps the first error and ends the reading.
func (d *Decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.pos = d.limit
}

// Uint reads a varint.
func (d *Decoder) Uint() uint64 {
	if d.pos < d.limit && d.b[d.pos] < 0x80 {
		d.pos++
		return uint64(d.b[d.pos-1])
	}
	v, n := binary.Uvarint(d.b[d.pos:d.limit])
	if n <= 0 {
		d.fail(errMalformed)
		return 0
	}
	d.pos += n
	return v
}

// Bool reads a bool.
func (d *Decoder) Bool() bool { return d.Uint() != 0 }

// Double reads a float64.
func (d *Decoder) Double() float64 {
	b := d.take(8)
	if b == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// take returns the next n bytes, nil if there are fewer.
func (d *Decoder) take(n uint64) []byte {
	if n > uint64(d.limit-d.pos) {
		d.fail(errMalformed)
		return nil
	}
	b := d.b[d.pos : d.pos+int(n) : d.pos+int(n)]
	d.pos += int(n)
	return b
}

// Alias reads bytes that share memory with the input.
func (d *Decoder) Alias() []byte { return d.take(d.Uint()) }

// Bytes reads bytes into memory of their own.
func (d *Decoder) Bytes() []byte { return append([]byte(nil), d.Alias()...) }

// String reads a string.
func (d *Decoder) String() string {
	b := d.Alias()
	if !utf8.Valid(b) {
		d.fail(ErrUTF8)
		return ""
	}
	return string(b)
}

// OptionalString reads a string of a field that has presence.
func (d *Decoder) OptionalString() *string {
	s := d.String()
	return &s
}

// ReadPacked appends the numbers of a packed field to v.
func ReadPacked[T number](d *Decoder, v []T) []T {
	outer := d.Enter()
	for d.err == nil && d.pos < d.limit {
		v = append(v, T(d.Uint()))
	}
	d.Leave(outer)
	return v
}

// StringMap reads an entry into the map and returns it, a new one if it is nil.
func (d *Decoder) StringMap(m map[string]string) map[string]string {
	outer := d.Enter()
	var k, v string
	for d.Next() {
		switch d.tag {
		case 1<<3 | Bytes:
			k = d.String()
		case 2<<3 | Bytes:
			v = d.String()
		default:
			d.Skip()
		}
	}
	d.Leave(outer)
	if d.err != nil {
		return m
	}
	if m == nil {
		m = map[string]string{}
	}
	m[k] = v
	return m
}

// Enter begins to read the message that is the field's value: Next returns false
// at its end. What it returns is given to Leave.
func (d *Decoder) Enter() (outer int) {
	outer = d.limit
	n := d.Uint()
	if n > uint64(d.limit-d.pos) {
		d.fail(errMalformed)
		return outer
	}
	d.limit = d.pos + int(n)
	return outer
}

// Leave ends the reading of the message that Enter began.
func (d *Decoder) Leave(outer int) {
	d.limit = outer
	if d.err != nil {
		d.pos = outer
	}
}

// Skip reads the value of a field that is not known and checks its form.
func (d *Decoder) Skip() {
	if d.tag&7 != startGroup {
		d.skipValue(d.tag)
		return
	}
	// Groups may nest deeply in hostile input; a recursion would grow the
	// goroutine's stack for good.
	groups := []uint64{d.tag >> 3}
	for len(groups) > 0 && d.err == nil {
		tag := d.Uint()
		num := tag >> 3
		switch {
		case d.err != nil:
		case num < 1 || num > maxGroupNumber:
			d.fail(errMalformed)
		case tag&7 == startGroup && len(groups) == maxGroups:
			d.fail(errNested)
		case tag&7 == startGroup:
			groups = append(groups, num)
		case tag&7 == endGroup && num != groups[len(groups)-1]:
			d.fail(errMalformed)
		case tag&7 == endGroup:
			groups = groups[:len(groups)-1]
		default:
			d.skipValue(tag)
		}
	}
}

var errNested = errors.New("groups are nested too deeply")

// skipValue reads a value that is no group.
func (d *Decoder) skipValue(tag uint64) {
	switch tag & 7 {
	case Varint:
		d.Uint()
	case Fixed64:
		d.take(8)
	case Bytes:
		d.Alias()
	case Fixed32:
		d.take(4)
	default:
		d.fail(errMalformed)
	}
}
