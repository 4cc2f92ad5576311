package children

// How this program forks: a vfork during which its other goroutines go on.
//
// syscall.StartProcess keeps the scheduler's P until the child has executed its
// program. An execve that takes long (an on-access scanner, a slow file system)
// then stops every goroutine where GOMAXPROCS is 1, and elsewhere the next
// collection of garbage does (F11, FAULTS.md). Here the goroutine is in a system
// call meanwhile, and its P runs others. Forks overlap for the same reason.
//
// fork_vfork.go has the runtime's part, and fork_plain.go stands in for it where
// the architecture or the build tag lark_plainfork leaves it out.

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/children/internal/nofile"
)

// step is a system call that the child makes before its program runs. The
// assembly knows its layout.
type step struct {
	trap, a, b, c, d uintptr
	// expect says what becomes of the result, want what it has to be.
	expect, want uintptr
}

// The values of step.expect. The assembly knows the numbers.
const (
	mustSucceed = iota // an error ends the child and is reported
	mayFail            // the result is ignored
	mustEqual          // a result other than want ends the child: the parent has died
)

// script is what a child does between the fork and its program, worked out
// before the fork: the child runs in the parent's memory and may only make
// system calls. The steps hold addresses as numbers, so that everything they
// point at hangs on the script, which is on the heap and is kept until the
// parent goes on.
type script struct {
	flags  uintptr
	pidfd  *atomic.Int32
	report report
	steps  []step
	// bare is how many steps are left when the child has no descriptor of the
	// parent's any more; -1 if that is so only when its program runs.
	bare int

	path, dir  *byte
	argv, envv []*byte
	groups     []uint32
	limit      nofile.Limit
}

// report is what the child writes for its parent. The assembly knows its layout.
type report struct {
	failed atomic.Uintptr // the error number of the step that failed
	left   atomic.Uintptr // how many steps are to be made yet
}

// vforkable tells whether a script can do what attr asks for. The rest, which
// lark does not use, is left to Go's own fork.
func vforkable(sys *syscall.SysProcAttr) bool {
	return sys.Chroot == "" && !sys.Ptrace && !sys.Setctty && !sys.Noctty &&
		!sys.Foreground && sys.Cloneflags&^namespaces == 0 &&
		sys.Unshareflags == 0 && sys.UidMappings == nil && sys.GidMappings == nil &&
		sys.AmbientCaps == nil && !sys.UseCgroupFD
}

// namespaces are the flags of clone(2) that a script takes. A user namespace is
// made by a real fork, as its maps are written meanwhile.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID |
	unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// newScript makes the script for a program. attr.Sys is vforkable. It is not
// inlined, as the script has to be on the heap.
//
//go:noinline
func newScript(path string, argv []string, attr *syscall.ProcAttr, f *flight) (s *script, err error) {
	s = &script{pidfd: &f.pidfd, bare: -1, steps: make([]step, 0, 16+2*len(attr.Files))}
	s.flags = unix.CLONE_VFORK | unix.CLONE_VM | unix.CLONE_PIDFD | attr.Sys.Cloneflags | uintptr(unix.SIGCHLD)
	if s.path, err = syscall.BytePtrFromString(path); err != nil {
		return nil, err
	}
	if s.argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return nil, err
	}
	if s.envv, err = syscall.SlicePtrFromStrings(attr.Env); err != nil {
		return nil, err
	}
	if attr.Dir != "" {
		if s.dir, err = syscall.BytePtrFromString(attr.Dir); err != nil {
			return nil, err
		}
	}
	s.identity(attr.Sys)
	if s.dir != nil {
		s.do(unix.SYS_CHDIR, address(s.dir), 0, 0, 0)
	}
	s.deathSignal(attr.Sys)
	closed := s.descriptors(attr.Files)
	if limit, ok := nofile.Restore(); ok {
		s.limit = limit
		s.add(step{trap: unix.SYS_PRLIMIT64, b: unix.RLIMIT_NOFILE, c: address(&s.limit), expect: mayFail})
	}
	s.do(unix.SYS_EXECVE, address(s.path), address(&s.argv[0]), address(&s.envv[0]), 0)
	if closed > 0 {
		s.bare = len(s.steps) - closed
	}
	s.report.left.Store(uintptr(len(s.steps)))
	return s, nil
}

// address is where something on the heap lies. The heap does not move.
func address[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

func (s *script) add(st step) { s.steps = append(s.steps, st) }

func (s *script) do(trap, a, b, c, d uintptr) { s.add(step{trap: trap, a: a, b: b, c: c, d: d}) }

// identity sets session, process group, and user.
func (s *script) identity(sys *syscall.SysProcAttr) {
	if sys.Setsid {
		s.do(unix.SYS_SETSID, 0, 0, 0, 0)
	}
	if sys.Setpgid {
		s.do(unix.SYS_SETPGID, 0, uintptr(sys.Pgid), 0, 0)
	}
	cred := sys.Credential
	if cred == nil {
		return
	}
	if !cred.NoSetGroups {
		var first uintptr
		if s.groups = append(s.groups, cred.Groups...); len(s.groups) > 0 {
			first = address(&s.groups[0])
		}
		s.do(unix.SYS_SETGROUPS, uintptr(len(s.groups)), first, 0, 0)
	}
	s.do(unix.SYS_SETGID, uintptr(cred.Gid), 0, 0, 0)
	s.do(unix.SYS_SETUID, uintptr(cred.Uid), 0, 0, 0)
}

// deathSignal asks for a signal at the death of the thread that forks
// (PR_SET_PDEATHSIG in prctl(2)). A parent that died before sends none, so the
// child ends by itself if it has another parent by then; in a pid namespace of
// its own it cannot see that. A change of user clears the setting: it comes after
// identity.
func (s *script) deathSignal(sys *syscall.SysProcAttr) {
	if sys.Pdeathsig == 0 {
		return
	}
	s.do(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(sys.Pdeathsig), 0, 0)
	if sys.Cloneflags&unix.CLONE_NEWPID == 0 {
		s.add(step{trap: unix.SYS_GETPPID, expect: mustEqual, want: uintptr(syscall.Getpid())})
	}
}

// descriptors gives the child files as its descriptors from 0 on, and no other.
// They are closed here, not only marked close-on-exec: a child whose execve
// takes long would hold pipes of others open until then. It returns the number of
// steps after which that is so; 0 if the kernel cannot do it.
func (s *script) descriptors(files []uintptr) (closed int) {
	fds := make([]uintptr, len(files))
	next := uintptr(len(files))
	for i, fd := range files {
		fds[i] = fd
		next = max(next, fd+1)
	}
	// A descriptor whose number a later one is to have moves out of the way.
	for i, fd := range fds {
		if fd < uintptr(i) {
			s.do(unix.SYS_DUP3, fd, next, unix.O_CLOEXEC, 0)
			fds[i] = next
			next++
		}
	}
	for i, fd := range fds {
		if fd == uintptr(i) { // dup3 refuses equal numbers
			s.do(unix.SYS_FCNTL, fd, unix.F_SETFD, 0, 0)
		} else {
			s.do(unix.SYS_DUP3, fd, uintptr(i), 0, 0)
		}
	}
	for i := len(fds); i < 3; i++ {
		s.add(step{trap: unix.SYS_CLOSE, a: uintptr(i), expect: mayFail})
	}
	if !closesRange() {
		return 0
	}
	s.do(unix.SYS_CLOSE_RANGE, uintptr(len(fds)), maxDescriptor, 0, 0)
	return len(s.steps)
}

// isBare tells whether the child has closed the parent's descriptors.
func (s *script) isBare() bool { return int(s.report.left.Load()) <= s.bare }

// maxDescriptor is the last number that close_range(2) takes.
const maxDescriptor = 1<<32 - 1

// closesRange tells whether the kernel has close_range(2): Linux 5.9.
var closesRange = sync.OnceValue(func() bool {
	return unix.CloseRange(maxDescriptor, maxDescriptor, 0) == nil
})

// flight is a fork that is under way.
type flight struct {
	// pidfd is the child's from the moment it exists, before its program runs; -1
	// until then. The kernel sets it.
	pidfd atomic.Int32

	mu     sync.Mutex // guards that pidfd is open while it is used
	landed bool       // the child has executed its program, or has exited
}

func newFlight() *flight {
	f := new(flight)
	f.pidfd.Store(-1)
	return f
}

// kill kills a child that has not executed its program yet. It returns false if
// there is no child yet, so that kill is to be called again.
func (f *flight) kill(sys system) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.landed {
		return true
	}
	fd := int(f.pidfd.Load())
	if fd < 0 {
		return false
	}
	_ = retry(func() error { return sys.pidfdSignal(fd, unix.SIGKILL) })
	return true
}

func (f *flight) land() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.landed = true
}

// forkExec forks and executes as syscall.StartProcess does.
func forkExec(path string, argv []string, attr *syscall.ProcAttr, f *flight) (pid int, err error) {
	if !canVfork || !vforkable(attr.Sys) {
		defer f.land()
		pid, _, err = syscall.StartProcess(path, argv, attr)
		return pid, err
	}
	s, err := newScript(path, argv, attr, f)
	if err != nil {
		return 0, err
	}
	leave := forks.enter(s.isBare)
	child, errno := vfork(s)
	leave()
	f.land()
	runtime.KeepAlive(s)
	if failed := s.report.failed.Load(); errno == 0 && failed != 0 {
		errno = failed
		discard(int(child), int(f.pidfd.Load()))
	}
	if errno != 0 {
		return 0, syscall.Errno(errno)
	}
	if attr.Sys.PidFD != nil {
		*attr.Sys.PidFD = int(f.pidfd.Load())
	}
	return int(child), nil
}

// discard reaps a child that could not execute its program and has exited.
func discard(pid, pidfd int) {
	_ = retry(func() error {
		_, err := unix.Wait4(pid, nil, 0, nil)
		return err
	})
	unix.Close(pidfd)
}

// forkGate holds syscall.ForkLock while children have descriptors of the parent.
// ForkLock keeps forks apart from those who make a descriptor and mark it
// close-on-exec later, or who write a program and close it. Forks need not be kept
// apart from each other: the first locks, the last unlocks. A child whose execve
// takes long has closed the descriptors before, and does not count then.
//
// Forks that take no longer than usual go one after the other all the same: many at
// once would contend for the Ps that they have given up.
type forkGate struct {
	turn  chan struct{} // holds one token while no fork of usual length is under way
	mu    sync.Mutex
	under int
}

var forks = newForkGate()

func newForkGate() *forkGate {
	g := &forkGate{turn: make(chan struct{}, 1)}
	g.turn <- struct{}{}
	return g
}

// enter enters a fork, which leave ends when the program runs. A fork that takes
// longer than bareWait passes its turn on, and leaves ForkLock as soon as bare says
// that the child has closed the descriptors.
func (g *forkGate) enter(bare func() bool) (leave func()) {
	<-g.turn
	g.lock()
	var once, turn sync.Once
	pass := func() { g.turn <- struct{}{} }
	over := make(chan struct{})
	look := afterFunc(slog.Default(), "fork", bareWait, func() {
		turn.Do(pass)
		for !bare() {
			select {
			case <-over:
				return
			case <-time.After(bareWait):
			}
		}
		once.Do(g.unlock)
	})
	return func() {
		close(over)
		look.Stop()
		once.Do(g.unlock)
		turn.Do(pass)
	}
}

func (g *forkGate) lock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.under == 0 {
		syscall.ForkLock.Lock()
	}
	g.under++
}

func (g *forkGate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.under--; g.under == 0 {
		syscall.ForkLock.Unlock()
	}
}
