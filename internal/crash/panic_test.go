package crash

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// figures is what the test of the panics prints for each of its lives.
var figures = regexp.MustCompile(`(?m)^panics: .*$`)

// TestF13PanicAtEveryPoint builds the tests of package task with the failpoints in
// them and runs the one that needs them.
func TestF13PanicAtEveryPoint(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	binary := filepath.Join(t.TempDir(), "task.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "failpoint", "-o", binary, "../task")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	run := exec.CommandContext(ctx, binary, "-test.run", "^TestF13PanicAtEveryPoint$", "-test.count=1")
	run.Dir = "../task"
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lives := figures.FindAllString(string(out), -1)
	for _, l := range lives {
		t.Log(l)
	}
	if len(lives) != 4 {
		t.Errorf("not the figures of four lives:\n%s", out)
	}
}
