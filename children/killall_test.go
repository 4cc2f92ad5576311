package children

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// hierarchy gives the mount point of a v1 controller, or of v2.
func hierarchy(t *testing.T, controller string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		front, back, _ := strings.Cut(line, " - ")
		kind := strings.Fields(back)
		point := strings.Fields(front)[4]
		switch {
		case controller == "v2" && kind[0] == "cgroup2", kind[0] == "cgroup" && strings.Contains(","+kind[2]+",", ","+controller+","):
			return point
		}
	}
	return ""
}

// cgroups makes a cgroup of one path in some hierarchies; those that this machine does not have are left out.
func cgroups(t *testing.T, controllers ...string) []string {
	t.Helper()
	name := fmt.Sprintf("lark-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	var dirs []string
	for _, controller := range controllers {
		point := hierarchy(t, controller)
		if point == "" {
			continue
		}
		dir := filepath.Join(point, name)
		for _, sub := range []string{"", "/sub", "/sub/subsub"} {
			if err := os.Mkdir(dir+sub, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			for _, sub := range []string{"/sub/subsub", "/sub", ""} {
				eventually(t, "the cgroup can be removed", func() string {
					if err := unix.Rmdir(dir + sub); err != nil && !errors.Is(err, unix.ENOENT) {
						return err.Error()
					}
					return ""
				})
			}
		})
		dirs = append(dirs, dir)
	}
	return dirs
}

// populate puts n sleepers into the cgroup, and some below it.
func populate(t *testing.T, o *Owner, dirs []string, n int) []*Child {
	t.Helper()
	w := o.Begin(o.OwnNamespace())
	defer w.Close()
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 3600 >/dev/null 2>&1 & echo $!; i=$((i+1)); done", n)
	var left []*Child
	for i, pid := range run(t, o, exec.Command("busybox", "sh", "-c", script)) {
		child, err := w.Claim(pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			where := dir + []string{"", "/sub", "/sub/subsub"}[i%3] + "/cgroup.procs"
			if err := os.WriteFile(where, fmt.Append(nil, pid), 0); err != nil {
				t.Fatal(err)
			}
		}
		left = append(left, child)
	}
	return left
}

// allKilled waits for children that were killed.
func allKilled(t *testing.T, left []*Child) {
	t.Helper()
	for _, child := range left {
		if exit, err := child.Wait(impatient(t)); err != nil || exit.Status != 137 {
			t.Errorf("%+v, %v", exit, err)
		}
	}
}

// Kill-all reaches every process in and below a cgroup, on v1 and v2, frozen or not, in more than one batch, with and
// without cgroup.kill.
func TestKillAll(t *testing.T) {
	for _, c := range []struct {
		name        string
		sys         system
		controllers []string
		freeze      string // the file
		value       string
	}{
		{"v1 pids", kernel{}, []string{"pids", "freezer"}, "", ""},
		{"v1 devices without freezer", kernel{}, []string{"devices"}, "", ""},
		{"v1 frozen", kernel{}, []string{"pids", "freezer"}, "freezer.state", "FROZEN"},
		{"v1 named by its freezer", kernel{}, []string{"freezer"}, "freezer.state", "FROZEN"},
		{"v2", kernel{}, []string{"v2"}, "", ""},
		{"v2 frozen", kernel{}, []string{"v2"}, "cgroup.freeze", "1"},
		{"v2 before cgroup.kill, frozen", noKillFile{kernel{}}, []string{"v2"}, "cgroup.freeze", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dirs := cgroups(t, c.controllers...)
			if len(dirs) == 0 {
				t.Logf("this machine has no %v mounted: nothing to kill", c.controllers)
				return
			}
			o := owner(t, c.sys)
			left := populate(t, o, dirs, killAllBatch+10)
			bystander := claimed(t, o, o.OwnNamespace(), call{Argv: []string{"sleep", "3600"}})
			if c.freeze != "" {
				for _, sub := range []string{"/sub/subsub", ""} {
					if err := os.WriteFile(dirs[len(dirs)-1]+sub+"/"+c.freeze, []byte(c.value), 0); err != nil {
						t.Fatal(err)
					}
				}
			}
			began := time.Now()
			if err := o.KillAll(impatient(t), dirs[0]); err != nil {
				t.Error(err)
			}
			t.Logf("%d processes killed in %v", len(left), time.Since(began))
			allKilled(t, left)
			if st, err := statOf(kernel{}, bystander.Pid()); err != nil || st.dead() {
				t.Error("the bystander was killed")
			}
			end(t, bystander)
			if err := o.KillAll(impatient(t), dirs[0]); err != nil {
				t.Error("of an empty one:", err)
			}
		})
	}
}

// F21: processes that were sent SIGKILL in frozen groups, of whatever depth, die
// when the group at the top is thawed.
func TestF21ThawReachesEveryLevel(t *testing.T) {
	dirs := cgroups(t, "pids", "freezer")
	if len(dirs) < 2 {
		t.Log("this machine has no freezer of version 1 mounted: SIGKILL reaches the frozen")
		return
	}
	o := owner(t, kernel{})
	left := populate(t, o, dirs, 6)
	for _, sub := range []string{"/sub/subsub", "/sub"} {
		if err := os.WriteFile(dirs[1]+sub+"/freezer.state", []byte("FROZEN"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, child := range left {
		if err := child.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	if err := o.Thaw(dirs[0]); err != nil {
		t.Error(err)
	}
	allKilled(t, left)
	for path, is := range map[string]func(error) bool{
		dirs[0] + "/not/there": func(err error) bool { return err == nil }, "/tmp": errdefs.IsInvalidArgument,
	} {
		if err := o.Thaw(path); !is(err) {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// noKillFile is a kernel before 5.14.
type noKillFile struct{ system }

func (n noKillFile) writeFile(path, data string) error {
	if strings.HasSuffix(path, "/cgroup.kill") {
		return unix.ENOENT
	}
	return n.system.writeFile(path, data)
}

// A cgroup that forks while it is killed does not get away.
func TestKillAllForkBomb(t *testing.T) {
	for _, controllers := range [][]string{{"pids", "freezer"}, {"v2"}} {
		t.Run(controllers[0], func(t *testing.T) { killForkBomb(t, controllers) })
	}
}

func killForkBomb(t *testing.T, controllers []string) {
	dirs := cgroups(t, controllers...)
	if len(dirs) == 0 {
		t.Logf("this machine has no %v mounted: nothing to kill", controllers)
		return
	}
	o := owner(t, kernel{})
	_, marker := sleeper(t, "bomb")
	bomb := claimed(t, o, o.OwnNamespace(), call{Argv: []string{
		"sh", "-c", "for d in " + strings.Join(dirs, " ") + "; do echo $$ > $d/cgroup.procs; done; " +
			"while :; do sleep " + marker + " & (sleep " + marker + " & true); sleep 0.005; done"}})
	eventually(t, "it forks", func() string {
		if len(alive(t, "sleep\x00"+marker)) < 5 {
			return "not yet"
		}
		return ""
	})
	if err := o.KillAll(impatient(t), dirs[0]); err != nil {
		t.Error(err)
	}
	allKilled(t, []*Child{bomb})
	noneAlive(t, marker)
}

// What cannot be meant is refused, and a cgroup that has gone holds nobody (row 57).
func TestKillAllRefuses(t *testing.T) {
	point := hierarchy(t, "pids")
	if point == "" {
		point = hierarchy(t, "v2")
	}
	mine := cgroups(t, filepath.Base(point), "v2")[0]
	t.Run("paths", func(t *testing.T) {
		o := owner(t, kernel{})
		for path, is := range map[string]func(error) bool{
			"":                  errdefs.IsInvalidArgument,
			"pids/x":            errdefs.IsInvalidArgument,
			point + "/../pids":  errdefs.IsInvalidArgument,
			"/tmp":              errdefs.IsInvalidArgument,
			point:               errdefs.IsFailedPrecondition,
			mine + "/not/there": func(err error) bool { return err == nil },
		} {
			if err := o.KillAll(impatient(t), path); !is(err) {
				t.Errorf("%q: %v", path, err)
			}
		}
	})
	// This program in the cgroup, or below it: the caller has mistaken it for a
	// container's.
	t.Run("own", func(t *testing.T) {
		o := owner(t, member{kernel{}, mine + "/sub/cgroup.procs"})
		if err := o.KillAll(impatient(t), mine); !errdefs.IsFailedPrecondition(err) {
			t.Error(err)
		}
	})
}

// member is a kernel that says that we are in a cgroup.
type member struct {
	system
	procs string
}

func (m member) readFile(path string, buf []byte) (int, error) {
	if path == m.procs {
		return copy(buf, fmt.Sprintln(os.Getpid())), nil
	}
	return m.system.readFile(path, buf)
}

// KillAll ends when its ctx does, and says why.
func TestKillAllIsBounded(t *testing.T) {
	dirs := cgroups(t, "pids", "v2")
	o := owner(t, harmless{kernel{}})
	left := populate(t, o, dirs[:1], 1)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := o.KillAll(ctx, dirs[0]); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	_ = unix.Kill(left[0].Pid(), unix.SIGKILL)
	allKilled(t, left)
}

// harmless is a kernel whose SIGKILL does not reach a process, as if it were in uninterruptible sleep.
type harmless struct{ system }

func (harmless) pidfdSignal(int, unix.Signal) error      { return nil }
func (harmless) writeFile(path, data string) (err error) { return nil }

func TestFreezerOf(t *testing.T) {
	const mountinfo = `30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
32 30 0:28 /docker/x /sys/fs/cgroup/freezer rw shared:9 master:4 - cgroup none rw,freezer
33 30 0:29 / /sys/fs/cgroup/a\040b rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 30
`
	mounts := parseCgroupMounts(mountinfo)
	for dir, want := range map[string]string{
		"/sys/fs/cgroup/pids/docker/x/y/z": "/sys/fs/cgroup/freezer/y/z",
		"/sys/fs/cgroup/a b/docker/x/y":    "/sys/fs/cgroup/freezer/y",
		"/sys/fs/cgroup/freezer/y":         "/sys/fs/cgroup/freezer/y",
		"/sys/fs/cgroup/pids/docker/xyz":   "",
		"/sys/fs/cgroup/pidsy/docker/x/y":  "",
		"/sys/fs/cgroup/unified/y":         "",
	} {
		if got, ok := freezerOf(dir, mounts); got != want || ok != (want != "") {
			t.Errorf("%s: %q", dir, got)
		}
	}
}
