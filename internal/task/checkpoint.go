package task

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/failpoint"
	"github.com/larkshim/lark/internal/oci"
	"github.com/larkshim/lark/lifecycle"
)

const (
	// criuWork is CRIU's directory below the bundle's work directory, if the
	// options name no other; it is removed after the dump.
	criuWork = "criu-work"
	// criuLog is what CRIU calls its log, dumpLog what is kept of it in the bundle
	// when a dump fails: the names upstream's shim has taught people to look for.
	criuLog = "dump.log"
	dumpLog = "criu-dump.log"
)

// Checkpoint dumps the container with CRIU; unless it is left running, its init
// exits by that and the exit is announced as any other. The call ends with the
// client that made it.
func (s *Service) Checkpoint(ctx context.Context, r *task.CheckpointTaskRequest) (*emptypb.Empty, error) {
	c, _, _, err := s.locate(r.ID, "")
	if err != nil {
		return nil, err
	}
	opts, err := bundle.DecodeCheckpointOptions(r.Options)
	if err != nil {
		return nil, err
	}
	turn, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer turn.Leave()
	if _, err := c.step(lifecycle.Event{Kind: lifecycle.CheckpointAsked}); err != nil {
		return nil, err
	}
	failpoint.Step("checkpoint: allowed")
	work := firstOf(opts.WorkPath, c.options.CriuWorkPath)
	if work == "" {
		work = filepath.Join(c.bundle.Work(), criuWork)
		defer os.RemoveAll(work)
	}
	call := oci.CheckpointCall{
		ImagePath: firstOf(r.Path, opts.ImagePath, c.options.CriuImagePath), WorkPath: work,
		ParentPath: opts.ParentPath, LeaveRunning: !opts.Exit,
		AllowOpenTCP: opts.OpenTcp, AllowExternalUnixSockets: opts.ExternalUnixSockets, AllowTerminal: opts.Terminal,
		FileLocks: opts.FileLocks, EmptyNamespaces: opts.EmptyNamespaces,
	}
	err = c.call(ctx, func(ctx context.Context) error { return c.runtime.Checkpoint(ctx, c.id, call) })
	if err != nil {
		kept := filepath.Join(c.bundle.Path(), dumpLog)
		if copyErr := copyTail(kept, filepath.Join(work, criuLog)); copyErr != nil {
			c.log.Warn("the log of a failed dump was not kept", "error", copyErr)
		}
		return nil, fmt.Errorf("%w path= %s", err, kept)
	}
	return &emptypb.Empty{}, nil
}

// firstOf is the first of the paths that is given.
func firstOf(paths ...string) string {
	for _, p := range paths {
		if p != "" {
			return p
		}
	}
	return ""
}

// copyTail copies the end of a regular file to one that it makes. Neither path may
// be a link.
func copyTail(to, from string) error {
	src, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", from)
	}
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.NewSectionReader(src, max(0, info.Size()-maxDumpLog), maxDumpLog))
	if closeErr := dst.Close(); err == nil {
		err = closeErr
	}
	return err
}
