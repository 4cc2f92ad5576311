package fakeruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a process by its identity.
type process struct {
	Pid  int
	Born string // field 22 of /proc/PID/stat, so that a pid that was given away is not taken for it
}

// looked reads a process's identity.
func looked(pid int) (*process, error) {
	f, err := statOf(pid)
	if err != nil {
		return nil, err
	}
	return &process{Pid: pid, Born: f[19]}, nil
}

// statOf has the fields of /proc/PID/stat after the name: the state first.
func statOf(pid int) ([]string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return nil, fmt.Errorf("pid %d: short stat", pid)
	}
	return f, nil
}

// alive says that the process is there and no zombie.
func (p *process) alive() bool {
	f, err := statOf(p.Pid)
	return err == nil && f[19] == p.Born && f[0] != "Z" && f[0] != "X"
}

// waitDead returns when the process is a zombie or gone. It is somebody else's child, maybe; a pidfd tells all the same.
func (p *process) waitDead() error {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return nil // reaped
	}
	defer unix.Close(fd)
	for p.alive() {
		// A pidfd becomes readable when the process is dead; the time out is for a pid namespace whose init waits for
		// others to be reaped.
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return nil
}

// record of a container, as it lies in the root.
type record struct {
	Init    process
	Bundle  string
	Execs   []process `json:",omitempty"`
	Paused  bool
	Started bool
	Cgroup  string
	Private bool // has a pid namespace of its own
	// Init, as runc writes it down.
	InitPid   int    `json:"init_process_pid"`
	InitStart uint64 `json:"init_process_start"`
}

func (c *call) home() string { return filepath.Join(c.root(), c.id) }

func (c *call) fifo() string { return filepath.Join(c.home(), "exec.fifo") }

// open reads the container that the command is about.
func (c *call) open() (*record, error) {
	b, err := os.ReadFile(filepath.Join(c.home(), "state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, failf("container does not exist")
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, err
	}
	c.init = &r.Init
	return r, nil
}

func (c *call) save(r *record) error {
	r.InitPid = r.Init.Pid
	r.InitStart, _ = strconv.ParseUint(r.Init.Born, 10, 64)
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(c.home(), fmt.Sprintf("state.%d", os.Getpid()))
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(c.home(), "state.json"))
}

// change alters a container's record, one call at a time.
func (c *call) change(alter func(r *record) error) error {
	lock, err := os.OpenFile(filepath.Join(c.home(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return failf("container does not exist")
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	r, err := c.open()
	if err != nil {
		return err
	}
	if err := alter(r); err != nil {
		return err
	}
	return c.save(r)
}

// status is runc's word for the state.
func (r *record) status() string {
	switch {
	case !r.Init.alive():
		return "stopped"
	case r.Paused:
		return "paused"
	case r.Started:
		return "running"
	}
	return "created"
}

// seen is the status as this runtime sees it.
func (c *call) seen(r *record) string {
	if c.profile.StaysPaused && r.Paused {
		return "paused"
	}
	return r.status()
}

func (c *call) start() error {
	r, err := c.open()
	if err != nil {
		return err
	}
	if s := r.status(); s != "created" {
		return failf("cannot start a container in the %s state", s)
	}
	if err := c.release(&r.Init); err != nil {
		return err
	}
	return c.change(func(r *record) error { r.Started = true; return nil })
}

// release lets a parked init go.
func (c *call) release(init *process) error {
	for {
		// ENXIO until init has come to open its end, a moment after it was forked.
		fd, err := unix.Open(c.fifo(), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte("\n"))
			unix.Close(fd)
			return err
		}
		if !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.EINTR) || !init.alive() {
			return failf("cannot start a container that has stopped")
		}
		time.Sleep(time.Millisecond)
	}
}

func (c *call) state() error {
	r, err := c.open()
	if err != nil {
		return err
	}
	pid := r.Init.Pid
	if c.seen(r) == "stopped" {
		pid = 0
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"ociVersion": "1.0.2", "id": c.id, "pid": pid, "status": c.seen(r), "bundle": r.Bundle, "rootfs": "/",
	})
}

// members are the living processes that were made for the container.
func (r *record) members() []process {
	var all []process
	for _, p := range append([]process{r.Init}, r.Execs...) {
		if p.alive() {
			all = append(all, p)
		}
	}
	return all
}

func (c *call) ps() error {
	r, err := c.open()
	if err != nil {
		return err
	}
	pids := []int{}
	for _, p := range r.members() {
		pids = append(pids, p.Pid)
	}
	return json.NewEncoder(os.Stdout).Encode(pids)
}

func (c *call) kill() error {
	r, err := c.open()
	if err != nil {
		return err
	}
	sig := unix.SIGTERM
	if len(c.args) > 0 {
		n, err := strconv.Atoi(c.args[0])
		if err != nil {
			if n = int(unix.SignalNum("SIG" + strings.TrimPrefix(c.args[0], "SIG"))); n == 0 {
				return failf("unknown signal %q", c.args[0])
			}
		}
		sig = unix.Signal(n)
	}
	if c.has("all") || c.has("a") {
		for _, p := range r.members() {
			unix.Kill(p.Pid, sig)
		}
		return nil
	}
	if !r.Init.alive() {
		return failf("container not running")
	}
	return unix.Kill(r.Init.Pid, sig)
}

func (c *call) delete() error {
	force := c.has("force") || c.has("f")
	r, err := c.open()
	if err != nil {
		if _, statErr := os.Stat(c.home()); force && os.IsNotExist(statErr) {
			return nil
		}
		return err
	}
	if s := c.seen(r); s == "running" || s == "paused" {
		if !force {
			return failf("cannot delete container %s that is not stopped: %s", c.id, s)
		}
	}
	for _, p := range r.members() {
		unix.Kill(p.Pid, unix.SIGKILL)
		if p == r.Init || !r.Private {
			if err := p.waitDead(); err != nil {
				return err
			}
		}
	}
	if r.Cgroup != "" {
		removeCgroup(r.Cgroup)
	}
	return os.RemoveAll(c.home())
}

func (c *call) pause() error {
	return c.change(func(r *record) error {
		if s := r.status(); s != "running" && s != "created" {
			return failf("container not running or created: %s", s)
		}
		r.Paused = true
		return signalAll(r, unix.SIGSTOP)
	})
}

func (c *call) resume() error {
	return c.change(func(r *record) error {
		if s := c.seen(r); s != "paused" {
			return failf("container not paused: %s", s)
		}
		r.Paused = false
		return signalAll(r, unix.SIGCONT)
	})
}

func signalAll(r *record, sig unix.Signal) error {
	for _, p := range r.members() {
		if err := unix.Kill(p.Pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// update takes resources that are JSON and does nothing with them but keep them, in the container's directory.
func (c *call) update() error {
	r, err := c.open()
	if err != nil {
		return err
	}
	if r.status() == "stopped" {
		return failf("container not running")
	}
	name := c.flags["resources"]
	if name == "-" || name == "" {
		name = "/dev/stdin"
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var anything map[string]any
	if err := json.Unmarshal(b, &anything); err != nil {
		return failf("cannot read resources: %v", err)
	}
	return os.WriteFile(filepath.Join(c.home(), "resources.json"), b, 0o600)
}

func (c *call) checkpoint() error {
	r, err := c.open()
	if err != nil {
		return err
	}
	if s := r.status(); s != "running" && s != "paused" {
		return failf("cannot checkpoint a container in the %s state", s)
	}
	image := c.flags["image-path"]
	if image == "" {
		return failf("no --image-path given")
	}
	if err := os.MkdirAll(image, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(image, imageName), []byte(c.id), 0o600); err != nil {
		return err
	}
	if c.has("leave-running") {
		return nil
	}
	return c.killAndWait(&r.Init, int64(unix.SIGKILL))
}

// imageName is the file in an image directory that makes it one.
const imageName = "fake.img"

func (c *call) features() error {
	_, err := os.Stdout.WriteString(`{"ociVersionMin":"1.0.0","ociVersionMax":"1.0.2","mountOptions":["ro","rro","rbind"]}` + "\n")
	return err
}

func (c *call) version() error {
	_, err := os.Stdout.WriteString("fake version 1.0.0\nspec: 1.0.2\n")
	return err
}
