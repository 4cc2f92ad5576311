package nth

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/errno"
)

// Env names the variable that tells a process where its supervisor is.
const Env = "LARK_NTH"

// Watched is a process under test, in that process.
type Watched struct{ fd int }

// Join puts this process under its supervisor; nil if it has none.
func Join() (*Watched, error) {
	path := os.Getenv(Env)
	if path == "" {
		return nil, nil
	}
	os.Unsetenv(Env) // what we run is not to join
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	listener, err := filter()
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	// From here on no call of the table may be made until the supervisor is there: so
	// messages, and no reads and writes.
	w := &Watched{fd: fd}
	if err := errno.Retry(func() error { return unix.Sendmsg(fd, []byte("{}"), unix.UnixRights(listener), nil, 0) }); err != nil {
		return nil, os.NewSyscallError("sendmsg", err)
	}
	if _, err := w.answer(); err != nil {
		return nil, err
	}
	unix.Close(listener)
	return w, nil
}

// hits says whether the call of that number is to fail.
func (f Fault) hits(number int) bool {
	if f.Every == 0 {
		return number == f.N
	}
	return f.N > 0 && number >= f.N && (number-f.N)%f.Every == 0
}

// Arm makes calls fail from now on.
func (w *Watched) Arm(f Fault) error {
	_, err := w.ask(request{Fault: f})
	return err
}

// Disarm ends that and tells what has become of it.
func (w *Watched) Disarm() (Report, error) {
	a, err := w.ask(request{})
	return a.Report, err
}

func (w *Watched) ask(r request) (answer, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return answer{}, err
	}
	if err := errno.Retry(func() error { return unix.Sendmsg(w.fd, text, nil, nil, 0) }); err != nil {
		return answer{}, os.NewSyscallError("sendmsg", err)
	}
	return w.answer()
}

func (w *Watched) answer() (a answer, err error) {
	buf := make([]byte, 64<<10)
	n, err := errno.RetryValue(func() (int, error) {
		n, _, err := unix.Recvfrom(w.fd, buf, 0)
		return n, err
	})
	if err != nil {
		return a, os.NewSyscallError("recvfrom", err)
	}
	if n == 0 {
		return a, errors.New("the supervisor has gone")
	}
	return a, json.Unmarshal(buf[:n], &a)
}

// filter makes all threads of this process, and all that comes of it, ask at the calls of
// the table. It returns the listener's end.
func filter() (int, error) {
	const nrAt, archAt = 0, 4 // struct seccomp_data
	load := uint16(unix.BPF_LD | unix.BPF_W | unix.BPF_ABS)
	equal := uint16(unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K)
	ret := uint16(unix.BPF_RET | unix.BPF_K)
	prog := []unix.SockFilter{
		{Code: load, K: archAt},
		{Code: equal, K: auditArch, Jf: uint8(len(calls) + 1)},
		{Code: load, K: nrAt},
	}
	for i, c := range calls {
		prog = append(prog, unix.SockFilter{Code: equal, K: c.nr, Jt: uint8(len(calls) - i)})
	}
	prog = append(prog, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_ALLOW}, unix.SockFilter{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF})
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// TSYNC_ESRCH because without it a failure and a listener could not be told apart.
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH)
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return -1, fmt.Errorf("seccomp (it takes Linux 5.7 and root): %w", errno)
	}
	return int(fd), nil
}
