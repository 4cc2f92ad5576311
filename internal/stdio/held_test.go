package stdio

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/heldexec"
)

// F11: a logger whose execve is held ends with the call that starts it, and does
// not run afterwards.
func TestF11HeldLogger(t *testing.T) {
	r := newRig(t)
	path := r.script("logger", "echo ran >"+r.path("ran"))
	g, err := heldexec.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	stop, err := heldexec.Watchdog(5 * time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	g.Hold(1)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := New(ctx, r.owner, nil, Spec{Stdout: "binary://" + path, Stderr: "binary://" + path, ContainerID: "id", Namespace: "ns"})
		result <- err
	}()
	e := <-g.Held()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want Canceled", err)
	}
	if err := unix.Kill(e.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the logger: %v", err)
	}
	e.Release()
}
