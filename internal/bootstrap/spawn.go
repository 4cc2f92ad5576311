package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/cgroup"
)

// debugLevel is slog.LevelDebug, which is the number that BootstrapParams use too.
const debugLevel = -4

// spawn starts the serving process behind the socket. undo kills it and removes the
// socket; on an error that has been done.
func (s *starter) spawn(socket *os.File, path string) (undo func() error, err error) {
	defer socket.Close()
	id, err := identityOf(path)
	if err != nil {
		// It is ours still: nobody replaces a socket that listens.
		return nil, errors.Join(err, os.Remove(path))
	}
	var pid int
	undo = func() error {
		var killed error
		if pid > 0 { // our child, whom nobody else reaps: the number is its own
			killed = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
		return errors.Join(killed, removeSocket(path, id))
	}
	if pid, err = s.fork(socket); err == nil {
		err = s.adopt(pid)
	}
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// fork executes this binary again, as the server: in a process group of its own, so
// that a signal to ours does not reach it, with nothing of ours but the socket. It does
// without os.StartProcess, whose first use forks once more, to see whether pidfds work.
func (s *starter) fork(socket *os.File) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	if os.Getenv("SCHED_CORE") != "" {
		// Core scheduling is a property of threads that fork(2) hands on.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, 0, unix.PR_SCHED_CORE_SCOPE_PROCESS_GROUP, 0); err != nil {
			return 0, fmt.Errorf("core scheduling: %w", err)
		}
	}
	pid, err = syscall.ForkExec(ownProgram, s.args(), &syscall.ProcAttr{
		Dir: s.bundle.Path(),
		Env: s.env(),
		// Not our outputs: containerd waits until all who hold them have gone.
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), socket.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	runtime.KeepAlive(socket)
	if err != nil {
		return 0, &os.PathError{Op: "fork/exec", Path: ownProgram, Err: err}
	}
	return pid, nil
}

// ownProgram is the file that runs, whatever name containerd found it by. That name
// may be another program's by now: during an upgrade it would be run with arguments
// of ours.
const ownProgram = "/proc/self/exe"

// nameThreads gives the process and its threads the name that ps and pgrep would show
// if it had been executed by its path, see proc_pid_comm(5). It is for show only.
func nameThreads(name string) {
	threads, _ := filepath.Glob("/proc/self/task/[0-9]*/comm")
	for _, comm := range threads {
		_ = os.WriteFile(comm, []byte(name), 0)
	}
}

func (s *starter) args() []string {
	args := []string{
		os.Args[0], // ps shows the name by which containerd knows it
		"-namespace", s.ns.String(),
		"-id", s.id.String(),
		"-address", s.request.grpcAddress,
	}
	switch level := s.request.logLevel; {
	case level <= debugLevel:
		args = append(args, "-debug")
	case level != 0:
		args = append(args, "-log-level", strconv.Itoa(level))
	}
	return args
}

func (s *starter) env() []string {
	replaced := []string{"GOMAXPROCS=", "TTRPC_ADDRESS="}
	ttrpc := s.request.ttrpcAddress
	if ttrpc == "" {
		ttrpc = os.Getenv("TTRPC_ADDRESS")
	}
	env := make([]string, 0, len(os.Environ())+2)
	for _, kv := range os.Environ() {
		if !hasAnyPrefix(kv, replaced) {
			env = append(env, kv)
		}
	}
	return append(env, "GOMAXPROCS="+serverProcs, "TTRPC_ADDRESS="+ttrpc)
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// adopt gives the new process its place: the cgroup that the options name, and a
// score that makes the kernel's OOM killer prefer it to containerd.
func (s *starter) adopt(pid int) error {
	if path := s.request.options.GetShimCgroup(); path != "" {
		host, err := cgroup.NewHost()
		if err != nil {
			return err
		}
		if err := host.JoinShim(path, pid); err != nil {
			return fmt.Errorf("shim cgroup: %w", err)
		}
	}
	return adjustOOMScore("/proc", os.Getppid(), pid)
}

// adjustOOMScore makes the shim's score one more than containerd's. Where that would
// be a decrease it takes CAP_SYS_RESOURCE; a shim without it is no worse than before.
func adjustOOMScore(proc string, containerd, pid int) error {
	file := func(pid int) string { return proc + "/" + strconv.Itoa(pid) + "/oom_score_adj" }
	data, err := os.ReadFile(file(containerd))
	if err != nil {
		return nil // containerd has just ended, or is outside our pid namespace
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("OOM score of containerd: %w", err)
	}
	score = min(score+1, oomScoreMax)
	err = os.WriteFile(file(pid), []byte(strconv.Itoa(score)), 0)
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("OOM score of the shim: %w", err)
	}
	return nil
}
