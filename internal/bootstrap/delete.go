package bootstrap

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/errno"
	"github.com/larkshim/lark/internal/failpoint"
)

// killed is the status of a container of whose end nothing is known: 128 and
// SIGKILL, which is what delete does to it.
const killed = 128 + uint32(unix.SIGKILL)

// remover removes what is left of a container outside its bundle.
type remover interface {
	// deleteContainer makes the OCI runtime kill and forget the container.
	deleteContainer(ctx context.Context, o *options.Options) error
	// killLeft kills what is in the container's cgroup.
	killLeft(ctx context.Context, o *options.Options) error
	// unmount unmounts the root filesystem.
	unmount() error
	close() error
}

// deleting is the delete command. containerd runs it after a shim has gone, also
// after an orderly end, and perhaps several times.
func deleting(ns bundle.Namespace, id bundle.ContainerID, f *flags, out io.Writer) error {
	unix.Umask(runtimeUmask)
	path, err := bundlePath(f, id)
	if err != nil {
		return err
	}
	level := slog.LevelWarn // containerd shows standard error as a warning
	if f.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, cancel := context.WithTimeout(context.Background(), deleteTimeout)
	defer cancel()

	b, err := bundle.Open(path)
	if errno.IsMissing(err) { // removed already, with all that was in it
		warnOfState(ns, id, path, log)
		return writeExit(out, bundle.InitExit{Status: killed, At: time.Now()})
	}
	if err != nil {
		return err
	}
	defer b.Close()
	rooms, err := newRemover(ns, id, b, log)
	if err != nil {
		return err
	}
	defer rooms.close()
	failpoint.Point("delete: begun")
	exit := cleanUp(ctx, b, rooms, log)
	failpoint.Point("delete: recorded")
	if err := removeDeadSocket(b, ns, id, f.address); err != nil {
		log.Warn("a socket may be left", "error", err)
	}
	failpoint.Point("delete: socket removed")
	return writeExit(out, exit)
}

// cleanUp removes what is left of the container and says how its init ended. Every
// step is done whatever became of the one before: none depends on it, and a second
// delete will try again what failed.
func cleanUp(ctx context.Context, b *bundle.Bundle, rooms remover, log *slog.Logger) bundle.InitExit {
	o, err := b.ReadOptions()
	switch {
	case errno.IsMissing(err) && neverMade(b): // there is nothing but mounts
	case err != nil:
		log.Warn("options are not readable, defaults are taken", "error", err)
		o = &options.Options{}
	case !b.HasOptions():
		log.Warn("the options are not there: what the runtime keeps elsewhere than usual may be left", "runtime", o.BinaryName)
	}
	if o != nil {
		if err := rooms.deleteContainer(ctx, o); err != nil && !errdefs.IsNotFound(err) {
			log.Warn("the runtime did not delete the container", "error", err)
		}
		failpoint.Point("delete: runtime returned")
		if err := rooms.killLeft(ctx, o); err != nil {
			log.Warn("processes of the container may be left", "error", err)
		}
	}
	failpoint.Point("delete: killed")
	at := time.Now()
	if err := rooms.unmount(); err != nil {
		log.Warn("the root filesystem is still mounted", "error", err)
	}
	return initExit(b, at, log)
}

// neverMade reports whether no runtime has made an init: it writes a pid file.
func neverMade(b *bundle.Bundle) bool {
	_, err := b.ReadPID(bundle.ExecID{})
	return errno.IsMissing(err)
}

// warnOfState says what a container without its bundle has left, as far as that
// can be known: only the bundle names the runtime and its directory.
func warnOfState(ns bundle.Namespace, id bundle.ContainerID, path string, log *slog.Logger) {
	state := filepath.Join(defaultRuntimeRoot, ns.String(), id.String())
	if _, err := os.Lstat(state); err == nil {
		log.Warn("the bundle is not there, and without it nothing can be removed", "bundle", path, "state", state)
	}
}

// initExit is how init ended: as the shim has recorded it, else killed by us at the
// time given. That is recorded in turn, so that the next delete says the same; with
// no space left for it, it is not.
func initExit(b *bundle.Bundle, at time.Time, log *slog.Logger) bundle.InitExit {
	exit, err := b.ReadInitExit()
	if err == nil {
		return exit
	}
	if !errno.IsMissing(err) {
		log.Warn("the record of init's exit is damaged", "error", err)
	}
	exit = bundle.InitExit{Status: killed, At: at}
	if exit.PID, err = b.ReadPID(bundle.ExecID{}); err != nil {
		exit.PID = 0
		if !errno.IsMissing(err) {
			log.Warn("init's pid is not known", "error", err)
		}
	}
	if err := b.WriteInitExit(exit); err != nil {
		log.Debug("the exit is not recorded", "error", err)
	}
	return exit
}

func writeExit(out io.Writer, e bundle.InitExit) error {
	data, err := proto.Marshal(&task.DeleteResponse{
		Pid:        uint32(e.PID),
		ExitStatus: e.Status,
		ExitedAt:   timestamppb.New(e.At),
	})
	if err == nil {
		_, err = out.Write(data)
	}
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

func groupFor(b *bundle.Bundle, id bundle.ContainerID) (string, error) {
	annotations, err := b.ReadAnnotations()
	if err != nil {
		return "", err
	}
	return groupOf(annotations, id)
}

// removeDeadSocket removes the socket of a shim that was killed and could not do it.
// One that answers is left alone: it may serve other containers of the group. A bundle
// that does not say where the socket is has none, or has had it removed.
func removeDeadSocket(b *bundle.Bundle, ns bundle.Namespace, id bundle.ContainerID, address string) error {
	group, err := groupFor(b, id)
	if errno.IsMissing(err) || errdefs.IsInvalidArgument(err) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := b.ReadSocketDir()
	switch {
	case errno.IsMissing(err):
		dir = defaultSocketDir
	case err != nil:
		return err
	case !filepath.IsAbs(dir):
		return nil
	}
	path, err := socketPath(filepath.Clean(dir), address, ns, group)
	if err != nil {
		return err
	}
	return removeStale(path)
}
