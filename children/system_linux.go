package children

// The one way from this package to the kernel, narrow enough that a test can make the N-th call fail, for every N.
// EINTR is answered above it, in retry, so that a test can inject that too.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// system is the kernel, as far as this package uses it. Every call may fail, and may fail with EINTR.
type system interface {
	// pidfdOpen opens a non-blocking pidfd.
	pidfdOpen(pid int) (int, error)
	// pidfdSignal sends a signal through a pidfd.
	pidfdSignal(fd int, sig unix.Signal) error
	// waitid is waitid(2) with WEXITED|WNOHANG and, if peek, WNOWAIT. ok is false when there is nothing to report. (With
	// WNOHANG there is no EAGAIN, even for a non-blocking pidfd.)
	waitid(idType, id int, peek bool) (x exited, ok bool, err error)
	// killGroup sends a signal to a whole process group.
	killGroup(pgid int, sig unix.Signal) error
	// fork forks and executes, and returns when the child has done so. The
	// flight can be ended meanwhile.
	fork(path string, argv []string, attr *syscall.ProcAttr, f *flight) (pid int, err error)
	// readFile reads a file into buf, from its beginning; n == len(buf) means that there may be more.
	readFile(path string, buf []byte) (n int, err error)
	// subDirs gives the names of the directories in a directory.
	subDirs(path string) ([]string, error)
	// readLink reads a symbolic link.
	readLink(path string) (string, error)
	// writeFile writes data to an existing file in one write.
	writeFile(path, data string) error
	// bootTicks is CLOCK_BOOTTIME in the unit of /proc/PID/stat's start time.
	bootTicks() uint64
	// now is the wall clock.
	now() time.Time
}

// exited is what waitid tells of a dead child.
type exited struct {
	pid    int
	status uint32 // exit code, or 128+signal
}

// kernel is the real system.
type kernel struct{}

// pidfdNonblock is PIDFD_NONBLOCK, which is O_NONBLOCK; Linux 5.10 has it.
const pidfdNonblock = unix.O_NONBLOCK

func (kernel) pidfdOpen(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, pidfdNonblock)
	if !errors.Is(err, unix.EINVAL) {
		return fd, err
	}
	// Linux 5.4 to 5.9 knows no flags (and gives EINVAL for a thread's id as well: the second call then says so again).
	// A pidfd is close-on-exec from birth.
	if fd, err = unix.PidfdOpen(pid, 0); err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (kernel) pidfdSignal(fd int, sig unix.Signal) error {
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// childInfo is the part of siginfo_t that waitid fills in, as it lies in memory on 64-bit Linux (<asm/siginfo.h>: three
// ints, and the union begins at the next multiple of 8). It is as long as unix.Siginfo, which is as long as the kernel's.
type childInfo struct {
	signo, errno, code int32
	_                  int32
	pid                int32
	uid                uint32
	status             int32
	_                  [100]byte
}

// The two must have one size, or waitid would write past the end.
var _ [unsafe.Sizeof(unix.Siginfo{}) - unsafe.Sizeof(childInfo{})]struct{}
var _ [unsafe.Sizeof(childInfo{}) - unsafe.Sizeof(unix.Siginfo{})]struct{}

// cldExited is CLD_EXITED of <asm-generic/siginfo.h>; the other codes of WEXITED, CLD_KILLED and CLD_DUMPED, carry a
// signal instead of an exit code.
const cldExited = 1

func (kernel) waitid(idType, id int, peek bool) (exited, bool, error) {
	var info childInfo
	options := unix.WEXITED | unix.WNOHANG
	if peek {
		options |= unix.WNOWAIT
	}
	// Raw, as it does not block: the scheduler need not watch it (an ordinary call wakes its monitor thread).
	_, _, errno := unix.RawSyscall6(unix.SYS_WAITID, uintptr(idType), uintptr(id), uintptr(unsafe.Pointer(&info)), uintptr(options), 0, 0)
	if errno != 0 {
		return exited{}, false, errno
	}
	if info.pid == 0 {
		return exited{}, false, nil
	}
	x := exited{pid: int(info.pid), status: uint32(info.status)}
	if info.code != cldExited {
		x.status = 128 + uint32(info.status)&0x7f
	}
	return x, true, nil
}

func (kernel) killGroup(pgid int, sig unix.Signal) error {
	if pgid <= 1 { // -1 and 0 would mean everybody, and ourselves
		return unix.EINVAL
	}
	return unix.Kill(-pgid, sig)
}

func (kernel) fork(path string, argv []string, attr *syscall.ProcAttr, f *flight) (int, error) {
	return forkExec(path, argv, attr, f)
}

func (kernel) readFile(path string, buf []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

func (kernel) subDirs(path string) ([]string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, listSize)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return names, nil
		}
		names = parseDirents(buf[:n], names)
	}
}

// parseDirents appends the names of directories. getdents64(2): an inode and an offset of 8 bytes each, the length of
// the record (2), the type (1), the name up to a NUL. procfs and cgroupfs both tell the type.
func parseDirents(buf []byte, names []string) []string {
	const lengthAt, typeAt, nameAt = 16, 18, 19
	for len(buf) > nameAt {
		length := int(binary.NativeEndian.Uint16(buf[lengthAt:]))
		if length <= nameAt || length > len(buf) {
			return names
		}
		name, _, _ := bytes.Cut(buf[nameAt:length], []byte{0})
		if buf[typeAt] == unix.DT_DIR && string(name) != "." && string(name) != ".." {
			names = append(names, string(name))
		}
		buf = buf[length:]
	}
	return names
}

func (kernel) readLink(path string) (string, error) {
	var buf [linkSize]byte
	n, err := unix.Readlink(path, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

func (kernel) writeFile(path, data string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(data))
	return err
}

// userHZ is the unit of the times in /proc/PID/stat: a hundredth of a second on every architecture Go runs Linux on.
const userHZ = 100

func (kernel) bootTicks() uint64 {
	var ts unix.Timespec
	// It cannot fail: the clock exists since Linux 2.6.39 and the address is ours.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	// The kernel rounds a start time down in the same way (nsec_to_clock_t), so that a process begun after this moment
	// never has a smaller number; one begun in the same tick before it may have the same.
	return uint64(ts.Nano()) / (uint64(time.Second) / userHZ)
}

func (kernel) now() time.Time { return time.Now() }

// retry runs a call until it is not interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// procPath is /proc/PID/rest, without the cost of fmt.
func procPath(pid int, rest string) string {
	return "/proc/" + strconv.Itoa(pid) + rest
}
