package compat

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/larkshim/lark/e2e/daemon"
	"github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/spec"
)

// rootfs serves all containers.
var rootfs string

func TestMain(m *testing.M) {
	fakeruntime.Main()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lark-compat-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	rootfs = filepath.Join(dir, "rootfs")
	if err := spec.Busybox(context.Background(), rootfs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Containers with a user namespace come in as somebody else.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// shims are the two that are compared.
func shims(t *testing.T) (upstream, lark string) {
	t.Helper()
	upstream = filepath.Join(daemon.Built(daemon.Containerd24), "containerd-shim-runc-v2")
	lark = filepath.Join(daemon.Bin(), "containerd-shim-lark-v2")
	for _, path := range []string{upstream, lark} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v (`make build peers` makes it)", err)
		}
	}
	return upstream, lark
}

func runc(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// scenario is played to both shims.
type scenario struct {
	name string
	// profile makes the OCI runtime the fake one; nil is the real runc.
	profile *fakeruntime.Profile
	play    func(*act, *fakeruntime.Control)
}

func allScenarios() []scenario {
	return slices.Concat(lifeScenarios, refusalScenarios, stdioScenarios, runtimeScenarios, hostScenarios)
}

// upstreamTries is how often upstream's shim may play a scenario until it does what lark
// did in its one try: a few of its answers depend on a race within it.
const upstreamTries = 3

// TestSameAsUpstream plays every scenario to containerd's shim and to lark, and
// compares everything that was seen.
func TestSameAsUpstream(t *testing.T) {
	upstream, lark := shims(t)
	used := map[string]bool{}
	for _, s := range allScenarios() {
		t.Run(s.name, func(t *testing.T) {
			ours := s.with(t, "lark", lark)
			var wrong []string
			for range upstreamTries {
				theirs := s.with(t, "upstream", upstream)
				if theirs == nil || ours == nil {
					return
				}
				if wrong = compareAll(s.name, theirs, ours, used); len(wrong) == 0 {
					return
				}
			}
			t.Error(strings.Join(wrong, "\n"))
		})
	}
	if !t.Failed() && !filtered() {
		for key := range knownDifferences {
			if !used[key] {
				t.Errorf("the table of differences has %q, which nothing was compared by", key)
			}
		}
	}
}

// filtered says that only some of the scenarios are run.
func filtered() bool {
	return slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.run") && strings.Contains(a, "/") })
}

// with plays the scenario to one shim.
func (s scenario) with(t *testing.T, name, shim string) (done *act) {
	t.Run(name, func(t *testing.T) {
		runtime, ctl := "", (*fakeruntime.Control)(nil)
		if s.profile != nil {
			runtime, ctl = fakeruntime.Install(t, *s.profile)
		} else {
			runtime = runc(t)
		}
		a := newAct(t, shim, runtime)
		s.play(a, ctl)
		a.finish()
		if !t.Failed() {
			done = a
		}
	})
	return done
}

// compareAll judges all observations of a scenario, and says which are wrong.
func compareAll(scenario string, theirs, ours *act, used map[string]bool) (wrong []string) {
	names := slices.Clone(theirs.order)
	for _, n := range ours.order {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, n := range names {
		if w := compare(scenario+": "+n, theirs.seen[n], ours.seen[n], used); w != "" {
			wrong = append(wrong, w)
		}
	}
	return wrong
}

// compare judges one observation.
func compare(key, theirs, ours string, used map[string]bool) string {
	known, ok := knownDifferences[key]
	used[key] = ok
	switch {
	case !ok && theirs != ours && classedOnly(theirs, ours):
	case !ok && theirs != ours:
		return fmt.Sprintf("%s\nupstream: %s\nlark:     %s", key, theirs, ours)
	case ok && theirs == ours:
		return fmt.Sprintf("%s: both say %s, but the table has them differ", key, ours)
	case ok && (!strings.Contains(theirs, known.upstream) || !strings.Contains(ours, known.lark)):
		return fmt.Sprintf("%s: not the difference that the table has (%s)\nupstream: %s\nlark:     %s", key, known.reason, theirs, ours)
	}
	return ""
}

// plainError is how told words an error that has no class, with the phrases behind it.
const plainError = "error: Unknown "

// classedOnly says that the two differ in this alone: that lark gives a class to an error
// that has none in upstream's shim (a bare errors.New, which clients see as Unknown and
// can do nothing with). Every word that clients look for is in it all the same. lark's
// classes themselves are kept by the tests of internal/task.
func classedOnly(theirs, ours string) bool {
	said, plain := strings.CutPrefix(theirs, plainError)
	_, mine, failed := strings.Cut(ours, "[")
	if !plain || !failed || !strings.HasPrefix(ours, "error: ") {
		return false
	}
	for _, p := range phrases {
		if strings.Contains(said, fmt.Sprintf("%q", p)) && !strings.Contains(mine, fmt.Sprintf("%q", p)) {
			return false
		}
	}
	return true
}
