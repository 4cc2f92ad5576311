// Package spec makes what a container needs to be run without an image: an OCI
// specification with the defaults of `runc spec`, one read from an existing bundle, and
// a root filesystem made of a static busybox.
package spec

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// version is the oldest that has all that is used here; crun 1.8 refuses newer ones.
const version = "1.0.2"

// Options are what a caller may choose of a default specification.
type Options struct {
	Rootfs   string // absolute path
	ReadOnly bool
	Args     []string
	Env      []string // KEY=VALUE, after the defaults
	Dir      string   // working directory; empty is /
	Terminal bool
	HostPID  bool // join the host's pid namespace
	Cgroup   string
}

// Default is a specification with the capabilities, mounts and namespaces that
// `runc spec` writes, and a cgroup namespace where the kernel has one.
func Default(o Options) *specs.Spec {
	s := &specs.Spec{
		Version: version,
		Process: &specs.Process{
			Terminal: o.Terminal,
			Args:     o.Args,
			Env:      env(o),
			Cwd:      o.Dir,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities(), Effective: capabilities(), Permitted: capabilities(),
			},
			NoNewPrivileges: true,
		},
		Root:     &specs.Root{Path: o.Rootfs, Readonly: o.ReadOnly},
		Hostname: "lark",
		Mounts:   mounts(),
		Linux: &specs.Linux{
			CgroupsPath: o.Cgroup,
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
				"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if s.Process.Cwd == "" {
		s.Process.Cwd = "/"
	}
	kinds := []specs.LinuxNamespaceType{specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.NetworkNamespace}
	if !o.HostPID {
		kinds = append(kinds, specs.PIDNamespace)
	}
	if _, err := os.Stat("/proc/self/ns/cgroup"); err == nil {
		kinds = append(kinds, specs.CgroupNamespace)
	}
	for _, k := range kinds {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k})
	}
	return s
}

func capabilities() []string {
	return []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
}

// env is the least environment; TERM is the client's business, as containerd has it.
func env(o Options) []string {
	e := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if o.Terminal {
		term := os.Getenv("TERM")
		if term == "" {
			term = "xterm"
		}
		e = append(e, "TERM="+term)
	}
	return append(e, o.Env...)
}

func mounts() []specs.Mount {
	quiet := []string{"nosuid", "noexec", "nodev"}
	with := func(more ...string) []string { return append(slices.Clone(quiet), more...) }
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: with("mode=1777", "size=65536k")},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: quiet},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: with("ro")},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: with("relatime", "ro")},
	}
}

// FromBundle reads config.json of a bundle and makes it independent of where it lies:
// paths that the OCI specification resolves against the bundle become absolute. Args,
// Terminal, Dir and Cgroup of o replace what the bundle says where they are set.
func FromBundle(bundle string, o Options) (*specs.Spec, error) {
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read %s/config.json: %w: %w", bundle, err, errdefs.ErrInvalidArgument)
	}
	if s.Process == nil || s.Root == nil || s.Linux == nil {
		return nil, fmt.Errorf("%s/config.json lacks process, root or linux: %w", bundle, errdefs.ErrInvalidArgument)
	}
	if !filepath.IsAbs(s.Root.Path) {
		s.Root.Path = filepath.Join(bundle, s.Root.Path)
	}
	for i, m := range s.Mounts {
		if isBind(m) && !filepath.IsAbs(m.Source) {
			s.Mounts[i].Source = filepath.Join(bundle, m.Source)
		}
	}
	if len(o.Args) > 0 {
		s.Process.Args = o.Args
	}
	if o.Dir != "" {
		s.Process.Cwd = o.Dir
	}
	s.Process.Env = append(s.Process.Env, o.Env...)
	s.Process.Terminal = o.Terminal
	s.Linux.CgroupsPath = o.Cgroup
	return &s, nil
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.ContainsFunc(m.Options, func(o string) bool { return strings.TrimPrefix(o, "r") == "bind" })
}
