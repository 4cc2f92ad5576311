// Package build_test tries the scripts of this directory, as the Makefile and
// .ci/run call them.
package build_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script writes an executable file and returns its path.
func script(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a command with more environment, and returns its output of both kinds
// and its exit status.
func run(t *testing.T, env []string, name string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(append(os.Environ(), "LARK_FAILED=", "MAKEFLAGS="), env...) // not those of what runs this test
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// read is a file's text, empty if there is no such file.
func read(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

// A part that fails does not keep the others from running, and the end of the
// output says which failed and names its tests.
func TestEveryPartRuns(t *testing.T) {
	dir := t.TempDir()
	failed := filepath.Join(dir, "failed")
	fake := script(t, filepath.Join(dir, "make"), `#!/bin/bash
echo "$2" >>`+dir+`/ran
case $2 in unit)
	for i in {1..300}; do echo noise $i; done
	printf -- '--- FAIL: TestOne (0.1s)\n    --- FAIL: TestOne/two (0.1s)\nFAIL\texample.org/pkg\t0.2s\n'
	for i in {1..300}; do echo noise $i; done
	exit 2 ;;
e2e) echo only this; exit 1 ;;
esac
`)
	out, status := run(t, []string{"MAKE=" + fake, "LARK_FAILED=" + failed}, "./test.sh", "lint", "unit", "e2e", "storm")
	if got := read(dir + "/ran"); got != "lint\nunit\ne2e\nstorm\n" {
		t.Errorf("the parts that ran: %q", got)
	}
	if got := read(failed); got != "unit\ne2e\n" || status != 1 {
		t.Errorf("failed: %q, exit status %d", got, status)
	}
	lines := strings.Split(out, "\n")
	end := strings.Join(lines[max(0, len(lines)-25):], "\n")
	for _, want := range []string{"--- FAIL: TestOne/two", "FAIL\texample.org/pkg", "only this",
		"lint         passed", "unit         FAILED", "e2e          FAILED", "storm        passed", "lark: FAILED: unit e2e"} {
		if !strings.Contains(end, want) {
			t.Errorf("the end does not say %q:\n%s", want, end)
		}
	}
	if out, status := run(t, []string{"MAKE=" + fake}, "./test.sh", "lint", "storm"); status != 0 || strings.Contains(out, "FAILED") {
		t.Errorf("exit status %d where nothing failed:\n%s", status, out)
	}
}

// What failed runs once more, as a whole part, and the second time decides.
func TestFailedPartsRunTwice(t *testing.T) {
	for name, c := range map[string]struct {
		fails  int // how often unit fails
		status int
		ran    string
		last   string
	}{
		"never": {0, 0, "test\nconformance\n", "all tests passed"},
		"once":  {1, 0, "test\ntest PARTS=unit\nconformance\n", "FAILED once and passed the second time: unit"},
		"twice": {2, 2, "test\ntest PARTS=unit\n", "the second time decides"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			script(t, dir+"/make", fmt.Sprintf(`#!/bin/bash
echo "${@:2}" >>%[1]s/ran
[ "$2" = test ] && [ "$(grep -c test %[1]s/ran)" -le %[2]d ] || exit 0
echo unit >"$LARK_FAILED"
exit 2
`, dir, c.fails))
			out, status := run(t, []string{"PATH=" + dir + ":" + os.Getenv("PATH")}, "../.ci/run")
			if got := read(dir + "/ran"); got != c.ran || status != c.status || !strings.Contains(out, c.last) {
				t.Errorf("ran %q, exit status %d:\n%s", got, status, out)
			}
		})
	}
}

// The busy loops are there while the command runs and gone after it.
func TestSlowlyLoops(t *testing.T) {
	out, status := run(t, nil, "./slowly.sh", "loops", "3", "bash", "-c",
		`for p in /proc/[0-9]*; do [ "$(sed -n 's/^PPid:\t//p' $p/status 2>/dev/null)" != $PPID ] || echo ${p#/proc/}; done; exit 7`)
	pids := strings.Fields(out)
	if status != 7 || len(pids) != 4 { // three and the command
		t.Fatalf("exit status %d, output %q", status, out)
	}
	for _, pid := range pids {
		if left := read("/proc/" + pid + "/cmdline"); strings.Contains(left, "while :") {
			t.Errorf("%s is left: %q", pid, left)
		}
	}
}

// The command is in a cgroup with a quota, which is gone after it, also if
// something of the command's is left alive.
func TestSlowlyQuota(t *testing.T) {
	out, status := run(t, nil, "./slowly.sh", "quota", "50", "bash", "-c", `sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; cat /proc/self/cgroup; exit 7`)
	if status == 1 {
		t.Skipf("no quota can be set here: %s", out)
	}
	pid, groups, _ := strings.Cut(out, "\n")
	defer exec.Command("kill", pid).Run()
	if status != 7 || !strings.Contains(groups, "/lark-slowly-") {
		t.Fatalf("exit status %d, output %q", status, out)
	}
	if left := read("/proc/" + pid + "/cgroup"); left == "" || strings.Contains(left, "lark-slowly") {
		t.Errorf("what was left alive is in %q", left)
	}
}
