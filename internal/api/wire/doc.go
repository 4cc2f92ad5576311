// Package wire reads and writes the protobuf wire format for the generated
// messages of internal/api and the packages below it.
//
// It accepts and refuses what google.golang.org/protobuf/proto does, and writes
// what its deterministic Marshal writes, but for unknown fields, which are
// checked and dropped. It links nothing of protobuf: even encoding/protowire
// reads the program's own file when it is initialised.
//
// The format: https://protobuf.dev/programming-guides/encoding.
package wire

import (
	"errors"
	"strconv"

	"github.com/containerd/errdefs"
)

// The wire types, the low three bits of a tag.
const (
	Varint     = 0
	Fixed64    = 1
	Bytes      = 2
	startGroup = 3
	endGroup   = 4
	Fixed32    = 5
)

const (
	// maxNumber is the largest field number of a message.
	maxNumber = 1<<29 - 1
	// maxGroupNumber is the largest field number inside an unknown group.
	// protowire.ConsumeFieldValue allows more there than in a message.
	maxGroupNumber = 1<<31 - 1
	// maxGroups bounds the nesting of unknown groups; protowire has the same
	// bound.
	maxGroups = 10001
)

// ErrUTF8 is returned for a string that is not UTF-8, by Marshal and Unmarshal.
var ErrUTF8 = errors.New("a string is not UTF-8")

var errMalformed = errors.New("malformed or truncated message")

// DecodeError is returned for a message that cannot be decoded. It is an
// errdefs.ErrInvalidArgument.
type DecodeError struct {
	// Message is the full name of the message.
	Message string
	// Offset is where in it the field lies that cannot be decoded.
	Offset int
	cause  error
}

func (e *DecodeError) Error() string {
	return e.Message + ", byte " + strconv.Itoa(e.Offset) + ": " + e.cause.Error() + ": " + errdefs.ErrInvalidArgument.Error()
}

// Unwrap returns the cause and the class.
func (e *DecodeError) Unwrap() []error { return []error{e.cause, errdefs.ErrInvalidArgument} }

// EncodeError is returned for a message that cannot be encoded because Value is
// not UTF-8.
type EncodeError struct {
	// Message is the full name of the message.
	Message string
	// Value is the string that is not UTF-8.
	Value string
}

func (e *EncodeError) Error() string {
	return e.Message + ": " + ErrUTF8.Error() + ": " + strconv.Quote(e.Value)
}

// Unwrap returns ErrUTF8.
func (e *EncodeError) Unwrap() error { return ErrUTF8 }
