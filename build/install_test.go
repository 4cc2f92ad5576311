package build_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

var programs = []string{"containerd-shim-lark-v2", "lark"}

// tree is a directory like the checkout's root, with the scripts and without bin.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"install.sh", "version.sh"} {
		script(t, dir+"/build/"+name, read(name))
	}
	return dir
}

// head is the commit that is checked out, and .m if the tree differs from it.
func head(t *testing.T) string {
	t.Helper()
	if !exists("../.git") || exec.Command("git", "--version").Run() != nil {
		return "unknown"
	}
	hash, status := run(t, nil, "git", "-c", "safe.directory=*", "rev-parse", "HEAD")
	if status != 0 {
		t.Fatal(hash)
	}
	hash = strings.TrimSpace(hash)
	if changed, _ := run(t, nil, "git", "-c", "safe.directory=*", "status", "--porcelain", "--untracked-files=no"); changed != "" {
		hash += ".m"
	}
	return hash
}

// flags is what version.sh says, in a tree.
func flags(t *testing.T, dir string, env ...string) string {
	t.Helper()
	out, status := run(t, append([]string{"LARK_VERSION=", "LARK_REVISION="}, env...), dir+"/build/version.sh")
	if status != 0 {
		t.Fatalf("version.sh: %s", out)
	}
	return strings.TrimSpace(out)
}

// shim is the shim as the Makefile builds it.
func shim(t *testing.T, env ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), programs[0])
	out, status := run(t, []string{"CGO_ENABLED=0"}, "go", "build", "-buildvcs=false", "-trimpath",
		"-ldflags", "-s -w "+flags(t, "..", env...), "-o", path, "../cmd/containerd-shim-lark-v2")
	if status != 0 {
		t.Fatal(out)
	}
	return path
}

// F24: a binary says of which version and revision it is.
func TestF24BuiltBinarySaysItsRevision(t *testing.T) {
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"git's":      {nil, "Revision: " + head(t) + "\n"},
		"packager's": {[]string{"LARK_VERSION=v9.8.7", "LARK_REVISION=abc"}, "Version:  v9.8.7\n  Revision: abc\n"},
	} {
		if out, status := run(t, nil, shim(t, c.env...), "-v"); status != 0 || !strings.Contains(out, c.want) {
			t.Errorf("%s: -v prints %q, want %q in it", name, out, c.want)
		}
	}
}

// F24: what has no .git knows its revision from git-archive(1), or says that it
// does not.
func TestF24TarballSaysItsRevision(t *testing.T) {
	const revision = "-X github.com/larkshim/lark/internal/version.Revision="
	dir := tree(t)
	if got := flags(t, dir); got != revision+"unknown" {
		t.Errorf("a copy: %q", got)
	}
	hash := strings.Repeat("0123456789", 4)
	archived := strings.NewReplacer("$Format:%H$", hash, "$Format:%D$", "HEAD -> main, tag: v0.3.0, origin/main").Replace(read("version.sh"))
	script(t, dir+"/build/version.sh", archived)
	want := revision + hash + " -X github.com/larkshim/lark/internal/version.Version=v0.3.0"
	if got := flags(t, dir); got != want {
		t.Errorf("an archive: %q, want %q", got, want)
	}
	if !exists("../.git") {
		t.Skip("this is no checkout: nothing to make an archive of")
	}
	if out, status := run(t, nil, "git", "init", "-q", filepath.Dir(dir)); status != 0 {
		t.Fatal(out)
	}
	if got := flags(t, dir); got != want {
		t.Errorf("an archive inside another repository: %q, want %q", got, want)
	}
	out, status := run(t, nil, "bash", "-c", `git -C .. -c 'safe.directory=*' archive HEAD build/version.sh | tar xO`)
	if status != 0 || strings.Contains(out, "$Format") {
		t.Errorf("git archive leaves the places empty:\n%s", out)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// F24: the program can be executed at every moment of an installation over it.
func TestF24InstallIsAtomic(t *testing.T) {
	dir, built := tree(t), read(shim(t))
	for _, name := range programs {
		script(t, dir+"/bin/"+name, built)
	}
	bindir := filepath.Join(dir, "usr/bin")
	install := func() {
		if out, status := run(t, nil, dir+"/build/install.sh", "install", bindir); status != 0 {
			t.Errorf("install: %s", out)
		}
	}
	install()
	const enough = 30
	var executed atomic.Int32
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			if out, err := exec.Command(filepath.Join(bindir, programs[0]), "-v").CombinedOutput(); err != nil {
				done <- errors.New(err.Error() + ": " + string(out))
				return
			}
			executed.Add(1)
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	for n := 0; (n < 10 || executed.Load() < enough) && len(done) == 0; n++ {
		install()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("after %d executions: %v", executed.Load(), err)
	}
	expect(t, bindir, programs...)
	if out, status := run(t, nil, dir+"/build/install.sh", "uninstall", bindir); status != 0 {
		t.Errorf("uninstall: %s", out)
	}
	expect(t, bindir)
}

// expect looks at what is in a directory.
func expect(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s has %q, want %q", dir, got, want)
	}
}

// F24: installing compiles nothing and says what it needs, before it changes
// anything.
func TestF24InstallNeedsABuild(t *testing.T) {
	dir := tree(t)
	script(t, dir+"/bin/"+programs[0], "#!/bin/sh\n") // and lark is missing
	out, status := run(t, nil, dir+"/build/install.sh", "install", dir+"/usr")
	if status != 1 || !strings.Contains(out, "bin/lark") || !strings.Contains(out, "make build") {
		t.Errorf("exit status %d: %s", status, out)
	}
	expect(t, dir+"/usr")
	plan, status := run(t, nil, "make", "-C", "..", "--no-print-directory", "-n", "install")
	if status != 0 || strings.Contains(plan, "go build") {
		t.Errorf("make install would do: %s", plan)
	}
}

// F25: everything but what measures compiles where an int has 32 bits.
func TestF25CompilesWith32Bits(t *testing.T) {
	out, status := run(t, []string{"CGO_ENABLED=0", "GOARCH=386"}, "go", "build", "-buildvcs=false", "-trimpath",
		"../lifecycle", "../children", "../internal/task", "../internal/bootstrap", "../internal/run", "../internal/bench")
	if status != 0 {
		t.Error(out)
	}
}
