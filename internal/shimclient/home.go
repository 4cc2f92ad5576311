package shimclient

// Home and Bundle: the directories that a daemon would make.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/tempdir"
)

// Home is a private directory (0700) for everything that one client makes: bundles,
// sockets, the runtime's state. Close removes it.
type Home struct {
	Dir string
}

// NewHome makes a Home below base, or where [tempdir.Make] does when base is empty.
// The name of every Home begins with "lark-".
func NewHome(base string) (*Home, error) {
	const pattern = "lark-"
	makeTemp := tempdir.Make
	if base != "" {
		makeTemp = func(pattern string) (string, error) { return os.MkdirTemp(base, pattern) }
	}
	dir, err := makeTemp(pattern)
	if err != nil {
		return nil, fmt.Errorf("make a private directory: %w", err)
	}
	// A link in the path would hide our mounts from Close, which finds them by path.
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &Home{Dir: real}, nil
}

// RuntimeRoot is the directory for the state of the OCI runtime. The shim appends its
// namespace to it.
func (h *Home) RuntimeRoot() string { return filepath.Join(h.Dir, "runtime") }

// Close unmounts whatever is mounted below the Home and removes it. It never follows a
// mount: when one cannot be unmounted nothing below it is removed and the error says so.
func (h *Home) Close() error {
	if err := unmountBelow(h.Dir); err != nil {
		return err
	}
	if err := os.RemoveAll(h.Dir); err != nil {
		return fmt.Errorf("remove %s: %w", h.Dir, err)
	}
	return nil
}

// Bundle is one container's bundle, named by its ID as the `delete` helper needs it.
type Bundle struct {
	ID   string
	Path string
	// Cgroup is the container's cgroup as its spec names it, or empty.
	Cgroup string
	log    *shimLog
}

// NewBundle writes a bundle: config.json, an empty rootfs, a work directory, and the
// FIFO that the shim logs to. Directories are 0700.
func (h *Home) NewBundle(id string, spec *specs.Spec) (*Bundle, error) {
	b := &Bundle{ID: id, Path: filepath.Join(h.Dir, "bundles", id)}
	if spec.Linux != nil {
		b.Cgroup = spec.Linux.CgroupsPath
	}
	if err := os.MkdirAll(filepath.Dir(b.Path), 0o700); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	// Mkdir, not MkdirAll: two containers must never share a bundle.
	for _, dir := range []string{b.Path, filepath.Join(b.Path, "rootfs"), filepath.Join(b.Path, "work")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make bundle: %w", err)
		}
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	if err := os.WriteFile(filepath.Join(b.Path, "config.json"), text, 0o600); err != nil {
		return nil, fmt.Errorf("make bundle: %w", err)
	}
	if b.log, err = newShimLog(filepath.Join(b.Path, "log")); err != nil {
		return nil, err
	}
	return b, nil
}

// Log is the end of what the shim has logged so far, for an error message.
func (b *Bundle) Log() string { return b.log.tail() }

// Remove unmounts what is below the bundle and removes it.
func (b *Bundle) Remove() error {
	b.log.close()
	if err := unmountBelow(b.Path); err != nil {
		return err
	}
	return os.RemoveAll(b.Path)
}

// unmountBelow unmounts everything at or below dir, the deepest first.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	points := mountsBelow(string(text), dir)
	for _, p := range points {
		// MNT_DETACH: a dying process may hold the mount for some more milliseconds.
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// mountsBelow picks the mount points at or below dir out of a mountinfo text, in the
// order in which they must be unmounted: proc(5) lists them as they were mounted.
func mountsBelow(mountinfo, dir string) []string {
	const pointField = 4
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) <= pointField {
			continue
		}
		p := unescape.Replace(fields[pointField])
		if p == dir || strings.HasPrefix(p, dir+"/") {
			points = append(points, p)
		}
	}
	sort.SliceStable(points, func(i, j int) bool { return len(points[i]) > len(points[j]) })
	return points
}
