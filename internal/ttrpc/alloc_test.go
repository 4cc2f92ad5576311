//go:build !race

// The race detector makes sync.Pool forget.

package ttrpc

import "testing"

// A call allocates nothing that lasts: neither the server nor the client, but
// for the answer's payload.
func TestAllocations(t *testing.T) {
	client, server := pair(t)
	quietServer(t, server)
	c := NewClient(client, nil)
	defer c.Close()
	md := []KeyValue{{"ns", benchMeta}}
	payload := make([]byte, 200)
	ctx := t.Context()
	for name, want := range map[string]struct {
		payload []byte
		max     float64
	}{"empty": {nil, 0}, "with a payload": {payload, 1}} {
		n := testing.AllocsPerRun(2000, func() {
			if _, err := c.Call(ctx, testService, "Quiet", want.payload, md...); err != nil {
				t.Fatal(err)
			}
		})
		if n > want.max { // a collection in between empties the pools: AllocsPerRun rounds down
			t.Errorf("%s: %v allocations per call", name, n)
		}
	}
}
