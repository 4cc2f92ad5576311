package rootfs

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// request is one mount of a Create request, parsed: what can be told to be wrong without touching anything has been.
type request struct {
	fstype, source string
	target         []string // components below rootfs, none of them "", "." or ".."
	flags          uintptr
	data           []string // what is the file system's own business
	options        []string // as they came, for a FUSE helper
	loop, directIO bool
	uidmap, gidmap []syscall.SysProcIDMap // both or neither
}

// flagOptions are the words of fstab that mean a flag of mount(2); those with clear take one back.
var flagOptions = map[string]struct {
	flag  uintptr
	clear bool
}{
	"async": {unix.MS_SYNCHRONOUS, true}, "sync": {unix.MS_SYNCHRONOUS, false},
	"atime": {unix.MS_NOATIME, true}, "noatime": {unix.MS_NOATIME, false},
	"bind": {unix.MS_BIND, false}, "rbind": {unix.MS_BIND | unix.MS_REC, false},
	"dev": {unix.MS_NODEV, true}, "nodev": {unix.MS_NODEV, false},
	"diratime": {unix.MS_NODIRATIME, true}, "nodiratime": {unix.MS_NODIRATIME, false},
	"dirsync": {unix.MS_DIRSYNC, false},
	"exec":    {unix.MS_NOEXEC, true}, "noexec": {unix.MS_NOEXEC, false},
	"mand": {unix.MS_MANDLOCK, false}, "nomand": {unix.MS_MANDLOCK, true},
	"relatime": {unix.MS_RELATIME, false}, "norelatime": {unix.MS_RELATIME, true},
	"remount": {unix.MS_REMOUNT, false},
	"ro":      {unix.MS_RDONLY, false}, "rw": {unix.MS_RDONLY, true},
	"strictatime": {unix.MS_STRICTATIME, false}, "nostrictatime": {unix.MS_STRICTATIME, true},
	"suid": {unix.MS_NOSUID, true}, "nosuid": {unix.MS_NOSUID, false},
}

// parse reads all mounts of a request, so that nothing is mounted if one of them is nonsense. InvalidArgument.
func parse(mounts []*types.Mount) ([]request, error) {
	if len(mounts) > maxMounts {
		return nil, fmt.Errorf("%d rootfs mounts, at most %d: %w", len(mounts), maxMounts, errdefs.ErrInvalidArgument)
	}
	parsed := make([]request, 0, len(mounts))
	for i, m := range mounts {
		r, err := parseOne(m)
		if err != nil {
			return nil, fmt.Errorf("rootfs mount %d (%q): %w: %w", i, m.GetType(), errdefs.ErrInvalidArgument, err)
		}
		parsed = append(parsed, r)
	}
	return parsed, nil
}

func parseOne(m *types.Mount) (request, error) {
	r := request{fstype: m.GetType(), source: m.GetSource(), options: m.GetOptions()}
	for _, s := range append([]string{r.fstype, r.source, m.GetTarget()}, r.options...) {
		if strings.ContainsRune(s, 0) {
			return r, fmt.Errorf("%q has a NUL", s)
		}
	}
	target, err := components(m.GetTarget())
	if err != nil {
		return r, err
	}
	r.target = target
	for _, o := range r.options {
		if err := r.option(o); err != nil {
			return r, err
		}
	}
	if r.directIO && !r.loop {
		r.directIO, r.data = false, append(r.data, "direct-io") // then it is the file system's
	}
	if (r.uidmap == nil) != (r.gidmap == nil) {
		return r, fmt.Errorf("uidmap and gidmap go together")
	}
	return r, nil
}

// components splits a target into the steps from rootfs to it. A target may not climb: what is above rootfs is the
// bundle.
func components(target string) ([]string, error) {
	var steps []string
	for _, s := range strings.Split(target, "/") {
		switch s {
		case "", ".":
		case "..":
			return nil, fmt.Errorf("target %q leaves rootfs", target)
		default:
			steps = append(steps, s)
		}
	}
	return steps, nil
}

func (r *request) option(o string) error {
	name, value, _ := strings.Cut(o, "=")
	f, isFlag := flagOptions[o]
	var err error
	switch {
	case strings.HasPrefix(o, "X-containerd."):
		// Words between containerd and its mount manager, which should have used them up.
		return fmt.Errorf("option %q is not for us", o)
	case isFlag && f.clear:
		r.flags &^= f.flag
	case isFlag:
		r.flags |= f.flag
	case o == "defaults":
	case o == "loop":
		r.loop = true
	case o == "direct-io":
		r.directIO = true
	case name == "uidmap":
		r.uidmap, err = idMappings(value)
	case name == "gidmap":
		r.gidmap, err = idMappings(value)
	default:
		r.data = append(r.data, o)
	}
	return err
}

// idMappings reads "container:host:size[,...]".
func idMappings(s string) ([]syscall.SysProcIDMap, error) {
	var all []syscall.SysProcIDMap
	for _, m := range strings.Split(s, ",") {
		f := strings.Split(m, ":")
		if len(f) != 3 {
			return nil, fmt.Errorf("id mapping %q is not container:host:size", m)
		}
		var n [3]int
		for i := range f {
			v, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("id mapping %q: %w", m, err)
			}
			n[i] = int(v)
		}
		if n[2] == 0 {
			return nil, fmt.Errorf("id mapping %q maps nothing", m)
		}
		all = append(all, syscall.SysProcIDMap{ContainerID: n[0], HostID: n[1], Size: n[2]})
	}
	return all, nil
}

// helper is the program that mounts a FUSE file system and its subtype ("fuse3.fuse-overlayfs"), "" for what the kernel
// mounts by itself.
func (r *request) helper() (program, subtype string) {
	if s, ok := strings.CutPrefix(r.fstype, "fuse3."); ok {
		return "mount.fuse3", s
	}
	if s, ok := strings.CutPrefix(r.fstype, "fuse."); ok {
		return "mount.fuse", s
	}
	return "", ""
}

const lowerdir = "lowerdir="

// lowers finds the layers of an overlay. A colon in a layer's name is escaped by a backslash. The index is -1 where
// there are none that could be given from a directory of their own: some not absolute, or empty as in "::data", or a
// last backslash that escapes nothing, which the kernel judges as it stands.
func lowers(data []string) (index int, dirs []string) {
	for i, o := range data {
		list, ok := strings.CutPrefix(o, lowerdir)
		if !ok {
			continue
		}
		start, escaped := 0, false
		for j, c := range []byte(list) {
			switch {
			case escaped:
				escaped = false
			case c == '\\':
				escaped = true
			case c == ':':
				dirs = append(dirs, list[start:j])
				start = j + 1
			}
		}
		if escaped {
			return -1, nil
		}
		dirs = append(dirs, list[start:])
		for _, d := range dirs {
			if !path.IsAbs(d) || path.Clean(d) != d {
				return -1, nil
			}
		}
		return i, dirs
	}
	return -1, nil
}

// from rewrites an overlay's layers to be relative to the deepest directory that has all of them, "" if there is none
// but the root or if a layer is itself that directory.
func from(data []string) (dir string, shorter []string) {
	i, dirs := lowers(data)
	if i < 0 {
		return "", nil
	}
	common := path.Dir(dirs[0])
	for _, d := range dirs[1:] {
		for common != "/" && !strings.HasPrefix(d, common+"/") {
			common = path.Dir(common)
		}
	}
	// chdir takes the name as it is, the overlay would have taken the backslashes off.
	if common == "/" || strings.Contains(common, `\`) {
		return "", nil
	}
	rel := make([]string, len(dirs))
	for j, d := range dirs {
		rel[j] = d[len(common)+1:]
	}
	shorter = slices.Clone(data)
	shorter[i] = lowerdir + strings.Join(rel, ":")
	return common, shorter
}
