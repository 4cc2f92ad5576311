package ttrpc

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	official "github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	benchRound = 200 // calls of one kind before the other's turn
	benchMeta  = "default"
)

// BenchmarkRatio measures calls with this package against calls with the
// official library, both in this process, in turns: as the server, as the
// client and as both. The unit is the time, and the CPU time, of ours by
// theirs.
func BenchmarkRatio(b *testing.B) {
	for _, k := range []struct {
		name           string
		client, server bool // ours
	}{{"server", false, true}, {"client", true, false}, {"both", true, true}} {
		for name, parallel := range map[string]int{"1": 1, "32": 32} {
			b.Run(k.name+"/"+name, func(b *testing.B) {
				ours, theirs := quick(b, k.client, k.server), quick(b, false, false)
				var wall, cpu [2]time.Duration
				for b.Loop() {
					for i, call := range []func() error{ours, theirs} {
						w, c := round(b, parallel, call)
						wall[i] += w
						cpu[i] += c
					}
				}
				b.ReportMetric(float64(wall[0])/float64(wall[1]), "wall/official")
				b.ReportMetric(float64(cpu[0])/float64(cpu[1]), "cpu/official")
				b.ReportMetric(float64(cpu[0].Nanoseconds())/float64(b.N*benchRound), "cpu-ns/call")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// round makes the calls of one round, so many at once, and returns what they
// took.
func round(b *testing.B, parallel int, call func() error) (wall, cpu time.Duration) {
	before, begun := processTime(b), time.Now()
	var wg sync.WaitGroup
	for i := range parallel {
		wg.Go(func() {
			for n := i; n < benchRound; n += parallel {
				if err := call(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begun), processTime(b) - before
}

func processTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quick connects a client and a server, each of this package or official, and
// returns a call with an empty message and the metadata that containerd sends.
func quick(b *testing.B, ourClient, ourServer bool) func() error {
	client, server := pair(b)
	if ourServer {
		quietServer(b, server)
	} else {
		srv, err := official.NewServer()
		if err != nil {
			b.Fatal(err)
		}
		srv.Register(testService, map[string]official.Method{"Quiet": func(ctx context.Context, unmarshal func(any) error) (any, error) {
			official.GetMetadataValue(ctx, "ns")
			return &emptypb.Empty{}, unmarshal(&emptypb.Empty{})
		}})
		startOfficial(b, srv, server)
	}
	if ourClient {
		c := NewClient(client, nil)
		b.Cleanup(func() { c.Close() })
		return func() error {
			_, err := c.Call(context.Background(), testService, "Quiet", nil, KeyValue{"ns", benchMeta})
			return err
		}
	}
	c := official.NewClient(client)
	b.Cleanup(func() { c.Close() })
	ctx := official.WithMetadata(context.Background(), official.MD{"ns": {benchMeta}})
	return func() error { return c.Call(ctx, testService, "Quiet", &emptypb.Empty{}, &emptypb.Empty{}) }
}

// quietServer serves a method that answers with its payload.
func quietServer(t testing.TB, conn net.Conn) {
	t.Helper()
	srv := NewServer(nil)
	srv.Register(testService, func(_ context.Context, c *Call) ([]byte, error) {
		c.LetIn()
		if ns, ok := c.Metadata("ns"); !ok || string(ns) != benchMeta {
			return nil, errdefs.ErrFailedPrecondition
		}
		return append(c.Buffer(len(c.Payload)), c.Payload...), nil
	}, "Quiet")
	serveConn(t, srv, conn)
}
