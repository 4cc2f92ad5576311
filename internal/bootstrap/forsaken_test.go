package bootstrap

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/bundle"
)

// visits is a Connections that tells.
type visits struct{ told chan string }

func (v visits) Opened(conn uint64) { v.told <- fmt.Sprint("opened ", conn) }
func (v visits) Closed(conn uint64) { v.told <- fmt.Sprint("closed ", conn) }

// Connections count from when they are accepted to when they have ended.
func TestForsakenByItsConnections(t *testing.T) {
	ns, err := bundle.ParseNamespace("ns")
	if err != nil {
		t.Fatal(err)
	}
	q, err := newServer(&fake{}, ns, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v := visits{make(chan string, 8)}
	q.connections = v
	first, theirs := socketPair(t)
	q.start(context.Background(), theirs)
	second, theirs := socketPair(t)
	q.start(context.Background(), theirs)
	second.Close()
	first.Close()
	told := map[string]int{}
	for i := range 4 {
		told[<-v.told] = i + 1
	}
	for _, n := range []int{1, 2} {
		opened, closed := told[fmt.Sprint("opened ", n)], told[fmt.Sprint("closed ", n)]
		if opened == 0 || closed <= opened {
			t.Errorf("connection %d: told as %v", n, told)
		}
	}
	q.close()
}

func TestForsakenTime(t *testing.T) {
	for text, want := range map[string]time.Duration{"": forsakenAfter, "1h": time.Hour, "0": 0, "nonsense": forsakenAfter, "-1s": forsakenAfter} {
		if got := forsakenTime(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// socketPair is a connection, as both of its ends see it.
func socketPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		ends[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}
