package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// setupFailed is the status of a sandbox that could not be entered; `go test` uses 0 to 2.
	setupFailed = 125
	// signalled is what shells add to a signal's number to make a status of it.
	signalled = 128
)

// covered are the directories a sandbox has its own of.
var covered = []string{"/run", "/tmp", "/var/lib"}

// runInit is pid 1 of the sandbox. It is the parent of every orphan in there, so it reaps whatever ends, until the command does.
func runInit() int {
	p, err := readPlan()
	if err == nil {
		err = enterCgroups(p.Cgroups)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return setupFailed
	}
	setup := exec.Command("/proc/self/exe")
	setup.Env = append(os.Environ(), stageVariable+"="+stageSetup)
	setup.Stdout, setup.Stderr = os.Stdout, os.Stderr
	// Only now, so that the cgroups entered above are the roots that the command sees.
	setup.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWCGROUP}
	if err := setup.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return setupFailed
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "sandbox: wait:", err)
			return setupFailed
		case pid != setup.Process.Pid:
		case status.Signaled():
			fmt.Fprintln(os.Stderr, "sandbox: command ended by", status.Signal())
			return signalled + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}

// runSetup makes the mounts and becomes the command; it returns only an error.
func runSetup() error {
	p, err := readPlan()
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := mountCgroups(); err != nil {
		return err
	}
	if err := coverDirectories(p); err != nil {
		return err
	}
	if err := unix.Mount(filepath.Join("/run/lark-sandbox", "hosts"), "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /etc/hosts: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := os.Chdir(p.Dir); err != nil {
		return err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, stageVariable+"=") || strings.HasPrefix(v, planVariable+"=")
	})
	return fmt.Errorf("run %s: %w", p.Argv[0], unix.Exec(p.Argv[0], p.Argv, env))
}

// coverDirectories puts the sandbox's own directories over the machine's, and what is to be kept back on top.
func coverDirectories(p *plan) error {
	kept := map[string]int{} // directory -> descriptor of it, taken while it can still be seen
	for _, dir := range append(slices.Clone(p.Keep), p.Private) {
		under := slices.ContainsFunc(covered, func(c string) bool { return strings.HasPrefix(dir+"/", c+"/") })
		if !under {
			continue
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
		kept[dir] = fd
	}
	private, err := unix.Open(p.Private, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	from := func(fd int, name string) string { return filepath.Join(fmt.Sprintf("/proc/self/fd/%d", fd), name) }
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for dir, name := range map[string]string{"/var/lib": "lib", "/tmp": "tmp"} {
		if err := unix.Mount(from(private, name), dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	kept["/run/lark-sandbox"] = private
	for dir, fd := range kept {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from(fd, ""), dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("keep %s: %w", dir, err)
		}
	}
	return nil
}

// loopbackUp brings up the only device a new network namespace has.
func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

func readPlan() (*plan, error) {
	p := &plan{}
	if err := json.Unmarshal([]byte(os.Getenv(planVariable)), p); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}

// mountpoint is a line of /proc/self/mountinfo.
type mountpoint struct {
	Path, Type, Options string
	Root                string // what of the file system is mounted there
}

// mountpoints lists the mounts this process sees, in the order they were made.
func mountpoints() ([]mountpoint, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var mounts []mountpoint
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			return nil, fmt.Errorf("mountinfo: %q", lines.Text())
		}
		mounts = append(mounts, mountpoint{Root: left[3], Path: left[4], Type: right[0], Options: right[2]})
	}
	return mounts, lines.Err()
}
