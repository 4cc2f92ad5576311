package soak

// The shim's events are to be seen as the shim sends them, also while containerd
// is away. So it is told another address for them than containerd's: the soak's
// own program stands in containerd's PATH under the shim's name, alters that one
// thing and becomes the shim.

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	// shimEnv and eventsEnv tell the wrapper what to become, and where events go.
	shimEnv   = "LARK_SOAK_SHIM"
	eventsEnv = "LARK_SOAK_EVENTS"
	// largestInput is more than any containerd writes to a shim.
	largestInput = 10 << 20
)

// Wrap becomes the shim if this process was started as one; else it returns. The
// program that runs a soak calls it first of all.
func Wrap() error {
	shim := os.Getenv(shimEnv)
	if shim == "" || !strings.HasPrefix(filepath.Base(os.Args[0]), "containerd-shim-") {
		return nil
	}
	events := os.Getenv(eventsEnv)
	if slices.Contains(os.Args, "start") {
		if err := redirect(events); err != nil {
			return err
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "TTRPC_ADDRESS=") })
	return unix.Exec(shim, append([]string{shim}, os.Args[1:]...), append(env, "TTRPC_ADDRESS="+events))
}

// redirect alters the bootstrap parameters that containerd 2.3 and later write to
// a shim's standard input. Earlier ones write options there, which stay as they are.
func redirect(events string) error {
	in, err := io.ReadAll(io.LimitReader(os.Stdin, largestInput))
	if err != nil {
		return err
	}
	var p bootapi.BootstrapParams
	if proto.Unmarshal(in, &p) == nil && p.ContainerdTtrpcAddress != "" {
		p.ContainerdTtrpcAddress = events
		if in, err = proto.Marshal(&p); err != nil {
			return err
		}
	}
	fd, err := unix.MemfdCreate("input", 0)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "input")
	_, err = io.Copy(f, bytes.NewReader(in))
	if _, seekErr := f.Seek(0, io.SeekStart); err != nil || seekErr != nil {
		return errors.Join(err, seekErr)
	}
	if err := unix.Dup2(fd, unix.Stdin); err != nil {
		return os.NewSyscallError("dup2", err)
	}
	return f.Close()
}
