package oci

// clear.go removes what is left of a container that its runtime did not get to make,
// or to remove, because it was killed on the way.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Known says whether the runtime keeps anything under a container's id. Who asks
// before Create knows afterwards what is Create's to clear away. Without a Root of
// its own that cannot be told, and the answer is true.
func (r *Runtime) Known(id string) bool {
	if r.root == "" {
		return true
	}
	there, err := r.files.exists(filepath.Join(r.root, id))
	return there || err != nil
}

// Clear kills and removes a container and whatever there is in the runtime's directory
// for it; nothing there is no error. runc before 1.2 mounts a copy of itself in that
// directory, and leaves the mount, and so the directory, if it is killed then; the
// next create of the id would be refused.
func (r *Runtime) Clear(ctx context.Context, id string) error {
	if r.root == "" || !r.Known(id) {
		return nil
	}
	if err := r.Delete(ctx, id, true); err != nil && !errdefs.IsNotFound(err) {
		if e := asError(err); e == nil || !refused(e) {
			return err
		}
		if _, stateErr := r.State(ctx, id); stateErr == nil {
			return err // it knows the container, and could not remove it
		}
	}
	dir := filepath.Join(r.root, id)
	if !r.Known(id) {
		return nil
	}
	if err := unmountBelow(dir); err != nil {
		return systemError(opDelete, "what the runtime has mounted", err)
	}
	// Not through a mount: nothing is mounted there any more, or this was not reached.
	if err := os.RemoveAll(dir); err != nil {
		return systemError(opDelete, "what the runtime has left", err)
	}
	return nil
}

// unmountBelow unmounts what is mounted below a directory, latest first.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	// The kernel resolves links in what it shows.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var points []string
	for line := range strings.Lines(string(table)) {
		const pointField = 4 // proc_pid_mountinfo(5)
		if f := strings.Fields(line); len(f) > pointField {
			if p := octal.Replace(f[pointField]); strings.HasPrefix(p, dir+"/") {
				points = append(points, p)
			}
		}
	}
	for i := len(points) - 1; i >= 0; i-- {
		err := unix.Unmount(points[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && err != unix.EINVAL && err != unix.ENOENT { // gone meanwhile
			return fmt.Errorf("unmount %s: %w", points[i], err)
		}
	}
	return nil
}

// octal undoes the escapes of the mount table.
var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
