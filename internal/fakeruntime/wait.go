package fakeruntime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// await returns when a file is there, or with an error after the time, 0 for never.
func await(dir, name string, within time.Duration) error {
	return awaitChange(dir, within, func() (bool, error) {
		_, err := os.Lstat(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
}

// awaitChange looks at each change in a directory until there is what is looked for.
func awaitChange(dir string, within time.Duration, look func() (bool, error)) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MODIFY|unix.IN_CLOSE_WRITE); err != nil {
		return err
	}
	if within > 0 {
		if err := f.SetReadDeadline(time.Now().Add(within)); err != nil {
			return err
		}
	}
	buf := make([]byte, 4096)
	for {
		if found, err := look(); found || err != nil {
			return err
		}
		if _, err := f.Read(buf); err != nil {
			return fmt.Errorf("waiting in %s: %w", dir, err)
		}
	}
}
