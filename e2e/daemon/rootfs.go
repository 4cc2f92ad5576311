package daemon

// A root filesystem of busybox, and the spec of a container in it.

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// applets are the commands that a busybox root filesystem offers.
var applets = []string{"sh", "true", "false", "sleep", "cat", "echo", "head", "kill", "ls", "mkdir", "ps", "dd", "top", "id", "env", "test", "seq", "hostname", "mount", "stty", "tty", "yes", "wc", "rm", "touch", "nproc", "setsid", "nohup", "usleep", "date", "grep"}

// BusyboxRootfs makes dir a root filesystem with the system's static busybox
// and the directories that mounts of a container need.
func BusyboxRootfs(dir string) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("a root filesystem is made of busybox-static: %w", err)
	}
	for _, sub := range []string{"bin", "dev", "proc", "sys", "tmp", "etc", "run", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := copyFile(busybox, filepath.Join(dir, "bin/busybox")); err != nil {
		return err
	}
	for _, name := range applets {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// SpecOpts vary the spec of a container.
type SpecOpts struct {
	Args     []string
	Terminal bool
	// HostPID lets the container share the machine's pid namespace.
	HostPID bool
	// PIDPath joins the pid namespace of another process, as "/proc/7/ns/pid".
	PIDPath string
	// Network gives a network namespace of its own; making one costs the kernel
	// some ten milliseconds, so storms go without.
	Network     bool
	Annotations map[string]string
	// Mutate, when not nil, has the last word.
	Mutate func(*specs.Spec)
}

// Spec is a container's spec: busybox, read-only, with a cgroup under the
// daemon's tag. Its version is 1.0.2, which crun 1.8 asks for.
func (d *Daemon) Spec(id string, o SpecOpts) *specs.Spec {
	s := &specs.Spec{
		Version:     "1.0.2",
		Root:        &specs.Root{Path: "rootfs", Readonly: true},
		Process:     Process(o.Args...),
		Hostname:    "lark",
		Annotations: o.Annotations,
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "size=16384k"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + d.Tag() + "/" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
		},
	}
	s.Process.Terminal = o.Terminal
	if !o.HostPID {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: o.PIDPath})
	}
	if o.Network {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	if o.Mutate != nil {
		o.Mutate(s)
	}
	return s
}

// Process is the process part of a spec, and an exec's, as root.
func Process(args ...string) *specs.Process {
	caps := []string{"CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID"}
	return &specs.Process{
		Args:         args,
		Cwd:          "/",
		Env:          []string{"PATH=/bin", "TERM=xterm"},
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
}
