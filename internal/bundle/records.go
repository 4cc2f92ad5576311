package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// Records that a shim leaves in the bundle for the delete command, which runs
// as a process of its own, perhaps after the shim was killed.

// WriteOptions keeps the options of the container's Create: options.json, and
// the runtime's name once more in the file "runtime", where older delete
// commands look for it. Both are written before the runtime is first called, so
// that whatever that leaves behind can be found. A record of an exit that is there
// already is of an earlier life of the bundle, and removed.
func (b *Bundle) WriteOptions(o *options.Options) error {
	if o == nil {
		o = &options.Options{}
	}
	// Not protojson: containerd's shim has always used encoding/json on the
	// generated struct, and reads it back the same way.
	data, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("options of %s: %w", b.path, err)
	}
	if err := b.write(optionsFile, data); err != nil {
		return err
	}
	if err := unix.Unlinkat(b.fd(), exitFile, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return classify(&os.PathError{Op: "unlinkat", Path: filepath.Join(b.path, exitFile), Err: err})
	}
	return b.write(runtimeFile, []byte(o.BinaryName))
}

// ReadOptions returns what WriteOptions kept, here or in another shim. Where
// options.json says no runtime, the file "runtime" is asked. errno.ErrMissing if there
// is neither file (the container was never created), InvalidArgument if one is
// damaged.
func (b *Bundle) ReadOptions() (*options.Options, error) {
	o := &options.Options{}
	data, err := b.read(optionsFile, maxRecordSize)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, o); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", filepath.Join(b.path, optionsFile), errdefs.ErrInvalidArgument, err)
		}
	case !errno.IsMissing(err):
		return nil, err
	}
	if o.BinaryName != "" {
		return o, nil
	}
	name, nameErr := b.read(runtimeFile, maxRecordSize)
	switch {
	case nameErr == nil:
		o.BinaryName = string(name)
		return o, nil
	case errno.IsMissing(nameErr):
		if err != nil {
			return nil, err
		}
		return o, nil
	}
	return nil, nameErr
}

// HasOptions reports whether the file of WriteOptions is there. Without it
// ReadOptions knows the name of the runtime at best.
func (b *Bundle) HasOptions() bool {
	return unix.Faccessat(b.fd(), optionsFile, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// InitExit is how a container's init ended.
type InitExit struct {
	PID    int    // 0 where it was never known
	Status uint32 // the exit code, or 128 plus the signal
	At     time.Time
}

// exitRecord is InitExit as containerd's shim writes it since 2.4: the fields
// of go-runc's Exit under their Go names.
type exitRecord struct {
	Timestamp time.Time
	Pid       int
	Status    int
}

// WriteInitExit leaves init's true exit status for the delete command, which
// would otherwise have to answer 137 for everything.
func (b *Bundle) WriteInitExit(e InitExit) error {
	data, err := json.Marshal(exitRecord{Timestamp: e.At, Pid: e.PID, Status: int(e.Status)})
	if err != nil {
		return fmt.Errorf("exit of %s: %w", b.path, err)
	}
	return b.write(exitFile, data)
}

// ReadInitExit returns what WriteInitExit left, here or in another shim.
// errno.ErrMissing if init has not been seen to exit; InvalidArgument if the record is
// damaged, in which case the status is as unknown as if there were none.
func (b *Bundle) ReadInitExit() (InitExit, error) {
	data, err := b.read(exitFile, maxRecordSize)
	if err != nil {
		return InitExit{}, err
	}
	var r exitRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return InitExit{}, fmt.Errorf("%s: %w: %w", filepath.Join(b.path, exitFile), errdefs.ErrInvalidArgument, err)
	}
	if r.Pid < 0 || r.Status < 0 || int64(r.Status) > int64(^uint32(0)) || r.Timestamp.IsZero() {
		return InitExit{}, fmt.Errorf("%s is not a record of an exit: %w", filepath.Join(b.path, exitFile), errdefs.ErrInvalidArgument)
	}
	return InitExit{PID: r.Pid, Status: uint32(r.Status), At: r.Timestamp}, nil
}

// WriteAddress keeps the address of the shim that serves the container, for the
// containerd of 1.6 or 1.7 that is restarted.
func (b *Bundle) WriteAddress(address string) error { return b.write(addressFile, []byte(address)) }

// WriteSocketDir keeps the directory of the shim's socket where it is not the usual
// one: as a symbolic link, which is how containerd's own shim does it.
func (b *Bundle) WriteSocketDir(dir string) error {
	tmp := b.tempName(socketDirLink)
	if err := unix.Symlinkat(dir, b.fd(), tmp); err != nil {
		return classify(&os.LinkError{Op: "symlink", Old: dir, New: filepath.Join(b.path, tmp), Err: err})
	}
	if err := unix.Renameat(b.fd(), tmp, b.fd(), socketDirLink); err != nil {
		_ = unix.Unlinkat(b.fd(), tmp, 0)
		return classify(&os.LinkError{Op: "rename", Old: tmp, New: filepath.Join(b.path, socketDirLink), Err: err})
	}
	return nil
}

// ReadSocketDir returns what WriteSocketDir kept; errno.ErrMissing if nothing was.
func (b *Bundle) ReadSocketDir() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(b.fd(), socketDirLink, buf)
	if err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Join(b.path, socketDirLink), classify(err))
	}
	return string(buf[:n]), nil
}
