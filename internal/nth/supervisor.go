package nth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// Report is what has become of a fault.
type Report struct {
	// Calls is how many calls there were that could have failed so.
	Calls int
	// Faults is how many did.
	Faults int
	// Failed says which was the last: its name and what it was about; "" if there were too
	// few calls.
	Failed string
}

// Supervisor decides about the calls of the processes that join it.
type Supervisor struct {
	path string
	stop [2]int // a pipe, whose end ends all
	wg   sync.WaitGroup
	// Alike matches calls (name and path) that are made alike of many things, as of every
	// process of the machine or of every hierarchy of cgroups. Its group "each" is what the
	// many differ in, from the start of the path on: of calls that differ in nothing else
	// only the first counts. It is set before anybody joins.
	Alike *regexp.Regexp
	// Most is how often a call counts that is made again and again, by name and path; 0
	// for always. It needs Alike.
	Most int

	mu       sync.Mutex
	order    Fault
	report   Report
	alike    map[string]int // how often there was each call that Alike matches
	openings []opening      // since the last order that was a fault
	joined   int
	err      error // of the supervision itself
}

// request is what a process asks of its supervisor: to obey, or who has made a descriptor.
type request struct {
	Fault  Fault
	Opened string `json:",omitempty"`
}

// answer is what it is told.
type answer struct {
	Report  Report
	Openers []string `json:",omitempty"`
}

// Supervise waits for processes that are given Env. It ends with the test, which fails if
// it could not do its work.
func Supervise(t testing.TB) *Supervisor {
	t.Helper()
	dir, err := os.MkdirTemp("", "nth") // short, for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	s := &Supervisor{path: filepath.Join(dir, "s")}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: s.path}), unix.Listen(fd, 8), unix.Pipe2(s.stop[:], unix.O_CLOEXEC))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.wg.Go(func() { s.accept(fd) })
	t.Cleanup(func() {
		unix.Close(s.stop[1])
		s.wg.Wait()
		unix.Close(s.stop[0])
		unix.Close(fd)
		os.RemoveAll(dir)
		if s.err != nil {
			t.Error(s.err)
		}
	})
	return s
}

// Env is the entry of the environment that makes a process join.
func (s *Supervisor) Env() string { return Env + "=" + s.path }

// Joined is how many processes have joined so far.
func (s *Supervisor) Joined() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joined
}

// Arm is [Watched.Arm], for a process that joins later.
func (s *Supervisor) Arm(f Fault) { s.obey(f) }

// Report is what has become of it so far.
func (s *Supervisor) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// Disarm ends that and tells what has become of it.
func (s *Supervisor) Disarm() Report { return s.obey(Fault{}) }

// obey changes what is to fail and returns the report about the one before.
func (s *Supervisor) obey(f Fault) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.report
	s.order, s.report, s.alike = f, Report{}, map[string]int{}
	if f.N > 0 {
		s.openings = nil
	}
	return was
}

func (s *Supervisor) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

// readable waits until there is something to be had from fd; false when all is to end, or
// nothing can come any more.
func (s *Supervisor) readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(s.stop[0]), Events: unix.POLLIN}}
	err := errno.Retry(func() error { _, err := unix.Poll(fds, -1); return err })
	return err == nil && fds[1].Revents == 0 && fds[0].Revents&unix.POLLIN != 0
}

func (s *Supervisor) accept(fd int) {
	for s.readable(fd) {
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			s.fail(os.NewSyscallError("accept4", err))
			return
		}
		s.wg.Go(func() {
			defer unix.Close(conn)
			if err := s.converse(conn); err != nil {
				s.fail(err)
			}
		})
	}
}

// converse takes the process's listener and then its orders, until it ends.
func (s *Supervisor) converse(conn int) error {
	peer, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return os.NewSyscallError("SO_PEERCRED", err)
	}
	buf, oob := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4))
	for s.readable(conn) {
		n, oobn, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 { // it has ended
			return nil
		}
		var r request
		if err := json.Unmarshal(buf[:n], &r); err != nil {
			return err
		}
		var a answer
		switch {
		case oobn > 0:
			if err := s.adopt(int(peer.Pid), oob[:oobn]); err != nil {
				return err
			}
		case r.Opened != "":
			a.Openers = s.openers(r.Opened)
		default:
			a.Report = s.obey(r.Fault)
		}
		text, err := json.Marshal(a)
		if err != nil {
			return err
		}
		if err := unix.Sendmsg(conn, text, nil, nil, unix.MSG_NOSIGNAL); err != nil && !errors.Is(err, unix.EPIPE) {
			return os.NewSyscallError("sendmsg", err)
		}
	}
	return nil
}

// adopt begins to decide for a process.
func (s *Supervisor) adopt(pid int, oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("%d messages with the listener: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("%d descriptors for the listener: %w", len(fds), err)
	}
	s.mu.Lock()
	s.joined++
	s.mu.Unlock()
	s.wg.Go(func() {
		defer unix.Close(fds[0])
		for s.readable(fds[0]) {
			if err := s.decide(fds[0], pid); err != nil {
				s.fail(err)
				return
			}
		}
	})
	return nil
}

// notice is struct seccomp_notif, and verdict struct seccomp_notif_resp.
type notice struct {
	id         uint64
	pid, flags uint32
	nr, arch   uint32
	ip         uint64
	args       [6]uint64
}

type verdict struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// decide answers one call.
func (s *Supervisor) decide(listener, pid int) error {
	var n notice
	err := control(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
	if errors.Is(err, unix.ENOENT) {
		return nil // it was interrupted, or killed, meanwhile
	}
	if err != nil {
		return fmt.Errorf("SECCOMP_IOCTL_NOTIF_RECV: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := verdict{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	about, counts := "", false
	c, ok := find(n.nr)
	if ok && s.order.N > 0 && isThread(pid, &n) {
		var on string
		if c.fd != none {
			on, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(n.args[c.fd])))
		}
		s.note(c, on, pid, &n)
		about, counts = s.counts(c, on, &n)
	}
	fails := counts && s.order.hits(s.report.Calls+1)
	if fails {
		errno := s.order.answer(c, s.order.N)
		v.flags, v.errno = 0, -int32(errno)
		if IsWorld(errno) {
			about = Name(errno) + " of " + about
		}
	}
	err = control(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&v))
	if errors.Is(err, unix.ENOENT) {
		return nil // it will be asked about once more, or was killed: it does not count
	}
	if err != nil {
		return fmt.Errorf("SECCOMP_IOCTL_NOTIF_SEND: %w", err)
	}
	if counts {
		s.report.Calls++
	}
	if fails {
		s.report.Faults++
		s.report.Failed = about
	}
	return nil
}

// counts says whether a call is one of those that may fail now, and what it is about. on is
// what its descriptor is. mu is held.
func (s *Supervisor) counts(c call, on string, n *notice) (about string, ok bool) {
	if c.fd != none && int(int32(n.args[c.fd])) == unix.Stderr {
		return "", false // nobody can be told
	}
	if !c.fits(s.order.Errno, n.args, on) {
		return "", false
	}
	if c.path != none && (s.Alike != nil || s.order.hits(s.report.Calls+1)) {
		on = textAt(int(n.pid), n.args[c.path])
	}
	about = c.name + " " + on
	return about, s.first(about)
}

// first reports whether a call is the first of those that are alike: the first of each
// thing's n-th calls. mu is held.
func (s *Supervisor) first(about string) bool {
	if s.Alike == nil {
		return true
	}
	s.alike[about]++
	if s.Most > 0 && s.alike[about] > s.Most {
		return false
	}
	m := s.Alike.FindStringSubmatchIndex(about)
	if m == nil {
		return true
	}
	each := 2 * s.Alike.SubexpIndex("each")
	kind := fmt.Sprintf("%s*%s %d", about[:m[each]], about[m[each+1]:], s.alike[about])
	s.alike[kind]++
	return s.alike[kind] == 1
}

// isThread tells the process's own calls from those of processes that it has forked.
func isThread(pid int, n *notice) bool {
	return unix.Access(fmt.Sprintf("/proc/%d/task/%d", pid, n.pid), unix.F_OK) == nil
}

// textAt reads a C string of another process.
func textAt(pid int, at uint64) string {
	// To the end of the page at most: what lies behind it may not be there.
	page := uint64(os.Getpagesize())
	bytesAt := memoryAt(pid, at, min(unix.PathMax, page-at%page))
	if bytesAt == nil {
		return "?"
	}
	text, _, _ := bytes.Cut(bytesAt, []byte{0})
	return string(text)
}

// memoryAt reads the memory of another process, at most n bytes of it; nil if it cannot be had.
func memoryAt(pid int, at, n uint64) []byte {
	buf := make([]byte, n)
	local := []unix.Iovec{{Base: &buf[0], Len: n}}
	got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: int(n)}}, 0)
	if err != nil {
		return nil
	}
	return buf[:got]
}

func control(fd int, request uint, arg unsafe.Pointer) error {
	return errno.Retry(func() error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
		if errno != 0 {
			return errno
		}
		return nil
	})
}
