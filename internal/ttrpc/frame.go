package ttrpc

import (
	"bufio"
	"encoding/binary"
	"io"
	"slices"
)

// The header of a message: length and stream id, big endian, type and flags.
const (
	headerSize = 10

	typeRequest  = 1
	typeResponse = 2
	typeData     = 3

	// flagsStream are the flags of a request that opens a stream: its client
	// has closed its side, or leaves it open. A unary call has neither.
	flagsStream = 1 | 2
)

type header struct {
	length, stream uint32
	kind, flags    byte
}

// incoming reads messages.
type incoming struct{ r *bufio.Reader }

func newIncoming(r io.Reader) incoming { return incoming{bufio.NewReader(r)} }

// next reads the header of the next message. Its body must be read or skipped
// before the next call.
func (in incoming) next() (header, error) {
	b, err := in.r.Peek(headerSize)
	if err != nil {
		return header{}, err
	}
	h := header{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), b[8], b[9]}
	_, err = in.r.Discard(headerSize)
	return h, err
}

// body reads n bytes into buf, or into a larger buffer. It allocates in steps,
// so that a client must send what it claims.
func (in incoming) body(buf []byte, n int) ([]byte, error) {
	buf = buf[:0]
	for n > 0 {
		have, step := len(buf), min(n, max(readStep, len(buf)))
		buf = slices.Grow(buf, step)[:have+step]
		if _, err := io.ReadFull(in.r, buf[have:]); err != nil {
			return buf[:have], err
		}
		n -= step
	}
	return buf, nil
}

// skip reads n bytes without keeping any.
func (in incoming) skip(n uint32) error {
	for n > 0 {
		step := min(n, MaxMessage) // an int may have 32 bits
		if _, err := in.r.Discard(int(step)); err != nil {
			return err
		}
		n -= step
	}
	return nil
}

// beginFrame appends a header without the length, which endFrame sets.
func beginFrame(b []byte, stream uint32, kind byte) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, kind, 0)
}

// endFrame sets the length of the message that begins at start and ends with b.
func endFrame(b []byte, start int) {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-headerSize))
}

// kept is the buffer, emptied for the next use, if it may be kept.
func kept(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}
