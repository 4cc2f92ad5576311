package spec

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// listTimeout bounds `busybox --list`, which takes a millisecond.
const listTimeout = 10 * time.Second

// ErrNoBusybox is returned by Busybox on a machine that has no static busybox.
var ErrNoBusybox = fmt.Errorf("no static busybox on this machine: %w", errdefs.ErrNotFound)

// Busybox makes a root filesystem in dir, which it creates: a copy of the machine's
// static busybox, a link for each of its commands, and the directories that a
// container's mounts need. A copy and no hard link: the container's root may write.
func Busybox(ctx context.Context, dir string) error {
	busybox, err := findBusybox()
	if err != nil {
		return err
	}
	for _, d := range []string{"", "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("make a root filesystem: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	if err := copyFile(busybox, filepath.Join(dir, "bin/busybox")); err != nil {
		return fmt.Errorf("make a root filesystem: %w", err)
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"etc/group":  "root:x:0:\ntty:x:5:\nnobody:x:65534:\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return links(ctx, busybox, filepath.Join(dir, "bin"))
}

// links makes one link per command that this busybox was built with.
func links(ctx context.Context, busybox, bin string) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its commands: %w", busybox, err)
	}
	for _, name := range strings.Fields(string(out)) {
		err := os.Symlink("busybox", filepath.Join(bin, filepath.Base(name)))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// findBusybox looks in PATH and where distributions put the static one.
func findBusybox() (string, error) {
	candidates := []string{"/bin/busybox", "/bin/busybox.static", "/usr/bin/busybox"}
	if p, err := exec.LookPath("busybox"); err == nil {
		candidates = append([]string{p}, candidates...)
	}
	for _, c := range candidates {
		if isStatic(c) {
			return c, nil
		}
	}
	return "", ErrNoBusybox
}

// isStatic is true for a program that needs no dynamic linker.
func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
