package bootstrap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/failpoint"
)

// groupAnnotations say which containers share a shim, the first that is there.
var groupAnnotations = []string{
	"io.containerd.runc.v2.group",
	"io.kubernetes.cri.sandbox-id",
}

// starting is the start command: it prints where the shim of the container's group
// listens, and has started it if there was none.
func starting(ns bundle.Namespace, id bundle.ContainerID, f *flags, in io.Reader, out io.Writer) error {
	unix.Umask(0o077) // for the directories that are made on the way to the socket
	if err := checkKernel(); err != nil {
		return err
	}
	input, err := readInput(in, maxInput, inputTimeout)
	if err != nil {
		return err
	}
	_, hasMax := os.LookupEnv("MAX_SHIM_VERSION")
	req, err := parseRequest(input, ns, id, f.address, hasMax)
	if err != nil {
		return err
	}
	if f.debug {
		req.logLevel = min(req.logLevel, int(debugLevel))
	}
	b, err := openWorkingDirectory()
	if err != nil {
		return err
	}
	defer b.Close()
	s := &starter{ns: ns, id: id, request: req, bundle: b}
	a, undo, err := s.start()
	if err != nil {
		return err
	}
	data, err := a.encode(req.dialect)
	// A daemon that is gone shall be an error of the write, and not our death. Nothing is
	// executed any more that could inherit it.
	signal.Ignore(unix.SIGPIPE)
	if err == nil {
		_, err = out.Write(data)
	}
	if err != nil {
		// Nobody knows of the shim, so nobody would ever end it.
		return errors.Join(fmt.Errorf("answer: %w", err), undo())
	}
	return nil
}

// openWorkingDirectory opens the bundle, where containerd runs every command of
// ours. The kernel is asked for its path, not the environment's PWD.
func openWorkingDirectory() (*bundle.Bundle, error) {
	dir, err := unix.Getwd()
	if err != nil {
		return nil, os.NewSyscallError("getcwd", err)
	}
	return bundle.Open(dir)
}

// starter is one start.
type starter struct {
	ns      bundle.Namespace
	id      bundle.ContainerID
	request *request
	bundle  *bundle.Bundle
}

// start finds or starts the shim. undo ends what was started.
func (s *starter) start() (a answer, undo func() error, err error) {
	group, err := s.group()
	if err != nil {
		return answer{}, nil, err
	}
	dir := s.request.socketDir
	if dir == "" {
		dir = defaultSocketDir
	}
	path, err := socketPath(dir, s.request.grpcAddress, s.ns, group)
	if err != nil {
		return answer{}, nil, err
	}
	a = answer{Address: "unix://" + path, Protocol: "ttrpc"}
	if err := s.record(a.Address); err != nil {
		return answer{}, nil, err
	}
	failpoint.Point("start: recorded")
	nothing := func() error { return nil }
	for range joinAttempts {
		socket, err := s.acquire(dir, path)
		if err != nil {
			return answer{}, nil, err
		}
		if socket != nil {
			failpoint.Point("start: socket bound")
			undo, err := s.spawn(socket, path)
			failpoint.Point("start: server running")
			a.Version = own.version(s.request.dialect)
			return a, undo, err
		}
		if s.request.dialect == plain { // it has no version to be told
			return a, nothing, nil
		}
		spoken, err := s.ask(path, group)
		if err == nil {
			a.Version = spoken.version(s.request.dialect)
			return a, nothing, nil
		}
		if !errors.Is(err, errGone) {
			return answer{}, nil, err
		}
	}
	return answer{}, nil, fmt.Errorf("the shim at %s goes away whenever it is joined: %w", path, errdefs.ErrUnavailable)
}

// group is the name that all containers of the shim share.
func (s *starter) group() (string, error) {
	annotations, err := s.bundle.ReadAnnotations()
	if err != nil {
		return "", err
	}
	return groupOf(annotations, s.id)
}

func groupOf(annotations map[string]string, id bundle.ContainerID) (string, error) {
	for _, key := range groupAnnotations {
		group, ok := annotations[key]
		if !ok || group == "" {
			continue
		}
		// It becomes an element of a path that is hashed; one that climbs would be
		// the group of another namespace.
		if strings.ContainsRune(group, 0) || path.Clean("/"+group) != "/"+group {
			return "", fmt.Errorf("annotation %s is no name of a group: %q: %w", key, group, errdefs.ErrInvalidArgument)
		}
		return group, nil
	}
	return id.String(), nil
}

// acquire gets the group's socket, under the lock; nil if a shim is there.
func (s *starter) acquire(dirPath, path string) (*os.File, error) {
	dir, err := openSocketDir(dirPath)
	if err != nil {
		return nil, err
	}
	defer dir.close()
	if err := dir.lock(path, lockTimeout); err != nil {
		return nil, err
	}
	return dir.acquire(path)
}

// record leaves in the bundle what others need to find the socket: the address,
// which containerd 1.6 and 1.7 read when they are restarted (later ones write
// bootstrap.json by themselves), and a link to the socket's directory if that is not
// the usual one, for the delete command.
func (s *starter) record(address string) error {
	if s.request.dialect != bootstrap {
		if err := s.bundle.WriteAddress(address); err != nil {
			return err
		}
	}
	if s.request.socketDir != "" {
		return s.bundle.WriteSocketDir(s.request.socketDir)
	}
	return nil
}

// checkKernel refuses a kernel without what owning children needs, here where the
// refusal reaches the user, and not in the server, where it would reach a log.
func checkKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return os.NewSyscallError("uname", err)
	}
	return kernelNotBefore(unix.ByteSliceToString(u.Release[:]), 5, 4)
}

func kernelNotBefore(release string, major, minor int) error {
	a, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(rest[:end])
	if err1 != nil || err2 != nil {
		return nil // a name that we cannot read is no reason to refuse
	}
	if x < major || x == major && y < minor {
		return fmt.Errorf("Linux %s is too old, %d.%d is needed: %w", release, major, minor, errdefs.ErrNotImplemented)
	}
	return nil
}
