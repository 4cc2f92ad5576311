package fakeruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// parked is what init is until start: a shell that waits for a line in a fifo, and then becomes the container's process.
const parked = `read _ < "$0" || exit 1; exec "$@"`

func (c *call) create() error { return c.makeInit(true) }

// restore makes init anew from the bundle and lets it run at once, if there is an image to restore.
func (c *call) restore() error {
	if _, err := os.Stat(filepath.Join(c.flags["image-path"], imageName)); err != nil {
		return failf("criu failed: type NOTIFY errno 0: no image: %v", err)
	}
	return c.makeInit(false)
}

func (c *call) makeInit(waits bool) error {
	bundle := c.flags["bundle"]
	if bundle == "" {
		bundle = "."
	}
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return err
	}
	var spec specs.Spec
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return failf("JSON specification file config.json not found")
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return failf("cannot read config.json: %v", err)
	}
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return failf("process.args must not be empty")
	}
	if err := os.MkdirAll(c.root(), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(c.home(), 0o700); err != nil {
		return failf("container with given ID already exists")
	}
	if err = c.forkInit(&spec, bundle, waits); err != nil && c.init == nil {
		os.RemoveAll(c.home()) // nothing was made of it
	}
	return err
}

func (c *call) forkInit(spec *specs.Spec, bundle string, waits bool) error {
	if _, err := lookPath(spec.Process); err != nil {
		return err
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", parked, c.fifo()}, spec.Process.Args...)...)
	if err := unix.Mkfifo(c.fifo(), 0o600); err != nil {
		return err
	}
	r := &record{Bundle: bundle, Started: !waits}
	join := ""
	if spec.Linux != nil {
		for _, ns := range spec.Linux.Namespaces {
			if ns.Type == specs.PIDNamespace {
				join, r.Private = ns.Path, ns.Path == ""
			}
		}
		if c.profile.Cgroup {
			r.Cgroup = spec.Linux.CgroupsPath
		}
	}
	p, err := c.fork(cmd, spec.Process, join, r.Private)
	if err != nil {
		return err
	}
	c.init = p
	r.Init = *p
	if r.Cgroup != "" {
		if err := joinCgroup(r.Cgroup, p.Pid); err != nil {
			unix.Kill(p.Pid, unix.SIGKILL)
			return err
		}
	}
	if !waits {
		if err := c.release(p); err != nil {
			return err
		}
	}
	return c.announce(p, func() error { return c.save(r) })
}

// announce takes the steps around the pid file.
func (c *call) announce(p *process, known func() error) error {
	if err := c.at("forked"); err != nil {
		return err
	}
	if err := known(); err != nil {
		return err
	}
	if file := c.flags["pid-file"]; file != "" && !c.noPidFile {
		text := strings.NewReplacer(
			"{pid}", strconv.Itoa(p.Pid),
			"{runtime}", strconv.Itoa(os.Getpid()),
			"{parent}", strconv.Itoa(os.Getppid()),
			"{dead}", deadPid(c.pidFile),
		).Replace(c.pidFile)
		tmp := filepath.Join(filepath.Dir(file), "."+filepath.Base(file))
		if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Rename(tmp, file); err != nil {
			return err
		}
	}
	return c.at("written")
}

// deadPid is the pid of a process that has been and is not, if text asks for one.
func deadPid(text string) string {
	if !strings.Contains(text, "{dead}") {
		return ""
	}
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		return ""
	}
	return strconv.Itoa(cmd.Process.Pid)
}

func (c *call) exec() error {
	r, err := c.open()
	if err != nil {
		return err
	}
	if s := r.status(); s != "running" && s != "created" {
		return failf("cannot exec in a %s container", s)
	}
	var spec specs.Process
	b, err := os.ReadFile(c.flags["process"])
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return failf("cannot read the process: %v", err)
	}
	if len(spec.Args) == 0 {
		return failf("process.args must not be empty")
	}
	path, err := lookPath(&spec)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, spec.Args[1:]...)
	cmd.Args[0] = spec.Args[0]
	p, err := c.fork(cmd, &spec, fmt.Sprintf("/proc/%d/ns/pid", r.Init.Pid), false)
	if err != nil {
		return failf("exec failed: %v", err)
	}
	c.process = p
	if r.Cgroup != "" {
		if err := joinCgroup(r.Cgroup, p.Pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return c.announce(p, func() error {
		return c.change(func(r *record) error {
			r.Execs = append(r.Execs, *p)
			return nil
		})
	})
}

// lookPath finds the program in the process's own PATH, as there is no root filesystem to look in.
func lookPath(p *specs.Process) (string, error) {
	name := p.Args[0]
	if !strings.Contains(name, "/") {
		for _, e := range p.Env {
			if path, ok := strings.CutPrefix(e, "PATH="); ok {
				os.Setenv("PATH", path)
			}
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", failf("unable to start container process: exec: %q: executable file not found in $PATH", name)
	}
	return path, nil
}

// fork starts a process in a session of its own, with the runtime's stdio or a new terminal, in a new pid namespace or
// in the one at path. It is this process's child and becomes the subreaper's when the runtime exits.
func (c *call) fork(cmd *exec.Cmd, spec *specs.Process, pidns string, private bool) (*process, error) {
	cmd.Env = spec.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if private {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
	}
	var sent func() error
	if socket := c.flags["console-socket"]; socket != "" {
		slave, send, err := c.terminal(socket)
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr.Setctty = true
		sent = send
	}
	if err := startIn(cmd, pidns); err != nil {
		return nil, err
	}
	p, err := looked(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	c.record("started", *p)
	if sent != nil {
		return p, sent()
	}
	return p, nil
}

// startIn starts cmd in the pid namespace at path, "" for ours. Joining is the thread's and is for its children only.
func startIn(cmd *exec.Cmd, path string) error {
	if path == "" {
		return cmd.Start()
	}
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	if same, err := sameNamespace(ns); err != nil || same {
		if err != nil {
			return err
		}
		return cmd.Start()
	}
	runtime.LockOSThread()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWPID); err != nil {
		return err
	}
	return cmd.Start()
}

func sameNamespace(ns *os.File) (bool, error) {
	a, err := ns.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Stat("/proc/self/ns/pid")
	return err == nil && os.SameFile(a, b), err
}

// grandchild leaves a process with our stdio.
func (c *call) grandchild() error {
	cmd := exec.Command("/bin/sleep", "100000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	p, err := looked(cmd.Process.Pid)
	if err != nil {
		return err
	}
	c.record("grandchild", *p)
	return nil
}
