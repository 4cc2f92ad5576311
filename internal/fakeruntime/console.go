package fakeruntime

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// terminal makes a pseudo terminal. send gives its master to whoever listens at the socket, or does what the profile
// has instead; the caller closes the slave.
func (c *call) terminal(socket string) (slave *os.File, send func() error, err error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	return slave, func() error {
		defer master.Close()
		return c.sendConsole(socket, master)
	}, nil
}

func (c *call) sendConsole(socket string, master *os.File) error {
	fd := int(master.Fd())
	switch c.consoleHow {
	case ConsoleNever:
		return nil
	case ConsoleSilent:
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		silent = append(silent, conn)
		return nil
	case ConsoleTwice:
		if err := sendFDs(socket, fd); err != nil {
			return err
		}
		// The second one may find nobody listening any more, which is as it should be.
		_ = sendFDs(socket, fd)
		return nil
	case ConsoleNoFD:
		return sendFDs(socket)
	case ConsoleTwoFDs:
		return sendFDs(socket, fd, fd)
	case ConsoleFile:
		f, err := os.CreateTemp(c.dir, "not-a-console")
		if err != nil {
			return err
		}
		defer f.Close()
		return sendFDs(socket, int(f.Fd()))
	case ConsoleNotATTY:
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		return sendFDs(socket, int(r.Fd()))
	}
	return sendFDs(socket, fd)
}

// silent has connections on which nothing is said, open as long as the runtime runs.
var silent []net.Conn

// sendFDs sends descriptors the way runc does: one message that has the terminal's name, with the rights beside it.
func sendFDs(socket string, fds ...int) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix([]byte("/dev/ptmx"), rights, nil)
	return err
}
