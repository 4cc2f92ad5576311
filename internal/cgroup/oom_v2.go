package cgroup

import (
	"encoding/binary"
	"errors"
	"os"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/routine"
)

// inotifyWatcher wakes every OOM watch of a Host from one inotify instance: the kernel allows a user 128 instances
// unless told otherwise, and root has them all, so one per container would be used up by 128 containers on a host. The
// instance exists while there is a watch; its zero value is ready.
//
// Lock order: inotifyWatcher.mu before nothing; it is not held while a watch looks.
type inotifyWatcher struct {
	mu      sync.Mutex
	file    *os.File
	fd      int
	watches map[int32][]*OOMWatch // by watch descriptor; containers that share a cgroup share one
}

// add begins to wake w when its file changes.
func (i *inotifyWatcher) add(sys *system, w *OOMWatch) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.file == nil {
		fd, err := sys.inotify()
		if err != nil {
			return err
		}
		i.fd, i.file, i.watches = fd, pollable(fd, "inotify"), make(map[int32][]*OOMWatch)
		file := i.file
		routine.Keep(nil, "watch for OOM kills", func() { i.hear(file) })
	}
	wd, err := sys.addWatch(i.fd, path.Join(w.dir, w.file))
	if err != nil {
		i.closeIfIdle()
		return err
	}
	i.watches[int32(wd)] = append(i.watches[int32(wd)], w)
	w.unsubscribe = func() { i.remove(sys, int32(wd), w) }
	return nil
}

// remove ends what add began.
func (i *inotifyWatcher) remove(sys *system, wd int32, w *OOMWatch) {
	i.mu.Lock()
	defer i.mu.Unlock()
	left := slices.DeleteFunc(i.watches[wd], func(o *OOMWatch) bool { return o == w })
	if len(left) > 0 {
		i.watches[wd] = left
		return
	}
	delete(i.watches, wd)
	if i.closeIfIdle() {
		return
	}
	// It fails where the cgroup is gone, which has removed the watch.
	_ = sys.rmWatch(i.fd, int(wd))
}

// closeIfIdle closes the instance, and with it hear, when nothing is watched. The close waits for the kernel to have
// forgotten every watch, tens of milliseconds (fsnotify_destroy_group), and the caller is about to announce an exit.
func (i *inotifyWatcher) closeIfIdle() bool {
	if i.file == nil || len(i.watches) > 0 {
		return false
	}
	file := i.file
	routine.Go(nil, "end of the watch for OOM kills", func() { file.Close() })
	i.file = nil
	return true
}

// hear wakes the watches whose files have changed, until f is closed.
func (i *inotifyWatcher) hear(f *os.File) {
	buf := make([]byte, inotifyBuffer)
	for {
		n, err := f.Read(buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		for _, w := range i.wake(f, buf[:n]) {
			w.look()
		}
	}
}

// wake lists the watches that the events in b mean; all of them if the kernel has lost some (IN_Q_OVERFLOW).
func (i *inotifyWatcher) wake(f *os.File, b []byte) []*OOMWatch {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.file != f {
		return nil
	}
	var found []*OOMWatch
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for _, ws := range i.watches {
				found = append(found, ws...)
			}
			continue
		}
		for _, w := range i.watches[wd] {
			if !slices.Contains(found, w) {
				found = append(found, w)
			}
		}
	}
	return found
}
