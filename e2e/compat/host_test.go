package compat

// Scenarios: the shim as a process, and its commands.

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/fakeruntime"
	"github.com/larkshim/lark/internal/shimclient"
)

var hostScenarios = []scenario{
	{name: "the process", play: theProcess},
	{name: "the process with debug", play: theDebugProcess},
	{name: "core scheduling", play: coreScheduling},
	{name: "shim cgroup", play: shimCgroup},
	{name: "shim cgroup that is not there", play: noShimCgroup},
	{name: "info", play: info},
	{name: "info with a fake runtime", profile: faithful, play: info},
	{name: "info without features", profile: on(fakeruntime.Before(fakeruntime.Features), fakeruntime.Fail("no such command")), play: info},
	{name: "version", play: version},
	{name: "delete command", play: deleteCommand},
	{name: "start without a name", play: startRefuses},
}

// sortedLines are the lines of a text, in an order that does not depend on time.
func sortedLines(s string) []string {
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	slices.Sort(lines)
	return lines
}

// eventually waits for what comes soon after.
func (a *act) eventually(is func() bool) {
	a.Helper()
	for limit := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			a.Fatal("it never came")
		}
	}
}

// metrics says what of a cgroup's statistics has been set by a test.
func metrics(a *act, m *anypb.Any) string {
	a.Helper()
	var v1 cgroup1.Metrics
	if strings.HasSuffix(m.TypeUrl, "io.containerd.cgroups.v1.Metrics") {
		if err := proto.Unmarshal(m.Value, &v1); err != nil {
			a.Fatal(err)
		}
		parts := []bool{v1.CPU != nil, v1.Memory != nil, v1.Pids != nil, v1.Blkio != nil, v1.Hugetlb != nil, v1.Rdma != nil, v1.MemoryOomControl != nil, v1.CgroupStats != nil, v1.Network != nil}
		return fmt.Sprintf("memory limit %d, parts %v", v1.GetMemory().GetUsage().GetLimit(), parts)
	}
	return ""
}

// secondStart runs start for a further container of the group.
func (a *act) secondStart(b *shimclient.Bundle) string {
	a.Helper()
	s, err := shimclient.Start(a.Context(), a.cfg, b)
	if err != nil {
		a.Fatal(err)
	}
	return fmt.Sprintf("%s version %d, same address %v, same process %v",
		s.Answer.Form, s.Answer.Version, s.Answer.Address == a.shim.Answer.Address, s.Pid == a.shim.Pid)
}

// proc reads a file of the shim's in /proc.
func (a *act) proc(file string) string {
	a.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(a.shim.Pid), file))
	if err != nil {
		a.Fatal(err)
	}
	return string(data)
}

func theProcess(a *act, _ *fakeruntime.Control) {
	a.container("c1", nil, "true")
	pgid, err := unix.Getpgid(a.shim.Pid)
	a.note("leads its process group", "%v %v", pgid == a.shim.Pid, err)
	a.note("arguments", "%q", strings.Split(strings.TrimSuffix(a.proc("cmdline"), "\x00"), "\x00")[1:])
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		a.Fatal(err)
	}
	before, _ := strconv.Atoi(strings.TrimSpace(string(own)))
	after, _ := strconv.Atoi(strings.TrimSpace(a.proc("oom_score_adj")))
	a.note("oom_score_adj above its parent's", "%d", after-before)
	var env []string
	for _, kv := range strings.Split(a.proc("environ"), "\x00") {
		for _, name := range []string{"GOMAXPROCS=", "TTRPC_ADDRESS=", "OTEL_SERVICE_NAME="} {
			if strings.HasPrefix(kv, name) {
				env = append(env, kv)
			}
		}
	}
	// Of two of one name the last counts.
	slices.Reverse(env)
	env = slices.CompactFunc(slices.SortedStableFunc(slices.Values(env), compareNames), func(x, y string) bool { return compareNames(x, y) == 0 })
	a.note("environment", "%q", env)
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", a.shim.Pid))
	a.note("directory", "%s %v", dir, err)
	a.note("umask", "%s", regexp.MustCompile(`Umask:\s*(\d+)`).FindStringSubmatch(a.proc("status"))[1])
	a.note("answer", "%s %d %v", a.shim.Answer.Form, a.shim.Answer.Version, regexp.MustCompile(`^unix://HOME/[0-9a-f]{64}$`).MatchString(a.hide(a.shim.Answer.Address)))
	a.boxes["c1"].bundleFiles("bundle")
}

func compareNames(x, y string) int {
	a, _, _ := strings.Cut(x, "=")
	b, _, _ := strings.Cut(y, "=")
	return strings.Compare(a, b)
}

func theDebugProcess(a *act, _ *fakeruntime.Control) {
	a.cfg.Debug = true
	b := a.container("c1", nil, "true")
	a.note("arguments", "%q", strings.Split(strings.TrimSuffix(a.proc("cmdline"), "\x00"), "\x00")[1:])
	a.eventually(func() bool { return strings.Contains(b.bundle.Log(), "level=") })
	a.note("it logs at that level", "%v", strings.Contains(strings.ToLower(b.bundle.Log()), "level=debug"))
}

// coreScheduling: the cookie is the shim's own, if the kernel has such a thing; else
// start fails as upstream's does.
func coreScheduling(a *act, _ *fakeruntime.Control) {
	a.Setenv("SCHED_CORE", "1")
	bundle, err := a.cfg.Home.NewBundle("c1", &specs.Spec{})
	if err != nil {
		a.Fatal(err)
	}
	s, err := shimclient.Start(a.Context(), a.cfg, bundle)
	if err != nil {
		a.note("start", "fails: %v", err != nil)
		return
	}
	a.shim = s
	a.note("has a cookie", "%v %v", cookie(s.Pid) != 0, cookie(s.Pid) != cookie(os.Getpid()))
}

func cookie(pid int) (c uint64) {
	_ = unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, uintptr(pid), unix.PR_SCHED_CORE_SCOPE_THREAD, pointer(&c))
	return c
}

// shimCgroup: the shim is in the cgroup that the options name, in every hierarchy.
func shimCgroup(a *act, _ *fakeruntime.Control) {
	name := "/lark-compat-shim-" + strconv.Itoa(os.Getpid())
	dirs := makeCgroups(a, name)
	a.further(&options.Options{ShimCgroup: name})
	b := a.container("c1", nil, "sleep", "1000")
	var in []string
	for _, line := range strings.Split(a.proc("cgroup"), "\n") {
		if strings.HasSuffix(line, ":"+name) {
			in = append(in, strings.SplitN(line, ":", 3)[1])
		}
	}
	slices.Sort(in)
	a.note("is in it", "%q of %d", in, len(dirs))
	b.up()
	b.end()
	b.shim.Leave(b.Context()) // so that the cgroups can be removed
}

func noShimCgroup(a *act, _ *fakeruntime.Control) {
	a.further(&options.Options{ShimCgroup: "/lark-compat-is-not-there"})
	bundle, err := a.cfg.Home.NewBundle("c1", &specs.Spec{})
	if err != nil {
		a.Fatal(err)
	}
	s, err := shimclient.Start(a.Context(), a.cfg, bundle)
	if err == nil {
		a.shim = s
	}
	a.note("start fails", "%v", err != nil)
	removeCgroups("/lark-compat-is-not-there")
}

// makeCgroups makes a cgroup in every hierarchy of version 1.
func makeCgroups(a *act, name string) []string {
	a.Helper()
	entries, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil {
		a.Fatal(err)
	}
	var dirs []string
	for _, e := range entries {
		if !e.IsDir() || e.Name() == "unified" || e.Name() == "systemd" {
			continue
		}
		dir := filepath.Join("/sys/fs/cgroup", e.Name(), name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		dirs = append(dirs, dir)
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} { // empty ones take no process
			if data, err := os.ReadFile(filepath.Join(filepath.Dir(dir), f)); err == nil {
				if err := os.WriteFile(filepath.Join(dir, f), data, 0); err != nil {
					a.Fatal(err)
				}
			}
		}
	}
	if host, err := cgroup.NewHost(); err != nil || host == nil {
		a.Fatal(err)
	}
	a.Cleanup(func() { removeCgroups(name) })
	return dirs
}

func removeCgroups(name string) {
	dirs, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", "*", name))
	for _, dir := range append(dirs, filepath.Join("/sys/fs/cgroup", name)) {
		for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
			if err := unix.Rmdir(dir); err == nil || err == unix.ENOENT {
				break
			}
		}
	}
}

// info compares all of -info but the shim's own name and version.
func info(a *act, ctl *fakeruntime.Control) {
	for name, o := range map[string]*options.Options{
		"no options": nil, "options": {BinaryName: a.cfg.Runtime, NoPivotRoot: true}, "no such runtime": {BinaryName: "no-such-runtime"},
	} {
		if o == nil && ctl != nil {
			continue
		}
		var in []byte
		if o != nil {
			value, err := proto.Marshal(o)
			if err == nil {
				in, err = proto.Marshal(&anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: value})
			}
			if err != nil {
				a.Fatal(err)
			}
		}
		cmd := exec.Command(a.cfg.Binary, "-info")
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			a.note(name, "fails: %v", strings.Contains(string(err.(*exec.ExitError).Stderr), "no-such-runtime"))
			continue
		}
		var ri types.RuntimeInfo
		if err := proto.Unmarshal(out, &ri); err != nil {
			a.Fatal(err)
		}
		a.note(name+": name", "%s", ri.Name)
		ri.Name, ri.Version = "", nil
		var echoed options.Options
		if err := proto.Unmarshal(ri.Options.GetValue(), &echoed); err != nil {
			a.Fatal(err)
		}
		a.note(name, "options %s %s\nfeatures %s %q\nannotations %v", ri.Options.GetTypeUrl(), a.plain(&echoed), ri.Features.GetTypeUrl(), ri.Features.GetValue(), ri.Annotations)
	}
}

func version(a *act, _ *fakeruntime.Control) {
	for _, flag := range []string{"-v", "--version"} {
		out, err := exec.Command(a.cfg.Binary, flag).CombinedOutput()
		if err != nil {
			a.Fatal(err)
		}
		var names []string
		for _, line := range strings.Split(string(out), "\n") {
			name, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			names = append(names, name)
		}
		names[0] = strings.ReplaceAll(names[0], filepath.Base(a.cfg.Binary), "SHIM")
		a.note(flag, "%q", names)
	}
}

// deleteCommand: after a shim was killed, once with its container running and once
// with an exit that it had recorded.
func deleteCommand(a *act, _ *fakeruntime.Control) {
	b := a.container("c1", nil, "sleep", "1000")
	b.up()
	c := a.container("c2", nil, "sh", "-c", "exit 7")
	c.up()
	c.wait("wait c2", "")
	c.bundleFiles("bundle of c2")
	d := a.container("c3", nil, "true")
	if err := unix.Kill(a.shim.Pid, unix.SIGKILL); err != nil {
		a.Fatal(err)
	}
	<-a.shim.Gone()
	for _, x := range []*box{b, c, d} {
		r, err := a.shim.RunDelete(a.Context(), x.bundle)
		a.answer("delete command of "+x.id, r, err)
		r, err = a.shim.RunDelete(a.Context(), x.bundle)
		a.answer("second delete command of "+x.id, r, err)
	}
	_, err := os.Stat(filepath.Join(a.cfg.Home.RuntimeRoot(), "compat", "c1"))
	a.note("the runtime has forgotten c1", "%v", os.IsNotExist(err))
}

// startRefuses: the daemon's side of the helper's failures.
func startRefuses(a *act, _ *fakeruntime.Control) {
	for _, args := range [][]string{
		{"-id", "c1", "start"}, {"-namespace", "compat", "start"}, {"-namespace", "compat", "-id", "c1", "nonsense"}, {"-nonsense"},
	} {
		cmd := exec.Command(a.cfg.Binary, args...)
		cmd.Dir = a.cfg.Home.Dir
		err := cmd.Run()
		a.note(strings.Join(args, " "), "fails: %v", err != nil)
	}
}

// TestDeleteOfTheOthersBundle: a binary is replaced while containers run, and then
// deletes what the other shim has left. Either way round the runtime's container is
// gone afterwards, and an exit that was recorded is what is answered.
func TestDeleteOfTheOthersBundle(t *testing.T) {
	upstream, lark := shims(t)
	for name, pair := range map[string][2]string{"from upstream to lark": {upstream, lark}, "from lark to upstream": {lark, upstream}} {
		t.Run(name, func(t *testing.T) {
			a := newAct(t, pair[0], runc(t))
			b := a.container("c1", nil, "sleep", "1000")
			b.up()
			c := a.container("c2", nil, "sh", "-c", "exit 7")
			c.up()
			c.wait("wait c2", "")
			if err := unix.Kill(a.shim.Pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-a.shim.Gone()
			for id, want := range map[string]uint32{"c1": 137, "c2": 7} {
				r, err := a.cfg.With(pair[1]).RunDelete(t.Context(), a.boxes[id].bundle)
				if err != nil {
					t.Fatal(err)
				}
				if r.ExitStatus != want || a.names[float64(r.Pid)] != "init of "+id || r.ExitedAt.AsTime().Before(time.Now().Add(-patience)) {
					t.Errorf("%s: %v", id, r)
				}
				if _, err := os.Stat(filepath.Join(a.cfg.Home.RuntimeRoot(), "compat", id)); !os.IsNotExist(err) {
					t.Errorf("the runtime still knows %s: %v", id, err)
				}
			}
		})
	}
}
