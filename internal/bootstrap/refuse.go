package bootstrap

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// refusals decides which messages of one connection are refused.
type refusals struct {
	stream uint32 // the last stream that was refused
}

// of is the status with which the message is answered instead of being served; nil
// for a call.
func (r *refusals) of(header *[frameHeader]byte) *status.Status {
	length := binary.BigEndian.Uint32(header[:])
	stream := binary.BigEndian.Uint32(header[frameStream:])
	switch t := header[frameTypeByte]; {
	case length > maxFrame:
		return status.Newf(codes.ResourceExhausted, "message of %d bytes is longer than %d", length, maxFrame)
	case t == typeRequest && header[frameFlagsByte]&flagsStream == 0:
		return nil
	case t == typeRequest:
		r.stream = stream
		return status.New(codes.Unimplemented, "streams are not served")
	case t == typeData && stream == r.stream && stream != 0:
		return status.New(codes.OK, "") // the stream's end has been told
	case t == typeData:
		return status.New(codes.Unimplemented, "streams are not served")
	default:
		return status.Newf(codes.Unimplemented, "message of type %d", t)
	}
}

// refuse skips the payload of the message whose header was read and answers it with
// the status; OK is no answer. It is called by the reader, so that a client that
// reads no answers is not read from either. An answer goes between two of the
// library's.
func (c *policed) refuse(st *status.Status) error {
	stream := binary.BigEndian.Uint32(c.header[frameStream:])
	for left := int64(binary.BigEndian.Uint32(c.header[:])); left > 0; {
		n, err := c.in.Discard(int(min(left, maxFrame))) // an int may have 32 bits
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	if st.Code() == codes.OK {
		return nil
	}
	message, err := refusalMessage(stream, st)
	if err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	for !c.out.between() {
		select {
		case <-c.gone:
			return fmt.Errorf("refusal: %w", net.ErrClosed)
		default:
		}
		c.boundary.Wait()
	}
	_, err = c.Conn.Write(message)
	return err
}

func refusalMessage(stream uint32, st *status.Status) ([]byte, error) {
	payload, err := proto.Marshal(&ttrpc.Response{Status: st.Proto()})
	if err != nil {
		return nil, err
	}
	message := make([]byte, frameHeader, frameHeader+len(payload))
	binary.BigEndian.PutUint32(message, uint32(len(payload)))
	binary.BigEndian.PutUint32(message[frameStream:], stream)
	message[frameTypeByte] = typeResponse
	return append(message, payload...), nil
}
