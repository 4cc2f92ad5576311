package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParseCgroupMounts(t *testing.T) {
	const v1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"
	const v2 = "41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
	for table, want := range map[string]string{
		"":                         "no cgroups []",
		"nonsense\n1 2 - \n - x\n": "no cgroups []",
		v1:                         "cgroup v1 []",
		v2:                         "cgroup v2 [/sys/fs/cgroup/uni fied]",
		v1 + v2 + "9 1 0:1 / /cgroup2 rw - tmpfs cgroup2 rw\n": "cgroup v1 and v2 [/sys/fs/cgroup/uni fied]",
	} {
		m := parseCgroupMounts(table)
		if got := fmt.Sprint(m.String(), " ", m.v2); got != want {
			t.Errorf("%q: got %q, want %q", table, got, want)
		}
	}
}

func TestIsCrun(t *testing.T) {
	for path, want := range map[string]bool{"/usr/bin/crun": true, "/opt/crun-1.20": true, "/usr/bin/runc": false, "/opt/crun/runc": false} {
		if got := isCrun(Runtime{Name: "x", Path: path}); got != want {
			t.Errorf("%s: got %v", path, got)
		}
	}
}

// TestSuitLeavesOthersAlone: without crun nothing is executed again; this test would not
// come to its end.
func TestSuitLeavesOthersAlone(t *testing.T) {
	if err := Suit(Config{Runtimes: []Runtime{{Name: "crun", Path: "/usr/bin/runc"}}}); err != nil {
		t.Error(err)
	}
}

// TestHideFails: a mount that cannot be taken away is an error, not a run under conditions
// that nobody asked for.
func TestHideFails(t *testing.T) {
	done := make(chan error, 1)
	go func() { done <- hide([]string{t.TempDir()}) }() // its thread ends with it
	if err := <-done; err == nil {
		t.Error("what is no mount was unmounted")
	}
}

// crunEnv makes the test's binary measure crun, as `lark bench` would.
const crunEnv = "LARK_BENCH_CRUN"

// benchCrun is that process: what it prints is what the namespace has and the result.
func benchCrun() error {
	var cfg Config
	if err := json.Unmarshal([]byte(os.Getenv(crunEnv)), &cfg); err != nil {
		return err
	}
	if err := Suit(cfg); err != nil {
		return err
	}
	if err := os.Setenv(helperEnv, "1"); err != nil {
		return err
	}
	r, err := Run(context.Background(), cfg)
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(r))
}

// TestCrun measures crun, whatever cgroups the machine has, and leaves the test's own
// mounts alone.
func TestCrun(t *testing.T) {
	crun, err := ParseRuntime("crun")
	if err != nil {
		t.Skip("no crun here; make test installs it")
	}
	before, err := readCgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	cfg := realConfig(t, "task")
	cfg.Runtimes, cfg.Log = []Runtime{crun}, nil
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cfg.BareHelper[0])
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, helperEnv+"=") }), crunEnv+"="+string(text))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var r Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	for _, column := range []string{Bare, cfg.Shims[0].Name} {
		if f := r.find(Key{"task", "wall", "crun", atOnce}, column); f == nil || f.Median <= 0 {
			t.Errorf("%s: %+v", column, f)
		}
	}
	if r.Machine.Cgroups == "cgroup v1 and v2" {
		t.Error("the cgroup2 mount was there")
	}
	if after, err := readCgroupMounts(); err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the test's own mounts are %v, were %v; %v", after, before, err)
	}
}
