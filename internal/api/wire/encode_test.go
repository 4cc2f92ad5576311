package wire

import (
	"errors"
	"testing"
)

// Nested writes an empty message too, and passes on that a string of it is not
// UTF-8.
func TestNested(t *testing.T) {
	var e, empty, inner, bad Encoder
	inner.String(1, "a")
	e.Nested(2, empty)
	e.Nested(3, inner)
	if b, err := e.Finish("m"); string(b) != "\x12\x00\x1a\x03\x0a\x01a" || err != nil || e.Len() != len(b) {
		t.Errorf("%x, %v", b, err)
	}
	bad.String(1, "\xff")
	e.Nested(4, bad)
	e.Nested(5, inner)
	var encode *EncodeError
	if b, err := e.Finish("m"); !errors.As(err, &encode) || encode.Value != "\xff" || encode.Message != "m" {
		t.Errorf("%x, %v", b, err)
	}
}
