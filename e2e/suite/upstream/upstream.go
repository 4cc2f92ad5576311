// Package upstream has the tests of containerd at hand: the source comes from the Go module proxy, checked against a digest
// written down here, and is built once per machine into a cache outside the checkout. The programs that the tests run beside
// it are those that the rest of the tests use (build/peers.sh).
package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/e2e/daemon"
)

const (
	module  = "github.com/containerd/containerd/v2"
	version = "v" + daemon.Containerd24
	// digest is the module's, as go.sum spells it. It changes with the version.
	digest = "h1:p6Qg+xbEz8lvwdhHDx0U469xENvp4LgGBx+E7djXkGw="
	// buildTags leave out the snapshotters that need C libraries.
	buildTags = "no_btrfs no_devmapper no_zfs no_aufs"
)

// Suite is containerd's integration/client suite, built, and what it runs.
type Suite struct {
	// Dir is where the tests expect to run: their own directory in the source.
	Dir string
	// Shim is containerd's own shim of the same version.
	Shim string
	// Programs are all that the tests run or are, but for the shim, by the names under which they are run.
	Programs map[string]string
}

// Get builds the suite or finds it built. Several processes may call it at once.
func Get(ctx context.Context) (*Suite, error) {
	peers := daemon.Built(daemon.Containerd24)
	if _, err := os.Stat(filepath.Join(peers, "containerd")); err != nil {
		return nil, fmt.Errorf("containerd %s is not built (`make peers` does): %w", daemon.Containerd24, err)
	}
	dir, err := once("containerd-tests-"+version+"-"+runtime.Version(), func(dir string) error { return build(ctx, dir) })
	if err != nil {
		return nil, fmt.Errorf("containerd's tests: %w", err)
	}
	return &Suite{
		Dir:  filepath.Join(dir, "src", "integration", "client"),
		Shim: filepath.Join(peers, "containerd-shim-runc-v2"),
		Programs: map[string]string{
			"containerd":  filepath.Join(peers, "containerd"),
			"ctr":         filepath.Join(peers, "ctr"),
			"client.test": filepath.Join(dir, "client.test"),
			"runc-fp":     filepath.Join(dir, "runc-fp"),
			"test2json":   filepath.Join(dir, "test2json"),
		},
	}, nil
}

// once makes a directory of the cache with fill, unless it is there. It appears under its name only when it is whole.
func once(name string, fill func(dir string) error) (string, error) {
	cache := daemon.Cache()
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	fresh, err := os.MkdirTemp(cache, "."+name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh) // nothing is left of it once renamed
	if err := errors.Join(os.Chmod(fresh, 0o755), fill(fresh)); err != nil {
		return "", err
	}
	return dir, os.Rename(fresh, dir)
}

// build makes the source, the suite, the failing runc it asks for, and Go's own converter of test output.
func build(ctx context.Context, dir string) error {
	fmt.Fprintf(os.Stderr, "building the tests of containerd %s from the module proxy (once; kept in %s)\n", version, filepath.Dir(dir))
	downloaded, err := download(ctx)
	if err != nil {
		return err
	}
	// The module cache is read-only and must stay as it is; the tests write beside themselves.
	src := filepath.Join(dir, "src")
	if err := os.CopyFS(src, os.DirFS(downloaded)); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"build", "-trimpath", "-tags", buildTags, "-o", filepath.Join(dir, "runc-fp"), "./integration/failpoint/cmd/runc-fp"},
		{"test", "-c", "-trimpath", "-tags", buildTags, "-o", filepath.Join(dir, "client.test"), "./integration/client"},
		{"build", "-o", filepath.Join(dir, "test2json"), "cmd/test2json"},
	} {
		if err := goTool(ctx, src, args...); err != nil {
			return err
		}
	}
	return nil
}

// download puts the module into Go's module cache and returns its directory there.
func download(ctx context.Context) (string, error) {
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@"+version)
	command.Dir = os.TempDir() // outside any module, so that no go.mod has a say
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("go mod download: %w\n%s", err, out)
	}
	var got struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", err
	}
	if got.Sum != digest {
		return "", fmt.Errorf("%s@%s has digest %s, expected %s", module, version, got.Sum, digest)
	}
	return got.Dir, nil
}

func goTool(ctx context.Context, dir string, args ...string) error {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// lock takes an exclusive lock that other processes respect.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
