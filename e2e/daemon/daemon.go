// Package daemon starts a containerd of its own for a test: any version, in
// directories of its own, with the shims of a given directory first in its
// PATH, and takes away everything that came of it at the end.
//
// Every daemon has a tag, the name of its directory, which is also in the
// environment of its shims, in their -address and in the cgroup path of its
// containers. By the tag, and by nothing else, Stop and Leftovers know what
// belongs to it: other daemons on the machine are never touched.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// serveBound is for a loaded two-core machine; a containerd serves within a
	// second where nothing else runs.
	serveBound = 60 * time.Second
	// termBound is how long a daemon may take to end after SIGTERM.
	termBound = time.Minute
	// tagEnv marks the daemon's environment, and through it its shims'.
	tagEnv = "LARK_E2E_TAG"
	// maxMessage is more than an image or the events of one list may need.
	maxMessage = 16 << 20
)

// Config says which containerd to start and how.
type Config struct {
	// Binary is the containerd; "containerd" in PATH when empty.
	Binary string
	// ShimDir comes first in the daemon's PATH, so that a shim in it wins over
	// the system's. Empty: the shims beside Binary, then the system's.
	ShimDir string
	// CRI enables the CRI plugins, which are off otherwise.
	CRI bool
	// Extra is TOML appended to the configuration.
	Extra string
	// Env is added to the daemon's environment, as "NAME=value".
	Env []string
	// WithoutCgroup2 runs the daemon, and so its shims and runtimes, in a mount
	// namespace without the cgroup2 mount that sits beside v1 controllers: crun
	// refuses such hybrid machines. Nothing is hidden where only v2 exists.
	WithoutCgroup2 bool
	// Debug sets the daemon's log level to debug.
	Debug bool
	// Log, when not nil, is told of starts and stops.
	Log *slog.Logger
}

// Daemon is one containerd and its directories. Its methods may be called from
// one goroutine at a time; what Client and Subscribe return may be used freely.
type Daemon struct {
	cfg    Config
	dir    string // /tmp/lkNNN: short, a socket's path is at most 106 bytes
	log    *slog.Logger
	rootfs func() (string, error)

	conn    *grpc.ClientConn
	version string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when cmd was waited for
	waitErr error         // valid when ended is closed

	made struct {
		sync.Mutex
		sockets []string // of the shims of all containers made by clients
	}
}

// Start makes the directories and the configuration, starts the daemon and
// returns when it serves. On an error nothing is left.
func Start(ctx context.Context, cfg Config) (*Daemon, error) {
	if cfg.Binary == "" {
		cfg.Binary = "containerd"
	}
	path, err := exec.LookPath(cfg.Binary)
	if err != nil {
		return nil, fmt.Errorf("no containerd to test with: %w", err)
	}
	cfg.Binary = path
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := os.MkdirTemp("/tmp", "lk")
	if err != nil {
		return nil, err
	}
	d := &Daemon{cfg: cfg, dir: dir, log: cfg.Log}
	d.rootfs = sync.OnceValues(func() (string, error) { return d.dir + "/rootfs", BusyboxRootfs(d.dir + "/rootfs") })
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := d.launch(ctx); err != nil {
		return nil, errors.Join(err, d.Stop(context.WithoutCancel(ctx)))
	}
	return d, nil
}

// Dir is the daemon's directory, for files of the test that should go with it.
func (d *Daemon) Dir() string { return d.dir }

// Tag is the name by which what belongs to this daemon is known.
func (d *Daemon) Tag() string { return filepath.Base(d.dir) }

// Address is the path of the gRPC socket, for `ctr --address`.
func (d *Daemon) Address() string { return d.dir + "/c.sock" }

// State is the daemon's state directory, which holds the bundles.
func (d *Daemon) State() string { return d.dir + "/state" }

// LogPath is the file with the daemon's and the shims' output.
func (d *Daemon) LogPath() string { return d.dir + "/containerd.log" }

// RuncRoot is where the runtime keeps its state for containers made here.
func (d *Daemon) RuncRoot() string { return d.dir + "/runc" }

// Version is what the daemon calls itself, as "2.4.2" or "1.6.20~ds1".
func (d *Daemon) Version() string { return d.version }

// Binary is the containerd that runs.
func (d *Daemon) Binary() string { return d.cfg.Binary }

// Pid is the daemon's process.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Rootfs is a root filesystem with busybox, made when first asked for.
func (d *Daemon) Rootfs() (string, error) { return d.rootfs() }

// Env is the environment that the daemon runs in; `ctr` and runtimes of a test
// are given the same.
func (d *Daemon) Env() []string {
	dirs := []string{filepath.Dir(d.cfg.Binary), os.Getenv("PATH"), "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	if d.cfg.ShimDir != "" {
		dirs = append([]string{d.cfg.ShimDir}, dirs...)
	}
	env := []string{"PATH=" + strings.Join(dirs, ":"), tagEnv + "=" + d.Tag()}
	for _, name := range []string{"HOME", "TMPDIR", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, d.cfg.Env...)
}

// launch starts the process and waits until it serves.
func (d *Daemon) launch(ctx context.Context) error {
	logFile, err := os.OpenFile(d.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := d.command()
	cmd.Env = d.Env()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", d.cfg.Binary, err)
	}
	ended := make(chan struct{})
	d.cmd, d.ended = cmd, ended
	go func() {
		d.waitErr = cmd.Wait()
		close(ended)
	}()
	return d.serving(ctx)
}

// command is the daemon's command line; in a mount namespace of its own where
// the cgroup2 mount is to be hidden.
func (d *Daemon) command() *exec.Cmd {
	argv := []string{d.cfg.Binary, "--config", d.dir + "/config.toml"}
	attr := &syscall.SysProcAttr{Setpgid: true}
	if d.cfg.WithoutCgroup2 {
		if hidden := hybridCgroup2(); len(hidden) > 0 {
			// Unshareflags also makes the mounts private.
			attr.Unshareflags = syscall.CLONE_NEWNS
			// crun makes its directories there all the same; below a mount of our own
			// they go with it, else they stay in the tmpfs that the machine shares.
			var script string
			for _, dir := range hidden {
				script += "umount " + dir + " && mount -t tmpfs e2e " + dir + " && "
			}
			script += `exec "$0" "$@"`
			argv = append([]string{"/bin/sh", "-c", script}, argv...)
		}
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = d.dir
	cmd.SysProcAttr = attr
	return cmd
}

// serving connects and asks for the version, within serveBound; it gives up
// as soon as the daemon has ended.
func (d *Daemon) serving(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, serveBound)
	defer cancel()
	go func() {
		select {
		case <-d.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if d.conn == nil {
		conn, err := grpc.NewClient("unix://"+d.Address(),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
				BaseDelay: 20 * time.Millisecond, Multiplier: 1.2, MaxDelay: 200 * time.Millisecond}}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
		if err != nil {
			return err
		}
		d.conn = conn
	}
	version := versionapi.NewVersionClient(d.conn)
	resp, err := version.Version(ctx, &emptypb.Empty{}, grpc.WaitForReady(true))
	for status.Code(err) == codes.Unavailable && ctx.Err() == nil {
		// The call went out on the connection to the daemon that was killed, before its end was noticed.
		resp, err = version.Version(ctx, &emptypb.Empty{}, grpc.WaitForReady(true))
	}
	if err != nil {
		return fmt.Errorf("%s does not serve: %w\n%s", d.cfg.Binary, err, tail(d.LogPath()))
	}
	d.version = strings.TrimPrefix(resp.Version, "v")
	d.log.Info("containerd serves", "version", d.version, "pid", d.Pid(), "dir", d.dir)
	return nil
}

// Kill ends the daemon with SIGKILL; its shims and containers live on.
func (d *Daemon) Kill() error {
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.ended
	return nil
}

// Terminate ends the daemon in order (SIGTERM, after termBound SIGKILL); its
// shims and containers live on.
func (d *Daemon) Terminate() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.ended:
		return nil
	case <-time.After(termBound):
		return d.Kill()
	}
}

// Launch starts the daemon again, after Kill or Terminate, with the same
// directories, and returns when it serves.
func (d *Daemon) Launch(ctx context.Context) error { return d.launch(ctx) }

// Restart is Terminate and Launch.
func (d *Daemon) Restart(ctx context.Context) error {
	if err := d.Terminate(); err != nil {
		return err
	}
	return d.launch(ctx)
}

// Log returns the last lines of the daemon's log.
func (d *Daemon) Log() string { return tail(d.LogPath()) }

// tail is enough of a log to see why a daemon did not come up.
func tail(path string) string {
	const most = 8 << 10
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}

// Stop ends the daemon and takes away what is left of it: shims, containers,
// mounts, cgroups, sockets, directories. It is called once, also after Kill.
// Look at Leftovers first to know whether something was left.
func (d *Daemon) Stop(ctx context.Context) error {
	var errs []error
	if d.conn != nil {
		errs = append(errs, d.conn.Close())
	}
	if d.cmd != nil {
		errs = append(errs, d.Terminate())
	}
	errs = append(errs, d.sweep(ctx))
	return errors.Join(errs...)
}
