// Package api has the protobuf messages that the shim reads and writes, as plain
// structs: containerd's task API, its events, options and bootstrap parameters,
// and ttrpc's frames. The messages of the cgroups' statistics are in the packages
// below it.
//
// They are generated from the descriptors of the official Go packages and keep
// the official names of messages and fields, but they have no reflection, no
// registry and no descriptors: nothing of google.golang.org/protobuf is linked
// and nothing is initialised when the program starts. On the wire they differ
// from the official messages in one thing: unknown fields are checked and
// dropped, not kept.
package api

//go:generate go run ../tools/apigen

// Message is a generated message.
type Message interface {
	// FullName returns the message's name in protobuf, which containerd's typeurl
	// has in an Any as the type's URL.
	FullName() string
	// Size returns the length of the encoding.
	Size() int
	// Append appends the encoding to b. Fields are in the order of their numbers,
	// maps in the order of their keys. A string that is not UTF-8 gives a
	// *wire.EncodeError.
	Append(b []byte) ([]byte, error)
	// Marshal returns the encoding in a new slice.
	Marshal() ([]byte, error)
	// Unmarshal sets the message to the one that b encodes. After an error, a
	// *wire.DecodeError, the message may have been set in part.
	Unmarshal(b []byte) error
}
