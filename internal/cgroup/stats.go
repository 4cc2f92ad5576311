package cgroup

import (
	"bytes"
	"fmt"
	"math"
	"path"
	"strconv"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/api/wire"
	"github.com/larkshim/lark/internal/errno"
)

// The messages that clients of containerd decode: io.containerd.cgroups.v1.Metrics and its version 2, from
// containerd/cgroups. They go out as typeurl writes them, without a "types.googleapis.com/" before the name.
const (
	typeV1 = "io.containerd.cgroups.v1.Metrics"
	typeV2 = "io.containerd.cgroups.v2.Metrics"
)

// Stats is what the group uses and has used. What the kernel does not offer is left out or 0; a limit that is "max" is
// the largest number. It reads files only, and so answers whatever state the container is in, frozen included.
//
// Errors: errno.ErrMissing if the group is gone.
func (g Group) Stats() (*anypb.Any, error) {
	if g.IsZero() {
		return nil, errno.Missing("the container has no cgroup")
	}
	r := &reader{sys: g.host.sys, buf: make([]byte, 0, readChunk)}
	var m wire.Encoder
	url := typeV1
	if g.Unified() {
		url = typeV2
		g.metricsV2(r, &m)
	} else {
		g.metricsV1(r, &m)
	}
	if r.err != nil {
		return nil, fmt.Errorf("reading stats of %s: %w", g, classed(r.err))
	}
	if !r.any {
		return nil, errno.Missing(fmt.Sprintf("cgroup %s is gone", g))
	}
	value, err := m.Finish(url)
	if err != nil {
		return nil, fmt.Errorf("stats of %s: %w", g, err)
	}
	return &anypb.Any{TypeUrl: url, Value: value}, nil
}

// named says which field of a message has the value of a line "key value".
type named struct {
	key   string
	field int
}

// reader reads the files of a group one after the other into one buffer. A file that is not there is empty: kernels
// differ in what they have. Any other failure is kept and the first one counts, so that no number is made up.
type reader struct {
	sys *system
	buf []byte
	err error
	any bool // some file was there
}

// file is valid until the next call.
func (r *reader) file(dir, name string) []byte {
	if dir == "" || r.err != nil {
		return nil
	}
	b, err := r.sys.readInto(r.buf, path.Join(dir, name))
	switch {
	case err == nil:
		r.buf, r.any = b, true
		return b
	case !gone(err) && !unsupported(err):
		r.err = err
	}
	return nil
}

// number reads a file that is one number or "max".
func (r *reader) number(dir, name string) uint64 {
	return number(bytes.TrimSpace(r.file(dir, name)))
}

// table reads a file of "key value" lines into m.
func (r *reader) table(m *wire.Encoder, dir, name string, fields []named) {
	for line := range bytes.Lines(r.file(dir, name)) {
		key, value, ok := bytes.Cut(line, []byte(" "))
		if !ok {
			continue
		}
		for i := range fields {
			if fields[i].key == string(key) {
				m.Uint(fields[i].field, number(bytes.TrimSpace(value)))
				break
			}
		}
	}
}

// number is 0 for what is none. Some counters of version 1 go below zero for a moment, racing with each other.
func number(b []byte) uint64 {
	if string(b) == "max" {
		return math.MaxUint64
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// rdma reads a file of lines "device hca_handle=N hca_object=N|max" as entries of field n.
func (r *reader) rdma(m *wire.Encoder, n int, dir, name string) {
	for line := range bytes.Lines(r.file(dir, name)) {
		f := bytes.Fields(line)
		if len(f) != 3 {
			continue
		}
		var e wire.Encoder
		e.String(1, string(f[0]))
		for _, kv := range f[1:] {
			k, v, _ := bytes.Cut(kv, []byte("="))
			value := min(number(v), math.MaxUint32)
			switch string(k) {
			case "hca_handle":
				e.Uint(2, value)
			case "hca_object":
				e.Uint(3, value)
			}
		}
		m.Nested(n, e)
	}
}
