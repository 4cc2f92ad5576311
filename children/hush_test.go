package children

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func dispositionOf(t *testing.T, sig unix.Signal) (d disposition) {
	t.Helper()
	if err := sigaction(sig, nil, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// While it is hushed SIGCHLD has no handler, dead children stay, and what was before comes back to the letter.
func TestHush(t *testing.T) {
	before := dispositionOf(t, unix.SIGCHLD)
	if before[0] == 0 {
		t.Fatal("the Go runtime has no handler for SIGCHLD: there is nothing to hush")
	}
	listen := hush()
	if d := dispositionOf(t, unix.SIGCHLD); d != (disposition{}) {
		t.Errorf("hushed: %x", d)
	}
	cmd := exec.Command("busybox", "sh", "-c", "exit 7")
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("a child's exit while hushed: %v", err)
	}
	listen()
	if after := dispositionOf(t, unix.SIGCHLD); after != before {
		t.Errorf("%x came back, it was %x", after, before)
	}
}

// An Owner that is closed in the middle of its silence leaves the handler in place.
func TestHushEndsWithTheOwner(t *testing.T) {
	before := dispositionOf(t, unix.SIGCHLD)
	o, err := newOwner(quiet(), kernel{})
	if err != nil {
		t.Fatal(err)
	}
	o.arm()
	eventually(t, "hushed", func() string {
		if dispositionOf(t, unix.SIGCHLD) == before {
			o.arm()
			return "not yet"
		}
		return ""
	})
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if after := dispositionOf(t, unix.SIGCHLD); after != before {
		t.Errorf("%x came back, it was %x", after, before)
	}
}

// Two that hush at once, in whichever order they listen again, leave the handler in place.
func TestHushTwice(t *testing.T) {
	before := dispositionOf(t, unix.SIGCHLD)
	for _, firstEndsFirst := range []bool{true, false} {
		first := hush()
		second := hush()
		ends := []func(){second, first}
		if firstEndsFirst {
			ends = []func(){first, second}
		}
		ends[0]()
		if d := dispositionOf(t, unix.SIGCHLD); d != (disposition{}) {
			t.Errorf("one still wants silence, and there is a handler: %x", d)
		}
		ends[1]()
		if after := dispositionOf(t, unix.SIGCHLD); after != before {
			t.Errorf("%x came back, it was %x", after, before)
		}
	}
}
