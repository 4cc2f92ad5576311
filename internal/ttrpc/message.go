package ttrpc

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of the messages in request.proto of the protocol, and of
// google.rpc.Status and google.protobuf.Any.
const (
	requestService  = 1
	requestMethod   = 2
	requestPayload  = 3
	requestTimeout  = 4
	requestMetadata = 5

	responseStatus  = 1
	responsePayload = 2

	pairKey   = 1
	pairValue = 2

	statusCode    = 1
	statusMessage = 2
	statusDetails = 3

	anyURL   = 1
	anyValue = 2
)

var (
	errField = errors.New("the number of a field is out of range")
	errUTF8  = errors.New("a string is not UTF-8")
)

// field is one field of a message: a number for a varint, else bytes.
type field struct {
	num   protowire.Number
	kind  protowire.Type
	value uint64
	bytes []byte
}

// is reports whether the field has this number and is of this type. A known
// number of another type is an unknown field, which is passed over.
func (f *field) is(num protowire.Number, kind protowire.Type) bool {
	return f.num == num && f.kind == kind
}

// text sets s to the bytes of the field, which must be UTF-8.
func (f *field) text(s *[]byte) error {
	if !utf8.Valid(f.bytes) {
		return errUTF8
	}
	*s = f.bytes
	return nil
}

// next takes the first field from a message.
func (f *field) next(b []byte) (rest []byte, err error) {
	num, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return nil, protowire.ParseError(n)
	}
	if num > protowire.MaxValidNumber {
		return nil, errField
	}
	*f = field{num: num, kind: kind}
	b = b[n:]
	switch kind {
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(num, kind, b)
	}
	if n < 0 {
		return nil, protowire.ParseError(n)
	}
	return b[n:], nil
}

// request is a Request whose parts lie in the buffer that it was parsed from.
type request struct {
	service, method, payload []byte
	timeout                  int64 // in nanoseconds; 0 is none
}

func (r *request) parse(b []byte) error {
	*r = request{}
	var f field
	for len(b) > 0 {
		var err error
		if b, err = f.next(b); err != nil {
			return err
		}
		switch {
		case f.is(requestService, protowire.BytesType):
			err = f.text(&r.service)
		case f.is(requestMethod, protowire.BytesType):
			err = f.text(&r.method)
		case f.is(requestPayload, protowire.BytesType):
			r.payload = f.bytes
		case f.is(requestTimeout, protowire.VarintType):
			r.timeout = int64(f.value)
		case f.is(requestMetadata, protowire.BytesType):
			_, _, err = parsePair(f.bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parsePair parses two fields, both of them bytes: a KeyValue.
func parsePair(b []byte) (key, value []byte, err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.next(b); err != nil {
			return nil, nil, err
		}
		switch {
		case f.is(pairKey, protowire.BytesType):
			err = f.text(&key)
		case f.is(pairValue, protowire.BytesType):
			err = f.text(&value)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return key, value, nil
}

// findMetadata returns the first value of a key in the bytes of a Request that
// was parsed without an error.
func findMetadata(b []byte, key string) (value []byte, ok bool) {
	var f field
	for len(b) > 0 {
		var err error
		if b, err = f.next(b); err != nil {
			return nil, false
		}
		if !f.is(requestMetadata, protowire.BytesType) {
			continue
		}
		if k, v, err := parsePair(f.bytes); err == nil && string(k) == key {
			return v, true
		}
	}
	return nil, false
}

func appendRequest(b []byte, service, method string, payload []byte, timeout int64, metadata []KeyValue) []byte {
	b = appendBytes(b, requestService, service)
	b = appendBytes(b, requestMethod, method)
	b = appendBytes(b, requestPayload, payload)
	b = appendVarint(b, requestTimeout, uint64(timeout))
	for _, kv := range metadata {
		b = protowire.AppendTag(b, requestMetadata, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeBytes(pairKey, kv.Key)+sizeBytes(pairValue, kv.Value)))
		b = appendBytes(b, pairKey, kv.Key)
		b = appendBytes(b, pairValue, kv.Value)
	}
	return b
}

// parseResponse parses a Response. The payload lies in b; the status is nil
// where there is none.
func parseResponse(b []byte) (payload []byte, st *Status, err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.next(b); err != nil {
			return nil, nil, err
		}
		switch {
		case f.is(responseStatus, protowire.BytesType):
			if st == nil {
				st = &Status{}
			}
			if err := st.merge(f.bytes); err != nil {
				return nil, nil, err
			}
		case f.is(responsePayload, protowire.BytesType):
			payload = f.bytes
		}
	}
	return payload, st, nil
}

func appendResponse(b []byte, st *Status, payload []byte) []byte {
	if st != nil {
		b = protowire.AppendTag(b, responseStatus, protowire.BytesType)
		b = protowire.AppendBytes(b, st.append(nil))
	}
	return appendBytes(b, responsePayload, payload)
}

// merge sets what the bytes of a Status have, as a repeated message field that
// may have one value does.
func (s *Status) merge(b []byte) error {
	var f field
	for len(b) > 0 {
		var err error
		if b, err = f.next(b); err != nil {
			return err
		}
		switch {
		case f.is(statusCode, protowire.VarintType):
			s.Code = Code(f.value)
		case f.is(statusMessage, protowire.BytesType):
			var text []byte
			err = f.text(&text)
			s.Message = string(text)
		case f.is(statusDetails, protowire.BytesType):
			var d Detail
			d, err = parseDetail(f.bytes)
			s.Details = append(s.Details, d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func parseDetail(b []byte) (d Detail, err error) {
	var f field
	for len(b) > 0 {
		if b, err = f.next(b); err != nil {
			return d, err
		}
		switch {
		case f.is(anyURL, protowire.BytesType):
			var text []byte
			err = f.text(&text)
			d.TypeURL = string(text)
		case f.is(anyValue, protowire.BytesType):
			d.Value = append([]byte(nil), f.bytes...)
		}
		if err != nil {
			return d, err
		}
	}
	return d, nil
}

// append appends the bytes of the Status.
func (s *Status) append(b []byte) []byte {
	b = appendVarint(b, statusCode, uint64(int64(s.Code)))
	b = appendBytes(b, statusMessage, s.Message)
	for _, d := range s.Details {
		b = protowire.AppendTag(b, statusDetails, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeBytes(anyURL, d.TypeURL)+sizeBytes(anyValue, d.Value)))
		b = appendBytes(b, anyURL, d.TypeURL)
		b = appendBytes(b, anyValue, d.Value)
	}
	return b
}

// appendVarint appends a field, unless it is zero.
func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// appendBytes appends a field, unless it is empty.
func appendBytes[T string | []byte](b []byte, num protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

func sizeBytes[T string | []byte](num protowire.Number, v T) int {
	if len(v) == 0 {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(len(v))
}
